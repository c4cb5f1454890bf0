package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"chaperone/policy/action"
	"chaperone/proxy/identity"
)

func (d *road) request(method, url string, body io.Reader) *http.Request {
	r, err := http.NewRequest(method, url, body)
	check(d.t, err)
	r.Header.Set("Authorization", "Bearer "+d.session.Handles["acme"])
	return r
}

func both(t *testing.T, f func(t *testing.T, d *road, c *http.Client)) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", h2), func(t *testing.T) {
			d := newRoad(t)
			f(t, d, d.client(h2))
		})
	}
}

// TestEventsArriveAsTheyAreMade has the service wait for the agent between events.
func TestEventsArriveAsTheyAreMade(t *testing.T) {
	for name, length := range map[string]string{"length unknown": "", "length known": "24"} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, d *road, c *http.Client) {
				next := make(chan struct{})
				d.serve = func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					if length != "" {
						w.Header().Set("Content-Length", length)
					}
					for i := range 3 {
						fmt.Fprintf(w, "data: %d\n", i)
						w.(http.Flusher).Flush()
						<-next
					}
				}
				resp, err := c.Do(d.request("GET", "https://api.acme.dev/events", nil))
				check(t, err)
				br := bufio.NewReader(resp.Body)
				for i := range 3 {
					line, err := br.ReadString('\n')
					if err != nil || line != fmt.Sprintf("data: %d\n", i) {
						t.Fatalf("event %d: %q, %v", i, line, err)
					}
					next <- struct{}{}
				}
				if _, err := br.ReadByte(); length == "" && !errors.Is(err, io.EOF) {
					t.Errorf("end: %v", err)
				}
			})
		})
	}
}

func TestUploadStreams(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		got := make(chan string)
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			br := bufio.NewReader(r.Body)
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					fmt.Fprint(w, r.ContentLength)
					return
				}
				got <- line
			}
		}
		pr, pw := io.Pipe()
		go func() {
			for i := range 3 {
				fmt.Fprintf(pw, "line %d\n", i)
				if line := <-got; line != fmt.Sprintf("line %d\n", i) {
					t.Errorf("the service got %q", line)
				}
			}
			pw.Close()
		}()
		req := d.request("POST", "https://api.acme.dev/upload", pr)
		req.Header.Set("Content-Type", "application/octet-stream") // without a type it might be a form, which is looked into first
		resp, err := c.Do(req)
		check(t, err)
		if body, _ := io.ReadAll(resp.Body); string(body) != "-1" {
			t.Errorf("length at the service: %s", body)
		}
		if x := d.records(1)[0]; x.Outcome.Outcome.BytesIn != 21 {
			t.Errorf("bytes in: %s", x.Outcome.Raw)
		}
	})
}

func TestAnswersWithoutBodies(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/head":
				w.Header().Set("Content-Length", "12345")
			case "/none":
				w.WriteHeader(http.StatusNoContent)
			case "/same":
				w.Header().Set("Etag", `"x"`)
				w.WriteHeader(http.StatusNotModified)
			case "/empty":
				w.WriteHeader(http.StatusOK)
			case "/redirect":
				http.Redirect(w, r, "https://evil.example.com/", http.StatusFound)
			}
		}
		for path, want := range map[string]string{"HEAD /head": "200 12345", "GET /none": "204 0", "GET /same": "304 0", "GET /empty": "200 0", "GET /redirect": "302"} {
			method, p, _ := strings.Cut(path, " ")
			resp, err := c.Do(d.request(method, "https://api.acme.dev"+p, nil))
			check(t, err)
			if got := fmt.Sprintf("%d %d", resp.StatusCode, max(0, resp.ContentLength)); !strings.HasPrefix(got, want) {
				t.Errorf("%s: got %s, want %s", path, got, want)
			}
			io.Copy(io.Discard, resp.Body)
		}
		if len(d.received()) != 5 {
			t.Error("a redirect was followed")
		}
	})
}

func TestInterimAnswersAndTrailers(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.Header().Set("Trailer", "X-Sum")
			io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%s", r.Trailer.Get("X-Mine"))
			w.Header().Set("X-Sum", "abc")
			w.Header().Set(http.TrailerPrefix+"X-Late", "def")
		}
		var hints []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Get("Link")))
			return nil
		}}
		r := d.request("POST", "https://api.acme.dev/x", io.MultiReader(strings.NewReader("body")))
		r.Trailer = http.Header{"X-Mine": {"mine"}}
		if c.Transport.(*http.Transport).Protocols.HTTP1() {
			r.Trailer["Authorization"] = []string{"Bearer stolen"} // in HTTP/2 net/http resets the stream
		}
		resp, err := c.Do(r.WithContext(httptrace.WithClientTrace(context.Background(), trace)))
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, err)
		if len(hints) != 1 || hints[0] != "103</style.css>" || resp.Header.Get("Link") != "" {
			t.Errorf("interim answers %v, %v", hints, resp.Header)
		}
		if string(body) != "mine" {
			t.Errorf("the service got the trailer %q", body)
		}
		if resp.Trailer.Get("X-Sum") != "abc" || resp.Trailer.Get("X-Late") != "def" {
			t.Errorf("trailers %v", resp.Trailer)
		}
		if a := d.received()[0].Trailer["Authorization"]; a != nil {
			t.Errorf("a trailer with a credential was announced: %v", a)
		}
	})
}

