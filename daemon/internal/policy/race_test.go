package policy

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestAFileThatIsSwappedWhileItIsReadIsTheProtectedOneOrNone swaps what stands
// at the path between a protected file, a link, and a file that anybody may
// write, as fast as it can: what is read has to be what was checked.
func TestAFileThatIsSwappedWhileItIsReadIsTheProtectedOneOrNone(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "grants.yaml")
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := swapIn(dir, path, i%3); err != nil {
				t.Error(err)
				return
			}
		}
	})
	read, refused := 0, 0
	for range 10_000 {
		data, err := ReadProtected(path, os.Geteuid())
		switch {
		case err != nil:
			refused++
		case string(data) == "good":
			read++
		default:
			t.Fatalf("read %q", data)
		}
	}
	close(stop)
	swapping.Wait()
	if read == 0 || refused == 0 {
		t.Errorf("%d read, %d refused: there was no race", read, refused)
	}
}

// swapIn puts the next kind of file in the path's place.
func swapIn(dir, path string, kind int) error {
	next := filepath.Join(dir, "next")
	evil := filepath.Join(dir, "evil")
	var err error
	switch kind {
	case 0:
		err = os.WriteFile(next, []byte("good"), 0o600)
	case 1:
		if err = os.WriteFile(evil, []byte("evil"), 0o600); err == nil {
			err = os.Symlink(evil, next)
		}
	case 2:
		if err = os.WriteFile(next, []byte("evil"), 0o600); err == nil {
			err = os.Chmod(next, 0o666) // whatever the umask is
		}
	}
	if err != nil {
		return err
	}
	return os.Rename(next, path)
}
