package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// Client is the daemon as the issuer's commands see it.
type Client struct {
	path string
	http *http.Client
}

var _ Daemon = (*Client)(nil)

// Dial returns a client of the socket; it connects at the first request.
func Dial(path string) *Client {
	dialer := new(net.Dialer)
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
	}}}
}

// post sends a request; the caller closes the body.
func (c *Client) post(ctx context.Context, method string, request any) (io.ReadCloser, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://openscope/v1/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, Errorf(Unreachable, "the daemon does not answer at %s", c.path).
			WithHint("is it running? try: systemctl status openscope, or: openscope daemon")
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&f); err != nil {
		return nil, Errorf(Internal, "the daemon answered %s", resp.Status)
	}
	return nil, f.err()
}

func (f *failure) err() error { return &Error{Code: f.Code, Message: f.Message, Hint: f.Hint} }

func ask[Res any](ctx context.Context, c *Client, method string, request any) (result Res, err error) {
	body, err := c.post(ctx, method, request)
	if err != nil {
		return result, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&result); err != nil {
		return result, Errorf(Unreachable, "the daemon's answer was cut short")
	}
	return result, nil
}

// nothing is the request, or the answer, of a method without one.
type nothing = struct{}

// Status implements Daemon.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "status", nothing{})
}

// Fingerprint implements Daemon.
func (c *Client) Fingerprint(ctx context.Context) (Fingerprint, error) {
	return ask[Fingerprint](ctx, c, "fingerprint", nothing{})
}

// Agents implements Daemon.
func (c *Client) Agents(ctx context.Context) ([]string, error) {
	return ask[[]string](ctx, c, "agents", nothing{})
}

// Verbs implements Daemon.
func (c *Client) Verbs(ctx context.Context, r VerbsRequest) ([]VerbInfo, error) {
	return ask[[]VerbInfo](ctx, c, "verbs", r)
}

// OpenShare implements Daemon.
func (c *Client) OpenShare(ctx context.Context, r OpenRequest) (OpenResult, error) {
	r.TTLS = Seconds(r.TTL)
	return ask[OpenResult](ctx, c, "share/open", r)
}

// ConfirmShare implements Daemon.
func (c *Client) ConfirmShare(ctx context.Context, r ConfirmRequest) error {
	_, err := ask[nothing](ctx, c, "share/confirm", r)
	return err
}

// ListShares implements Daemon.
func (c *Client) ListShares(ctx context.Context, r ListRequest) ([]Share, error) {
	return ask[[]Share](ctx, c, "share/list", r)
}

// ExtendShare implements Daemon.
func (c *Client) ExtendShare(ctx context.Context, r ExtendRequest) (ExtendResult, error) {
	r.TTLS = Seconds(r.TTL)
	return ask[ExtendResult](ctx, c, "share/extend", r)
}

// RevokeShare implements Daemon.
func (c *Client) RevokeShare(ctx context.Context, r RevokeRequest) (RevokeResult, error) {
	return ask[RevokeResult](ctx, c, "share/revoke", r)
}

// AnswerCall implements Daemon.
func (c *Client) AnswerCall(ctx context.Context, r AnswerRequest) error {
	_, err := ask[nothing](ctx, c, "share/answer", r)
	return err
}

// AddRecipient implements Daemon.
func (c *Client) AddRecipient(ctx context.Context, r AddRecipientRequest) error {
	_, err := ask[nothing](ctx, c, "recipient/add", r)
	return err
}

// ListRecipients implements Daemon.
func (c *Client) ListRecipients(ctx context.Context) ([]RecipientInfo, error) {
	return ask[[]RecipientInfo](ctx, c, "recipient/list", nothing{})
}

// RemoveRecipient implements Daemon.
func (c *Client) RemoveRecipient(ctx context.Context, r RemoveRecipientRequest) error {
	_, err := ask[nothing](ctx, c, "recipient/remove", r)
	return err
}

// Explain implements Daemon.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (Explanation, error) {
	return ask[Explanation](ctx, c, "explain", r)
}

// Lockdown implements Daemon.
func (c *Client) Lockdown(ctx context.Context, r LockdownRequest) (LockdownResult, error) {
	return ask[LockdownResult](ctx, c, "lockdown", r)
}

// Call implements Daemon: output is written as it comes, one stream a frame.
func (c *Client) Call(ctx context.Context, r CallRequest, stdout, stderr io.Writer) (CallResult, error) {
	body, err := c.post(ctx, "call", r)
	if err != nil {
		return CallResult{}, err
	}
	defer body.Close()
	lines := json.NewDecoder(body)
	for {
		var line frame
		if err := lines.Decode(&line); err != nil {
			if ctx.Err() != nil {
				return CallResult{}, context.Cause(ctx)
			}
			return CallResult{}, Errorf(Unreachable, "the daemon went away during the call")
		}
		switch {
		case line.Error != nil:
			return CallResult{}, line.Error.err()
		case line.Result != nil:
			return *line.Result, nil
		}
		to, output := stdout, line.Stdout
		if len(output) == 0 {
			to, output = stderr, line.Stderr
		}
		if _, err := to.Write(output); err != nil {
			return CallResult{}, fmt.Errorf("writing output: %w", err)
		}
	}
}

// AuditTail implements Daemon: lines are written as they come.
func (c *Client) AuditTail(ctx context.Context, r AuditRequest, w io.Writer) error {
	body, err := c.post(ctx, "audit", r)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, bufio.NewReader(body))
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// AuditReport implements Daemon.
func (c *Client) AuditReport(ctx context.Context, r ReportRequest, w io.Writer) error {
	body, err := c.post(ctx, "audit/report", r)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	return nil
}