// TestTrailersCarryNoHandles has the agent put what it holds behind its body. The
// service gets no whole request.
func TestTrailersCarryNoHandles(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		whole := make(chan bool, 10)
		d.serve = func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			whole <- err == nil
		}
		for _, tc := range []struct{ name, value, code string }{
			{"X-Mine", "see " + d.handle, "handle_place"},
			{"X-Mine", base64.StdEncoding.EncodeToString([]byte("x" + d.handle)), "handle_place"},
			{"X-Mine", d.session.Token, "proxy_token"},
		} {
			r := d.request("POST", "https://api.acme.dev/x", io.MultiReader(strings.NewReader("body")))
			r.Trailer = http.Header{tc.name: {tc.value}}
			resp, err := c.Do(r)
			check(t, err)
			body, err := io.ReadAll(resp.Body)
			check(t, err)
			if resp.StatusCode != 403 || strings.Contains(string(body), tc.value) {
				t.Errorf("%s: %d %s", tc.code, resp.StatusCode, body)
			}
			if <-whole {
				t.Errorf("%s: the service got it whole", tc.code)
			}
		}
		for i, x := range d.records(3) {
			if want := []string{"handle_place", "handle_place", "proxy_token"}[i]; x.Outcome.Outcome.Error != want || !x.Outcome.Outcome.Indeterminate {
				t.Errorf("record %s, want %s", x.Outcome.Raw, want)
			}
		}
	})
}

// TestTrailersAreNoPlaces: what stands behind the body under the name of a field in which
// the service takes credentials goes no further, also where that name is its own.
func TestTrailersAreNoPlaces(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		catalogue, err := action.Load(action.Shipped(), []action.Service{{Name: "acme", Hosts: []string{"api.acme.dev"}, Places: []string{"bearer", "header:X-Acme-Pass"},
			Paths: map[string]map[string]string{"/{path+}": {"POST": "post write"}}}})
		check(t, err)
		check(t, d.server.UseCatalogue(catalogue))
		got := make(chan http.Header, 1)
		d.serve = func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			got <- r.Trailer
		}
		r := d.request("POST", "https://api.acme.dev/x", io.MultiReader(strings.NewReader("body")))
		r.Trailer = http.Header{"X-Acme-Pass": {"a real secret"}, "X_acme_pass": {"a real secret"}, "X_api_key": {"a real secret"}, "X-Sum": {"1"}}
		resp, err := c.Do(r)
		check(t, err)
		resp.Body.Close()
		if seen := <-got; resp.StatusCode != 200 || seen.Get("X-Sum") != "1" || strings.Contains(fmt.Sprint(seen), "secret") {
			t.Errorf("%d; the service got trailers %v", resp.StatusCode, seen)
		}
	})
}

