package ship

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
)

// collector is a real server that takes what sinks post, or does not.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	mode   string // "", down, slow, rubbish, refuse
	bodies [][]byte
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		b, _ := io.ReadAll(body)
		c.mu.Lock()
		mode := c.mode
		c.mu.Unlock()
		switch mode {
		case "hang":
			<-r.Context().Done()
			return
		case "refuse":
			http.Error(w, "no", http.StatusInternalServerError)
			return
		case "rubbish":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "\x00rubbish\r\n\r\n")
			conn.Close()
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bodies = append(c.bodies, b)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) set(mode string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode = mode
}

func (c *collector) took() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.bodies)
}

func (c *collector) options() HTTPOptions {
	pool := x509.NewCertPool()
	pool.AddCert(c.Certificate())
	return HTTPOptions{URL: c.URL, TLS: &tls.Config{RootCAs: pool}, Timeout: 300 * time.Millisecond}
}

// scribe writes requests to a log.
type scribe struct {
	t    *testing.T
	path string
	log  *audit.Log
	n    int
}

func newScribe(t *testing.T) *scribe {
	s := &scribe{t: t, path: filepath.Join(t.TempDir(), "decisions.jsonl")}
	s.open()
	t.Cleanup(func() { s.log.Close() })
	return s
}

func (s *scribe) open() {
	l, err := audit.Open(audit.Options{Path: s.path, MaxSize: 32 << 10})
	if err != nil {
		s.t.Fatal(err)
	}
	s.log = l
}

func (s *scribe) write(n int) {
	s.t.Helper()
	for range n {
		s.n++
		r := s.log.Open(time.Now())
		r.Agent = audit.Agent{ID: "bot", Instance: "i_1", Owner: "team:dev"}
		r.Human = &policy.Human{Sub: "alice", Iss: "https://idp", Email: "alice@acme.com"}
		r.Session = "s_1"
		_, r.Traceparent = audit.Traceparent("", r.ID)
		r.Action = policy.Action{ID: "github:issues/create", Service: "github", Operation: "issues/create", Access: policy.AccessWrite, Known: true}
		r.Resource = policy.Resource{Type: "repository", ID: "acme/web"}
		r.Request = audit.Request{Method: "POST", Host: "api.github.com", Path: "/repos/acme/web/issues", Client: "127.0.0.1:5000", Protocol: "HTTP/1.1"}
		r.Decision = audit.Decision{Result: policy.Allow, Policy: "abc"}
		r.Outcome = audit.Outcome{Status: 201, Total: time.Millisecond}
		if s.n%10 == 0 {
			r.Decision = audit.Decision{Result: policy.Deny, Policy: "abc", Reasons: []string{"No grant."}}
			r.Alarm, r.Outcome.Status, r.Outcome.Error = "handle_theft", 403, "handle_theft"
		}
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.log.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// lines are those of the log, by their numbers.
func (s *scribe) lines() map[uint64]string {
	s.t.Helper()
	if err := s.log.Flush(); err != nil {
		s.t.Fatal(err)
	}
	all := map[uint64]string{}
	for e, err := range audit.Events(s.path) {
		if err != nil {
			s.t.Fatal(err)
		}
		all[e.Seq] = string(e.Raw)
	}
	return all
}

func (s *scribe) sink(o Options) *Sink {
	s.t.Helper()
	o.Path, o.Every = s.path, 5*time.Millisecond
	if o.Name == "" {
		o.Name = "test"
	}
	if o.Cursor == "" {
		o.Cursor = filepath.Join(s.t.TempDir(), "cursor.json")
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Overtaken == nil {
		o.Overtaken = func(m string) { s.t.Error(m) }
	}
	k, err := Start(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

func closeSink(t *testing.T, k *Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := k.Close(ctx); err != nil {
		t.Error(err)
	}
}

// until waits until f is true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s did not come about", what)
		}
	}
}

// TestSinkDownSlowAndBack has each trouble in turn while the log is written: each line
// arrives in the end, and the writer never waits.
func TestSinkDownSlowAndBack(t *testing.T) {
	for _, mode := range []string{"refuse", "hang", "rubbish", "gone"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := newCollector(t)
			s := newScribe(t)
			o := c.options()
			if mode == "gone" { // nothing listens
				o.URL = "https://127.0.0.1:1"
			} else {
				c.set(mode)
			}
			var mu sync.Mutex
			var told []string
			notice := func(m string) { mu.Lock(); defer mu.Unlock(); told = append(told, m) }
			hook := NewWebhook(o).(webhook)
			k := s.sink(Options{Target: hook, Notice: notice, Batch: 50})
			s.write(100)
			until(t, "the failure", func() bool { st := k.Status(); return st.Error != "" && st.Behind > 0 })
			if mode == "gone" {
				return // it stays so: closing gives up on it
			}
			c.set("")
			s.write(100)
			until(t, "what is behind", func() bool { return k.Status().Behind == 0 })
			closeSink(t, k)
			got := map[uint64]string{}
			for _, body := range c.took() {
				var batch []json.RawMessage
				if err := json.Unmarshal(body, &batch); err != nil {
					t.Fatal(err)
				}
				for _, line := range batch {
					n, err := audit.Number(line)
					if err != nil {
						t.Fatal(err)
					}
					got[n] = string(line)
				}
			}
			same(t, got, s.lines())
			mu.Lock()
			defer mu.Unlock()
			if len(told) != 2 || !strings.Contains(told[0], "fails and will be tried again") || !strings.Contains(told[1], "works again after") {
				t.Errorf("told %q", told)
			}
		})
	}
}

