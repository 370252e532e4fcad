package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSHTarget is one machine that commands may run on, as the configuration
// says. Nothing of it is ever chosen by a recipient.
type SSHTarget struct {
	Host string
	Port int // zero is 22
	// User is the account over there. {issuer} in it, and in KeyFile, stands
	// for [Job.Issuer].
	User    string
	KeyFile string
	// HostKey is the machine's public key, as in a line of ssh_host_*_key.pub.
	// It is the only one accepted; certificates are not.
	HostKey string
	// MaxSessions is how many commands may run there at once; zero is 8. What
	// comes on top waits for its turn, until its own time is up.
	MaxSessions int
}

// SSHConfig names the targets.
type SSHConfig struct {
	Targets map[string]SSHTarget
	// Dial replaces net.Dialer.DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// SSH runs commands on other machines, one connection per call, without agent,
// forwarding, terminal or passed-on environment.
//
// The account's login shell over there must be a POSIX shell, and /bin/sh,
// kill and a /proc or setsid must exist: the command line is quoted for them.
// When the context ends the connection is closed at once, and the far side
// kills the command's session when it notices (see remoteScript); nobody here
// can see that it did. Remote processes that open a session of their own
// survive. A command that is not there is exit status 127, as in any shell.
type SSH struct {
	targets map[string]sshTarget
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// sshTarget is a target that has been checked.
type sshTarget struct {
	SSHTarget
	address string
	hostKey ssh.PublicKey
	slots   chan struct{}
}

// Bounds of an ssh call.
const (
	// defaultSessions stays below the 10 unauthenticated connections at which
	// OpenSSH's MaxStartups begins to drop.
	defaultSessions = 8
	// connectTime is the most that dialing and handshake may take together.
	connectTime = 15 * time.Second
	// remoteHold is how long output may pause after the exit status, before
	// whoever still holds it over there is taken for an outsider.
	remoteHold = 2 * time.Second
	// maxLine is what fits into one word of the far kernel's exec.
	maxLine = 127 << 10
)

const issuerMark = "{issuer}"

// NewSSH checks every target; the key files are read at each call.
func NewSSH(cfg SSHConfig) (*SSH, error) {
	s := &SSH{targets: make(map[string]sshTarget, len(cfg.Targets)), dial: cfg.Dial}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	for name, t := range cfg.Targets {
		checked, err := checkTarget(t)
		if err != nil {
			return nil, fmt.Errorf("ssh target %s: %w", name, err)
		}
		s.targets[name] = checked
	}
	return s, nil
}

func checkTarget(t SSHTarget) (sshTarget, error) {
	if t.Port == 0 {
		t.Port = 22
	}
	switch {
	case t.Host == "" || strings.ContainsAny(t.Host, " \t\r\n/\x00"):
		return sshTarget{}, fmt.Errorf("host %q is not a host name or address", t.Host)
	case t.Port < 0 || t.Port > 65535:
		return sshTarget{}, fmt.Errorf("port %d does not exist", t.Port)
	case t.User == "":
		return sshTarget{}, errors.New("no user")
	case !strings.HasPrefix(t.KeyFile, "/"):
		return sshTarget{}, fmt.Errorf("key file %q is not an absolute path", t.KeyFile)
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(t.HostKey))
	if err != nil || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return sshTarget{}, errors.New("the host key is not one public key, as in ssh_host_ed25519_key.pub")
	}
	if _, cert := key.(*ssh.Certificate); cert || len(hostKeyAlgorithms(key)) == 0 {
		return sshTarget{}, fmt.Errorf("a host key of type %s cannot be pinned", key.Type())
	}
	if t.MaxSessions == 0 {
		t.MaxSessions = defaultSessions
	}
	if t.MaxSessions < 0 || t.MaxSessions > 64 {
		return sshTarget{}, fmt.Errorf("max sessions %d is not between 1 and 64", t.MaxSessions)
	}
	return sshTarget{
		SSHTarget: t, address: net.JoinHostPort(t.Host, strconv.Itoa(t.Port)), hostKey: key,
		slots: make(chan struct{}, t.MaxSessions),
	}, nil
}

func hostKeyAlgorithms(key ssh.PublicKey) []string {
	return signatureAlgorithms(key, ssh.SupportedAlgorithms().HostKeys)
}

// Describe names account, machine and words.
func (s *SSH) Describe(job Job) string {
	t, ok := s.targets[job.Target]
	if !ok {
		return "no ssh target " + strconv.Quote(job.Target)
	}
	user := strings.ReplaceAll(t.User, issuerMark, job.Issuer)
	return "over ssh as " + user + " on " + t.address + ": " + Quote(job.Argv)
}

// Execute implements [Executor].
func (s *SSH) Execute(ctx context.Context, job Job) Outcome {
	t, line, err := s.prepare(job)
	if err != nil {
		return notRun(err)
	}
	signer, err := readKey(t.KeyFile, job.As.UID)
	if err != nil {
		return notRun(err)
	}
	ctx, cancel := bound(ctx, job.Timeout)
	defer cancel(nil)
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return killed(ctx, NoStatus)
	}
	client, err := s.connect(ctx, t, signer)
	if ctx.Err() != nil {
		closeClient(client)
		return killed(ctx, NoStatus)
	}
	if err != nil {
		return notRun(fmt.Errorf("reaching %s: %w", t.address, err))
	}
	return runRemote(ctx, cancel, client, line, job)
}

