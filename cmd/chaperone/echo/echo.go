// Package echo is a proxy that notes how a client comes to it and answers every
// request by itself, so that nothing goes out. It tells what about a client's way
// through a proxy does not work.
package echo

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"chaperone/certs"
)

// Bounds of what the proxy waits for.
const (
	headTime  = 20 * time.Second
	maxHead   = 64 << 10 // bytes of a CONNECT request
	maxVisits = 1000     // that are noted
)

// Visit is one connection of a client, as far as it came.
type Visit struct {
	Target    string   // authority of the CONNECT request, or of the request itself
	Tunnel    bool     // a CONNECT request was made
	User      string   // that it gave with the right password
	Password  Password // how it came by the password
	Trusted   bool     // the TLS handshake ended well
	Fault     string   // why it did not
	Protocols []string // that the client offers by ALPN (RFC 7301)
	Requests  []Request
}

// Password says how a client treats the proxy's.
type Password int

// What a client may do about the password. One that was asked and went away sends
// none.
const (
	None Password = iota
	Asked
	Wrong
	AfterAsked
	Sent
)

// Request is one request that was answered.
type Request struct{ Method, Host, Path, Protocol, Agent string }

// Proxy serves on a port of 127.0.0.1. Its methods may be called concurrently.
type Proxy struct {
	ca       *certs.Authority
	password string
	ln       net.Listener

	ctx  context.Context // done when the proxy is closed
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	visits []*Visit
}

// Listen starts a proxy that demands password of whatever user and answers under
// certificates of ca for whatever host.
func Listen(ca *certs.Authority, password string) (*Proxy, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening echo: %w", err)
	}
	p := &Proxy{ca: ca, password: password, ln: ln}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is host:port of the proxy.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// grace is how long connections may take to end by themselves when the proxy closes:
// why a client gave up may still be on its way.
const grace = 300 * time.Millisecond

// Close ends the proxy, cuts the connections that do not end by themselves within
// [grace], and waits for all.
func (p *Proxy) Close() error {
	err := p.ln.Close()
	defer time.AfterFunc(grace, p.stop).Stop()
	p.wg.Wait()
	p.stop()
	return err
}

// Visits are all connections so far, oldest first.
func (p *Proxy) Visits() []Visit {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Visit, 0, len(p.visits))
	for _, v := range p.visits {
		c := *v
		c.Requests = slices.Clone(v.Requests)
		out = append(out, c)
	}
	return out
}

func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(p.ctx, func() { c.Close() })()
			p.serve(c)
		})
	}
}

// note changes a visit under the lock.
func (p *Proxy) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *Proxy) serve(c net.Conn) {
	if c.SetReadDeadline(time.Now().Add(headTime)) != nil {
		return
	}
	limited := &io.LimitedReader{R: c, N: maxHead}
	in := bufio.NewReader(limited)
	v := new(Visit)
	p.note(func() {
		if len(p.visits) < maxVisits {
			p.visits = append(p.visits, v)
		}
	})
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if p.admit(v, r) {
			limited.N = 1 << 62 // what follows is the client's own
			p.answer(c, in, v, r)
			return
		}
		io.Copy(io.Discard, r.Body) // a client tries again on the same connection
		fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"chaperone\"\r\nContent-Length: 0\r\n\r\n")
	}
}

// admit notes how a request comes, and reports whether its password is right.
func (p *Proxy) admit(v *Visit, r *http.Request) bool {
	scheme, value, given := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	sent, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	user, password, _ := strings.Cut(string(sent), ":")
	right := strings.EqualFold(scheme, "Basic") && err == nil && password == p.password
	p.note(func() {
		v.Target, v.Tunnel = r.Host, r.Method == http.MethodConnect
		switch {
		case right && v.Password == Asked:
			v.User, v.Password = user, AfterAsked
		case right:
			v.User, v.Password = user, Sent
		case given && !(err == nil && password == ""): // a user alone is no password
			v.Password = Wrong
		default:
			v.Password = Asked
		}
	})
	return right
}

// answer serves the tunnel, or the one request that came without.
func (p *Proxy) answer(c net.Conn, in *bufio.Reader, v *Visit, r *http.Request) {
	if c.SetReadDeadline(time.Time{}) != nil {
		return
	}
	if !v.Tunnel {
		w := &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Close: true, Header: http.Header{"Content-Type": {"application/json"}}}
		text := p.hear(v, r)
		w.Body, w.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		w.Write(c) // it may have gone
		return
	}
	if _, err := fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	p.inside(tls.Server(&buffered{c, in}, &tls.Config{
		NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			p.note(func() { v.Protocols = hello.SupportedProtos })
			name := hello.ServerName
			if name == "" { // none is sent for an address
				name, _, _ = net.SplitHostPort(v.Target)
			}
			return p.ca.Leaf(name)
		},
	}), v)
}

// inside serves the requests of a tunnel until the client is done.
func (p *Proxy) inside(c *tls.Conn, v *Visit) {
	ctx, cancel := context.WithTimeout(p.ctx, headTime)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		p.note(func() { v.Fault = err.Error() })
		return
	}
	p.note(func() { v.Trusted = true })
	ended := make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	server := &http.Server{
		ReadHeaderTimeout: headTime, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p.reply(w, r, p.hear(v, r)) {
				end()
			}
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				end()
			}
		},
	}
	server.Serve(&once{c: c, ended: ended}) // it ends with the connection
}

// reply answers in the protocol that was asked for, so that a client fails for no other
// reason than a fault of its way: a WebSocket is opened and closed well (RFC 6455), a
// gRPC call is told that there is none such. It reports whether that ended the
// connection, which is no longer the server's then.
func (p *Proxy) reply(w http.ResponseWriter, r *http.Request, text string) (over bool) {
	switch {
	case r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // section 4.2.2
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return false
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		c.Write([]byte{0x88, 2, 0x03, 0xe8}) // close, 1000
		io.Copy(io.Discard, io.LimitReader(c, maxHead))
		return true
	case speaksGRPC(r):
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "12")
		w.Header().Set("Grpc-Message", "chaperone doctor answers, and no service")
	default:
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, text) // it may have gone
	}
	return false
}

func speaksGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// hear notes a request and says what came, without what it carries.
func (p *Proxy) hear(v *Visit, r *http.Request) string {
	if !speaksGRPC(r) { // its streams may wait for the answer
		io.Copy(io.Discard, io.LimitReader(r.Body, 64<<20)) // so that the client reads the answer
	}
	q := Request{r.Method, r.Host, r.URL.Path, r.Proto, r.UserAgent()}
	p.note(func() {
		v.Trusted = true
		if len(v.Requests) < maxVisits {
			v.Requests = append(v.Requests, q)
		}
	})
	b, err := json.Marshal(map[string]string{"chaperone": "doctor", "method": q.Method, "host": q.Host, "path": q.Path, "protocol": q.Protocol})
	if err != nil {
		return "{}"
	}
	return string(b) + "\n"
}

// buffered reads first what was read ahead of the handshake.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

// Read reads from the buffer.
func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// once is a listener with one connection, which ends when that does.
type once struct {
	c     net.Conn
	given bool
	ended chan struct{}
}

var errEnded = errors.New("the one connection has ended")

// Accept gives the connection, then waits for its end.
func (o *once) Accept() (net.Conn, error) {
	if !o.given {
		o.given = true
		return o.c, nil
	}
	<-o.ended
	return nil, errEnded
}

// Close does nothing: the connection is the server's.
func (o *once) Close() error { return nil }

// Addr is that of the connection.
func (o *once) Addr() net.Addr { return o.c.LocalAddr() }
