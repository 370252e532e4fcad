package report

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"openscope/wire"
	"openscope/wire/call"
)

// Receipt is what a recipient keeps of one call: the request they signed, and
// the END that the daemon signed to it.
type Receipt struct {
	Daemon    ed25519.PublicKey
	RID       wire.RendezvousID
	Key       ed25519.PublicKey // the recipient's, or the claim's
	TH2       [32]byte
	Request   []byte
	Signature []byte
	End       []byte
	EndSig    []byte
	Came      time.Time // by the recipient's clock
}

// receiptLine is a receipt as it is kept: one JSON object a line.
type receiptLine struct {
	Daemon       string    `json:"daemon"`
	RID          string    `json:"rid"`
	Key          string    `json:"key"`
	TH2          []byte    `json:"th2"`
	Request      []byte    `json:"request"`
	Signature    []byte    `json:"signature"`
	End          []byte    `json:"end"`
	EndSignature []byte    `json:"end_signature"`
	Came         time.Time `json:"came"`
}

// Append appends the receipt's line, with its newline.
func (r Receipt) Append(dst []byte) ([]byte, error) {
	line, err := json.Marshal(receiptLine{
		Daemon: hex.EncodeToString(r.Daemon), RID: hex.EncodeToString(r.RID[:]), Key: hex.EncodeToString(r.Key), TH2: r.TH2[:],
		Request: r.Request, Signature: r.Signature, End: r.End, EndSignature: r.EndSig, Came: r.Came.UTC(),
	})
	if err != nil {
		return dst, fmt.Errorf("writing a receipt: %w", err)
	}
	return append(append(dst, line...), '\n'), nil
}

// ParseReceipt reads a line and verifies both signatures in it: what is not a
// receipt proves nothing.
func ParseReceipt(line []byte) (Receipt, error) {
	var l receiptLine
	if err := json.Unmarshal(line, &l); err != nil {
		return Receipt{}, fmt.Errorf("reading a receipt: %w", err)
	}
	daemon, err1 := hex.DecodeString(l.Daemon)
	rid, err2 := hex.DecodeString(l.RID)
	key, err3 := hex.DecodeString(l.Key)
	if errors.Join(err1, err2, err3) != nil || len(daemon) != ed25519.PublicKeySize || len(key) != ed25519.PublicKeySize ||
		len(rid) != len(wire.RendezvousID{}) || len(l.TH2) != 32 {
		return Receipt{}, errors.New("reading a receipt: a part of it has another length")
	}
	r := Receipt{
		Daemon: daemon, RID: wire.RendezvousID(rid), Key: key, TH2: [32]byte(l.TH2),
		Request: l.Request, Signature: l.Signature, End: l.End, EndSig: l.EndSignature, Came: l.Came,
	}
	return r, r.Verify()
}

// Verify holds the receipt to both its signatures.
func (r Receipt) Verify() error {
	if !call.VerifyRequest(r.Key, r.RID, r.TH2, r.Request, r.Signature) {
		return errors.New("verifying a receipt: the request is not signed by its key")
	}
	if !call.VerifyResult(r.Daemon, r.RID, r.Hash(), r.End, r.EndSig) {
		return errors.New("verifying a receipt: the result is not signed by its daemon")
	}
	if _, err := call.ParseResult(r.End); err != nil {
		return fmt.Errorf("verifying a receipt: %w", err)
	}
	return nil
}

// Hash names the signed request.
func (r Receipt) Hash() [32]byte { return call.RequestHash(r.Request, r.Signature) }
