package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"chaperone/proxy/identity"
)

// door is how requests of one connection come in.
type door struct {
	tunnel *tunnel // nil at the front door
}

// tunnel is an intercepted CONNECT: one caller's way to one authority.
type tunnel struct {
	net.Conn // set before attach and never after: a revocation closes it from another goroutine
	caller   *identity.Caller
	host     string // lower-case A-label or IP, no port
	port     int
	scheme   string // what is spoken inside
	local    bool   // it does not leave this machine

	mu     sync.Mutex
	closed bool
	detach func()
	cancel context.CancelFunc // ends what is going on inside; nil while nothing is
	softer io.Closer          // is closed instead, by whoever comes first; nil: nothing

	going atomic.Int32 // exchanges inside
}

// ServerName is the only name for which a certificate may be shown inside.
func (t *tunnel) ServerName() string { return t.host }

// Local reports whether what is said inside stays on this machine.
func (t *tunnel) Local() bool { return t.local }

// attach has the tunnel closed when its caller's session ends.
func (t *tunnel) attach() {
	detach := t.caller.Attach(t)
	t.mu.Lock()
	closed := t.closed
	t.detach = detach
	t.mu.Unlock()
	if closed { // the session ended in between
		detach()
	}
}

// InUse reports whether something goes on inside: a tunnel that an agent keeps for its
// next request does not keep its session from being idle.
func (t *tunnel) InUse() bool { return t.going.Load() > 0 }

// context returns the context of what goes on inside. It ends with the tunnel.
func (t *tunnel) context() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		cancel()
	}
	t.cancel = cancel
	return ctx
}

// soften has c closed in the place of the tunnel; nil: the tunnel itself. A tunnel that
// was closed already has it closed at once.
func (t *tunnel) soften(c io.Closer) {
	t.mu.Lock()
	closed := t.closed
	t.softer = c
	t.mu.Unlock()
	if closed && c != nil {
		c.Close()
	}
}

// Close closes the connection to the agent. It may be called more than once and
// from any goroutine.
func (t *tunnel) Close() error {
	t.mu.Lock()
	if softer := t.softer; softer != nil {
		t.softer = nil
		t.mu.Unlock()
		return softer.Close()
	}
	detach, cancel := t.detach, t.cancel
	t.closed, t.detach = true, nil
	t.mu.Unlock()
	if detach != nil {
		detach()
	}
	if cancel != nil {
		cancel()
	}
	return t.Conn.Close()
}

// CloseWrite closes the sending half, so that the agent reads an orderly end.
func (t *tunnel) CloseWrite() error {
	if h, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

type doorKey struct{}

func doorOf(r *http.Request) *door { return r.Context().Value(doorKey{}).(*door) }

func streamContext(ctx context.Context, c net.Conn) context.Context {
	t := c.(*tls.Conn).NetConn().(*tunnel)
	return context.WithValue(ctx, doorKey{}, &door{tunnel: t})
}

// handover is the listener on which net/http's server receives HTTP/2 tunnels.
type handover struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), done: make(chan struct{})}
}

// give passes c to the server, or closes it when that has ended.
func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept waits for the next tunnel.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close makes Accept return.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr names the listener in messages of net/http.
func (h *handover) Addr() net.Addr { return handoverAddr{} }

type handoverAddr struct{}

func (handoverAddr) Network() string { return "tunnel" }
func (handoverAddr) String() string  { return "tunnel" }

// takeovers are the connections that no server looks after any more:
// WebSockets and uninspected tunnels. The zero value is ready.
type takeovers struct {
	mu    sync.Mutex
	conns map[io.Closer]struct{}
	idle  chan struct{} // closed when the last one goes while somebody waits
	ended bool
}

// add notes c and returns what to call when it ends. It closes c at once when
// everything has been cut already.
func (t *takeovers) add(c io.Closer) func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		c.Close()
		return func() {}
	}
	if t.conns == nil {
		t.conns = map[io.Closer]struct{}{}
	}
	t.conns[c] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.conns, c)
		if len(t.conns) == 0 && t.idle != nil {
			close(t.idle)
			t.idle = nil
		}
	}
}

// wait returns when none is left or ctx is done.
func (t *takeovers) wait(ctx context.Context) error {
	t.mu.Lock()
	if len(t.conns) == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cut closes all.
func (t *takeovers) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for c := range t.conns {
		c.Close()
	}
}
