package tunnel

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// socketPair is a socket that takes trains, and one to send to it.
func socketPair(t testing.TB) (*trainSocket, *net.UDPConn) {
	t.Helper()
	loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	in, err := net.ListenUDP("udp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, err := net.ListenUDP("udp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	socket, ok := Trains(in, nil).(*trainSocket)
	if !ok {
		t.Skip("this kernel has no UDP GRO")
	}
	if err := in.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return socket, out
}

// segments asks the kernel to cut what is sent into datagrams of that size. A
// control message is: length, as wide as a pointer | level 4 | type 4 | body.
func segments(size uint16) []byte {
	control := make([]byte, unix.CmsgSpace(2))
	header := control[:unix.CmsgLen(2)]
	binary.NativeEndian.PutUint32(header[unix.CmsgLen(0)-4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint32(header[unix.CmsgLen(0)-8:], unix.IPPROTO_UDP)
	setLength(header, unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(header[unix.CmsgLen(0):], size)
	return control
}

// setLength writes a control message's length, which is as wide as a pointer.
func setLength(header []byte, n int) {
	if unix.CmsgLen(0) == 16 {
		binary.NativeEndian.PutUint64(header, uint64(n))
	} else {
		binary.NativeEndian.PutUint32(header, uint32(n))
	}
}

func batch(n int) []ipv4.Message {
	messages := make([]ipv4.Message, n)
	for i := range messages {
		messages[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 1452)}, OOB: make([]byte, 128)}
	}
	return messages
}

func TestATrainArrivesAsTheDatagramsItWasMadeOf(t *testing.T) {
	socket, out := socketPair(t)
	sent := make([]byte, 20*1200+77)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	if _, _, err := out.WriteMsgUDP(sent, segments(1200), socket.LocalAddr().(*net.UDPAddr)); err != nil {
		t.Skip("this kernel has no UDP GSO: ", err)
	}
	var got []byte
	var sizes []int
	reads := 0
	for len(got) < len(sent) {
		messages := batch(8)
		n, err := socket.ReadBatch(messages, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 && len(socket.rest) == 0 {
			reads++
		}
		for _, m := range messages[:n] {
			got, sizes = append(got, m.Buffers[0][:m.N]...), append(sizes, m.N)
			if m.Addr.String() != out.LocalAddr().String() {
				t.Errorf("from %v, not %v", m.Addr, out.LocalAddr())
			}
		}
	}
	if !bytes.Equal(got, sent) {
		t.Error("the bytes differ")
	}
	if len(sizes) != 21 || sizes[0] != 1200 || sizes[20] != 77 {
		t.Errorf("datagrams of %v", sizes)
	}
	if reads != 1 {
		t.Errorf("it took %d receives: the kernel handed nothing over in one piece", reads)
	}
}

func TestLoneDatagramsArriveAsTheyAre(t *testing.T) {
	socket, out := socketPair(t)
	for _, text := range []string{"one", "", "three"} {
		if _, err := out.WriteTo([]byte(text), socket.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		messages := batch(8)
		n, err := socket.ReadBatch(messages, 0)
		if err != nil || n != 1 || string(messages[0].Buffers[0][:messages[0].N]) != text {
			t.Errorf("%q: %d datagrams, the first %q, %v", text, n, messages[0].Buffers[0][:messages[0].N], err)
		}
	}
}

func TestADatagramThatIsTooLongIsCutAsTheKernelWould(t *testing.T) {
	socket, out := socketPair(t)
	if _, err := out.WriteTo(make([]byte, 9000), socket.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	messages := batch(8)
	if n, err := socket.ReadBatch(messages, 0); err != nil || n != 1 || messages[0].N != 1452 {
		t.Errorf("%d datagrams, the first of %d bytes, %v", n, messages[0].N, err)
	}
}

func TestAnythingElseIsLeftAsItIs(t *testing.T) {
	closed, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if Trains(closed, nil) != net.PacketConn(closed) {
		t.Error("a closed socket was wrapped")
	}
	if other := (struct{ net.PacketConn }{closed}); Trains(other, nil) != net.PacketConn(other) {
		t.Error("a socket of another kind was wrapped")
	}
}

func TestControlMessagesThatAreNoneMakeNoTrain(t *testing.T) {
	for _, control := range [][]byte{nil, {1}, make([]byte, 16), bytes.Repeat([]byte{0xff}, 40)} {
		if n := segmentSize(control); n != 0 {
			t.Errorf("%x: segments of %d", control, n)
		}
	}
}

func BenchmarkTrain(b *testing.B) {
	socket, out := socketPair(b)
	if err := socket.SetReadDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	train, control, to := make([]byte, 40*1200), segments(1200), socket.LocalAddr().(*net.UDPAddr)
	messages := batch(8)
	b.SetBytes(int64(len(train)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := out.WriteMsgUDP(train, control, to); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < 40; {
			n, err := socket.ReadBatch(messages, 0)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
}
