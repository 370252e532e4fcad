package relay_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"openscope/wire"
)

// floodVariable makes this test's program a flood: what of, at whom, and for which
// session.
const floodVariable = "RELAY_TEST_FLOOD"

// floodWorkers keep one core busy while answers are under way.
const floodWorkers = 2048

// runFlood floods until its standard input ends.
func runFlood(what string) {
	fields := strings.Fields(what)
	kind, address := fields[0], fields[1]
	rid, err := hex.DecodeString(fields[2])
	if err != nil {
		panic(err)
	}
	one := map[string]func(string, int){
		"datagrams": badDatagram,
		"hellos":    func(a string, i int) { badHandshake(a, i, wire.Hello{Signature: make([]byte, 64)}.Append(nil)) },
		"joins": func(a string, i int) {
			badHandshake(a, i, wire.Join{RID: wire.RendezvousID(rid), Signature: make([]byte, 64)}.Append(nil))
		},
	}[kind]
	var count atomic.Int64
	began := time.Now()
	for range floodWorkers {
		go func() {
			for {
				i := count.Add(1)
				if ahead := time.Duration(i)*time.Second/10_000 - time.Since(began); ahead > 0 {
					time.Sleep(ahead)
				}
				one(address, int(i))
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println(count.Load())
}

func badDatagram(address string, i int) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return
	}
	defer conn.Close()
	garbage := make([]byte, 1200)
	_, _ = rand.Read(garbage)
	if i%2 == 0 {
		copy(garbage, "\xc0\x00\x00\x00\x01\x08") // as a connection's first packet begins
	}
	_, _ = conn.Write(garbage)
}

// badHandshake makes a connection, from one of a thousand addresses, and says
// the message if it is let in.
func badHandshake(address string, i int, message []byte) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 1, byte(i/250%4), byte(i%250+1))})
	if err != nil {
		return
	}
	defer socket.Close()
	transport := &quic.Transport{Conn: socket}
	defer transport.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := transport.Dial(ctx, to, strangersTLS(wire.ALPN), &quic.Config{})
	if err != nil {
		return // refused, as it may be
	}
	if stream, err := conn.OpenStream(); err == nil {
		writes(stream, message)
		<-conn.Context().Done()
	}
}
