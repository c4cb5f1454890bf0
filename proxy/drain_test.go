package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDrain stops the server with an exchange under way: it ends in its own time,
// and nothing new is taken.
func TestDrain(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		release := make(chan struct{})
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "begun")
			w.(http.Flusher).Flush()
			<-release
			fmt.Fprintln(w, "ended")
		}
		resp, err := c.Do(d.request("GET", "https://api.acme.dev/slow", nil))
		check(t, err)
		br := bufio.NewReader(resp.Body)
		br.ReadString('\n')
		stopped := make(chan int, 1)
		go func() { stopped <- d.server.Shutdown(t.Context()) }()
		for {
			conn, err := net.Dial("tcp", d.addr)
			if err != nil {
				break
			}
			conn.Close()
		}
		close(release)
		if line, err := br.ReadString('\n'); line != "ended\n" {
			t.Errorf("the exchange was cut: %q, %v", line, err)
		}
		if cut := <-stopped; cut != 0 {
			t.Errorf("%d exchanges were cut", cut)
		}
		if x := d.records(1)[0]; x.Outcome.Outcome.Error != "" || x.Outcome.Outcome.BytesOut != 12 {
			t.Errorf("record %s", x.Outcome.Raw)
		}
	})
}

// TestDrainOfBothKinds stops the server while an exchange goes on over HTTP/1.1: agents on
// HTTP/2 are told at once to go elsewhere, and do not find out when everything is cut.
// What is left at the end is counted.
func TestDrainOfBothKinds(t *testing.T) {
	d := newRoad(t)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "begun")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}
	ask := func(c *http.Client, path string) *http.Response {
		resp, err := c.Do(d.request("GET", "https://api.acme.dev"+path, nil))
		check(t, err)
		return resp
	}
	slow := ask(d.client(false), "/slow")
	defer slow.Body.Close()
	h2 := d.client(true)
	ends := make(chan struct{})
	proxied := h2.Transport.(*http.Transport)
	proxied.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &noted{c, sync.OnceFunc(func() { close(ends) })}, err
	}
	resp := ask(h2, "/quick")
	_, err := io.Copy(io.Discard, resp.Body)
	check(t, err)
	resp.Body.Close()
	if n := d.server.Going(); n < 1 {
		t.Errorf("%d exchanges go on", n)
	}
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	stopped := make(chan int, 1)
	go func() { stopped <- d.server.Shutdown(ctx) }()
	select {
	case <-ends:
	case n := <-stopped:
		t.Fatalf("stopped before what goes on has ended: %d", n)
	case <-time.After(time.Minute):
		t.Fatal("an idle HTTP/2 connection is kept as long as something goes on over HTTP/1.1")
	}
	cut()
	if n := <-stopped; n != 1 {
		t.Errorf("%d exchanges were cut, want 1", n)
	}
	if _, err := io.Copy(io.Discard, slow.Body); err == nil {
		t.Error("half an answer ended as a whole one")
	}
	for _, x := range d.records(2) {
		want := map[string]string{"/slow": "shutting_down"}[x.Decision.Request.Path]
		if x.Outcome.Outcome.Error != want {
			t.Errorf("%s is recorded as %q, want %q", x.Decision.Request.Path, x.Outcome.Outcome.Error, want)
		}
	}
}

// TestLeave has agents told that their connection ends, and serves what they send on a new
// one.
func TestLeave(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		var dials atomic.Int32
		c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
		ask := func() {
			t.Helper()
			resp, err := c.Do(d.request("POST", "https://api.acme.dev/once", strings.NewReader("x")))
			check(t, err)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
				t.Errorf("%s, %v", resp.Status, err)
			}
			resp.Body.Close()
		}
		ask()
		ask()
		if dials.Load() != 1 {
			t.Fatalf("%d connections for two requests", dials.Load())
		}
		d.server.Leave()
		for late := time.Now().Add(time.Minute); dials.Load() < 3; {
			if ask(); time.Now().After(late) {
				t.Fatalf("%d connections", dials.Load())
			}
		}
		if got := len(d.received()); got < 4 {
			t.Errorf("the service received %d requests", got)
		}
	})
}

// noted is a connection of which somebody is told when it is closed, which an agent does
// that the other side told of its end.
type noted struct {
	net.Conn
	closed func()
}

func (n *noted) Close() error {
	n.closed()
	return n.Conn.Close()
}
