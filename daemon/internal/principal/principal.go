// Package principal says who is asking: which account of the operating system
// is at the other end of the control socket, by the kernel's word
// (SO_PEERCRED) and never by the message's.
//
// It decides nothing: what an account may do is the policy's. Packages daemon
// and daemon/cmd/openscope may import it, and the tests in bench.
package principal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// Principal is an account of this machine.
type Principal struct {
	UID uint32
	// GID is the account's primary group; from FromConn, the group the asking
	// process ran with.
	GID uint32
	// PID is the process that connected, as this process's PID namespace
	// numbers it: 0 where it has no number there, or where nobody connected
	// (Lookup). It is for the log only: numbers are used again.
	PID int32
	// Name is the account's name, never empty.
	Name string
	// GIDs are all groups of the account in the system's database, the primary
	// one included; Groups are the names of those that have one. They are the
	// account's and not the process's: a session outlives the process that
	// opened it.
	GIDs   []uint32
	Groups []string
}

// ErrNoAccount means that the system knows no account of this name or number.
// A program built without cgo sees the accounts of /etc/passwd and no others.
var ErrNoAccount = errors.New("there is no such account")

// FromConn is who opened the connection, with the credentials the process had
// when it connected: what it has become, or whom it passed the socket to since,
// changes nothing. An account that is not in the system's database is refused.
func FromConn(c *net.UnixConn) (Principal, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Principal{}, fmt.Errorf("asking who connected: %w", err)
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return Principal{}, fmt.Errorf("asking who connected: %w", err)
	}
	account, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10))
	if err != nil {
		return Principal{}, fmt.Errorf("looking up uid %d: %w", cred.Uid, noAccount(err))
	}
	p, err := fromAccount(account)
	if err != nil {
		return Principal{}, fmt.Errorf("looking up uid %d: %w", cred.Uid, err)
	}
	if p.UID != cred.Uid {
		return Principal{}, fmt.Errorf("looking up uid %d: the answer was about uid %d", cred.Uid, p.UID)
	}
	p.GID, p.PID = cred.Gid, cred.Pid
	return p, nil
}

// Lookup is the account of this name. A number is not a name here, and neither
// is a name in another case: sudo CVE-2019-14287 was a number taken for one.
func Lookup(name string) (Principal, error) {
	account, err := user.Lookup(name)
	if err != nil {
		return Principal{}, fmt.Errorf("looking up account %q: %w", name, noAccount(err))
	}
	if account.Username != name {
		return Principal{}, fmt.Errorf("looking up account %q: %w (there is %q)", name, ErrNoAccount, account.Username)
	}
	p, err := fromAccount(account)
	if err != nil {
		return Principal{}, fmt.Errorf("looking up account %q: %w", name, err)
	}
	return p, nil
}

// noAccount turns os/user's two errors for the same thing into ErrNoAccount.
func noAccount(err error) error {
	if _, ok := errors.AsType[user.UnknownUserError](err); ok {
		return ErrNoAccount
	}
	if _, ok := errors.AsType[user.UnknownUserIdError](err); ok {
		return ErrNoAccount
	}
	return err
}

func fromAccount(account *user.User) (Principal, error) {
	if account.Username == "" {
		return Principal{}, ErrNoAccount
	}
	uid, err := number(account.Uid)
	if err != nil {
		return Principal{}, fmt.Errorf("reading its uid: %w", err)
	}
	gid, err := number(account.Gid)
	if err != nil {
		return Principal{}, fmt.Errorf("reading its group: %w", err)
	}
	p := Principal{UID: uid, GID: gid, Name: account.Username}
	ids, err := account.GroupIds()
	if err != nil {
		return Principal{}, fmt.Errorf("reading its groups: %w", err)
	}
	for _, id := range ids {
		if err := p.addGroup(id); err != nil {
			return Principal{}, fmt.Errorf("reading its groups: %w", err)
		}
	}
	return p, nil
}

// addGroup adds one of the account's groups. One that has no name is kept by
// its number.
func (p *Principal) addGroup(id string) error {
	gid, err := number(id)
	if err != nil {
		return err
	}
	p.GIDs = append(p.GIDs, gid)
	group, err := user.LookupGroupId(id)
	if _, ok := errors.AsType[user.UnknownGroupIdError](err); ok {
		return nil
	}
	if err != nil {
		return err
	}
	p.Groups = append(p.Groups, group.Name)
	return nil
}

// number reads a uid or gid. The largest is refused: -1 means "leave it as it
// is" to the system calls that change one.
func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, err
	}
	if n == 1<<32-1 {
		return 0, fmt.Errorf("%d is no account's number", n)
	}
	return uint32(n), nil
}

type contextKey struct{}

// NewContext is ctx with who asks in it.
func NewContext(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// FromContext is who asks, and whether anybody does.
func FromContext(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(contextKey{}).(Principal)
	return p, ok
}
