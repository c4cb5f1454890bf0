// Package testkit holds the real counterparts that tests need: services on
// loopback that speak TLS, and the built program.
//
// Nothing here is a fake of the thing under test. A service keeps a list of what
// it received, so that a test can compare it with what the proxy wrote down.
package testkit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"chaperone/certs"
)

// Received is one request as a service got it. Header is a copy. Digest is the
// SHA-256 (hex) of the body bytes that the handler read, and Size their number;
// both are filled when the handler returned.
type Received struct {
	Method, Target, Host, Proto string
	Header                      http.Header
	Digest                      string
	Size                        int64
}

// Service is an HTTPS server on loopback (HTTP/1.1 and HTTP/2) that remembers
// what it received. Its methods may be called concurrently.
type Service struct {
	ln    net.Listener
	srv   *http.Server
	done  chan error
	conns atomic.Int64
	open  atomic.Int64

	mu   sync.Mutex
	list []*Received
}

// Serve starts a service under certificates of ca for whatever name the client
// asks. The handler sees each request after it was noted down.
func Serve(ca *certs.Authority, h http.Handler) (*Service, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting service: %w", err)
	}
	s := &Service{ln: ln, done: make(chan error, 1)}
	s.srv = &http.Server{
		Handler:   s.note(h),
		TLSConfig: serverTLS(ca, "h2", "http/1.1"),
		ErrorLog:  log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew:
				s.conns.Add(1)
				s.open.Add(1)
			case http.StateHijacked, http.StateClosed:
				s.open.Add(-1)
			}
		},
	}
	go func() { s.done <- s.srv.ServeTLS(ln, "", "") }()
	return s, nil
}

// Addr is host:port to put into upstream.resolve.
func (s *Service) Addr() string { return s.ln.Addr().String() }

// Conns is the number of connections accepted so far.
func (s *Service) Conns() int64 { return s.conns.Load() }

// Open is the number of connections that are open now, without upgraded ones.
func (s *Service) Open() int64 { return s.open.Load() }

// Close cuts every connection and waits for the listener to end.
func (s *Service) Close() error {
	err := s.srv.Close()
	<-s.done
	return err
}

// Received returns a copy of the list so far.
func (s *Service) Received() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Received, len(s.list))
	for i, r := range s.list {
		out[i] = *r
	}
	return out
}

// Forget empties the list.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
}

// Saw reports whether text stands in any target or header value received.
func (s *Service) Saw(text string) bool {
	for _, r := range s.Received() {
		if strings.Contains(r.Target, text) {
			return true
		}
		for _, vs := range r.Header {
			if strings.Contains(strings.Join(vs, "\n"), text) {
				return true
			}
		}
	}
	return false
}

// note puts each request on the list before h serves it.
func (s *Service) note(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := &Received{Method: r.Method, Target: r.RequestURI, Host: r.Host, Proto: r.Proto, Header: r.Header.Clone()}
		s.mu.Lock()
		s.list = append(s.list, got)
		s.mu.Unlock()
		sum := sha256.New()
		body := &counted{ReadCloser: r.Body, sum: sum}
		r.Body = body
		defer func() {
			s.mu.Lock()
			got.Digest, got.Size = hex.EncodeToString(sum.Sum(nil)), body.n
			s.mu.Unlock()
		}()
		h.ServeHTTP(w, r)
	})
}

// counted sums and counts what is read through it.
type counted struct {
	io.ReadCloser
	sum io.Writer
	n   int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sum.Write(p[:n]) // a hash never fails
	c.n += int64(n)
	return n, err
}

// Raw is a TLS server that answers each connection with the same bytes, whatever
// they are, once it has read a request head. It is for answers that no HTTP
// library would send.
type Raw struct {
	ln   net.Listener
	wg   sync.WaitGroup
	stop context.CancelFunc
}

// ServeRaw starts a raw server. The connection is closed after the answer.
func ServeRaw(ca *certs.Authority, answer []byte) (*Raw, error) {
	ln, err := tlsListen(ca)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Raw{ln: ln, stop: stop}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { answerRaw(ctx, c, answer) })
		}
	})
	return s, nil
}

// Addr is host:port to put into upstream.resolve.
func (s *Raw) Addr() string { return s.ln.Addr().String() }

// Close ends the server and waits for its connections.
func (s *Raw) Close() error {
	err := s.ln.Close()
	s.stop()
	s.wg.Wait()
	return err
}

func answerRaw(ctx context.Context, c net.Conn, answer []byte) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var head []byte
	buf := make([]byte, 4<<10)
	for !bytes.Contains(head, []byte("\r\n\r\n")) && len(head) < 64<<10 {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		head = append(head, buf[:n]...)
	}
	c.Write(answer) // the client may have gone; nobody is there to be told
}
