// Package guard lets nothing through to an HTTP/1.1 server but requests whose
// framing every reader understands alike.
//
// A lenient parser in front of a different lenient parser is how requests are
// smuggled: one of them sees a request where the other sees a body. [Conn]
// stands between the connection and net/http's server, checks each message
// head against RFC 9112 to the letter before a byte of it is handed on, follows
// the bodies so that it always knows where the next head begins, and keeps what
// net/http does not: how the sender spelled its field names.
package guard

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// Limits of one request head and of one chunk-size or trailer line. A sender that
// exceeds them is refused; nothing is allocated in proportion to what it announces.
const (
	MaxHead   = 64 << 10 // bytes of a request line with all fields
	MaxFields = 256      // fields of a head
	maxEarly  = 64 << 10 // bytes kept that arrive before a CONNECT or upgrade is answered
)

// ErrFraming is what Read returns when a body breaks the rules of its framing.
// A head that does so is not an error of Read: see [Head.Fault].
var ErrFraming = errors.New("request body is not framed as HTTP/1.1 requires")

// Head is what a Conn knows of one request beyond what net/http tells.
type Head struct {
	// Fault is empty for a clear request. Otherwise the bytes were no clear
	// request, net/http was given [faultRequest] in their place, and the
	// connection ends after the answer.
	Fault string
	// Spelled holds the field names that are not in canonical form, as sent.
	Spelled []string
}

// faultRequest stands in for a head that was not clear, so that its refusal
// takes the same road as every other.
const faultRequest = "GET / HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n"

// Conn is a connection on which Read yields well-framed requests only.
//
// One goroutine at a time may Read, as net/http's server does; the other
// methods may be called from the goroutine that serves the request.
type Conn struct {
	net.Conn
	buf    []byte  // read and not yet handed out; nil while idle, so that an idle connection costs no buffer
	pooled *[]byte // where buf came from
	ready  int     // bytes at the front of buf that may be handed out
	body   body    // where in a body the stream is
	phase  atomic.Int32
	ended  error // set when nothing may follow what was handed out

	mu    sync.Mutex
	heads []Head // checked and not yet taken by the handler
}

// The phases of a connection.
const (
	framed int32 = iota // requests follow each other
	parked              // a CONNECT or upgrade was handed out and is not answered yet
	raw                 // taken over: bytes pass as they are
)

// bufferSize holds nearly every head.
const bufferSize = 4 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// New returns a Conn that reads from c.
func New(c net.Conn) *Conn { return &Conn{Conn: c} }

// Take returns the head of the request that is being served, once. It is the
// zero Head when nothing was noted.
func (c *Conn) Take() Head {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heads) == 0 {
		return Head{}
	}
	h := c.heads[0]
	c.heads = slices.Delete(c.heads, 0, 1)
	return h
}

// Resume says that a CONNECT or upgrade was refused: the next request follows.
func (c *Conn) Resume() { c.phase.CompareAndSwap(parked, framed) }

// Release says that the connection was taken over and returns it with whatever
// the sender sent early still to be read. The Conn must not be read any more.
func (c *Conn) Release() net.Conn {
	c.phase.Store(raw)
	if len(c.buf) == 0 {
		c.drop()
		return c.Conn
	}
	return &replay{Conn: c.Conn, early: c.buf}
}

// Read hands out bytes of well-framed requests.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.ready > 0 {
			return c.hand(p), nil
		}
		if c.ended != nil {
			return 0, c.ended
		}
		switch {
		case c.phase.Load() == raw:
			return c.readRaw(p)
		case c.phase.Load() == parked:
			if err := c.readEarly(); err != nil {
				return 0, err
			}
		case c.body.open():
			return c.readBody(p)
		default:
			if err := c.readHead(p); err != nil {
				return 0, err
			}
		}
	}
}

// hand copies what may be handed out.
func (c *Conn) hand(p []byte) int {
	n := copy(p, c.buf[:c.ready])
	c.ready -= n
	c.buf = c.buf[:copy(c.buf, c.buf[n:])]
	if len(c.buf) == 0 {
		c.drop()
	}
	return n
}

