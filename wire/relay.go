package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Relay is how to reach one relay and know it. Address is host:port in lower
// case; without a pin the relay's name is authenticated by certificate roots.
type Relay struct {
	Address string
	Pin     *Pin
}

// CheckAddress refuses what is not host:port in lower case, of at most 100
// characters.
func CheckAddress(address string) error {
	colon := strings.LastIndexByte(address, ':')
	if len(address) > MaxAddress || colon < 1 {
		return fmt.Errorf("%.100q is not a relay's address", address)
	}
	port, err := strconv.ParseUint(address[colon+1:], 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != address[colon+1:] {
		return fmt.Errorf("%.100q has no port", address)
	}
	for _, c := range address[:colon] {
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("-.:[]", c)
		if !ok {
			return fmt.Errorf("%.100q is not a relay's address in lower case", address)
		}
	}
	return nil
}
