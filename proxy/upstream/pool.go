package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"chaperone/proxy/records"
)

// origin is what a connection leads to.
type origin struct {
	scheme string
	host   string
	port   int
	shown  *tls.Certificate // what the connection showed of itself; nil: nothing
}

// conn is an HTTP/1.1 connection to a service. One exchange uses it at a time, and
// no goroutine of its own.
type conn struct {
	net.Conn
	raw   syscall.RawConn // of the socket, to look whether it is still open
	tls   *records.Stream // nil without TLS
	br    *bufio.Reader
	to    origin
	cut   func()    // abort, made once
	since time.Time // idle since
	used  bool      // has carried an exchange
}

// maxIdlePerOrigin bounds idle connections to one origin.
const maxIdlePerOrigin = 512

// pool keeps idle connections, the one used last on top.
type pool struct {
	mu     sync.Mutex
	idle   map[origin][]*conn
	closed bool
	swept  bool // a sweep is due
	limit  time.Duration
}

// take returns an idle connection that is still open, or nil.
func (p *pool) take(to origin) *conn {
	for {
		p.mu.Lock()
		list := p.idle[to]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := list[len(list)-1]
		list[len(list)-1] = nil
		p.idle[to] = list[:len(list)-1]
		p.mu.Unlock()
		if time.Since(c.since) < p.limit && c.quiet() {
			return c
		}
		c.Close()
	}
}

// put keeps a connection for the next exchange.
func (p *pool) put(c *conn) {
	c.since, c.used = time.Now(), true
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[c.to]) >= maxIdlePerOrigin {
		c.Close()
		return
	}
	if p.idle == nil {
		p.idle = map[origin][]*conn{}
	}
	p.idle[c.to] = append(p.idle[c.to], c)
	if !p.swept {
		p.swept = true
		time.AfterFunc(p.limit, p.sweep)
	}
}

// sweep closes what has been idle for too long, and comes again while there is more.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swept = false
	now := time.Now()
	for to, list := range p.idle {
		old := 0
		for old < len(list) && now.Sub(list[old].since) >= p.limit {
			list[old].Close()
			old++
		}
		if p.idle[to] = list[old:]; len(p.idle[to]) == 0 {
			delete(p.idle, to)
		}
	}
	if len(p.idle) > 0 && !p.closed {
		p.swept = true
		time.AfterFunc(p.limit/4+time.Second, p.sweep)
	}
}

// close closes all idle connections; with forever, those that come back too.
func (p *pool) close(forever bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = p.closed || forever
	for _, list := range p.idle {
		for _, c := range list {
			c.Close()
		}
	}
	p.idle = nil
}

// quiet reports whether nothing has come in on an idle connection: neither its
// end, nor bytes, which nobody asked for and which must not be taken for the answer
// to the next request.
func (c *conn) quiet() bool {
	if c.br.Buffered() > 0 || c.raw == nil {
		return false
	}
	if c.tls != nil {
		return c.tls.Quiet()
	}
	open := false
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = err == syscall.EAGAIN
		return true
	})
	return err == nil && open
}

// open dials an origin, and speaks TLS where it is https.
func (c *Client) open(ctx context.Context, to origin) (*conn, error) {
	nc, err := c.dial(ctx, "tcp", net.JoinHostPort(to.host, strconv.Itoa(to.port)))
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: nc, to: to}
	k.cut = k.abort
	if sc, ok := nc.(syscall.Conn); ok {
		if k.raw, err = sc.SyscallConn(); err != nil {
			nc.Close()
			return nil, err
		}
	}
	if to.scheme == "https" {
		cfg := c.tls.Clone() // shares the session cache
		cfg.ServerName = to.host
		if to.shown != nil {
			showing(cfg, to.shown)
		}
		below := records.New(nc)
		tc := tls.Client(below, cfg)
		hctx, cancel := context.WithTimeout(ctx, c.o.TLSTimeout)
		err := tc.HandshakeContext(hctx)
		cancel()
		if err != nil {
			nc.Close()
			return nil, fmt.Errorf("%w: %w", errHandshake, err)
		}
		k.tls = records.Over(tc, below)
		k.Conn = k.tls
	}
	k.br = bufio.NewReaderSize(k.Conn, 4<<10)
	c.opened.Add(1)
	return k, nil
}

// abort ends the connection without a word. A TLS close notice would make the
// service end its answer in good order, and half of it could pass for the whole.
func (c *conn) abort() {
	if c.tls != nil {
		c.tls.NetConn().Close()
		return
	}
	c.Conn.Close()
}

// CloseWrite closes the sending half where the connection can.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
