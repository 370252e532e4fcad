package relay_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openscope/relay"
	"openscope/wire"
)

func TestLegsArePairedAndBytesPassBothWays(t *testing.T) {
	onEveryRung(t, testLegsArePairedAndBytesPassBothWays)
}

func testLegsArePairedAndBytesPassBothWays(t *testing.T, by rungs) {
	n, d, s := standingBy(t, by)
	other := newSession(t).standOn(t, d)

	client, daemon, preface := n.pair(s, d)
	if preface.RID != s.rid || preface.From == "" {
		t.Errorf("the preface says %+v", preface)
	}
	otherClient, otherDaemon, otherPreface := n.pair(other, d)
	if otherPreface.RID != other.rid || otherPreface.Leg == preface.Leg {
		t.Errorf("the second leg's preface says %+v, the first one's %+v", otherPreface, preface)
	}
	bothWays(t, client, daemon)
	bothWays(t, otherClient, otherDaemon)
	passes(t, client, daemon, "and again, after another leg spoke")
}

func TestWhatFollowsTheJoinAtOnceArrives(t *testing.T) {
	onEveryRung(t, testWhatFollowsTheJoinAtOnceArrives)
}

func testWhatFollowsTheJoinAtOnceArrives(t *testing.T, by rungs) {
	n, d, s := standingBy(t, by)
	client := n.client(s)
	if _, err := client.Write([]byte("msg1")); err != nil { // no answer to join was read
		t.Fatal(err)
	}
	_, daemon := accepted(t, d)
	got := make([]byte, 4)
	if _, err := io.ReadFull(daemon, got); err != nil || string(got) != "msg1" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestManyBytesArriveAsTheyWereSent(t *testing.T) {
	onEveryRung(t, testManyBytesArriveAsTheyWereSent)
}

func testManyBytesArriveAsTheyWereSent(t *testing.T, by rungs) {
	n, d, s := standingBy(t, by)
	client, daemon, _ := n.pair(s, d)
	sent := pattern(3 << 20)
	var writing sync.WaitGroup
	defer writing.Wait()
	for _, direction := range []struct{ from, to wire.Leg }{{client, daemon}, {daemon, client}} {
		writing.Go(func() {
			_, err := direction.from.Write(sent)
			if err := errors.Join(err, direction.from.CloseWrite()); err != nil {
				t.Error(err)
			}
		})
		writing.Go(func() {
			if got, err := io.ReadAll(direction.to); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes came of %d: %v", len(got), len(sent), err)
			}
		})
	}
}

func TestHalfClosePasses(t *testing.T) { onEveryRung(t, testHalfClosePasses) }

func testHalfClosePasses(t *testing.T, by rungs) {
	for name, clientFirst := range map[string]bool{"client first": true, "daemon first": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, d, s := standingBy(t, by)
			first, second, _ := n.pair(s, d)
			if !clientFirst {
				first, second = second, first
			}
			if _, err := io.WriteString(first, "question"); err != nil {
				t.Fatal(err)
			}
			if err := first.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(second); err != nil || string(got) != "question" {
				t.Fatalf("%q, %v", got, err)
			}
			passes(t, second, first, "answer")
			if err := second.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(first); err != nil || len(got) != 0 {
				t.Errorf("behind the answer: %q, %v", got, err)
			}
		})
	}
}

// A relay that closes behind the last byte must not overtake it.
func TestNothingIsLostToAClientThatReadsAfterTheEnd(t *testing.T) {
	onEveryRung(t, testNothingIsLostToAClientThatReadsAfterTheEnd)
}

func testNothingIsLostToAClientThatReadsAfterTheEnd(t *testing.T, by rungs) {
	tap := newCounts()
	n, d, s := standingBy(t, by, func(c *relay.Config) { c.Tap = tap })
	client, daemon, preface := n.pair(s, d)
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(daemon); err != nil {
		t.Fatal(err)
	}
	sent := pattern(40 << 10)
	if _, err := daemon.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := daemon.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the relay has forwarded the answer", func() bool {
		_, down := tap.of(preface.Leg)
		return down == len(sent)
	})
	var got []byte
	eventually(t, patience, "the answer ends", func() bool { // a piece every tick
		piece := make([]byte, 1<<10)
		k, err := client.Read(piece)
		got = append(got, piece[:k]...)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("after %d of %d bytes: %v", len(got), len(sent), err)
		}
		return err != nil
	})
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came of %d", len(got), len(sent))
	}
}

