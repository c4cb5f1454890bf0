package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/elazarl/goproxy"

	"chaperone/certs"
	"chaperone/proxy/authority"
	"chaperone/proxy/http1"
	"chaperone/proxy/records"
)

// connectDoor returns the goproxy server that answers CONNECT. Each tunnel is
// taken over from it: its own interception has no time limits, takes the
// authority from the inner request and ends without an answer when the service
// cannot be reached.
func (s *Server) connectDoor() *goproxy.ProxyHttpServer {
	p := goproxy.NewProxyHttpServer()
	p.Logger = silent{}
	p.OnRequest().HandleConnectFunc(func(host string, ctx *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		t := ctx.Req.Context().Value(tunnelKey{}).(*tunnel)
		return &goproxy.ConnectAction{
			Action: goproxy.ConnectHijack,
			Hijack: func(req *http.Request, client net.Conn, _ *goproxy.ProxyCtx) {
				s.intercept(req, client, t)
			},
		}, host
	})
	return p
}

type tunnelKey struct{}

// silent keeps goproxy from printing: what it would say may quote a request.
type silent struct{}

func (silent) Printf(string, ...any) {}

// serveFront serves what agents send to the listener itself: CONNECT, and
// requests in absolute form.
func (s *Server) serveFront(w http.ResponseWriter, r *http.Request, h http1.Head) {
	if r.Method == http.MethodConnect {
		s.open(w, r, h)
		return
	}
	s.serve(w, r, h, new(door))
}

// serveStream serves an HTTP/2 request inside a tunnel.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) {
	if s.leaving.Load() {
		w.Header().Set("Connection", "close") // net/http then sends GOAWAY (RFC 9113 section 6.8)
	}
	s.serve(w, r, http1.Head{}, doorOf(r))
}

// open answers a CONNECT. A tunnel that will be inspected leaves no record of its
// own: each request inside has one, and is refused there, where every client
// shows the reason. What is refused here, or passes uninspected, is recorded.
func (s *Server) open(w http.ResponseWriter, r *http.Request, h http1.Head) {
	x := s.arrive(w, r, h, new(door))
	t, err := x.admit()
	if err != nil {
		defer x.close()
		x.refuse(err)
		return
	}
	if s.o.TunnelUnknown && !x.names.catalogue.Knows(t.host) {
		defer x.close()
		s.passThrough(x, t)
		return
	}
	// The record is dropped unwritten: nothing was asked of a service yet.
	ctx := context.WithValue(r.Context(), tunnelKey{}, t)
	s.connect.ServeHTTP(w, r.WithContext(ctx))
}

// admit checks who asks for a tunnel and to where.
func (x *exchange) admit() (*tunnel, error) {
	if x.head.Fault != "" {
		return nil, unclear(x.head.Fault)
	}
	host, port, err := authority.Parse(x.r.RequestURI, 0)
	if err != nil {
		return nil, unclear(err.Error())
	}
	x.rec.Request.Host = authority.Format(host, port, 443)
	if err := x.identify(); err != nil {
		return nil, err
	}
	return &tunnel{caller: x.caller, host: host, port: port, scheme: "https"}, nil
}

// intercept takes a tunnel over and has the requests inside served. It runs on the
// goroutine that served the CONNECT and leaves nothing of it behind: the next one
// starts with a small stack, where this one's has grown with the handshake.
func (s *Server) intercept(r *http.Request, client net.Conn, t *tunnel) {
	below := records.New(client)
	t.Conn, t.local = below, !s.o.Relayed && loopback(client)
	t.attach()
	if _, err := io.WriteString(t.Conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		t.Close()
		return
	}
	t.SetDeadline(time.Now().Add(s.o.HandshakeTimeout))
	// 22 begins a TLS handshake (RFC 8446 section 5.1) and no HTTP request. Of a connection
	// that has ended the handshake finds out.
	if b, err := below.Peek(); err == nil && b != 22 {
		t.scheme = "http"
		t.SetDeadline(time.Time{})
		go s.agents.ServeConn(t.context(), t, s.within(t))
		return
	}
	tc := tls.Server(t, s.leaves)
	if err := tc.HandshakeContext(context.WithoutCancel(r.Context())); err != nil {
		s.tunnelFailed(r, t, err)
		t.Close()
		return
	}
	t.SetDeadline(time.Time{})
	s.o.Metrics.tunnelOpened()
	if tc.ConnectionState().NegotiatedProtocol == "h2" {
		s.handover.give(tc)
		return
	}
	go s.agents.ServeConn(t.context(), records.Over(tc, below), s.within(t))
}

// loopback reports whether a connection does not leave this machine.
func loopback(c net.Conn) bool {
	from, fok := c.RemoteAddr().(*net.TCPAddr)
	to, tok := c.LocalAddr().(*net.TCPAddr)
	return fok && tok && from.IP.IsLoopback() && to.IP.IsLoopback()
}

// within serves HTTP/1.1 requests inside t.
func (s *Server) within(t *tunnel) http1.Handler {
	d := &door{tunnel: t}
	return func(w http.ResponseWriter, r *http.Request, h http1.Head) { s.serve(w, r, h, d) }
}

// tunnelFailed records a handshake for another name than the tunnel's: somebody
// tries to reach one service under the name of another. Other handshakes that
// fail (a client that does not trust the CA, or went away) are only counted.
func (s *Server) tunnelFailed(r *http.Request, t *tunnel, err error) {
	s.o.Metrics.handshakeFailed()
	if !errors.Is(err, certs.ErrServerName) {
		return
	}
	x := s.arrive(nil, r, http1.Head{}, &door{tunnel: t})
	defer x.close()
	x.caller = t.caller
	x.describeCaller()
	x.rec.Request.Host = authority.Format(t.host, t.port, 443)
	x.note(errAuthority)
}
