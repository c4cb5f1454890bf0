package echo

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chaperone/certs"
)

func open(t *testing.T) (*Proxy, *x509.CertPool) {
	t.Helper()
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := Listen(ca, "secret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	return p, roots
}

// TestVisits sees clients of every kind noted as what they are.
func TestVisits(t *testing.T) {
	for name, tc := range map[string]struct {
		user  *url.Userinfo
		trust bool
		h2    bool
		url   string
		want  func(v Visit) bool
	}{
		"well": {url.UserPassword("a", "secret"), true, false, "https://a.example/x", func(v Visit) bool {
			return v.Password == Sent && v.User == "a" && v.Trusted && v.Requests[0].Path == "/x"
		}},
		"HTTP/2":         {url.UserPassword("a", "secret"), true, true, "https://a.example/x", func(v Visit) bool { return v.Requests[0].Protocol == "HTTP/2.0" }},
		"in clear":       {url.UserPassword("a", "secret"), true, false, "http://a.example/x", func(v Visit) bool { return !v.Tunnel && v.Target == "a.example" && len(v.Requests) == 1 }},
		"no password":    {nil, true, false, "https://a.example/", func(v Visit) bool { return v.Password == Asked && !v.Trusted }},
		"user alone":     {url.UserPassword("a", ""), true, false, "https://a.example/", func(v Visit) bool { return v.Password == Asked }},
		"wrong password": {url.UserPassword("a", "guess"), true, false, "https://a.example/", func(v Visit) bool { return v.Password == Wrong }},
		"no trust":       {url.UserPassword("a", "secret"), false, false, "https://a.example/", func(v Visit) bool { return !v.Trusted && strings.Contains(v.Fault, "certificate") }},
	} {
		t.Run(name, func(t *testing.T) {
			p, roots := open(t)
			if !tc.trust {
				roots = x509.NewCertPool()
			}
			tr := &http.Transport{
				Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: p.Addr(), User: tc.user}),
				TLSClientConfig:   &tls.Config{RootCAs: roots},
				ForceAttemptHTTP2: tc.h2,
			}
			r, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(tc.url)
			if err == nil {
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			tr.CloseIdleConnections()
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if v := p.Visits(); len(v) != 1 || !tc.want(v[0]) {
				t.Errorf("got %+v", v)
			}
		})
	}
}

// TestAnswersInKind opens and closes a WebSocket, and refuses a gRPC call as gRPC does.
func TestAnswersInKind(t *testing.T) {
	p, roots := open(t)
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: p.Addr(), User: url.UserPassword("a", "secret")}), TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	ask := func(tr *http.Transport, header http.Header) (*http.Response, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.example/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 4)
		n, _ := io.ReadFull(resp.Body, b)
		return resp, b[:n]
	}
	if resp, _ := ask(tr, http.Header{"Content-Type": {"application/grpc"}}); resp.Header.Get("Grpc-Status") != "12" || resp.ProtoMajor != 2 {
		t.Errorf("gRPC got %v", resp.Header)
	}
	plain := tr.Clone()
	plain.ForceAttemptHTTP2, plain.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	resp, frame := ask(plain, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}})
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || string(frame) != "\x88\x02\x03\xe8" {
		t.Errorf("a WebSocket got %d %v and %x", resp.StatusCode, resp.Header, frame)
	}
}

// TestAsksFirst is how git comes: the password after a 407, on the same connection.
func TestAsksFirst(t *testing.T) {
	p, _ := open(t)
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for _, field := range []string{"", "Proxy-Authorization: Basic YTpzZWNyZXQ=\r\n"} {
		fmt.Fprintf(c, "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n%s\r\n", field)
		if _, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect}); err != nil {
			t.Fatal(err)
		}
	}
	if v := p.Visits(); len(v) != 1 || v[0].Password != AfterAsked {
		t.Errorf("got %+v", v)
	}
}
