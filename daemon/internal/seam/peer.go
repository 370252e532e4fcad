package seam

import (
	"context"
	"errors"
	"sync"
	"time"

	"openscope/passport"
	"openscope/wire/call"
)

var _ Peer = (*remotePeer)(nil)

// remotePeer is a connection that a net half at the other end of a pipe serves.
type remotePeer struct {
	link *link
	id   ConnID
	gone chan struct{} // closed once nothing is to be expected of it
	end  func()
}

// goneAfter is how long after CLOSE a connection is given up, whatever the net
// half says: its own grace, and time to say that it is over.
const goneAfter = CloseGrace + 2*time.Second

func newRemotePeer(l *link, id ConnID) *remotePeer {
	p := &remotePeer{link: l, id: id, gone: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.gone) })
	return p
}

// lost ends every request that waits for this connection.
func (p *remotePeer) lost() { p.end() }

func (p *remotePeer) frame(k kind, room int) encoder { return frame(k, 0, 16+room).fixed(p.id[:]) }

// Output sends chunk by chunk: the next once the one before was sent, so that a
// connection that stalls has one chunk of each stream in the net half, and
// nothing of it in anybody's way.
func (p *remotePeer) Output(ctx context.Context, id call.ID, s call.Stream, data []byte) (int, error) {
	sent := 0
	for sent < len(data) {
		chunk := data[sent:min(len(data), sent+MaxChunk)]
		e := p.frame(kindOutput, 17+len(chunk)).fixed(id[:]).byte(byte(s)).fixed(chunk)
		body, err := p.link.exchange(ctx, p.gone, kindOutput, e)
		if err != nil {
			return sent, err
		}
		d := decoder{rest: body}
		how, n := d.byte(), int(d.u32())
		if err := d.end(); err != nil || n > len(chunk) || how == resultDone && n < len(chunk) {
			p.link.fail(errMessage)
			return sent, errMessage
		}
		if sent += n; how != resultDone {
			return sent, p.failed(ctx, how)
		}
	}
	return sent, nil
}

// failed is why the net half could not do it.
func (p *remotePeer) failed(ctx context.Context, how byte) error {
	switch {
	case how == resultOver:
		return call.ErrOver
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return errors.New("the connection fails")
}

// do sends a request whose answer is only whether it was done.
func (p *remotePeer) do(ctx context.Context, k kind, e encoder) error {
	body, err := p.link.exchange(ctx, p.gone, k, e)
	if err != nil {
		return err
	}
	if len(body) != 1 {
		p.link.fail(errMessage)
		return errMessage
	}
	if body[0] != resultDone {
		return p.failed(ctx, body[0])
	}
	return nil
}

// Continue is read before what is sent of the call.
func (p *remotePeer) Continue(id call.ID, stdout, stderr uint64) {
	_ = p.link.send(p.frame(kindContinue, 32).fixed(id[:]).u64(stdout).u64(stderr), false)
}

// End sends a call's result.
func (p *remotePeer) End(id call.ID, body, sig []byte) error {
	e := p.frame(kindEnd, 16+len(sig)+len(body)).fixed(id[:]).fixed(sig).fixed(body)
	return p.do(context.Background(), kindEnd, e)
}

// Notify sends a notice.
func (p *remotePeer) Notify(n call.Notice) error {
	return p.do(context.Background(), kindNotify, n.Append(p.frame(kindNotify, 64+len(n.Text))))
}

// issueWithin is how long a net half has to send a passport, or to let go of a
// client that does not take it.
const issueWithin = 10 * time.Second

// Issue sends a passport. The issuer who extends a session waits for no net half
// that says nothing.
func (p *remotePeer) Issue(s passport.Signed) error {
	ctx, cancel := context.WithTimeout(context.Background(), issueWithin)
	defer cancel()
	return p.do(ctx, kindIssue, p.frame(kindIssue, len(s)).fixed(s))
}

// Probe asks whether somebody is there.
func (p *remotePeer) Probe(ctx context.Context) error {
	return p.do(ctx, kindProbe, p.frame(kindProbe, 0))
}

// Close does not wait; nor does anybody wait for the connection much longer.
func (p *remotePeer) Close(c call.Close) {
	_ = p.link.send(c.Append(p.frame(kindClose, 64+len(c.Text))), false)
	time.AfterFunc(goneAfter, p.lost)
}
