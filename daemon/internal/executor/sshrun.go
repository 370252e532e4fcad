package executor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// errConnectionLost says that the far side was not heard of to the end.
var errConnectionLost = errors.New("the connection was lost")

// runRemote runs one line over a connection that it closes at the end.
func runRemote(ctx context.Context, cancel context.CancelCauseFunc, client *ssh.Client, line string, job Job) Outcome {
	defer closeClient(client)
	hangUp := func() { _ = client.Close() }
	stop := context.AfterFunc(ctx, hangUp)
	defer stop()

	channel, requests, err := client.OpenChannel("session", nil)
	if err == nil {
		err = requestExec(channel, line)
	}
	if ctx.Err() != nil {
		return killed(ctx, NoStatus)
	}
	if err != nil {
		return notRun(fmt.Errorf("starting the command: %w", err))
	}
	// Standard input is never written to, and stays open: it is what the far
	// side knows our life by.
	var held atomic.Bool
	letGo := func() { held.Store(true); hangUp() }
	out := startPump("stdout", channel, letGo, job.Stdout, cancel)
	errs := startPump("stderr", channel.Stderr(), letGo, job.Stderr, cancel)
	status, lost := awaitExit(requests)
	go ssh.DiscardRequests(requests)

	drain(ctx, remoteHold, out, errs)
	if err := writeError(out, errs); err != nil {
		return Outcome{Status: status, Err: err}
	}
	if lost == nil && !held.Load() {
		lost = confirmAlive(client)
	}
	if ctx.Err() != nil && lost != nil {
		return killed(ctx, status)
	}
	return Outcome{Status: status, Err: lost}
}

func requestExec(channel ssh.Channel, line string) error {
	ok, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{line}))
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("the server refuses to run commands")
	}
	return nil
}

// awaitExit waits for the command's exit status. There is none when the
// connection ends first.
func awaitExit(requests <-chan *ssh.Request) (int, error) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
		switch {
		case r.Type == "exit-status" && len(r.Payload) == 4:
			return int(binary.BigEndian.Uint32(r.Payload)), nil
		case r.Type == "exit-signal":
			return exitSignal(r.Payload), nil
		}
	}
	return NoStatus, errConnectionLost
}

// exitSignal is 128 and the number of the signal that a server names. The
// wrapper makes it rare: only the shell around the command can be hit.
func exitSignal(payload []byte) int {
	var death struct {
		Signal     string
		CoreDumped bool
		Message    string
		Language   string
	}
	if err := ssh.Unmarshal(payload, &death); err != nil {
		return 128
	}
	numbers := map[string]int{
		"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8,
		"KILL": 9, "SEGV": 11, "PIPE": 13, "ALRM": 14, "TERM": 15,
	}
	return 128 + numbers[death.Signal]
}

// confirmAlive asks the server for any answer at all. Output that ended because
// the connection did looks like output that ended: only an answer that comes
// after it tells them apart.
func confirmAlive(client *ssh.Client) error {
	if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		return errConnectionLost
	}
	return nil
}
