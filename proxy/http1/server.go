// Package http1 serves HTTP/1.1 to agents, and serves no request that two
// readers could understand in two ways.
//
// A lenient parser in front of a different lenient parser is how requests are
// smuggled: one of them sees a request where the other sees a body. This one
// takes each message apart by RFC 9112 to the letter, and hands what it does not
// take to the same handler under a stand-in, so that a refusal is answered and
// recorded like any other.
//
// One goroutine serves a connection, and no other looks after it while an answer
// is awaited, until that takes longer than [patience]: hand-overs between
// goroutines are what costs a proxy its latency.
package http1

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Handler answers one request. It returns when the answer is complete, or
// panics with [http.ErrAbortHandler] to cut the connection instead. The request
// and its context are the handler's until it returns; the context ends with the
// connection.
type Handler func(w http.ResponseWriter, r *http.Request, h Head)

// Options holds the limits of a [Server]. Both must be set.
type Options struct {
	HeadTimeout time.Duration // first byte to end of a request head, and accept to first head
	IdleTimeout time.Duration // end of an answer to the first byte of the next request
}

// Server looks after HTTP/1.1 connections. It is safe for concurrent use.
type Server struct {
	o        Options
	closing  atomic.Bool
	leaving  atomic.Bool
	watchman watchman

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	empty     chan struct{} // closed when the last connection goes while somebody waits
}

// New returns a server without connections.
func New(o Options) *Server {
	return &Server{o: o, watchman: watchman{o: o}, listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}}
}

// Serve accepts connections on ln, and serves each on a goroutine of its own,
// until [Server.Shutdown], [Server.Close] or the listener's end. It always
// returns an error, [http.ErrServerClosed] after the first two.
func (s *Server) Serve(ln net.Listener, h Handler) error {
	defer ln.Close()
	if !s.listen(ln) {
		return http.ErrServerClosed
	}
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if s.closing.Load() {
			if err == nil {
				nc.Close()
			}
			return http.ErrServerClosed
		}
		if err == nil {
			pause = 0
			go s.welcome(nc, h)
			continue
		}
		if !passing(err) {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		<-time.After(pause) // no descriptors left, say: connections that end give some back
	}
}

// passing reports whether an error of Accept is worth another try.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) listen(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

// welcome completes TLS, where the listener speaks it, before the first request.
func (s *Server) welcome(nc net.Conn, h Handler) {
	if tc, ok := nc.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(context.Background(), s.o.HeadTimeout)
		err := tc.HandshakeContext(ctx)
		cancel()
		if err != nil {
			nc.Close()
			return
		}
	}
	s.ServeConn(context.Background(), nc, h)
}

// ServeConn serves the requests of nc and returns when it has ended or was
// hijacked. It closes nc, unless that was hijacked. The contexts of requests
// come from ctx.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn, h Handler) {
	c := newConn(ctx, s, nc, h)
	if !s.add(c) {
		nc.Close()
		return
	}
	c.serve()
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	s.watchman.meet(c)
	return true
}

func (s *Server) forget(c *conn) {
	s.watchman.part(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Leave has each connection end with its next answer, which says so: agents go elsewhere,
// and none finds out when its next request is lost. New connections are taken still.
func (s *Server) Leave() { s.leaving.Store(true) }

// Shutdown stops accepting, closes connections that wait for a request, and
// waits for the others to end after the answer they are at. It returns ctx's
// error when that is done before.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	s.mu.Lock()
	for c := range s.conns {
		c.endIdle()
	}
	if len(s.conns) == 0 {
		s.mu.Unlock()
		return nil
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops accepting and closes every connection that was not hijacked.
func (s *Server) Close() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.cancel()
		c.Conn.Close()
	}
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	for ln := range s.listeners {
		ln.Close()
		delete(s.listeners, ln)
	}
}