func TestExpectContinue(t *testing.T) {
	d := newRoad(t)
	c := d.client(false)
	c.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
	r := d.request("PUT", "https://api.acme.dev/x", strings.NewReader("body"))
	r.Header.Set("Expect", "100-continue")
	start := time.Now()
	resp, err := c.Do(r)
	check(t, err)
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.Contains(string(body), `"bytes":4`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the body waited %v for a 100", took)
	}
	// After a deny the body is not asked for.
	r = d.request("DELETE", "https://api.acme.dev/x", &unread{t: t})
	r.ContentLength = 4
	r.Header.Set("Expect", "100-continue")
	resp, err = c.Do(r)
	check(t, err)
	if resp.StatusCode != 403 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

type unread struct{ t *testing.T }

func (u *unread) Read([]byte) (int, error) {
	u.t.Error("the body of a denied request was asked for")
	return 0, io.EOF
}

func TestWebSocket(t *testing.T) {
	d := newRoad(t)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.Write(r.Context(), websocket.MessageText, []byte("hello "+r.Header.Get("Authorization"))) // at once behind the 101
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			c.Write(r.Context(), kind, b)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hc := d.client(false)
	hc.Timeout = 0
	c, _, err := websocket.Dial(ctx, "wss://api.acme.dev/socket", &websocket.DialOptions{HTTPClient: hc, HTTPHeader: http.Header{"Authorization": {"Bearer " + d.session.Handles["acme"]}}})
	check(t, err)
	if _, b, err := c.Read(ctx); err != nil || string(b) != "hello Bearer "+strings.Repeat("*", len(canary)) {
		t.Fatalf("%q, %v", b, err)
	}
	check(t, c.Write(ctx, websocket.MessageText, []byte("echo")))
	if _, b, err := c.Read(ctx); err != nil || string(b) != "echo" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := d.dir.Revoke(ctx, identity.Target{Session: d.session.ID}, "test", "me"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(ctx); err == nil {
		t.Error("the socket lives on after its session was revoked")
	}
	if x := d.records(1)[0]; x.Outcome.Outcome.Status != 101 || x.Outcome.Outcome.Error != "session_revoked" || x.Outcome.Outcome.BytesOut == 0 {
		t.Errorf("record %s", x.Outcome.Raw)
	}
}

// TestEarlyData sends the TLS hello along with the CONNECT, before any answer.
func TestEarlyData(t *testing.T) {
	d := newRoad(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.ca.PEM())
	e := &eager{road: d}
	tc := tls.Client(e, &tls.Config{RootCAs: pool, ServerName: "api.acme.dev"})
	check(t, tc.Handshake())
	fmt.Fprintf(tc, "GET /x HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(tc), nil)
	check(t, err)
	if resp.StatusCode != 200 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

func TestAgentGoesAway(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		gone := make(chan struct{})
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			close(gone)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for len(d.received()) == 0 {
				runtime.Gosched()
			}
			cancel()
		}()
		_, err := c.Do(d.request("POST", "https://api.acme.dev/x", strings.NewReader("x")).WithContext(ctx))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Fatal("the service was not told")
		}
		if x := d.records(1)[0]; x.Outcome.Outcome.Error != "agent_gone" || !x.Outcome.Outcome.Indeterminate {
			t.Errorf("record %s", x.Outcome.Raw)
		}
	})
}

func TestServiceCutsItsAnswer(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		resp, err := c.Do(d.request("GET", "https://api.acme.dev/x", nil))
		check(t, err)
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("half an answer was taken for a whole one: %q", b)
		}
		if x := d.records(1)[0]; x.Outcome.Outcome.Error != "upstream_cut" || x.Outcome.Outcome.Status != 200 {
			t.Errorf("record %s", x.Outcome.Raw)
		}
	})
}

func TestRevocationCutsStreams(t *testing.T) {
	for name, stop := range map[string]func(*road) error{
		"revoked": func(d *road) error {
			_, err := d.dir.Revoke(d.t.Context(), identity.Target{Agent: "bot"}, "test", "me")
			return err
		},
		"suspended": func(d *road) error { return d.dir.SuspendAgent(d.t.Context(), "bot", "test") },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, d *road, c *http.Client) {
				d.serve = func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintln(w, "data")
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				}
				resp, err := c.Do(d.request("GET", "https://api.acme.dev/events", nil))
				check(t, err)
				br := bufio.NewReader(resp.Body)
				br.ReadString('\n')
				check(t, stop(d))
				cut := time.Now()
				if _, err := br.ReadByte(); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("the stream ended with %v", err)
				}
				if took := time.Since(cut); took > time.Second {
					t.Errorf("it took %v", took)
				}
				if x := d.records(1)[0]; !strings.HasSuffix(x.Outcome.Outcome.Error, name) {
					t.Errorf("record %s", x.Outcome.Raw)
				}
			})
		})
	}
}

// eager is a connection to the proxy that sends CONNECT and the first bytes inside
// the tunnel in one write.
type eager struct {
	net.Conn
	road *road
	br   *bufio.Reader
}

func (e *eager) Write(p []byte) (int, error) {
	if e.Conn != nil {
		return e.Conn.Write(p)
	}
	conn, err := net.Dial("tcp", e.road.addr)
	if err != nil {
		return 0, err
	}
	e.road.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	head := fmt.Sprintf("CONNECT api.acme.dev:443 HTTP/1.1\r\nHost: api.acme.dev:443\r\nProxy-Authorization: %s\r\n\r\n", basicAuth("bot", e.road.session.Token))
	if _, err := conn.Write(append([]byte(head), p...)); err != nil {
		return 0, err
	}
	e.Conn, e.br = conn, bufio.NewReader(conn)
	resp, err := http.ReadResponse(e.br, &http.Request{Method: "CONNECT"})
	if err != nil || resp.StatusCode != 200 {
		return 0, fmt.Errorf("CONNECT: %v, %w", resp, err)
	}
	return len(p), nil
}

func (e *eager) Read(p []byte) (int, error) { return e.br.Read(p) }
