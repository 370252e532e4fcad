package bench

import (
	"io"
	"testing"

	"openscope/client"
)

const spillVerbs = `
verbs:
  test.spill:
    summary: Eight million bytes
    class: read
    executor: exec
    argv: [/usr/bin/head, -c, "8000000", /dev/zero]
`

const spillGrants = `
agents:
  you:
    users: [USER]
    allow: [{verb: test.spill}]
    delegate: {to: [vendor-b], verbs: [test.spill]}
`

// BenchmarkOutputOfACall is what a command's output takes to its recipient, with
// the net half in a process of its own, and in the daemon's.
func BenchmarkOutputOfACall(b *testing.B) {
	for name, two := range map[string]bool{"two processes": true, "one": false} {
		b.Run(name, func(b *testing.B) {
			w := newWorldWith(b, worldConfig{netProcess: two})
			w.setRules(spillVerbs, spillGrants)
			b.SetBytes(8_000_000)
			var s *client.Session
			for i := 0; b.Loop(); i++ {
				if i%8 == 0 { // 64 MiB are a session's
					b.StopTimer()
					_, h := w.open("10m", "test.spill")
					s = w.mustConnect(h)
					b.StartTimer()
				}
				r, err := s.Call(b.Context(), "test.spill", nil, io.Discard, io.Discard)
				if err != nil || !r.Complete || r.Stdout.Bytes != 8_000_000 {
					b.Fatalf("%+v, %v", r, err)
				}
			}
		})
	}
}
