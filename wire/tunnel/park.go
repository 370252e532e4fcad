package tunnel

// parkSize is what a direction of a TCP connection holds while it waits. A short
// record fits; what does not is read on without waiting.
const parkSize = 512

// parked is a reader's waiting place: neither TLS nor yamux can say whether
// there is something to read, so waiting reads a little. While more comes than
// fits here, it steps aside.
type parked struct {
	buf      [parkSize]byte
	from, to int
	busy     bool
}

// wait returns once a read has something to return, or will itself find out.
func (p *parked) wait(read func([]byte) (int, error)) error {
	if p.busy || p.from < p.to {
		return nil
	}
	n, err := read(p.buf[:])
	p.from, p.to = 0, n
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

func (p *parked) read(b []byte, read func([]byte) (int, error)) (int, error) {
	if p.from < p.to && len(b) > 0 {
		n := copy(b, p.buf[p.from:p.to])
		clear(p.buf[p.from : p.from+n])
		p.from += n
		p.busy = p.from == p.to && p.to == len(p.buf)
		return n, nil
	}
	n, err := read(b)
	p.busy = n > len(p.buf)
	return n, err
}
