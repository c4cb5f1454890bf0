package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"chaperone/certs"
)

func secure(t testing.TB, h http.Handler, protocols ...string) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = len(protocols) == 0 || protocols[0] == "h2"
	if len(protocols) == 1 && protocols[0] == "h2" {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP2(true)
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{NextProtos: protocols, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(hello.ServerName) }}
	if s.Config.Protocols != nil {
		// crypto/tls lets HTTP/1.1 clients in although h2 is all it offers; other servers do not.
		s.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "h2") {
				return nil, nil
			}
			strict := s.TLS.Clone()
			strict.NextProtos = []string{"none"}
			return strict, nil
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate())
	return s, pool
}

func TestTLS(t *testing.T) {
	var resumed atomic.Int32
	s, pool := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume {
			resumed.Add(1)
		}
		io.WriteString(w, r.Proto)
	}))
	r := get("/x")
	r.Scheme, r.Port = "https", 443
	if _, _, err := send1(t, client(t, s.Listener.Addr().String()), r); !errors.Is(err, ErrTLS) {
		t.Errorf("an unknown CA: %v", err)
	}
	c := client(t, s.Listener.Addr().String(), func(o *Options) { o.Roots = pool })
	for range 5 {
		if _, body, err := send1(t, c, r); err != nil || body != "HTTP/1.1" {
			t.Fatal(body, err)
		}
		c.idle.close(false)
	}
	if resumed.Load() != 4 {
		t.Errorf("%d of 4 new connections resumed", resumed.Load())
	}
	r.Protocol = H2
	if _, body, err := send1(t, c, r); err != nil || body != "HTTP/2.0" {
		t.Errorf("HTTP/2: %q, %v", body, err)
	}
}

func TestServiceThatSpeaksHTTP2Only(t *testing.T) {
	s, pool := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }), "h2")
	c := client(t, s.Listener.Addr().String(), func(o *Options) { o.Roots = pool })
	r := get("/x")
	r.Scheme, r.Port = "https", 443
	for range 2 {
		if _, body, err := send1(t, c, r); err != nil || body != "HTTP/2.0" {
			t.Errorf("%q, %v", body, err)
		}
	}
}

func TestCorporateProxy(t *testing.T) {
	s, pool := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "through") }), "http/1.1")
	var auth atomic.Value
	corporate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth.Store(r.Method + " " + r.Host + " " + r.Header.Get("Proxy-Authorization"))
		up, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		conn, _, _ := http.NewResponseController(w).Hijack()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(up, conn)
		io.Copy(conn, up)
		conn.Close()
		up.Close()
	}))
	defer corporate.Close()
	u, _ := url.Parse(corporate.URL)
	u.User = url.UserPassword("corp", "pw")
	c := client(t, "127.0.0.1:1", func(o *Options) { o.Proxy, o.Roots, o.Resolve = u, pool, nil })
	r := get("/x")
	r.Scheme, r.Port = "https", 443
	if _, body, err := send1(t, c, r); err != nil || body != "through" {
		t.Errorf("%q, %v", body, err)
	}
	const asked = "CONNECT svc.example:443 Basic Y29ycDpwdw=="
	if got := fmt.Sprint(auth.Load()); got != asked {
		t.Errorf("the corporate proxy was asked %q", got)
	}
	auth.Store("")
	r.Method = "CONNECT"
	conn, err := c.Tunnel(t.Context(), permit(t, r), r.Target())
	if err != nil {
		t.Fatal(err)
	}
	tc := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "svc.example"})
	if err := tc.Handshake(); err != nil || fmt.Sprint(auth.Load()) != asked {
		t.Errorf("a tunnel through the corporate proxy: %v, asked %q", err, auth.Load())
	}
	tc.Close()
}

func TestFewConnectionsUnderLoad(t *testing.T) {
	s, pool := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), "http/1.1")
	c := client(t, s.Listener.Addr().String(), func(o *Options) { o.Roots = pool })
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 250 {
				r := get("/x")
				r.Scheme, r.Port = "https", 443
				if _, body, err := send1(t, c, r); err != nil || body != "ok" {
					t.Error(body, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := c.opened.Load(); n > 20 {
		t.Errorf("%d connections for 4000 requests of 16 clients", n)
	}
}

func BenchmarkSend(b *testing.B) {
	s, pool := secure(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), "http/1.1")
	c := client(b, s.Listener.Addr().String(), func(o *Options) { o.Roots = pool })
	for name, send := range map[string]func(context.Context, *Request) (*http.Response, error){
		"own":           c.roundTrip,
		"net-transport": func(ctx context.Context, r *Request) (*http.Response, error) { return c.h1.RoundTrip(r.request(ctx)) },
	} {
		b.Run(name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				r := get("/x")
				r.Scheme, r.Port = "https", 443
				resp, err := send(ctx, r)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
