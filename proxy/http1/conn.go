package http1

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one connection with an agent.
type conn struct {
	net.Conn
	server  *Server
	handler Handler
	ctx     context.Context
	cancel  context.CancelFunc
	blank   *http.Request // carries ctx
	req     http.Request  // the one being served
	w       response
	body    *body // of the request being served; nil: it has none

	// What was read and not consumed is buf[r:w]. While waiting for a request
	// there is no buffer, so that an idle connection costs none. It belongs to the
	// serving goroutine, to the reader of the body until that has ended, and then
	// to the watch.
	buf    []byte
	pooled *[]byte
	r, e   int
	first  [1]byte
	ended  error // what a watch found

	state    atomic.Uint64 // phase in the low bits, above them a count of changes
	bodyDone atomic.Bool   // the body was read to its end
	watchEnd chan struct{} // a watch has ended
	round                  // the watchman's own, but for cold
}

// The phases of a connection.
const (
	opening uint64 = iota // no request yet: like reading, but may be ended
	idle                  // between requests
	reading               // in a head
	busy                  // a request is being served
	watched               // and it takes so long that the connection is being watched
	taken                 // hijacked, or over
	phases  = 7
)

func newConn(ctx context.Context, s *Server, nc net.Conn, h Handler) *conn {
	c := &conn{Conn: nc, server: s, handler: h, watchEnd: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.blank = new(http.Request).WithContext(c.ctx)
	c.w.c = c
	return c
}

// serve answers requests until the connection ends.
func (c *conn) serve() {
	defer c.end()
	for c.await() {
		m, err := c.readHead()
		if err != nil || !c.exchange(m) {
			return
		}
	}
}

func (c *conn) end() {
	c.cancel()
	c.drop()
	if c.phase() == taken {
		return
	}
	c.enter(taken)
	c.server.forget(c)
	c.Conn.Close()
}

func (c *conn) phase() uint64 { return c.state.Load() & phases }

// enter begins another phase. Only the serving goroutine does.
func (c *conn) enter(phase uint64) { c.state.Store(c.state.Load()&^phases + phases + 1 | phase) }

// leave begins another phase unless somebody else has changed it.
func (c *conn) leave(from, to uint64) bool {
	s := c.state.Load()
	return s&phases == from && c.state.CompareAndSwap(s, s&^phases+phases+1|to)
}

// endIdle closes the connection if no request has begun. It does not wait, as TLS
// may have to.
func (c *conn) endIdle() {
	if s := c.state.Load(); s&phases <= idle && c.state.CompareAndSwap(s, s&^phases|reading) {
		go c.Conn.Close()
	}
}

// await waits for the first byte of a request.
func (c *conn) await() bool {
	if c.ended != nil || c.server.closing.Load() {
		return false
	}
	from := c.phase()
	if c.r == c.e {
		c.drop()
		if n, err := c.Conn.Read(c.first[:]); n == 0 || err != nil && n == 0 {
			return false
		}
		c.hold()
		c.buf[0], c.e = c.first[0], 1
	}
	if !c.leave(from, reading) {
		return false
	}
	if c.cold.Load() && c.cold.CompareAndSwap(true, false) {
		c.server.watchman.warm(c)
	}
	return true
}

// bufferSize holds nearly every head.
const bufferSize = 4 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// hold takes a buffer.
func (c *conn) hold() {
	c.pooled = buffers.Get().(*[]byte)
	c.buf, c.r, c.e = *c.pooled, 0, 0
}

// drop gives the buffer back.
func (c *conn) drop() {
	if c.pooled != nil {
		buffers.Put(c.pooled)
	}
	c.buf, c.pooled, c.r, c.e = nil, nil, 0, 0
}

// fill reads once behind what there is, and makes room for it up to the size of
// the largest head.
func (c *conn) fill() error {
	switch {
	case c.buf == nil:
		c.hold()
	case c.r == c.e:
		c.r, c.e = 0, 0
	case c.e == len(c.buf) && c.r > 0:
		c.e = copy(c.buf, c.buf[c.r:c.e])
		c.r = 0
	case c.e == len(c.buf):
		c.grow()
	}
	n, err := c.Conn.Read(c.buf[c.e:])
	c.e += n
	if n > 0 {
		return nil
	}
	return err
}

func (c *conn) grow() {
	larger := make([]byte, 2*len(c.buf))
	copy(larger, c.buf)
	if c.pooled != nil {
		buffers.Put(c.pooled)
		c.pooled = nil
	}
	c.buf = larger
}

// readHead gathers a whole head and takes it apart. Its error means that the
// agent is gone, or took too long.
func (c *conn) readHead() (message, error) {
	lines := 0 // where the line begins that is not complete
	for {
		end, fault := headEnd(c.buf[c.r:c.e], &lines)
		if fault != "" {
			return unclear(fault), nil
		}
		if end > 0 {
			m, fault := parseHead(c.buf[c.r : c.r+end])
			c.r += end
			if fault != "" {
				return unclear(fault), nil
			}
			return m, nil
		}
		if err := c.fill(); err != nil {
			return message{}, err
		}
	}
}

// exchange has one request answered and reports whether another may follow.
func (c *conn) exchange(m message) (next bool) {
	c.begin(&m)
	c.enter(busy)
	defer func() {
		if recover() == nil {
			return
		}
		if c.body != nil {
			c.body.finish(false)
		}
		c.w.drop()
		c.settle()
		next = false
	}()
	c.handler(&c.w, &c.req, m.head)
	if c.phase() == taken {
		return false
	}
	next = c.w.finish()
	read := c.body == nil || c.body.finish(next)
	c.settle()
	if !read || m.head.Fault != "" {
		c.linger()
		return false
	}
	return next
}

// begin makes the request and a blank answer to it.
func (c *conn) begin(m *message) {
	c.req = *c.blank
	r := &c.req
	r.Method, r.RequestURI, r.Host, r.Header = m.method, m.target, m.host, m.header
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	if m.http10 {
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
	}
	r.Close = m.closes
	r.RemoteAddr = c.remote()
	r.URL = m.url()
	r.Body, r.ContentLength = http.NoBody, 0
	c.body = nil
	c.bodyDone.Store(!m.framing.open())
	if m.framing.open() {
		c.body = &body{c: c, r: r, framing: m.framing, expects: m.expects}
		r.Body, r.ContentLength = c.body, m.length
		if m.chunked {
			r.TransferEncoding, r.Trailer = chunkedCoding, m.announced()
		}
	}
	c.w.begin(r)
}

var chunkedCoding = []string{"chunked"}

func (c *conn) remote() string {
	if c.blank.RemoteAddr == "" {
		c.blank.RemoteAddr = c.Conn.RemoteAddr().String()
	}
	return c.blank.RemoteAddr
}

// settle ends the phase of serving, and the watch if there is one.
func (c *conn) settle() {
	if c.leave(busy, idle) {
		return
	}
	if c.phase() == watched {
		c.stopWatch(idle)
	}
}

var longAgo = time.Unix(1, 0)

func (c *conn) stopWatch(to uint64) {
	c.SetReadDeadline(longAgo)
	<-c.watchEnd
	c.SetReadDeadline(time.Time{})
	c.enter(to)
}

// watch waits for whatever the agent does while its answer is being made: an end
// ends the request's context; bytes are kept for later and end the watch.
func (c *conn) watch() {
	defer func() { c.watchEnd <- struct{}{} }()
	if c.r < c.e {
		return // it has said more already
	}
	err := c.fill()
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.ended = err
		c.cancel()
	}
}

// lingerTime and lingerSize bound what is still read of an agent that is in the
// middle of sending when it was answered: closing at once would make the network
// throw the answer away (RFC 9112 section 9.6).
const (
	lingerTime = 500 * time.Millisecond
	lingerSize = 256 << 10
)

func (c *conn) linger() {
	h, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || h.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.Conn, lingerSize)
}

// hijack takes the connection out of the server's hands, with what the agent has
// sent early still to be read.
func (c *conn) hijack() net.Conn {
	if !c.leave(busy, taken) {
		c.stopWatch(taken)
	}
	c.server.forget(c)
	early := bytes.Clone(c.buf[c.r:c.e])
	c.drop()
	if len(early) == 0 {
		return c.Conn
	}
	return &replay{Conn: c.Conn, early: early}
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
