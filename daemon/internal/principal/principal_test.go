package principal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
)

// accepted is one connection to a socket of our own, made by dial. The socket
// has no path, so that any uid can reach it.
func accepted(t *testing.T, dial func(name string) error) *net.UnixConn {
	t.Helper()
	name := fmt.Sprintf("@openscope-principal-%d-%s", os.Getpid(), t.Name())
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := dial(name); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestTheKernelSaysWhoConnected(t *testing.T) {
	conn := accepted(t, func(name string) error {
		c, err := net.Dial("unix", name)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	p, err := FromConn(conn)
	if errors.Is(err, ErrNoAccount) {
		t.Skipf("the test runs as a uid without an account: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if int(p.UID) != os.Geteuid() || int(p.GID) != os.Getegid() || int(p.PID) != os.Getpid() || p.Name == "" {
		t.Errorf("got %+v for uid %d, gid %d, pid %d", p, os.Geteuid(), os.Getegid(), os.Getpid())
	}
}

// dialAs connects from a thread that has become uid and gid; the thread ends
// with the goroutine.
func dialAs(uid, gid uint32) func(name string) error {
	return func(name string) error {
		result := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked
			result <- connectAs(uid, gid, name)
		}()
		return <-result
	}
}

func connectAs(uid, gid uint32, name string) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return fmt.Errorf("setresgid: %w", errno)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return fmt.Errorf("setresuid: %w", errno)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// The descriptor stays open until the test's process ends: closing it
	// would race with the accept.
	return syscall.Connect(fd, &syscall.SockaddrUnix{Name: name})
}

func TestAnotherAccountIsToldApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	nobody, err := Lookup("nobody")
	if err != nil {
		t.Skipf("the system has no account to become: %v", err)
	}
	got, err := FromConn(accepted(t, dialAs(nobody.UID, nobody.GID)))
	if err != nil {
		t.Fatal(err)
	}
	if got.UID != nobody.UID || got.GID != nobody.GID || got.Name != "nobody" || !slices.Equal(got.Groups, nobody.Groups) {
		t.Errorf("got %+v, want %+v", got, nobody)
	}
}

func TestAUidWithoutAnAccountIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	const nobodyHasThis = 3_999_999_999
	p, err := FromConn(accepted(t, dialAs(nobodyHasThis, nobodyHasThis)))
	if !errors.Is(err, ErrNoAccount) {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestLookupTakesNamesOnly(t *testing.T) {
	for _, name := range []string{"", "0", "-1", "4294967295", "#0", "Root", "root ", "root\x00", "no-such-account", "../root", "root:x:0:0"} {
		if p, err := Lookup(name); !errors.Is(err, ErrNoAccount) {
			t.Errorf("%q gives %+v, %v", name, p, err)
		}
	}
}

func TestRootIsKnown(t *testing.T) {
	p, err := Lookup("root")
	if err != nil {
		t.Fatal(err)
	}
	if p.UID != 0 || p.GID != 0 || p.Name != "root" || !slices.Contains(p.GIDs, 0) || !slices.Contains(p.Groups, "root") || p.PID != 0 {
		t.Errorf("got %+v", p)
	}
}

func TestNumbersThatNobodyHasAreRefused(t *testing.T) {
	for _, s := range []string{"4294967295", "4294967296", "-1", "", "0x0", "1e3", " 1"} {
		if n, err := number(s); err == nil {
			t.Errorf("%q gives %d", s, n)
		}
	}
}

func TestWhoAsksTravelsInTheContext(t *testing.T) {
	if p, ok := FromContext(context.Background()); ok {
		t.Errorf("an empty context names %+v", p)
	}
	ctx := NewContext(context.Background(), Principal{UID: 7, Name: "alice"})
	if p, ok := FromContext(ctx); !ok || p.UID != 7 || p.Name != "alice" {
		t.Errorf("got %+v, %t", p, ok)
	}
}