// fill reads once and keeps what came. While nothing is kept it reads into the
// caller's scratch space, so that a connection that waits for its next request
// holds no buffer of its own.
func (c *Conn) fill(scratch []byte) error {
	if c.buf == nil {
		n, err := c.Conn.Read(scratch)
		if n > 0 {
			c.keep(scratch[:n])
			return nil
		}
		return err
	}
	if len(c.buf) == cap(c.buf) {
		c.buf = slices.Grow(c.buf, cap(c.buf))
	}
	n, err := c.Conn.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

// keep takes a buffer and starts it with b.
func (c *Conn) keep(b []byte) {
	if c.pooled = buffers.Get().(*[]byte); cap(*c.pooled) == 0 {
		*c.pooled = make([]byte, 0, bufferSize)
	}
	c.buf = append((*c.pooled)[:0], b...)
}

// drop gives the buffer back, unless it grew.
func (c *Conn) drop() {
	if c.pooled != nil && cap(c.buf) == bufferSize {
		*c.pooled = c.buf[:0]
		buffers.Put(c.pooled)
	}
	c.buf, c.pooled = nil, nil
}

// readHead gathers a whole head and checks it.
func (c *Conn) readHead(scratch []byte) error {
	for {
		end, fault := headEnd(c.buf)
		switch {
		case fault != "":
			c.refuse(fault)
			return nil
		case end > 0:
			c.accept(end)
			return nil
		}
		if err := c.fill(scratch); err != nil {
			return c.cut(err)
		}
	}
}

// cut is what happens when the sender stops in the middle of a head: net/http
// sees an unexpected end, which it answers as it sees fit, and nothing follows.
func (c *Conn) cut(err error) error {
	if len(c.buf) > 0 && errors.Is(err, io.EOF) {
		c.ended = io.ErrUnexpectedEOF
		return c.ended
	}
	return err
}

// accept checks the head c.buf[:end] and makes it ready, or refuses it.
func (c *Conn) accept(end int) {
	m, fault := parseHead(c.buf[:end])
	if fault != "" {
		c.refuse(fault)
		return
	}
	c.note(Head{Spelled: m.spelled})
	c.ready = end
	c.body = m.body
	if m.takesOver {
		c.phase.Store(parked)
	}
}

func (c *Conn) refuse(fault string) {
	c.note(Head{Fault: fault})
	if c.buf == nil {
		c.keep(nil)
	}
	c.buf = append(c.buf[:0], faultRequest...)
	c.ready = len(c.buf)
	c.body = body{}
	c.ended = io.EOF
}

func (c *Conn) note(h Head) {
	c.mu.Lock()
	c.heads = append(c.heads, h)
	c.mu.Unlock()
}

// readEarly keeps what arrives before a CONNECT or an upgrade is answered. It
// hands out nothing: only Release and Resume decide what those bytes are.
func (c *Conn) readEarly() error {
	if len(c.buf) >= maxEarly {
		return ErrFraming
	}
	var scratch [2 << 10]byte
	return c.fill(scratch[:])
}

func (c *Conn) readRaw(p []byte) (int, error) {
	if len(c.buf) > 0 {
		c.ready = len(c.buf)
		return c.hand(p), nil
	}
	return c.Conn.Read(p)
}

// readBody hands out body bytes and follows their framing. What comes before a
// byte that breaks it is handed out still.
func (c *Conn) readBody(p []byte) (int, error) {
	if len(c.buf) > 0 {
		c.ready = c.follow(c.buf)
		if c.ready == 0 {
			return 0, c.ended
		}
		return c.hand(p), nil
	}
	n, err := c.Conn.Read(p[:c.body.want(len(p))])
	if n == 0 {
		return 0, err
	}
	k := c.follow(p[:n])
	if k < n && c.ended == nil {
		c.keep(p[k:n])
	}
	if k == 0 {
		return 0, c.ended
	}
	return k, nil
}

// follow returns how many bytes of b belong to the body.
func (c *Conn) follow(b []byte) int {
	k, ok := c.body.follow(b)
	if !ok {
		c.ended = ErrFraming
	}
	return k
}

// replay is a connection of which the first bytes were read already.
type replay struct {
	net.Conn
	early []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.early) > 0 {
		n := copy(p, r.early)
		r.early = r.early[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// CloseWrite closes the sending half where the connection can.
func (r *replay) CloseWrite() error {
	if h, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