// prepare is the job's target, with the issuer's name filled in, and the line
// to run there.
func (s *SSH) prepare(job Job) (sshTarget, string, error) {
	if err := job.check(); err != nil {
		return sshTarget{}, "", err
	}
	t, ok := s.targets[job.Target]
	if !ok {
		return sshTarget{}, "", refuse("no ssh target %q", job.Target)
	}
	if job.As.Name == "" {
		return sshTarget{}, "", refuse("no identity to run as")
	}
	if len(job.Stdin) > 0 {
		return sshTarget{}, "", refuse("input for a command elsewhere")
	}
	if strings.Contains(t.User+t.KeyFile, issuerMark) {
		if !isAccountName(job.Issuer) {
			return sshTarget{}, "", refuse("%q cannot stand for %s", job.Issuer, issuerMark)
		}
		t.User = strings.ReplaceAll(t.User, issuerMark, job.Issuer)
		t.KeyFile = strings.ReplaceAll(t.KeyFile, issuerMark, job.Issuer)
	}
	line := remoteLine(job.Argv, job.Timeout)
	if len(line) > maxLine {
		return sshTarget{}, "", refuse("a command line of %d bytes, %d at most", len(line), maxLine)
	}
	return t, line, nil
}

// isAccountName is narrow because the name becomes part of a path.
func isAccountName(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '-' || name[0] == '.' {
		return false
	}
	return isPlain(name) && !strings.ContainsAny(name, "/:,%")
}

// connect dials and logs in. The client is nil exactly when err is not.
func (s *SSH) connect(ctx context.Context, t sshTarget, signer ssh.Signer) (*ssh.Client, error) {
	return s.handshake(ctx, t, []ssh.AuthMethod{ssh.PublicKeys(signer)}, ssh.FixedHostKey(t.hostKey))
}

func (s *SSH) handshake(ctx context.Context, t sshTarget, auth []ssh.AuthMethod, pinned ssh.HostKeyCallback) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := s.dial(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	// The library has no contexts: closing the connection is how to stop it.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	algorithms := ssh.SupportedAlgorithms()
	c, channels, requests, err := ssh.NewClientConn(conn, t.address, &ssh.ClientConfig{
		Config: ssh.Config{
			KeyExchanges: algorithms.KeyExchanges,
			Ciphers:      algorithms.Ciphers,
			MACs:         algorithms.MACs,
		},
		User:              t.User,
		Auth:              auth,
		HostKeyCallback:   pinned,
		HostKeyAlgorithms: hostKeyAlgorithms(t.hostKey),
		ClientVersion:     "SSH-2.0-openscope",
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	// A client without handlers refuses every channel and request of the server.
	return ssh.NewClient(c, channels, requests), nil
}

func closeClient(c *ssh.Client) {
	if c != nil {
		_ = c.Close()
		_ = c.Wait()
	}
}
