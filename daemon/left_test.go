package daemon

import (
	"slices"
	"strings"
	"testing"

	"openscope/passport"
)

// shown is what the last passport shows, and its serial number.
func (p *seamPeer) shown(t *testing.T, h *hostileHalf) (specs []string, serial uint32) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	verified, err := passport.Verify(p.last, h.publicKey())
	if err != nil {
		t.Fatal(err)
	}
	return specTexts(verified.Grant.Verbs), verified.Serial
}

// TestAConnectedClientIsShownWhatAReloadLeaves edits the grants of a session that
// is under way: its client has a new passport with every edit that changes what
// is left, and with no other; and never more than was delegated.
func TestAConnectedClientIsShownWhatAReloadLeaves(t *testing.T) {
	t.Parallel()
	h := newHostileHalf(t)
	_, s := h.open("test.mark:name=a|b|c", "test.hold")
	p := h.meet(s).attach()
	all := []string{"test.mark:name=a|b|c", "test.hold"}
	specs, serial := p.shown(t, h)
	if !slices.Equal(specs, all) {
		t.Fatalf("at first %q", specs)
	}
	for _, edit := range []struct {
		file, old, new string
		want           []string
	}{
		{"grants.yaml", "{verb: test.mark}", "{verb: test.mark, params: {name: [b, c, d]}}", []string{"test.mark:name=b|c", "test.hold"}},
		{"grants.yaml", "name: [b, c, d]", "name: {prefix: c}", []string{"test.mark:name=c", "test.hold"}},
		{"grants.yaml", "{verb: test.hold}, ", "", []string{"test.mark:name=c"}},
		{"grants.yaml", "name: {prefix: c}", "name: z", nil},
		{"grants.yaml", "{verb: test.mark, params: {name: z}}", "{verb: test.mark}, {verb: test.hold}", all},
		{"grants.yaml", "verbs: [test.mark, ", "verbs: [", []string{"test.hold"}},
		{"grants.yaml", "to: [vendor-b]", "to: []", nil},
		{"grants.yaml", "to: []", "to: [vendor-b]", []string{"test.hold"}},
		{"grants.yaml", "users: [", "users: [nobody-", nil},
		{"grants.yaml", "users: [nobody-", "users: [", []string{"test.hold"}},
		{"verbs.yaml", "test.hold:", "test.wait:\n    class: read\n    executor: exec\n    argv: [/bin/true]\n  test.hold:", []string{"test.hold"}},
		{"grants.yaml", "verbs: [", "verbs: [test.mark, ", all},
		{"grants.yaml", "agents:", "# a comment\nagents:", all},
		{"verbs.yaml", "required: true", "required: true, enum: [a, z]", []string{"test.mark:name=a", "test.hold"}},
		{"recipients.yaml", "vendor-b", "vendor-c", nil},
	} {
		before, last := specs, serial
		h.edit(edit.file, edit.old, edit.new)
		specs, serial = p.shown(t, h)
		if !slices.Equal(specs, edit.want) {
			t.Errorf("after %q: %q, want %q", edit.new, specs, edit.want)
		}
		if changed := !slices.Equal(before, specs); changed != (serial > last) {
			t.Errorf("after %q: passport %d after %d, %s as %s", edit.new, serial, last, strings.Join(specs, " "), strings.Join(before, " "))
		}
	}
	// Who connects later is shown the same.
	h.edit("recipients.yaml", "vendor-c", "vendor-b")
	if again, _ := h.meet(s).attach().shown(t, h); !slices.Equal(again, []string{"test.mark:name=a", "test.hold"}) {
		t.Errorf("a client that connects later is shown %q", again)
	}
}
