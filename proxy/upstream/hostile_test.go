package upstream

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/certs"
)

// serveRaw hands each connection to f with its number, from 1.
func serveRaw(t testing.TB, f func(n int64, c net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var n atomic.Int64
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(n.Add(1), c) }()
		}
	}()
	return ln.Addr().String()
}

// gather holds what TLS writes, so that several records leave in one segment.
type gather struct {
	net.Conn
	hold bool
	b    []byte
}

func (g *gather) Write(p []byte) (int, error) {
	if g.hold {
		g.b = append(g.b, p...)
		return len(p), nil
	}
	return g.Conn.Write(p)
}

func (g *gather) flush() { g.hold = false; g.Conn.Write(g.b); g.b = nil }

// TestBytesBehindAnAnswerOverTLS has a service send an answer and, in the same
// segment, bytes nobody asked for. They must not become the next answer.
func TestBytesBehindAnAnswerOverTLS(t *testing.T) {
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
	big := "HTTP/1.1 200 OK\r\nContent-Length: 12000\r\n\r\n" + strings.Repeat("a", 12000)
	for name, tc := range map[string]struct {
		records []string
		cut     int // bytes of the last record held back until the next request
	}{
		"one record":        {[]string{ok + forged}, 0},
		"record behind":     {[]string{ok, forged}, 0},
		"large, one record": {[]string{big + forged}, 0},
		"part of a record":  {[]string{ok, forged}, 20},
		"head of a record":  {[]string{ok, forged}, len(forged) + 17 + 5 - 3},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveRaw(t, func(n int64, nc net.Conn) {
				g := &gather{Conn: nc}
				c := tls.Server(g, &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(h.ServerName) }})
				br := bufio.NewReader(c)
				for i := 0; ; i++ {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					if n > 1 || i > 0 {
						if len(g.b) > 0 {
							g.flush()
						}
						io.WriteString(c, ok)
						continue
					}
					g.hold = true
					for _, r := range tc.records {
						io.WriteString(c, r)
					}
					rest := append([]byte(nil), g.b[len(g.b)-tc.cut:]...)
					g.b = g.b[:len(g.b)-tc.cut]
					g.flush()
					g.b = rest
				}
			})
			pool := x509.NewCertPool()
			pool.AddCert(ca.Certificate())
			c := client(t, addr, func(o *Options) { o.Roots = pool })
			r := get("/1")
			r.Scheme, r.Port = "https", 443
			first, err := c.Send(t.Context(), permit(t, r), r)
			if err != nil {
				t.Fatal(err)
			}
			// As much at a time as the proxy reads: TLS keeps the rest of a record to itself.
			if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, first.Body, make([]byte, 32<<10)); err != nil {
				t.Fatal(err)
			}
			if _, body, err := send1(t, c, r); err != nil || body != "hi" {
				t.Errorf("second answer %q, %v", body, err)
			}
		})
	}
}

