package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"openscope/wire/term"
)

// taker takes every request and does nothing.
type taker struct{}

func (taker) Status(context.Context) (Status, error)                        { return Status{}, nil }
func (taker) Agents(context.Context) ([]string, error)                      { return nil, nil }
func (taker) Fingerprint(context.Context) (Fingerprint, error)              { return Fingerprint{}, nil }
func (taker) Verbs(context.Context, VerbsRequest) ([]VerbInfo, error)       { return nil, nil }
func (taker) OpenShare(context.Context, OpenRequest) (OpenResult, error)    { return OpenResult{}, nil }
func (taker) ConfirmShare(context.Context, ConfirmRequest) error            { return nil }
func (taker) ListShares(context.Context, ListRequest) ([]Share, error)      { return nil, nil }
func (taker) AnswerCall(context.Context, AnswerRequest) error               { return nil }
func (taker) AddRecipient(context.Context, AddRecipientRequest) error       { return nil }
func (taker) ListRecipients(context.Context) ([]RecipientInfo, error)       { return nil, nil }
func (taker) RemoveRecipient(context.Context, RemoveRecipientRequest) error { return nil }
func (taker) Explain(context.Context, ExplainRequest) (Explanation, error)  { return Explanation{}, nil }
func (taker) AuditTail(context.Context, AuditRequest, io.Writer) error      { return nil }
func (taker) AuditReport(context.Context, ReportRequest, io.Writer) error   { return nil }
func (taker) Watch(context.Context, WatchRequest, func(Event) error) error  { return nil }
func (taker) ExtendShare(context.Context, ExtendRequest) (ExtendResult, error) {
	return ExtendResult{}, nil
}
func (taker) RevokeShare(context.Context, RevokeRequest) (RevokeResult, error) {
	return RevokeResult{}, nil
}
func (taker) Lockdown(context.Context, LockdownRequest) (LockdownResult, error) {
	return LockdownResult{}, nil
}
func (taker) Call(context.Context, CallRequest, io.Writer, io.Writer) (CallResult, error) {
	return CallResult{}, nil
}

// FuzzRequest is F11: whatever comes by the socket is a request, or is answered
// with one JSON object and a code of the contract.
func FuzzRequest(f *testing.F) {
	methods := []string{
		"status", "agents", "fingerprint", "verbs", "call", "share/open", "share/confirm", "share/list", "share/extend", "share/revoke", "share/answer", "share/watch",
		"recipient/add", "recipient/list", "recipient/remove", "explain", "lockdown", "audit", "audit/report",
	}
	for i, seed := range []string{
		`{}`, `{"agent":"you"}`, `{"agent":"you","verb":"a.b","params":[{"name":"p","value":"v"}]}`, `{"agent":"you","specs":["a.b:p=x"],"to":"v","ttl_s":60}`,
		`{"id":"s-abcde","words":"a b c"}`, `{"id":"s-abcde","ttl_s":1e300}`, `{"call":"c-abcde","approve":true}`, `{"alias":"v","key":"osk1"}`, `{"on":true,"reason":"x"}`, `{"follow":true}`,
		`{"agent":"you"}{}`, `{"Agent":"you"}`, `{"agent":"a","agent":"b"}`, `[]`, `null`, `"x"`, `{"ttl_s":-1}`, `{"ttl_s":"1m"}`, "\xff", `{"agent":"\ud800"}`, ``, `{"a":`,
	} {
		f.Add(uint8(i), seed)
	}
	s := NewServer(taker{}, func(ctx context.Context, _ net.Conn) context.Context { return ctx }, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, method uint8, body string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what streams has nobody to stream to
		name := methods[int(method)%len(methods)]
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/"+name, bytes.NewReader([]byte(body)))
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)
		if w.Code == http.StatusOK {
			return
		}
		var answer failure
		dec := json.NewDecoder(w.Body)
		dec.DisallowUnknownFields()
		err := dec.Decode(&answer)
		_, after := dec.Token()
		if w.Code != http.StatusUnprocessableEntity || err != nil || after != io.EOF {
			t.Fatalf("%s %q: %d, %v", name, body, w.Code, err)
		}
		if answer.Code < term.Usage || answer.Code > term.Unknown || answer.Message == "" {
			t.Fatalf("%s %q: code %d, %q", name, body, answer.Code, answer.Message)
		}
	})
}
