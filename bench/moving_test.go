package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// apart is relay and daemon on one machine, and a client's machine that reaches
// them by a cable.
func apart(t *testing.T) (*machine, *site) {
	t.Helper()
	needsMachines(t)
	here, there := holdNetwork(t, "here"), holdNetwork(t, "client")
	for _, line := range []string{
		"ip link add net0 type veth peer name eth0 netns " + fmt.Sprint(there.init),
		"ip address add " + relayToOutside + "/24 dev net0",
		"ip link set net0 up",
	} {
		in(t, here, line)
	}
	in(t, there, "ip address add "+outsideAddress+"/24 dev eth0")
	in(t, there, "ip link set eth0 up")
	return there, siteOn(t, here, relayToOutside+":4433")
}

// in runs a line of a machine's network that must succeed.
func in(t *testing.T, m *machine, line string) {
	t.Helper()
	if out, code := m.network("", strings.Fields(line)...); code != 0 {
		t.Fatalf("%s: exit %d\n%s", line, code, out)
	}
}

const nothingAtAll = `table inet hole { chain out { type filter hook output priority 0; drop; }; chain in { type filter hook input priority 0; drop; }; }
`

// N2: the client's address changes, its interface goes away, or its packets
// disappear, under a call that prints a line every 100 ms.
func TestACallOutlivesWhatHappensToTheClientsNetwork(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		away, back func(*testing.T, *machine)
		outage     time.Duration
		within     time.Duration // of its being back
	}{
		"another address": {
			away: func(t *testing.T, m *machine) {
				in(t, m, "ip address add 10.71.2.77/24 dev eth0")
				in(t, m, "ip address del "+outsideAddress+"/24 dev eth0")
				in(t, m, "ip address replace 10.71.2.77/24 dev eth0") // a first address takes those of its net with it
			},
			back:   func(*testing.T, *machine) {},
			within: time.Second,
		},
		"the interface down for 3 s": {
			away:   func(t *testing.T, m *machine) { in(t, m, "ip link set eth0 down") },
			back:   func(t *testing.T, m *machine) { in(t, m, "ip link set eth0 up") },
			outage: 3 * time.Second, within: 5 * time.Second,
		},
		"the interface down for the longest while": {
			away:   func(t *testing.T, m *machine) { in(t, m, "ip link set eth0 down") },
			back:   func(t *testing.T, m *machine) { in(t, m, "ip link set eth0 up") },
			outage: longestOutage, within: 5 * time.Second,
		},
		"a hole for 12 s": {
			away: func(t *testing.T, m *machine) {
				if out, code := m.network(nothingAtAll, "nft", "-f", "-"); code != 0 {
					t.Skipf("there is no firewall to be had here: exit %d\n%s", code, out)
				}
			},
			back:   func(t *testing.T, m *machine) { in(t, m, "nft delete table inet hole") },
			outage: 12 * time.Second, within: 5 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, s := apart(t)
			defer func() { // a leg whose client was cut off would keep it waiting
				_ = s.relay.cmd.Process.Kill()
			}()
			s.open("10m", "test.steps")
			for i := range outages {
				call := "running-" + fmt.Sprint(i)
				lines := 80 + int(c.outage/(100*time.Millisecond))
				p, seen := s.stepping(m, call, lines)
				until(t, 20*time.Second, "the call runs", func() bool { return seen() > 5 })
				c.away(t, m)
				time.Sleep(c.outage)
				c.back(t, m)
				before := seen()
				took := until(t, 30*time.Second, "its output goes on", func() bool { return seen() > before })
				t.Logf("output came %v after the network was back", took)
				if took > c.within {
					t.Errorf("output came %v after the network was back", took)
				}
				s.whole(p, call, lines)
				if c.outage == 0 { // and back, for the next one
					in(t, m, "ip address add "+outsideAddress+"/24 dev eth0")
					in(t, m, "ip address del 10.71.2.77/24 dev eth0")
					in(t, m, "ip address replace "+outsideAddress+"/24 dev eth0")
				}
			}
		})
	}
}
