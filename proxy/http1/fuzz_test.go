package http1

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// script is a connection that yields fixed bytes, and keeps what is written.
type script struct {
	io.Reader
	out bytes.Buffer
}

func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// request is what a handler saw of one.
type request struct {
	method, target, host, fault, body string
	spelled                           []string
	header, trailer                   http.Header
	err                               error // of reading the body
}

var limits = Options{HeadTimeout: time.Minute, IdleTimeout: time.Minute}

// play serves what is in, read in pieces of size bytes, and tells what a handler saw.
func play(in string, size int) []request {
	var seen []request
	nc := &script{Reader: &pieces{strings.NewReader(in), size}}
	New(limits).ServeConn(context.Background(), nc, func(w http.ResponseWriter, r *http.Request, h Head) {
		body, err := io.ReadAll(r.Body)
		seen = append(seen, request{
			r.Method, r.RequestURI, r.Host, h.Fault, string(body), h.Spelled, r.Header, r.Trailer, err,
		})
	})
	return seen
}

type pieces struct {
	io.Reader
	size int
}

func (p *pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.size)]) }

// FuzzConn shows that what is served does not depend on how the bytes arrive,
// and that net/http reads the same requests out of them.
func FuzzConn(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 7)
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n"), 1)
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"), 5)
	f.Add([]byte("CONNECT a:1 HTTP/1.0\r\n\r\n\x16\x03"), 3)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		whole := play(string(in), 1<<20)
		parts := play(string(in), 1+max(0, size%64))
		if !reflect.DeepEqual(strict(whole), strict(parts)) {
			t.Fatalf("what is served depends on how it arrives:\n%+v\n%+v", whole, parts)
		}
		br := bufio.NewReader(iotest.DataErrReader(bytes.NewReader(in)))
		for _, got := range whole {
			if got.fault != "" {
				return
			}
			agree(t, br, got)
			if got.err != nil {
				return
			}
		}
	})
}

// strict takes out of requests what cannot be compared.
func strict(all []request) []request {
	for i := range all {
		if all[i].err != nil {
			all[i].err = ErrFraming
		}
	}
	return all
}

// agree fails unless net/http reads the request that was got next.
func agree(t *testing.T, br *bufio.Reader, got request) {
	t.Helper()
	want, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("served what net/http does not: %+v, %v", got, err)
	}
	if got.method != want.Method || got.target != want.RequestURI {
		t.Fatalf("request line: got %q %q, net/http %q %q", got.method, got.target, want.Method, want.RequestURI)
	}
	delete(got.header, "Trailer")
	want.Header.Del("Trailer")
	if want.Header.Get("Pragma") == "no-cache" && got.header["Cache-Control"] == nil {
		want.Header.Del("Cache-Control") // net/http adds it
	}
	if len(got.header)+len(want.Header) > 0 && !reflect.DeepEqual(got.header, want.Header) {
		t.Fatalf("header: got %q, net/http %q", got.header, want.Header)
	}
	body, err := io.ReadAll(want.Body)
	if got.err == nil && (err != nil || string(body) != got.body) {
		t.Fatalf("body: got %q, net/http %q, %v", got.body, body, err)
	}
}

// BenchmarkExchange is one short exchange, without a network.
func BenchmarkExchange(b *testing.B) {
	const req = "GET /repos/acme/web/issues?per_page=50 HTTP/1.1\r\nHost: api.github.com\r\nUser-Agent: octokit\r\nAccept: application/vnd.github+json\r\nAuthorization: Bearer ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nAccept-Encoding: gzip\r\n\r\n"
	left := b.N
	nc := &script{}
	nc.Reader = readerFunc(func(p []byte) (int, error) {
		if left == 0 {
			return 0, io.EOF
		}
		left--
		nc.out.Reset()
		return copy(p, req), nil
	})
	b.ReportAllocs()
	b.ResetTimer()
	c := newConn(context.Background(), New(limits), nc, func(w http.ResponseWriter, r *http.Request, h Head) {})
	c.hold()
	c.serve()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
