package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"chaperone/internal/testkit"
)

// kinds are those of the streams that agents hold open; each goes on until it is cut.
var kinds = []string{"events", "events2", "upload", "socket", "tunnel"}

// wild is a host that no service names, to which tunnels lead uninspected.
const wild = "wild.example.com"

// mark notes that something of a session was seen just now: by the service, or by an
// agent that the service talks to.
func (f *fleet) mark(session string) {
	v, _ := f.streams.LoadOrStore(session, new(atomic.Int64))
	v.(*atomic.Int64).Store(time.Now().UnixNano())
}

// serveWild reads the lines that come through tunnels, each of which names its session.
func (f *fleet) serveWild() (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(f.t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					f.mark(lines.Text())
					fmt.Fprintln(c, "seen")
				}
			})
		}
	})
	f.t.Cleanup(func() { // after the replicas, which hold the other ends
		ln.Close()
		all.Wait()
	})
	return ln.Addr().String()
}

// takeUpload marks each piece of an upload.
func (f *fleet) takeUpload(r *http.Request, session string) {
	b := make([]byte, 512)
	for {
		n, err := r.Body.Read(b)
		if n > 0 {
			f.mark(session)
		}
		if err != nil {
			return
		}
	}
}

// takeSocket marks each message of a WebSocket, and answers it.
func (f *fleet) takeSocket(w http.ResponseWriter, r *http.Request, session string) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		f.mark(session)
		c.Write(r.Context(), kind, b)
	}
}

// open opens a stream of a kind and returns what is closed when it has ended.
func (f *fleet) open(ctx context.Context, kind string, i int, m member) <-chan struct{} {
	f.t.Helper()
	begun, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	run := map[string]func(func()) error{
		"events":  func(up func()) error { return f.events(ctx, i, m, false, up) },
		"events2": func(up func()) error { return f.events(ctx, i, m, true, up) },
		"upload":  func(up func()) error { return f.upload(ctx, i, m, up) },
		"socket":  func(up func()) error { return f.socket(ctx, i, m, up) },
		"tunnel":  func(up func()) error { return f.through(ctx, i, m, up) },
	}[kind]
	var why error
	go func() {
		defer close(ended)
		why = run(func() { once.Do(func() { close(begun) }) })
	}()
	select {
	case <-begun:
	case <-ended:
		f.t.Fatalf("replica %d: %s did not begin: %v", i, kind, why)
	case <-time.After(30 * time.Second):
		f.t.Fatalf("replica %d: %s does not begin", i, kind)
	}
	return ended
}

func (f *fleet) begin(ctx context.Context, method, path string, body io.Reader, m member) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, "https://acme.example.com/"+path+"/"+m.Session, body)
	if err == nil {
		r.Header.Set("Authorization", "Bearer "+m.Handles["acme"])
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	return r, err
}

// events reads a download without end.
func (f *fleet) events(ctx context.Context, i int, m member, h2 bool, up func()) error {
	r, err := f.begin(ctx, http.MethodGet, "stream", nil, m)
	if err != nil {
		return err
	}
	c := f.client(i, m)
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || (resp.ProtoMajor == 2) != h2 {
		return fmt.Errorf("it began with %s %s", resp.Proto, resp.Status)
	}
	b := make([]byte, 512)
	for {
		if _, err := resp.Body.Read(b); err != nil {
			return err
		}
		f.mark(m.Session)
		up()
	}
}

// upload sends a body without end.
func (f *fleet) upload(ctx context.Context, i int, m member, up func()) error {
	pr, pw := io.Pipe()
	defer pr.Close()
	go testkit.Tick(ctx, func(n int) error {
		if n == 1 { // the one before was taken off
			up()
		}
		_, err := pw.Write([]byte("x"))
		return err
	})
	r, err := f.begin(ctx, http.MethodPost, "upload", pr, m)
	if err != nil {
		return err
	}
	resp, err := f.client(i, m).Do(r)
	if err == nil {
		resp.Body.Close()
		err = errors.New(resp.Status)
	}
	return err
}

// socket sends messages without end, and notes how the socket is closed.
func (f *fleet) socket(ctx context.Context, i int, m member, up func()) error {
	c, _, err := websocket.Dial(ctx, "wss://acme.example.com/socket/"+m.Session, &websocket.DialOptions{
		HTTPClient: f.client(i, m), HTTPHeader: http.Header{"Authorization": {"Bearer " + m.Handles["acme"]}},
	})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	go testkit.Tick(ctx, func(int) error { return c.Write(ctx, websocket.MessageText, []byte("x")) })
	for {
		if _, _, err := c.Read(ctx); err != nil {
			f.closed.Store(fmt.Sprint(m.Session, i, time.Now().UnixNano()), websocket.CloseStatus(err))
			return err
		}
		f.mark(m.Session)
		up()
	}
}

// through sends lines through an uninspected tunnel.
func (f *fleet) through(ctx context.Context, i int, m member, up func()) error {
	c, err := net.Dial("tcp", f.replicas[i].Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s:443\r\nProxy-Authorization: Basic %s\r\n\r\n", wild, base64.StdEncoding.EncodeToString([]byte(m.user()+":"+m.Token)))
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	go testkit.Tick(ctx, func(int) error {
		_, err := fmt.Fprintln(c, m.Session)
		return err
	})
	for {
		if _, err := br.ReadString('\n'); err != nil {
			return err
		}
		up()
	}
}

// allEnd waits for the end of some streams.
func allEnd(t *testing.T, ended []<-chan struct{}, what string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for i, c := range ended {
		select {
		case <-c:
		case <-late:
			t.Fatalf("%s: stream %d goes on", what, i)
		}
	}
}

// partings checks what those who had a WebSocket were told when it was cut.
func (f *fleet) partings(may ...websocket.StatusCode) {
	f.t.Helper()
	n := 0
	f.closed.Range(func(k, v any) bool {
		ok := false
		for _, code := range may {
			ok = ok || v == code
		}
		if !ok {
			f.t.Errorf("a WebSocket ended with %v, want one of %v", v, may)
		}
		f.closed.Delete(k)
		n++
		return true
	})
	if n == 0 {
		f.t.Error("no WebSocket was cut")
	}
}

// undecided checks that the uploads of sessions that were ended are recorded as what may
// have happened.
func (f *fleet) undecided(ended map[string]bool) {
	f.t.Helper()
	var why string
	defer func() {
		if f.t.Failed() && why != "" {
			f.t.Log(why)
		}
	}()
	within(f.t, 30*time.Second, "records of uploads that were cut", func() bool {
		why = ""
		n := 0
		for i, p := range f.replicas {
			records, err := p.Records()
			must(f.t, err)
			uploads := map[string]string{}
			for _, r := range records {
				if r.Event == "decision" && strings.HasPrefix(r.Request.Path, "/upload/") && ended[r.Session] {
					uploads[r.ID] = "no outcome"
					n++
				}
				if r.Event == "outcome" && uploads[r.ID] != "" {
					uploads[r.ID] = fmt.Sprintf("%+v", r.Outcome)
					if r.Outcome.Indeterminate && (r.Outcome.Error == "session_revoked" || r.Outcome.Error == "store_stale") {
						delete(uploads, r.ID)
					}
				}
			}
			for id, what := range uploads {
				why += fmt.Sprintf("replica %d, upload %s: %s\n", i, id, what)
			}
		}
		return n > 0 && why == ""
	})
}