// TestEarlyAnswerThenReset: the service answers 413 and closes with the upload unread.
func TestEarlyAnswerThenReset(t *testing.T) {
	addr := serveRaw(t, func(_ int64, c net.Conn) {
		br := bufio.NewReader(c)
		http.ReadRequest(br)
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
	})
	lost := 0
	for range 100 {
		r := get("/x")
		r.Method, r.Body, r.ContentLength = "POST", io.LimitReader(zeros{}, 64<<20), 64<<20
		resp, body, err := send1(t, client(t, addr), r)
		if err != nil || resp.StatusCode != 413 || body != "big" {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of 100 answers lost", lost)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestNoRetryOnceAnAnswerBegan has an idle connection end, or fall silent, at
// moments at which a second attempt would be wrong.
func TestNoRetryOnceAnAnswerBegan(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	for name, second := range map[string]string{
		"part of a head": "HTTP/1.1 200 OK\r\nX: CLOSE\r\n", "after an interim answer": "HTTP/1.1 103 Early\r\nX: CLOSE\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			addr, seen := script(t, ok, second, ok)
			c := client(t, addr)
			if _, _, err := send1(t, c, get("/1")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := send1(t, c, get("/2")); !errors.Is(err, ErrSentUnknown) {
				t.Errorf("got %v", err)
			}
			if n := len(seen()); n != 2 {
				t.Errorf("the service saw %q", seen())
			}
		})
	}
	t.Run("time-out", func(t *testing.T) {
		addr, seen := script(t, ok, "HANG", "HANG")
		c := client(t, addr, func(o *Options) { o.HeaderTimeout = 100 * time.Millisecond })
		if _, _, err := send1(t, c, get("/1")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := send1(t, c, get("/2")); !errors.Is(err, ErrTimeout) {
			t.Errorf("got %v", err)
		}
		if n := len(seen()); n != 2 {
			t.Errorf("the service saw %q", seen())
		}
	})
}

// TestInjection puts what ends a line wherever a request can carry text.
func TestInjection(t *testing.T) {
	addr, seen := script(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	for name, change := range map[string]func(*Request){
		"path":   func(r *Request) { r.Path = "/x HTTP/1.1\r\nA: b\r\n\r\nGET /y" },
		"query":  func(r *Request) { r.RawQuery = "a b" },
		"method": func(r *Request) { r.Method = "GET /y HTTP/1.1\r\nX:" },
		"host":   func(r *Request) { r.HostHeader = "a\r\nX: y" },
		"trailer": func(r *Request) {
			r.Body, r.ContentLength, r.Trailer = strings.NewReader("x"), -1, http.Header{"A\r\nB: c": nil}
		},
	} {
		r := get("/x")
		change(r)
		if _, _, err := send1(t, client(t, addr), r); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(seen()) != 0 {
		t.Errorf("the service saw %q", seen())
	}
}

// TestCorporateProxyRefuses: nothing reached the service, and nobody learns the password.
func TestCorporateProxyRefuses(t *testing.T) {
	for _, status := range []int{403, 407, 502} {
		corporate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }))
		defer corporate.Close()
		u, _ := url.Parse(corporate.URL)
		u.User = url.UserPassword("corp", "s3cret")
		c := client(t, "", func(o *Options) { o.Proxy, o.Resolve = u, nil })
		for _, p := range []Protocol{Auto, H2} {
			r := get("/x")
			r.Scheme, r.Port, r.Protocol = "https", 443, p
			_, _, err := send1(t, c, r)
			if !errors.Is(err, ErrDial) || errors.Is(err, ErrSentUnknown) || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), u.Host) {
				t.Errorf("%d: %v", status, err)
			}
		}
		r := get("/x")
		r.Method, r.Port = "CONNECT", 443
		if _, err := c.Tunnel(t.Context(), permit(t, r), r.Target()); !errors.Is(err, ErrDial) || errors.Is(err, ErrSentUnknown) {
			t.Errorf("tunnel %d: %v", status, err)
		}
	}
	dead, _ := url.Parse("http://127.0.0.1:1")
	c := client(t, "", func(o *Options) { o.Proxy, o.Resolve = dead, nil })
	r := get("/x")
	r.Scheme, r.Port = "https", 443
	if _, _, err := send1(t, c, r); !errors.Is(err, ErrDial) || errors.Is(err, ErrSentUnknown) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestPlainHTTPThroughCorporateProxy(t *testing.T) {
	got := make(chan string, 4)
	corporate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got <- r.RequestURI + " " + r.Host }))
	defer corporate.Close()
	u, _ := url.Parse(corporate.URL)
	c := client(t, "", func(o *Options) { o.Proxy, o.Resolve = u, nil })
	r := get("/a%2Fb")
	r.RawQuery = "c=%41"
	if _, _, err := send1(t, c, r); err != nil {
		t.Fatal(err)
	}
	if g := <-got; g != "http://svc.example/a%2Fb?c=%41 svc.example" && g != "http://svc.example:80/a%2Fb?c=%41 svc.example" {
		t.Errorf("got %q", g)
	}
	r = get("/x")
	r.Host, r.HostHeader = "169.254.169.254", "169.254.169.254"
	if _, _, err := send1(t, c, r); !errors.Is(err, ErrAddress) {
		t.Errorf("metadata through the corporate proxy: %v", err)
	}
	r.Method = "CONNECT"
	if _, err := c.Tunnel(t.Context(), permit(t, r), r.Target()); !errors.Is(err, ErrAddress) {
		t.Errorf("metadata tunnel through the corporate proxy: %v", err)
	}
}

