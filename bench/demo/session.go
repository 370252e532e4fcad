package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// tap is what a relay could write down: for every forwarded piece its size,
// direction and time.
type tap struct {
	mu               sync.Mutex
	up, down, pieces int
	first, last      time.Time
	sizes            map[int]int
}

func (t *tap) Forwarded(_ uint64, up bool, n int, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pieces == 0 {
		t.first, t.sizes = at, make(map[int]int)
	}
	t.pieces++
	t.last = at
	t.sizes[n]++
	if up {
		t.up += n
	} else {
		t.down += n
	}
}

// open is the issuer's command, the line the product is about.
func (s *stage) open(ctx context.Context) error {
	s.say("The issuer delegates two verbs, for one service, to one vendor")
	out, err := s.show(ctx, 0, `osh1s`, "openscope", "share", "open", "--agent", "you",
		"--verb", "ssh.tail_logs:service=web", "--verb", "ssh.restart_service:service=web", "--to", "vendor-b", "--ttl", "30m")
	if err != nil {
		return err
	}
	s.handle = regexp.MustCompile(`osh1s[0-9a-z]+`).FindString(out)
	list, err := s.command("openscope", "share", "list", "--json").Output()
	if err != nil {
		return err
	}
	var share struct{ ID string }
	if err := json.Unmarshal([]byte(strings.TrimSpace(strings.Trim(strings.TrimSpace(string(list)), "[]"))), &share); err != nil {
		return fmt.Errorf("share list --json: %w", err)
	}
	fingerprint, err := s.command("openscope", "fingerprint", "--json").Output()
	if err != nil {
		return err
	}
	var fp struct{ Words []string }
	if err := json.Unmarshal(fingerprint, &fp); err != nil || len(fp.Words) != 8 {
		return fmt.Errorf("fingerprint --json: %v: %s", err, fingerprint)
	}
	s.id, s.words = share.ID, strings.Join(fp.Words, " ")
	return nil
}

// look is the recipient's first step: without the words nothing is sent, with
// them they see exactly what was delegated.
func (s *stage) look(ctx context.Context) error {
	s.say("The recipient pastes the handle. Without the words the client does not even connect")
	if err := s.expect(ctx, 3, "", "openscope-reflect-client", "verbs"); err != nil {
		return err
	}
	s.say("With the words the issuer read out on the phone, they see two verbs")
	out, err := s.show(ctx, 0, `ssh\.tail_logs[\s\S]*`, "openscope-reflect-client", "--fingerprint", s.words, "--daemon", "acme", "verbs")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "ssh.restart_service") || strings.Contains(out, "ssh.disk_usage") {
		return errors.New("the recipient sees other verbs than the two that were shared")
	}
	return nil
}

func (s *stage) tail(ctx context.Context) error {
	s.say("They read the log")
	return s.expect(ctx, 0, `web\[\d+\]: request \d+ answered`, "openscope-reflect-client", "call", "ssh.tail_logs", "service=web", "lines=3")
}

func (s *stage) restart(ctx context.Context) error {
	s.say("They restart the service: it runs under a new process id")
	before := s.servicePID()
	if err := s.expect(ctx, 0, `web restarted: process \d+ is now \d+`, "openscope-reflect-client", "call", "ssh.restart_service", "service=web"); err != nil {
		return err
	}
	if after := s.servicePID(); after == before {
		return fmt.Errorf("the service still is process %d", before)
	}
	return nil
}

// refusals: final, with a reason, and in the log.
func (s *stage) refusals(ctx context.Context) error {
	s.say("Another service, a verb that was not shared, a shell metacharacter: refused")
	for _, refused := range []struct {
		code int
		call []string
	}{
		{3, []string{"ssh.tail_logs", "service=db"}},
		{4, []string{"ssh.disk_usage"}},
		{3, []string{"ssh.restart_service", "service=web; reboot"}},
	} {
		if err := s.expect(ctx, refused.code, "", "openscope-reflect-client", append([]string{"call"}, refused.call...)...); err != nil {
			return err
		}
	}
	return nil
}

// revoke ends the session while the recipient is following the log.
func (s *stage) revoke(ctx context.Context) error {
	s.say("They follow the log, and the issuer ends it")
	fmt.Printf("\n$ openscope-reflect-client call ssh.tail_logs service=web follow=true &\n")
	cmd := s.command("openscope-reflect-client", "call", "ssh.tail_logs", "service=web", "follow=true")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Process.Kill()
	following, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(pipe)
		for n := 1; lines.Scan(); n++ {
			fmt.Println(lines.Text())
			if n == 8 {
				close(following)
			}
		}
	}()
	select {
	case <-following:
	case <-ended:
		return errors.New("the tail ended before it was revoked")
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.expect(ctx, 0, s.id, "openscope", "share", "list"); err != nil {
		return err
	}
	revoked := time.Now()
	if err := s.expect(ctx, 0, "", "openscope", "share", "revoke", s.id, "--reason", "that will do, thank you"); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	gone := time.Since(revoked)
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		return fmt.Errorf("the revoked tail ended with exit code %d (%v), expected 9", code, err)
	}
	fmt.Printf("(exit code 9; the tail died %d ms after the issuer pressed enter)\n", gone.Milliseconds())
	if gone > time.Second {
		return errors.New("that is more than a second")
	}
	return s.eventually(ctx, "no tail is left on the target", func() bool {
		return exec.Command("pgrep", "-f", "tail -n 3 -f "+s.path("web.log")).Run() != nil
	})
}

func (s *stage) record(ctx context.Context) error {
	s.say("The log has all of it, written before it happened, and nobody has edited it")
	out, err := s.show(ctx, 0, "", "openscope", "audit", "show", s.id)
	if err != nil {
		return err
	}
	for _, entry := range []string{"open", "connect", "ssh.tail_logs", "ssh.restart_service", "deny", "revoke"} {
		if !strings.Contains(out, entry) {
			return fmt.Errorf("the log does not show %q", entry)
		}
	}
	return s.expect(ctx, 0, "", "openscope", "audit", "verify")
}

func (s *stage) whatTheRelaySaw(context.Context) error {
	s.say("What the relay saw of all this: sizes and times")
	t := &s.tap
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pieces == 0 {
		return errors.New("nothing went through the relay")
	}
	fmt.Printf("\n%d pieces in %.1f s: %d bytes to the daemon, %d bytes to the recipient, of %d different sizes.\n",
		t.pieces, t.last.Sub(t.first).Seconds(), t.up, t.down, len(t.sizes))
	fmt.Println("No verb, no parameter, no line of the log, no name: it has no key to read them with.")
	return nil
}
