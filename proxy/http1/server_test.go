package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// client is an agent's end of a connection to a server on the loopback.
type client struct {
	*net.TCPConn
	*bufio.Reader
	t *testing.T
}

func (c *client) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// serving starts a server and returns it with a connection to it. Both end with the test.
func serving(t *testing.T, o Options, h Handler) (*Server, *client) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln, h) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return s, dial(t, ln.Addr().String())
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{nc.(*net.TCPConn), bufio.NewReader(nc), t}
}

func (c *client) send(format string, a ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.TCPConn, format, a...); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer whole, or fails.
func (c *client) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.Reader, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("body: %v", err)
	}
	return resp, string(body)
}

// over fails unless the server has closed the connection.
func (c *client) over() {
	c.t.Helper()
	if b, err := c.ReadByte(); err == nil {
		c.t.Errorf("got %q after the end", b)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		c.t.Error("the connection is still open")
	}
}

// echo answers with what it saw.
func echo(w http.ResponseWriter, r *http.Request, h Head) {
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %q %v %s", r.Method, r.RequestURI, body, err, h.Fault)
}

const get = "GET %s HTTP/1.1\r\nHost: a\r\n\r\n"

// TestPipelining shows that requests which are sent together are answered in
// their order.
func TestPipelining(t *testing.T) {
	_, c := serving(t, limits, echo)
	c.send(get+"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"+get, "/1", "/3")
	for _, want := range []string{`GET /1 "" <nil> `, `POST /2 "hi" <nil> `, `GET /3 "" <nil> `} {
		if _, got := c.answer("GET"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestGone shows that the context of a request ends soon when the agent goes
// away, and that an agent that sends more meanwhile is not taken for gone.
func TestGone(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		began, ended := make(chan struct{}), make(chan struct{})
		_, c := serving(t, limits, func(_ http.ResponseWriter, r *http.Request, _ Head) {
			close(began)
			<-r.Context().Done()
			close(ended)
		})
		c.send(get, "/")
		<-began
		c.TCPConn.Close()
		<-ended
	})
	t.Run("sends more", func(t *testing.T) {
		began, done := make(chan struct{}, 2), make(chan struct{}, 2)
		_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, h Head) {
			began <- struct{}{}
			select {
			case <-done:
			case <-r.Context().Done():
				t.Error("taken for gone")
			}
			echo(w, r, h)
		})
		c.send(get, "/1")
		<-began
		<-time.After(3 * patience) // until it is being watched
		c.send(get, "/2")
		<-time.After(patience)
		done <- struct{}{}
		done <- struct{}{}
		for _, want := range []string{"GET /1", "GET /2"} {
			if _, got := c.answer("GET"); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
	t.Run("slow answers one after the other", func(t *testing.T) {
		_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, h Head) {
			<-time.After(3 * patience)
			echo(w, r, h)
		})
		for range 3 {
			c.send(get, "/")
			c.answer("GET")
		}
	})
}

// TestTimeouts shows that an agent cannot keep a connection by sending a head
// slowly, or nothing.
func TestTimeouts(t *testing.T) {
	short := Options{HeadTimeout: 4 * patience, IdleTimeout: 4 * patience}
	for name, sent := range map[string]string{
		"nothing":        "",
		"part of a head": "GET / HTTP/1.1\r\nHo",
	} {
		t.Run(name, func(t *testing.T) {
			_, c := serving(t, Options{HeadTimeout: 4 * patience, IdleTimeout: time.Hour}, echo)
			c.send("%s", sent)
			c.over()
		})
	}
	t.Run("drop by drop", func(t *testing.T) {
		_, c := serving(t, short, echo)
		go func() {
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				<-time.After(patience / 2)
			}
		}()
		c.over()
	})
	t.Run("idle", func(t *testing.T) {
		_, c := serving(t, Options{HeadTimeout: time.Hour, IdleTimeout: 4 * patience}, echo)
		c.send(get, "/")
		c.answer("GET")
		c.over()
	})
	t.Run("idle, then a part of a head", func(t *testing.T) {
		_, c := serving(t, Options{HeadTimeout: 4 * patience, IdleTimeout: time.Hour}, echo)
		c.send(get, "/")
		c.answer("GET")
		<-time.After(2 * patience)
		c.send("GET ")
		c.over()
	})
	t.Run("slow answer", func(t *testing.T) {
		_, c := serving(t, short, func(w http.ResponseWriter, r *http.Request, h Head) {
			<-time.After(8 * patience)
			echo(w, r, h)
		})
		c.send(get, "/")
		c.answer("GET") // an answer may take as long as it likes
	})
}

