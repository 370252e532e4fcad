package bench

import (
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gauge reads from outside what a running program holds: goroutines (out of its
// memory, by its symbols and its debugging information: no program of ours has a
// door for that), descriptors and memory.
type gauge struct {
	allgs  uint64 // the address of the runtime's list of goroutines
	status uint64 // where in one of them its state is
}

// held is what a process holds.
type held struct {
	goroutines, descriptors int
	kib                     int // resident
}

func newGauge(t *testing.T, program string) *gauge {
	t.Helper()
	file, err := elf.Open(filepath.Join(programs, program))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := new(gauge)
	symbols, err := file.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == "runtime.allgs" {
			g.allgs = s.Value
		}
	}
	data, err := file.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	if g.status, err = fieldOf(data, "runtime.g", "atomicstatus"); err != nil || g.allgs == 0 {
		t.Fatalf("%s: the list of goroutines is at %x; %v", program, g.allgs, err)
	}
	return g
}

// fieldOf is where in a structure a field begins.
func fieldOf(data *dwarf.Data, structure, field string) (uint64, error) {
	all := data.Reader()
	for {
		entry, err := all.Next()
		if err != nil {
			return 0, err
		}
		if entry == nil {
			return 0, fmt.Errorf("there is no %s in %s", field, structure)
		}
		if name, _ := entry.Val(dwarf.AttrName).(string); entry.Tag != dwarf.TagStructType || name != structure {
			continue
		}
		kind, err := data.Type(entry.Offset)
		if err != nil {
			return 0, err
		}
		if s, ok := kind.(*dwarf.StructType); ok {
			for _, f := range s.Field {
				if f.Name == field {
					return uint64(f.ByteOffset), nil
				}
			}
		}
	}
}

// The states of a goroutine that is none: see runtime2.go.
const (
	goroutineIdle, goroutineDead, goroutineExtra = 0, 6, 11
	goroutineScanned                             = 0x1000
)

func (g *gauge) goroutines(pid int) (int, error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer memory.Close()
	var list [16]byte
	if _, err := memory.ReadAt(list[:], int64(g.allgs)); err != nil {
		return 0, err
	}
	at, n := binary.LittleEndian.Uint64(list[:]), binary.LittleEndian.Uint64(list[8:])
	if n == 0 || n > 1<<20 {
		return 0, errors.New("the list of goroutines makes no sense")
	}
	pointers := make([]byte, 8*n)
	if _, err := memory.ReadAt(pointers, int64(at)); err != nil {
		return 0, err
	}
	alive := 0
	for ; len(pointers) > 0; pointers = pointers[8:] {
		var state [4]byte
		if _, err := memory.ReadAt(state[:], int64(binary.LittleEndian.Uint64(pointers)+g.status)); err != nil {
			return 0, err
		}
		switch binary.LittleEndian.Uint32(state[:]) &^ goroutineScanned {
		case goroutineIdle, goroutineDead, goroutineExtra:
		default:
			alive++
		}
	}
	return alive, nil
}

// read is what a process holds now.
func (g *gauge) read(t *testing.T, pid int) held {
	t.Helper()
	var h held
	var err error
	if h.goroutines, err = g.goroutines(pid); err != nil {
		t.Errorf("process %d: its goroutines: %v", pid, err)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Errorf("process %d: %v", pid, err)
	}
	h.descriptors = len(files)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Errorf("process %d: %v", pid, err)
	}
	_, text, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(text, &h.kib); err != nil {
		t.Errorf("process %d: its memory: %v", pid, err)
	}
	return h
}

func (h held) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d KiB", h.goroutines, h.descriptors, h.kib)
}

func TestTheGaugeCountsWhatAProcessHolds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to read another process's memory")
	}
	t.Parallel()
	s := newSite(t)
	g := newGauge(t, "openscope")
	pid := s.daemon.cmd.Process.Pid
	before := g.read(t, pid)
	s.open("5m", "test.follow")
	for range 3 {
		s.follow()
	}
	during := g.read(t, pid)
	t.Logf("idle: %v; with three calls: %v", before, during)
	if before.goroutines < 5 || during.goroutines < before.goroutines+9 || during.descriptors <= before.descriptors || before.kib < 4<<10 {
		t.Errorf("idle: %v; with three calls: %v", before, during)
	}
	s.must("openscope", "share", "revoke", s.id)
	until(t, 20*time.Second, "the daemon holds no more than before", func() bool {
		after := g.read(t, pid)
		return after.goroutines <= before.goroutines+2 && after.descriptors <= before.descriptors+2
	})
}
