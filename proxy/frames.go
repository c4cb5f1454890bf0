package proxy

import (
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
)

// half is one direction of a socket. One goroutine writes to it; others may bar it
// and part it meanwhile.
type half struct {
	w      io.Writer
	last   []byte      // what is said at the end; set before barred
	barred atomic.Bool // nothing goes out any more but the end of a frame
	ends   bool        // a frame that has begun may end

	mu     sync.Mutex
	frames frames
	n      int64 // bytes that went out
	said   bool  // last
}

// Write passes on what the other side says. Once the half is barred it swallows it:
// who is told to close answers that, and his answer has to be read.
func (h *half) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.barred.Load() {
		return h.put(p)
	}
	if h.ends && !h.frames.between() {
		if n, err := h.put(p[:h.frames.clone().take(p)]); err != nil {
			return n, err
		}
		h.say()
	}
	return len(p), nil
}

func (h *half) put(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.n += int64(n)
	h.frames.pass(p[:n])
	return n, err
}

// bar lets nothing more out than last.
func (h *half) bar(last []byte) {
	h.last = last
	h.barred.Store(true)
}

// part says the last of a half that is barred, if it may be said now. It waits for a
// Write that is going on.
func (h *half) part() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.say()
}

// end says that nothing more comes; of a half that is barred, the last before that.
func (h *half) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.barred.Load() {
		h.say()
	}
	closeWrite(h.w)
}

// say says the last between two frames, once. The caller holds h.mu.
func (h *half) say() {
	if h.said || !h.frames.between() {
		return
	}
	h.said = true
	if !h.frames.closed {
		h.w.Write(h.last) // who does not take it is closed in a moment
	}
	closeWrite(h.w)
}

// sent is how many bytes went out, without what was said at the end.
func (h *half) sent() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

// frames knows where in a stream of frames something stands (RFC 6455 section 5.2).
// The zero value is the beginning of one.
type frames struct {
	head   [14]byte
	have   int    // bytes of head
	left   uint64 // of the payload; only once the head is whole
	closed bool   // a Close frame has begun
}

const opClose = 8

// between reports whether a frame would begin here.
func (f *frames) between() bool { return f.have == 0 }

func (f *frames) clone() *frames {
	c := *f
	return &c
}

// pass takes all of p.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		p = p[f.take(p):]
	}
}

// take takes what p holds of one frame, the one that has begun or the next, and
// returns how much that is.
func (f *frames) take(p []byte) int {
	n := 0
	for f.have < f.headLen() {
		if n == len(p) {
			return n
		}
		f.head[f.have] = p[n]
		f.have++
		n++
		if f.have == f.headLen() {
			f.left = f.payload()
			f.closed = f.closed || f.head[0]&0x0f == opClose
		}
	}
	m := min(f.left, uint64(len(p)-n))
	if f.left -= m; f.left == 0 {
		f.have = 0
	}
	return n + int(m)
}

// headLen is how long the head is, as far as can be told of what is there of it.
func (f *frames) headLen() int {
	if f.have < 2 {
		return 2
	}
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// payload is how long a frame's payload is, by its head.
func (f *frames) payload() uint64 {
	switch n := f.head[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(n)
	}
}