func TestUpgradeKeepsWhatCameAlong(t *testing.T) {
	addr := serveRaw(t, func(_ int64, c net.Conn) {
		br := bufio.NewReader(c)
		http.ReadRequest(br)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nalong")
		io.Copy(c, br)
	})
	r := get("/ws")
	r.Upgrade = true
	resp, err := client(t, addr).Send(t.Context(), permit(t, r), r)
	if err != nil {
		t.Fatal(err)
	}
	rw := resp.Body.(io.ReadWriteCloser)
	defer rw.Close()
	io.WriteString(rw, "+more")
	b := make([]byte, 10)
	if _, err := io.ReadFull(rw, b); err != nil || string(b) != "along+more" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestBodyNobodyWants: a service that answers instead of saying 100 gets no body.
func TestBodyNobodyWants(t *testing.T) {
	more := make(chan int64, 1)
	addr := serveRaw(t, func(_ int64, c net.Conn) {
		br := bufio.NewReader(c)
		for line := "x"; line != "\r\n"; {
			line, _ = br.ReadString('\n')
		}
		io.WriteString(c, "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, _ := io.Copy(io.Discard, br)
		more <- n
		io.WriteString(c, "no")
	})
	r := get("/x")
	r.Method, r.Body, r.ContentLength, r.ExpectContinue = "POST", strings.NewReader("hello"), 5, true
	resp, b, err := send1(t, client(t, addr), r)
	if err != nil || resp.StatusCode != 417 || b != "no" {
		t.Errorf("%v %q %v", resp, b, err)
	}
	if n := <-more; n != 0 {
		t.Errorf("%d bytes of body were sent", n)
	}
}

// TestPathThatLooksLikeAnAuthority is sent by net/http, which must not read it as one.
func TestPathThatLooksLikeAnAuthority(t *testing.T) {
	s, pool := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto+" "+r.Host+" "+r.RequestURI) }))
	c := client(t, s.Listener.Addr().String(), func(o *Options) { o.Roots = pool })
	r := get("//other.example/x")
	r.Scheme, r.Port, r.Protocol = "https", 443, H2
	if _, body, err := send1(t, c, r); err != nil || body != "HTTP/2.0 svc.example //other.example/x" {
		t.Errorf("%q, %v", body, err)
	}
}

// TestCloseWins: an answer that says both ends the connection (RFC 9112 section 9.3).
func TestCloseWins(t *testing.T) {
	for _, v := range []string{"close, keep-alive", "keep-alive, close"} {
		h, err := readHead(bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nConnection: " + v + "\r\n\r\n")))
		if err != nil || !h.closing {
			t.Errorf("%s: %+v, %v", v, h, err)
		}
	}
}

// BenchmarkQuiet looks whether an idle TLS connection is still good.
func BenchmarkQuiet(b *testing.B) {
	s, pool := secure(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), "http/1.1")
	c := client(b, s.Listener.Addr().String(), func(o *Options) { o.Roots = pool })
	r := get("/x")
	r.Scheme, r.Port = "https", 443
	if _, _, err := send1(b, c, r); err != nil {
		b.Fatal(err)
	}
	k := c.idle.take(origin{scheme: "https", host: "svc.example", port: 443})
	if k == nil {
		b.Fatal("nothing is idle")
	}
	defer k.Close()
	b.ReportAllocs()
	for b.Loop() {
		if !k.quiet() {
			b.Fatal("not quiet")
		}
	}
}
