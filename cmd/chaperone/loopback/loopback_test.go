package loopback

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// proxy is a server that keeps what it was sent and answers each connection alike.
func proxy(t *testing.T, answer string) (*url.URL, chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	heads := make(chan string, 16)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				var head strings.Builder
				for !strings.HasSuffix(head.String(), "\r\n\r\n") {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					head.WriteString(line)
				}
				heads <- head.String()
				fmt.Fprint(c, answer)
				io.Copy(c, r) // the tunnel's echo
			}()
		}
	}()
	return &url.URL{Scheme: "http", Host: ln.Addr().String(), User: url.UserPassword("bot", "chs_token")}, heads
}

func listen(t *testing.T, u *url.URL) *Listener {
	t.Helper()
	l, err := Listen(Options{Proxy: u})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

const added = "Proxy-Authorization: Basic Ym90OmNoc190b2tlbg==\r\n"

// TestCredentialsAreAdded sees what becomes of heads; bytes behind them stay.
func TestCredentialsAreAdded(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"tunnel":    {"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "CONNECT a:443 HTTP/1.1\r\n" + added + "Host: a:443\r\nConnection: close\r\n\r\n"},
		"absolute":  {"GET http://a/ HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n", "GET http://a/ HTTP/1.1\r\n" + added + "Host: a\r\nX: 1\r\nConnection: close\r\n\r\n"},
		"others go": {"GET http://a/ HTTP/1.1\r\nproxy-authorization: Basic eA==\r\nHost: a\r\n\r\n", "GET http://a/ HTTP/1.1\r\n" + added + "Host: a\r\nConnection: close\r\n\r\n"},
		"upgrade":   {"GET http://a/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET http://a/ HTTP/1.1\r\n" + added + "Host: a\r\nUpgrade: websocket\r\n\r\n"},
		"no fields": {"GET http://a/ HTTP/1.1\r\n\r\n", "GET http://a/ HTTP/1.1\r\n" + added + "Connection: close\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			u, heads := proxy(t, "HTTP/1.1 200 OK\r\n\r\n")
			c := dial(t, listen(t, u))
			fmt.Fprint(c, tc.in+"early")
			if got := <-heads; got != tc.want {
				t.Errorf("the proxy was sent %q, want %q", got, tc.want)
			}
			b := make([]byte, len("HTTP/1.1 200 OK\r\n\r\nearly"))
			if _, err := io.ReadFull(c, b); err != nil || !strings.HasSuffix(string(b), "early") {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

// TestRefusedHere never reach the proxy.
func TestRefusedHere(t *testing.T) {
	u, heads := proxy(t, "")
	for name, tc := range map[string]struct {
		in       string
		stranger bool
		want     int
	}{
		"a head without end": {"GET http://a/ HTTP/1.1\r\nX: " + strings.Repeat("x", maxHead+8<<10), false, 400},
		"another user":       {"GET http://a/ HTTP/1.1\r\n\r\n", true, 403},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := open(Options{Proxy: u}, func(_, _ *net.TCPAddr) bool { return !tc.stranger })
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c := dial(t, l)
			go io.WriteString(c, tc.in) // it is answered before it was read whole
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != tc.want {
				t.Errorf("got %v, %v", resp, err)
			}
		})
	}
	if len(heads) != 0 {
		t.Errorf("the proxy was sent %q", <-heads)
	}
}

func TestProxyGone(t *testing.T) {
	u, _ := proxy(t, "")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Host = ln.Addr().String()
	ln.Close()
	c := dial(t, listen(t, u))
	fmt.Fprint(c, "CONNECT a:443 HTTP/1.1\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 502 {
		t.Errorf("got %v, %v", resp, err)
	}
}

// TestCloseCuts open tunnels, and nobody is let in afterwards.
func TestCloseCuts(t *testing.T) {
	u, heads := proxy(t, "HTTP/1.1 200 OK\r\n\r\n")
	l := listen(t, u)
	c := dial(t, l)
	fmt.Fprint(c, "CONNECT a:443 HTTP/1.1\r\n\r\n")
	<-heads
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the tunnel is still open")
	}
	if late, err := net.Dial("tcp", l.Addr()); err == nil {
		late.Close()
		t.Error("the listener is still there")
	}
}

func TestOwner(t *testing.T) {
	u, _ := proxy(t, "")
	l := listen(t, u)
	c := dial(t, l)
	from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	if !ofThisUser(from, to) {
		t.Error("an own connection is not known as such")
	}
}

func TestNoPassword(t *testing.T) {
	if _, err := Listen(Options{Proxy: &url.URL{Scheme: "http", Host: "a", User: url.User("bot")}}); err == nil {
		t.Error("a listener without credentials")
	}
}

func FuzzAuthorize(f *testing.F) {
	l := &Listener{line: []byte(added)}
	f.Add([]byte("GET / HTTP/1.1\r\nA: b\r\n\r\nrest"))
	f.Add([]byte("\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		i := strings.Index(string(in), "\r\n\r\n")
		if i < 0 {
			return
		}
		out := string(l.authorize(in))
		if strings.Count(out, added) < 1 || !strings.HasSuffix(out, "\r\n\r\n"+string(in[i+4:])) {
			t.Errorf("%q became %q", in, out)
		}
	})
}
