package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/peterbourgon/ff/v3"

	"openscope/relay"
)

// serveFlags are the flags of serve; a file given with --config has the same
// names, one `name value` on a line.
type serveFlags struct {
	config, listen, public, admin string
	from                          certificateFlags
	tokens                        tokenFlags
	verbose, pprof                bool
	drain                         time.Duration
	limits                        relay.Limits
}

// defaultAdmin is on loopback, and tried only: a second relay on a machine runs
// without, and says so.
const defaultAdmin = "127.0.0.1:9433"

// defaultDrain lets most calls end; systemd kills after 90 s.
const defaultDrain = 30 * time.Second

func (f *serveFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&f.config, "config", "", "a `FILE` with the other flags, one `name value` on a line")
	fs.StringVar(&f.listen, "listen", f.listen, "the `ADDRESS` to listen on, UDP and TCP (OPENSCOPE_LISTEN)")
	f.from.define(fs)
	fs.StringVar(&f.public, "public-address", "", "this node's own `HOST:PORT`, for handles")
	fs.StringVar(&f.admin, "admin", defaultAdmin, "the TCP `ADDRESS` of /metrics, /healthz and /readyz, or off")
	fs.BoolVar(&f.pprof, "pprof", false, "show /debug/pprof there too, on a loopback address only")
	fs.DurationVar(&f.drain, "drain", defaultDrain, "the `DURATION` that running sessions may go on after SIGTERM")
	fs.BoolVar(&f.verbose, "verbose", false, "log every connection's end; never who or what")
	f.tokens.define(fs)
	l := &f.limits
	fs.IntVar(&l.Connections, "max-connections", 0, "the most connections, `N` (16384)")
	fs.IntVar(&l.ConnectionsPerAddress, "max-connections-per-address", 0, "of them from one address, `N` (1024)")
	fs.IntVar(&l.Handshaking, "max-handshaking", 0, "the most handshakes under way, `N` (512)")
	fs.Float64Var(&l.Handshakes, "handshake-rate", 0, "handshakes a second, `N` (400 for each core)")
	fs.Float64Var(&l.HandshakesPerAddress, "handshake-rate-per-address", 0, "of them from one address, `N` (50)")
	fs.Int64Var(&l.Buffered, "max-buffered", 0, "the most `BYTES` that legs hold because somebody does not read (512 MiB)")
	fs.Int64Var(&l.Memory, "max-memory", 0, "the most `BYTES` held before newcomers are refused and legs ended (3 GiB)")
	defineTokenLimits(fs, &l.Token, "token-")
}

// defineTokenLimits are a token's limits; with a prefix, those of tokens that
// have none of their own.
func defineTokenLimits(fs *flag.FlagSet, l *relay.TokenLimits, prefix string) {
	fs.IntVar(&l.Sessions, prefix+"sessions", 0, "the most sessions of a token, `N` (1024)")
	fs.IntVar(&l.Connections, prefix+"connections", 0, "the most daemons of a token, `N` (64)")
	fs.IntVar(&l.Joins, prefix+"joins", 0, "joins a second of a token's sessions, `N` (50)")
	fs.Int64Var(&l.Rate, prefix+"rate", 0, "`BYTES` a second of a token's sessions (no limit)")
	fs.Int64Var(&l.Bytes, prefix+"bytes", 0, "`BYTES` a day of a token's sessions (no limit)")
}

// check refuses what no relay can mean.
func (f *serveFlags) check() error {
	l := f.limits
	if min(l.Connections, l.ConnectionsPerAddress, l.Handshaking) < 0 || min(l.Buffered, l.Memory) < 0 || min(l.Handshakes, l.HandshakesPerAddress) < 0 ||
		f.drain < 0 || checkTokenLimits(l.Token) != nil {
		return errNegative
	}
	return nil
}

func checkTokenLimits(l relay.TokenLimits) error {
	if min(l.Sessions, l.Connections, l.Joins) < 0 || min(l.Rate, l.Bytes) < 0 {
		return errNegative
	}
	return nil
}

var errNegative = fmt.Errorf("a limit is not negative")

// strictParser is ff's plain format, in which a name may not come twice: with
// ff, the last one would win without a word.
func strictParser(r io.Reader, set func(name, value string) error) error {
	text, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	return ff.PlainParser(bufio.NewReader(bytes.NewReader(text)), func(name, value string) error {
		if seen[name] {
			return fmt.Errorf("%s is set twice", name)
		}
		seen[name] = true
		return set(name, value)
	})
}
