package principal

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

const dialVariable = "PRINCIPAL_TEST_DIAL"

// TestMain connects, where it is told to, as whoever it was started as.
func TestMain(m *testing.M) {
	if name := os.Getenv(dialVariable); name != "" {
		conn, err := net.Dial("unix", name)
		if err != nil {
			os.Exit(1)
		}
		_, _ = conn.Write([]byte(strconv.Itoa(os.Geteuid())))
		_, _ = conn.Read(make([]byte, 1)) // until the test hangs up
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestRootOfANamespaceIsWhoeverMadeIt: in a namespace of its own a process may
// call itself root; the kernel says who it is out here.
func TestRootOfANamespaceIsWhoeverMadeIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start somebody else")
	}
	nobody, err := Lookup("nobody")
	if err != nil {
		t.Skipf("the system has no account to become: %v", err)
	}
	var child *exec.Cmd
	conn := accepted(t, func(name string) error {
		child = exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), dialVariable+"="+name)
		child.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(nobody.UID), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(nobody.GID), Size: 1}},
			Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		}
		err := child.Start()
		if err != nil {
			t.Skipf("no user namespace is to be had here: %v", err)
		}
		return nil
	})
	said := make([]byte, 8)
	n, err := conn.Read(said)
	if err != nil || string(said[:n]) != "0" {
		t.Fatalf("inside it is uid %q, %v", said[:n], err)
	}
	got, err := FromConn(conn)
	if err != nil || got.UID != nobody.UID || got.Name != "nobody" {
		t.Errorf("got %+v, %v", got, err)
	}
	conn.Close()
	_ = child.Wait()
}

// TestAPassedSocketIsStillWhoeverConnected hands a connected descriptor from
// somebody else to root, which then writes to it.
func TestAPassedSocketIsStillWhoeverConnected(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	nobody, err := Lookup("nobody")
	if err != nil {
		t.Skipf("the system has no account to become: %v", err)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	conn := accepted(t, func(name string) error {
		if err := dialAs(nobody.UID, nobody.GID)(name); err != nil {
			return err
		}
		fd, err := connectedTo(name)
		if err != nil {
			return err
		}
		return syscall.Sendmsg(pair[0], []byte("x"), syscall.UnixRights(fd), nil, 0)
	})
	oob := make([]byte, 64)
	_, n, _, _, err := syscall.Recvmsg(pair[1], make([]byte, 1), oob, 0)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	if _, err := syscall.Write(fds[0], []byte("root writes")); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 32)
	count, err := conn.Read(text)
	if err != nil || string(text[:count]) != "root writes" {
		t.Fatalf("%q, %v", text[:count], err)
	}
	if got, err := FromConn(conn); err != nil || got.Name != "nobody" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// connectedTo finds this process's descriptor that is connected to the socket.
func connectedTo(name string) (int, error) {
	for fd := range 256 {
		peer, err := syscall.Getpeername(fd)
		if unix, ok := peer.(*syscall.SockaddrUnix); err == nil && ok && unix.Name == name {
			return fd, nil
		}
	}
	return 0, os.ErrNotExist
}

func TestTenThousandConnectionsAreEachWhoTheyAre(t *testing.T) {
	me, err := Lookup("root")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	nobody, err := Lookup("nobody")
	if err != nil {
		t.Skipf("the system has no account to become: %v", err)
	}
	const name = "@openscope-principal-many"
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	next := make(chan uint32)
	failed := make(chan error, 1)
	go func() { failed <- connectMany(name, next) }()
	for i := range 10_000 {
		want := me
		if i%2 == 1 {
			want = nobody
		}
		next <- want.UID
		conn, err := listener.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		got, err := FromConn(conn)
		conn.Close()
		if err != nil || got.UID != want.UID || got.Name != want.Name {
			t.Fatalf("connection %d: got %+v, %v", i, got, err)
		}
	}
	close(next)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// connectMany connects once for each uid, from a thread that takes it on and
// gives it back; the thread ends with the goroutine.
func connectMany(name string, uids <-chan uint32) error {
	runtime.LockOSThread() // and never unlocked
	become := func(uid uint32) error {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), 0); errno != 0 {
			return errno
		}
		return nil
	}
	for uid := range uids {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = errors.Join(become(uid), syscall.Connect(fd, &syscall.SockaddrUnix{Name: name}), become(0), syscall.Close(fd))
		if err != nil {
			return err
		}
	}
	return nil
}
