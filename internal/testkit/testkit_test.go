package testkit

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"chaperone/certs"
)

// client returns one that reaches s under any name.
func client(t *testing.T, ca *certs.Authority, s *Service) *http.Client {
	t.Helper()
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: trust(t, ca)},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Addr())
		}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func trust(t *testing.T, ca *certs.Authority) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("the CA is not PEM")
	}
	return pool
}

func serve(t *testing.T, h http.Handler) (*certs.Authority, *Service) {
	t.Helper()
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Serve(ca, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return ca, s
}

func TestShapes(t *testing.T) {
	ca, s := serve(t, Shapes())
	c := client(t, ca, s)
	for _, tc := range []struct {
		path, send string
		status     int
		body       string
		fails      bool
	}{
		{path: "/echo", send: "over", status: 200, body: "over"},
		{path: "/status/418", status: 418},
		{path: "/sse?n=2", status: 200, body: "data: 0\n\ndata: 1\n\n"},
		{path: "/ndjson?n=1", status: 200, body: "{\"n\":0}\n"},
		{path: "/download?n=5", status: 200, body: "\x00\x00\x00\x00\x00"},
		{path: "/upload", send: "12345", status: 200, body: `{"size":5}`},
		{path: "/hints", status: 200, body: "hinted"},
		{path: "/trailers", status: 200, body: "body"},
		{path: "/redirect", send: "x", status: 302},
		{path: "/cut", status: 200, body: "0123456789", fails: true},
	} {
		t.Run(tc.path, func(t *testing.T) {
			resp, err := c.Post("https://a.example.com"+tc.path, "text/plain", strings.NewReader(tc.send))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if resp.StatusCode != tc.status || string(b) != tc.body || (err != nil) != tc.fails {
				t.Errorf("got %d %q %v", resp.StatusCode, b, err)
			}
			if tc.path == "/trailers" && resp.Trailer.Get("X-Sum") != "4" {
				t.Errorf("trailers %v", resp.Trailer)
			}
		})
	}
	got := s.Received()[0]
	if got.Method != "POST" || got.Target != "/echo" || got.Host != "a.example.com" || got.Size != 4 {
		t.Errorf("noted %+v", got)
	}
}

func TestWebSocketEcho(t *testing.T) {
	ca, s := serve(t, Shapes())
	c := client(t, ca, s)
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	ws, _, err := websocket.Dial(t.Context(), "wss://a.example.com/ws", &websocket.DialOptions{HTTPClient: c})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := ws.Read(t.Context()); err != nil || string(b) != "hi" {
		t.Errorf("got %q %v", b, err)
	}
}

func TestVendorsCheckTheSecret(t *testing.T) {
	for name, h := range map[string]http.Handler{"github": GitHub("s"), "openai": OpenAI("s"), "stripe": Stripe("s"), "slack": Slack("s")} {
		t.Run(name, func(t *testing.T) {
			ca, s := serve(t, h)
			c := client(t, ca, s)
			path := map[string]string{"github": "/api/v3/user", "openai": "/v1/models", "stripe": "/v1/balance", "slack": "/api/auth.test"}[name]
			for token, good := range map[string]bool{"s": true, "other": false} {
				r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://a.example.com"+path, nil)
				r.Header.Set("Authorization", "Bearer "+token)
				resp, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if got := resp.StatusCode == 200 && !strings.Contains(string(b), `"ok":false`); got != good {
					t.Errorf("with %q: %d %s", token, resp.StatusCode, b)
				}
			}
		})
	}
}

func TestGRPC(t *testing.T) {
	ca, s := serve(t, GRPC("s"))
	conn, err := grpc.NewClient("passthrough:///a.example.com:443", grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: trust(t, ca)})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Addr())
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	out := new(wrapperspb.StringValue)
	if err := conn.Invoke(t.Context(), GRPCUnary, wrapperspb.String("x"), out); err == nil {
		t.Error("answered without the secret")
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer s")
	if err := conn.Invoke(ctx, GRPCUnary, wrapperspb.String("x"), out); err != nil || out.Value != "x" {
		t.Errorf("got %q %v", out.Value, err)
	}
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, GRPCBidi)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two"} {
		if err := st.SendMsg(wrapperspb.String(word)); err != nil {
			t.Fatal(err)
		}
		if err := st.RecvMsg(out); err != nil || out.Value != word {
			t.Errorf("got %q %v", out.Value, err)
		}
	}
}

func TestGit(t *testing.T) {
	root := t.TempDir()
	if err := InitRepo(root, "acme/web"); err != nil {
		t.Fatal(err)
	}
	h, err := Git(root, "s")
	if err != nil {
		t.Fatal(err)
	}
	ca, s := serve(t, h)
	c := client(t, ca, s)
	for password, want := range map[string]int{"s": 200, "other": 401} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://github.com/acme/web.git/info/refs?service=git-receive-pack", nil)
		r.SetBasicAuth("x", password)
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("with %q: %d", password, resp.StatusCode)
		}
	}
	if out, err := exec.Command("git", "-C", filepath.Join(root, "acme/web.git"), "log", "--oneline").Output(); err != nil || !strings.Contains(string(out), "first") {
		t.Errorf("log %q %v", out, err)
	}
}

func TestRaw(t *testing.T) {
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const odd = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
	s, err := ServeRaw(ca, []byte(odd))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: trust(t, ca), ServerName: "a.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	if b, err := io.ReadAll(bufio.NewReader(c)); err != nil || string(b) != odd {
		t.Errorf("got %q %v", b, err)
	}
}
