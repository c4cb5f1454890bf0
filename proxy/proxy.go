// Package proxy takes each request down the road: listen, identify, classify,
// decide, oblige, commit the record, swap, forward, close the record.
package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/elazarl/goproxy"

	"chaperone/audit"
	"chaperone/certs"
	"chaperone/credential"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/proxy/http1"
	"chaperone/proxy/identity"
	"chaperone/proxy/limit"
	"chaperone/proxy/upstream"
)

// Options holds the stations of a [Server] and its limits. The stations must all
// be set; a zero limit takes the default that is named beside it.
type Options struct {
	Directory *identity.Directory
	Catalogue *action.Catalogue
	Gate      *policy.Gate
	Log       *audit.Log
	Vault     *credential.Vault
	Upstream  *upstream.Client
	CA        *certs.Authority
	Metrics   *Metrics
	// Limits counts what policy bounds; without it an allow that obliges to a limit is
	// refused.
	Limits *limit.Counter
	Logger *slog.Logger // operational messages; never about one request's content

	// Now tells the time by which handles end, the same on all replicas; time.Now when nil.
	Now func() time.Time
	// TunnelUnknown passes hosts that no service names through uninspected, when
	// policy allows it at CONNECT. They never get a credential.
	TunnelUnknown bool
	// Trace has each request go on as a span of its own: its traceparent names it as the
	// parent, and is made where the agent sent none.
	Trace bool
	// Relayed says that agents come through something else, a balancer say: what seems to
	// come from this machine may come from another.
	Relayed bool
	// TLS serves the listener itself over TLS when set.
	TLS *tls.Config

	HeadTimeout      time.Duration // first byte to end of a request head: 10 s
	HandshakeTimeout time.Duration // TLS with the agent: 10 s
	IdleTimeout      time.Duration // a connection without a request: 10 min
}

// Server is an intercepting forward proxy. It is safe for concurrent use.
type Server struct {
	o        Options
	names    atomic.Pointer[naming]
	agents   *http1.Server // the listener, and HTTP/1.1 inside tunnels
	streams  *http.Server  // HTTP/2 inside tunnels
	handover *handover     // tunnels on their way to streams
	connect  *goproxy.ProxyHttpServer
	leaves   *tls.Config
	taken    takeovers
	going    atomic.Int64
	leaving  atomic.Bool
	stopped  atomic.Bool   // what goes on is cut
	parting  time.Duration // of a WebSocket that is cut
	pauses   pauses
}

// New returns a server over the given stations.
func New(o Options) (*Server, error) {
	o.HeadTimeout = orDefault(o.HeadTimeout, 10*time.Second)
	o.HandshakeTimeout = orDefault(o.HandshakeTimeout, 10*time.Second)
	o.IdleTimeout = orDefault(o.IdleTimeout, 10*time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{o: o, handover: newHandover(), leaves: o.CA.ServerConfig(), parting: partingTime}
	if err := s.UseCatalogue(o.Catalogue); err != nil {
		return nil, err
	}
	s.connect = s.connectDoor()
	s.agents = http1.New(http1.Options{HeadTimeout: o.HeadTimeout, IdleTimeout: o.IdleTimeout})
	s.streams = &http.Server{
		Handler:           http.HandlerFunc(s.serveStream),
		ConnContext:       streamContext,
		ReadHeaderTimeout: o.HeadTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    http1.MaxHead,
		ErrorLog:          log.New(io.Discard, "", 0),
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250, MaxReadFrameSize: 64 << 10},
	}
	s.streams.Protocols.SetHTTP2(true)
	return s, nil
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// CheckCatalogue looks for what [Server.UseCatalogue] would refuse.
func CheckCatalogue(c *action.Catalogue) error {
	_, err := newNaming(c)
	return err
}

// UseCatalogue swaps in the catalogue by which requests are named from now on. On
// an error the one before stays.
func (s *Server) UseCatalogue(c *action.Catalogue) error {
	n, err := newNaming(c)
	if err != nil {
		return err
	}
	s.names.Store(n)
	return nil
}

// Serve accepts agents on ln until [Server.Shutdown] or [Server.Close]. It always
// returns an error, [http.ErrServerClosed] after those.
func (s *Server) Serve(ln net.Listener) error {
	streams := make(chan error, 1)
	go func() { streams <- s.streams.Serve(s.handover) }()
	if s.o.TLS != nil {
		ln = tls.NewListener(ln, s.o.TLS)
	}
	err := s.agents.Serve(ln, s.serveFront)
	s.handover.Close()
	<-streams
	return err
}

// Leave has each connection end with its next answer, and takes new ones still, until
// [Server.Shutdown].
func (s *Server) Leave() {
	s.leaving.Store(true)
	s.agents.Leave()
}

// Shutdown stops accepting, has connections end with the exchange that they are at, until
// ctx is done, then cuts what is left. It returns how many exchanges it cut.
func (s *Server) Shutdown(ctx context.Context) (cut int) {
	var both sync.WaitGroup
	both.Go(func() { s.agents.Shutdown(ctx) }) // their errors are ctx's
	both.Go(func() { s.streams.Shutdown(ctx) })
	both.Wait()
	s.taken.wait(ctx) // after them: they take over no more
	cut = s.Going()
	s.Close()
	return cut
}

// Going is how many exchanges go on, with WebSockets and uninspected tunnels.
func (s *Server) Going() int { return int(s.going.Load()) }

// Close cuts everything at once. WebSockets are told that they end, and have a moment for it.
func (s *Server) Close() {
	s.stopped.Store(true)
	s.agents.Close()
	s.streams.Close()
	s.taken.cut()
	ctx, cancel := context.WithTimeout(context.Background(), 2*s.parting)
	defer cancel()
	s.taken.wait(ctx) // what is left is closed, and only its record is open
}

// serve takes one request down the road. Its record is opened on arrival and
// closed on every path.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, h http1.Head, d *door) {
	s.going.Add(1)
	defer s.going.Add(-1)
	x := s.arrive(w, r, h, d)
	if x.travel() && x.out.Body == nil && !x.out.Upgrade {
		x.release()
	}
}

// travel goes the whole way, and reports whether the agent got the service's whole
// answer. It panics where the connection is to be cut.
func (x *exchange) travel() bool {
	defer x.close()
	defer x.survive()
	err := x.pass()
	if err != nil {
		x.refuse(err)
	}
	return err == nil
}

// survive turns a fault of the program into a record and a message with the place
// where it happened, and never with a value: that might be a secret. The exchange
// is cut.
func (x *exchange) survive() {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		x.note(errFault)
		x.s.o.Logger.Error("fault while serving a request", "id", x.rec.ID, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// pass is the road. The first error ends the journey.
func (x *exchange) pass() error {
	if x.head.Fault != "" {
		return unclear(x.head.Fault)
	}
	if err := x.identify(); err != nil {
		return err
	}
	if err := x.clarify(); err != nil {
		return err
	}
	if err := x.classify(); err != nil {
		return err
	}
	if err := x.present(); err != nil {
		return err
	}
	if t, ok := x.presented.Trade(); ok {
		return x.trade(t)
	}
	if err := x.decide(); err != nil {
		return err
	}
	if err := x.oblige((*exchange).meet); err != nil {
		return err
	}
	if err := x.commit(); err != nil {
		return err
	}
	if err := x.swap(); err != nil {
		return err
	}
	resp, err := x.forward()
	if err != nil {
		return err
	}
	return x.reply(resp)
}