func same(t *testing.T, got, want map[uint64]string) {
	t.Helper()
	if len(got) != len(want) || len(want) < 200 {
		t.Errorf("%d lines arrived, want %d", len(got), len(want))
	}
	for n, line := range want {
		if got[n] != line {
			t.Fatalf("line %d: got %s, want %s", n, got[n], line)
		}
	}
}

// TestCursorOutlivesTheProcess ends a sink and starts it again: nothing is left out.
func TestCursorOutlivesTheProcess(t *testing.T) {
	c, s := newCollector(t), newScribe(t)
	cursor := filepath.Join(t.TempDir(), "cursor.json")
	for range 3 {
		k := s.sink(Options{Target: NewOCSF(c.options()), Cursor: cursor})
		s.write(40)
		closeSink(t, k)
	}
	seen := map[string]bool{}
	for _, body := range c.took() {
		var batch []map[string]any
		if err := json.Unmarshal(body, &batch); err != nil {
			t.Fatal(err)
		}
		for _, v := range batch {
			if v["status_id"] != 0.0 {
				seen[v["metadata"].(map[string]any)["uid"].(string)] = true
			}
			checkOCSF(t, v)
		}
	}
	if len(seen) != 120 {
		t.Errorf("%d requests arrived, want 120", len(seen))
	}
}

// TestOvertaken removes segments before a sink comes to them: that is told and counted.
func TestOvertaken(t *testing.T) {
	c, s := newCollector(t), newScribe(t)
	s.write(200)
	segments, err := audit.Segments(s.path)
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	if err := errors.Join(os.Remove(segments[0]), os.Remove(segments[1])); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	k := s.sink(Options{Target: NewWebhook(c.options()), Overtaken: func(m string) { told <- m }})
	closeSink(t, k)
	select {
	case m := <-told:
		if !strings.Contains(m, "lines 1 to ") {
			t.Errorf("told %q", m)
		}
	default:
		t.Error("nothing was told")
	}
	if k.Status().Lost == 0 {
		t.Error("nothing is counted")
	}
}

// TestMaskFails lets nothing out that could not be masked, and leaves nothing out.
func TestMaskFails(t *testing.T) {
	c, s := newCollector(t), newScribe(t)
	var mu sync.Mutex
	broken := true
	mask := func(_ context.Context, line []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return nil, errors.New("mask is broken")
		}
		return []byte(strings.ReplaceAll(string(line), "alice@acme.com", "x")), nil
	}
	k := s.sink(Options{Target: NewWebhook(c.options()), Mask: mask, Events: []string{"alarm"}})
	s.write(20)
	until(t, "the failure", func() bool { return strings.Contains(k.Status().Error, "mask is broken") })
	if len(c.took()) > 0 {
		t.Error("something left unmasked")
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	until(t, "what is behind", func() bool { return k.Status().Behind == 0 })
	closeSink(t, k)
	all := fmt.Sprintf("%s", c.took())
	if strings.Contains(all, "alice@acme.com") || strings.Count(all, `"event":"alarm"`) != 2 || strings.Contains(all, `"event":"decision"`) {
		t.Errorf("took %s", all)
	}
}