func TestResetPasses(t *testing.T) { onEveryRung(t, testResetPasses) }

func testResetPasses(t *testing.T, by rungs) {
	for name, byClient := range map[string]bool{"the client's": true, "the daemon's": false} {
		for state, speak := range map[string]bool{"idle": false, "after bytes": true} {
			t.Run(name+" "+state, func(t *testing.T) {
				t.Parallel()
				n, d, s := standingBy(t, by)
				one, other, _ := n.pair(s, d)
				if speak {
					bothWays(t, one, other)
				}
				if !byClient {
					one, other = other, one
				}
				one.Reset()
				one.Reset() // twice is once
				if _, err := other.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the other end reads %v", err)
				}
				eventually(t, patience, "writing fails", func() bool {
					_, err := other.Write([]byte("x"))
					return err != nil
				})
				again, daemon, _ := n.pair(s, d)
				bothWays(t, again, daemon)
			})
		}
	}
}

// stall begins to write so many bytes, and says how many had been taken when no
// more were. What is left is written once somebody reads, or the leg has ended.
func stall(t *testing.T, l wire.Leg, total int) int {
	t.Helper()
	var taken atomic.Int64
	go func() {
		piece := pattern(16 << 10)
		for taken.Load() < int64(total) {
			n, err := l.Write(piece)
			taken.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	before, tick := int64(-1), time.NewTicker(300*time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		now := taken.Load()
		if now == before || now >= int64(total) {
			return int(now)
		}
		before = now
	}
	return 0
}

func TestWhoDoesNotReadStopsTheWriter(t *testing.T) { onEveryRung(t, testWhoDoesNotReadStopsTheWriter) }

func testWhoDoesNotReadStopsTheWriter(t *testing.T, by rungs) {
	const most = 2 << 20
	for name, up := range map[string]bool{"a daemon": true, "a client": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, d, s := standingBy(t, by)
			writer, reader, _ := n.pair(s, d)
			if !up {
				writer, reader = reader, writer
			}
			taken := stall(t, writer, 4*most)
			if taken > most {
				t.Fatalf("%d bytes were taken from the writer, and nobody reads", taken)
			}
			if _, err := io.CopyN(io.Discard, reader, 4*most); err != nil {
				t.Fatalf("after %d bytes taken: %v", taken, err)
			}
			passes(t, writer, reader, "it goes on")
		})
	}
}

// As many legs as this, each with a window grown to its largest, would fill
// any window that is not the sum of theirs.
func TestStalledLegsStopNoOther(t *testing.T) { onEveryRung(t, testStalledLegsStopNoOther) }

func testStalledLegsStopNoOther(t *testing.T, by rungs) {
	const stalled = 10
	for name, up := range map[string]bool{"a daemon that does not read": true, "clients that do not read": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, d, first := standingBy(t, by)
			sessions := []session{first, newSession(t).standOn(t, d)}
			var stalling sync.WaitGroup
			for i := range stalled {
				writer, reader, _ := n.pair(sessions[i%2], d)
				if !up {
					writer, reader = reader, writer
				}
				stalling.Go(func() {
					if _, err := writer.Write(make([]byte, 16<<10)); err != nil {
						t.Error(err)
					}
					if _, err := io.CopyN(io.Discard, reader, 16<<10); err != nil {
						t.Error(err)
					}
					stall(t, writer, 8<<20)
				})
			}
			stalling.Wait()
			client, daemon, _ := n.pair(first, d)
			bothWays(t, client, daemon)
			settled(t, d)
		})
	}
}

func TestTheTapSeesSizesOnly(t *testing.T) { onEveryRung(t, testTheTapSeesSizesOnly) }

func testTheTapSeesSizesOnly(t *testing.T, by rungs) {
	tap := newCounts()
	n, d, s := standingBy(t, by, func(c *relay.Config) { c.Tap = tap })
	client, daemon, preface := n.pair(s, d)
	passes(t, client, daemon, "seven b")
	passes(t, daemon, client, string(pattern(70_000)))
	// The tap is told after the reader has it. Join and preface are not forwarded.
	eventually(t, patience, "the tap has seen 7 bytes up and 70,000 down", func() bool {
		up, down := tap.of(preface.Leg)
		return up == 7 && down == 70_000
	})
	tap.mu.Lock()
	defer tap.mu.Unlock()
	if len(tap.up) != 1 || len(tap.down) != 1 {
		t.Errorf("the tap saw legs %v and %v", tap.up, tap.down)
	}
}
