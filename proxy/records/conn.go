// Package records lies between TLS and a socket, where it has large bodies cross in
// few system calls.
//
// crypto/tls writes each record of 16 KiB by itself, and a read returns what one
// record holds. Here the records of one write leave together, and a large read takes
// what is at hand. Nothing is held back for that: what was written has left when the
// write returns, and a read waits for its first byte only.
package records

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// Conn is what TLS reads from and writes to. One goroutine reads. TLS reads ahead and
// keeps what it has read to itself; Conn follows the lengths of what passes (RFC 8446
// section 5.1), so that it is known whether TLS sits on a part of a record.
type Conn struct {
	net.Conn
	raw   syscall.RawConn // of the socket; nil: it has none
	wait  patience
	first byte    // what Peek has read
	held  bool    // and nobody else
	head  [5]byte // type, version, length
	at    int     // bytes of head that have come
	left  int     // bytes of the record that have not
	probe [1]byte // what Quiet reads into
	now   struct {
		read func(fd uintptr) bool // made once
		p    []byte
		n    int
		err  error
	}

	mu     sync.Mutex
	due    int     // records that are about to follow
	gather *[]byte // those of them that have; nil: none
}

// patience is what a read does when TLS has nothing left.
type patience uint8

const (
	waits    patience = iota // for the first byte
	looks                    // takes what is at hand, or says nothingYet
	declines                 // says nothingYet
)

// New returns a Conn over nc, whose it is from now on.
func New(nc net.Conn) *Conn {
	c := &Conn{Conn: nc}
	if s, ok := nc.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	return c
}

// Peek waits for the first byte, which is read again.
func (c *Conn) Peek() (byte, error) {
	var b [1]byte
	if _, err := io.ReadFull(c.Conn, b[:]); err != nil {
		return 0, err
	}
	c.first, c.held = b[0], true
	return c.first, nil
}

// Read reads once from the socket.
func (c *Conn) Read(p []byte) (n int, err error) {
	switch {
	case c.held && len(p) > 0:
		p[0], c.held, n = c.first, false, 1
	case c.wait == waits:
		n, err = c.Conn.Read(p)
	default:
		n, err = c.readNow(p)
	}
	c.follow(p[:n])
	return n, err
}

func (c *Conn) follow(p []byte) {
	for len(p) > 0 {
		if c.left > 0 {
			n := min(c.left, len(p))
			c.left -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.at:], p)
		p = p[n:]
		if c.at += n; c.at == len(c.head) {
			c.at, c.left = 0, int(c.head[3])<<8|int(c.head[4])
		}
	}
}

// readNow reads what is at hand, or says nothingYet.
func (c *Conn) readNow(p []byte) (int, error) {
	if c.wait == declines || c.raw == nil {
		return 0, nothingYet{}
	}
	if c.now.read == nil {
		c.now.read = func(fd uintptr) bool {
			c.now.n, c.now.err = syscall.Read(int(fd), c.now.p)
			return true
		}
	}
	c.now.p = p
	err := c.raw.Read(c.now.read)
	c.now.p = nil
	switch {
	case err != nil:
		return 0, err
	case c.now.err == syscall.EAGAIN:
		return 0, nothingYet{}
	case c.now.err != nil:
		return 0, c.now.err
	case c.now.n == 0:
		return 0, io.EOF
	}
	return c.now.n, nil
}

// nothingYet says that a read would wait. It is temporary, so that crypto/tls does
// not take the connection for broken.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has come yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

// gathered is how many full records leave in one write.
const gathered = 4

// overhead is what a record is longer than its text, in bytes: at most so much with
// every cipher of TLS 1.2 and 1.3 that crypto/tls uses.
const overhead = 128

var gathers = sync.Pool{New: func() any { b := make([]byte, 0, gathered*(maxText+overhead)); return &b }}

// Write writes to the socket: at once, unless a [Stream] has said that more follows.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due == 0 {
		return c.Conn.Write(p)
	}
	c.due--
	if err := c.add(p); err != nil {
		return 0, err
	}
	if c.due == 0 {
		if err := c.leave(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// add gathers p. What does not fit makes what is there leave.
func (c *Conn) add(p []byte) error {
	if c.gather == nil {
		c.gather = gathers.Get().(*[]byte)
	}
	if len(*c.gather)+len(p) > cap(*c.gather) {
		_, err := c.Conn.Write(*c.gather)
		*c.gather = (*c.gather)[:0]
		if err != nil {
			return err
		}
	}
	*c.gather = append(*c.gather, p...)
	return nil
}

// leave writes what was gathered, and waits for no more.
func (c *Conn) leave() error {
	c.due = 0
	if c.gather == nil {
		return nil
	}
	_, err := c.Conn.Write(*c.gather)
	*c.gather = (*c.gather)[:0]
	gathers.Put(c.gather)
	c.gather = nil
	return err
}

// expect says how many records are about to follow.
func (c *Conn) expect(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = n
}

// settle has nothing wait any more, whatever came.
func (c *Conn) settle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leave()
}

// CloseWrite closes the sending half where the connection can.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