// TestShutdown shows that idle connections end at once, and busy ones after
// their answer.
func TestShutdown(t *testing.T) {
	began, done := make(chan struct{}), make(chan struct{})
	s, busyOne := serving(t, limits, func(w http.ResponseWriter, r *http.Request, h Head) {
		if r.RequestURI == "/slow" {
			close(began)
			<-done
		}
		echo(w, r, h)
	})
	idleOne := dial(t, busyOne.RemoteAddr().String())
	idleOne.send(get, "/")
	idleOne.answer("GET")
	busyOne.send(get, "/slow")
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown beside an answer: %v", err)
	}
	idleOne.over()
	close(done)
	if resp, _ := busyOne.answer("GET"); !resp.Close {
		t.Error("the last answer does not announce the end")
	}
	busyOne.over()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// TestContinue shows that an agent which waits for a 100 gets it when the body
// is wanted, and never behind an answer.
func TestContinue(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
	t.Run("wanted", func(t *testing.T) {
		_, c := serving(t, limits, echo)
		c.send(post)
		line, err := c.ReadString('\n')
		if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		if line, _ = c.ReadString('\n'); line != "\r\n" {
			t.Fatalf("got %q behind the 100", line)
		}
		c.send("hi"+get, "/")
		if _, got := c.answer("POST"); got != `POST / "hi" <nil> ` {
			t.Errorf("got %q", got)
		}
		c.answer("GET")
	})
	t.Run("refused", func(t *testing.T) {
		_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, _ Head) {
			w.WriteHeader(http.StatusForbidden)
			if _, err := r.Body.Read(make([]byte, 1)); err == nil {
				t.Error("the body was read though nobody asked for it")
			}
		})
		c.send(post)
		if resp, _ := c.answer("POST"); resp.StatusCode != http.StatusForbidden || !resp.Close {
			t.Errorf("got %v, close %v", resp.StatusCode, resp.Close)
		}
		c.CloseWrite()
		c.over()
	})
}

// TestUnread shows what becomes of a body that nobody read: a short one is read
// away, anything else ends the connection after the answer.
func TestUnread(t *testing.T) {
	for name, tc := range map[string]struct {
		head, body string
		next       bool
	}{
		"short":   {"Content-Length: 5", "hello", true},
		"long":    {fmt.Sprintf("Content-Length: %d", maxDiscard+1), "hello", false},
		"chunked": {"Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, _ Head) { io.WriteString(w, r.RequestURI) })
			c.send("POST /1 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n%s"+get, tc.head, tc.body, "/2")
			resp, _ := c.answer("POST")
			if resp.Close == tc.next {
				t.Errorf("closes: %v", resp.Close)
			}
			if !tc.next {
				c.CloseWrite()
				c.over()
				return
			}
			if _, got := c.answer("GET"); got != "/2" {
				t.Errorf("next: got %q", got)
			}
		})
	}
}

// TestEarlyBytes shows that what is sent along with a CONNECT or an upgrade
// reaches whoever takes the connection over, also when it is taken late, and
// that a refusal goes on with the next request instead.
func TestEarlyBytes(t *testing.T) {
	const early = "\x16\x03\x01 not http"
	for name, wait := range map[string]time.Duration{"at once": 0, "late": 3 * patience} {
		for _, head := range []string{
			"CONNECT a.example:443 HTTP/1.1\r\n" + host + "\r\n",
			"GET /ws HTTP/1.1\r\n" + host + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		} {
			t.Run(name+" "+head[:4], func(t *testing.T) {
				_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, _ Head) {
					<-time.After(wait)
					nc, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					go func() {
						defer nc.Close()
						io.CopyN(nc, nc, int64(2*len(early)))
					}()
				})
				c.send("%s%s", head, early)
				c.send("%s", early)
				if got, err := io.ReadAll(c); err != nil || string(got) != early+early {
					t.Errorf("early bytes: got %q, %v", got, err)
				}
			})
		}
	}
	t.Run("refused", func(t *testing.T) {
		_, c := serving(t, limits, echo)
		c.send("CONNECT a.example:443 HTTP/1.1\r\n"+host+"\r\n"+get, "/next")
		c.answer("GET")
		if _, got := c.answer("GET"); !strings.HasPrefix(got, "GET /next") {
			t.Errorf("next: got %q", got)
		}
	})
}
