package executor

import (
	"errors"
	"net"
	"net/http"
	"strconv"
	"testing"
)

func TestAProbeTellsTheRightMachineFromAnother(t *testing.T) {
	s := newSSHServer(t)
	for name, c := range map[string]struct {
		change func(*SSHTarget)
		key    bool
		err    error
	}{
		"an issuer's own key":  {func(*SSHTarget) {}, false, nil},
		"a shared key":         {func(x *SSHTarget) { x.User = me(t).Name }, true, nil},
		"another host key":     {func(x *SSHTarget) { x.HostKey = s.read(t, "other_host.pub") }, false, ErrHostKey},
		"another, shared key":  {func(x *SSHTarget) { x.User, x.HostKey = me(t).Name, s.read(t, "other_host.pub") }, true, ErrHostKey},
		"a key not let in":     {func(x *SSHTarget) { x.User, x.KeyFile = me(t).Name, s.path("other_host") }, true, errAny},
		"a port with nobody":   {func(x *SSHTarget) { x.Port = freePort(t) }, false, errAny},
		"a key that is no key": {func(x *SSHTarget) { x.User, x.KeyFile = me(t).Name, s.path("config") }, false, errAny},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := s.executor(t, c.change).Probe(t.Context(), "web-1")
			if p.Key != c.key || (err == nil) != (c.err == nil) || c.err != errAny && !errors.Is(err, c.err) {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

var errAny = errors.New("whatever error")

func TestAProbeOfAServiceAsksForNothing(t *testing.T) {
	asked := 0
	h, server := service(t, func(http.ResponseWriter, *http.Request) { asked++ }, nil)
	p, err := h.Probe(t.Context(), h.Targets()[0])
	if err != nil || p.Address != server.Listener.Addr().String() || asked != 0 {
		t.Errorf("%+v, %v, asked %d times", p, err, asked)
	}
	nobody := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	h, err = NewHTTP(HTTPConfig{Targets: map[string]HTTPTarget{"gone": {URL: "https://" + nobody}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Probe(t.Context(), "gone"); err == nil {
		t.Error("a service that is not there was found")
	}
}
