package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const load = 16 // agents' connections at once

// TestKillLosesNoRecord kills the proxy with SIGKILL in the middle of a load. Each
// request that the service received has to be in the decision log, and the log has
// to verify once the program started again.
func TestKillLosesNoRecord(t *testing.T) {
	w := begin(t)
	s, c := w.open(t, human)
	service := w.services["api.github.com"]
	var agents sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := range load {
		agents.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				url := fmt.Sprintf("https://api.github.com/repos/acme/web/issues/%d?agent=%d", n, i)
				if _, _, err := get(ctx, c, url, s.Handles["gh"]); err != nil {
					return // killed
				}
			}
		})
	}
	until(t, "2,000 requests", func() bool { return len(service.Received()) >= 2000 })
	w.Kill()
	stop()
	agents.Wait()
	got := service.Received()
	w.verb(t, "", "log", "verify") // without a proxy: what stood in the ring alone is entered

	written := map[string]int{}
	records, err := w.Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Event == "decision" && r.Decision.Result == "allow" {
			written[r.Request.Method+" "+r.Request.Path]++
		}
	}
	for _, r := range got {
		path, _, _ := strings.Cut(r.Target, "?")
		if written[r.Method+" "+path]--; written[r.Method+" "+path] < 0 {
			t.Errorf("the service received %s %s more often than the log says", r.Method, path)
		}
	}
	if err := w.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.verb(t, "", "log", "verify")
	w.verb(t, "", "session", "show", s.Session)
	w.sweep(t, s.secrets(t)...)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

// TestNothingStaysBehind makes 10,000 requests in several tunnels, some refused,
// and looks for what they left: descriptors, threads, memory that goes on growing.
func TestNothingStaysBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 requests")
	}
	w := begin(t)
	s, c := w.open(t, human)
	burst := func(n int) {
		var agents sync.WaitGroup
		for i := range load {
			agents.Go(func() {
				for k := range n / load {
					target, want := "https://api.github.com/repos/acme/web/issues", http.StatusOK
					if (i+k)%10 == 0 {
						target, want = "https://api.github.com/user", http.StatusForbidden
					}
					if code, body, err := get(t.Context(), c, target, s.Handles["gh"]); err != nil || code != want {
						t.Errorf("%s: %d %s %v", target, code, body, err)
						return
					}
				}
				c.CloseIdleConnections() // so that there are many tunnels
			})
		}
		agents.Wait()
	}
	before := w.descriptors(t)
	burst(1000) // what is made once is made now
	burst(10_000)
	c.CloseIdleConnections()
	until(t, fmt.Sprintf("%d descriptors, as before,", before), func() bool { return w.descriptors(t) <= before })
	if kept := w.services["api.github.com"].Open(); kept > 4*load {
		t.Errorf("%d connections kept to the service", kept)
	}
	if threads := len(w.proc(t, "task")); threads > 64 {
		t.Errorf("%d threads", threads)
	}
	if got := w.metric(t, "go_goroutines"); got < 1 || got > 100 {
		t.Errorf("%v goroutines when idle", got)
	}
	w.sweep(t, s.secrets(t)...)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

// descriptors counts open files and sockets, leaving out the connections to
// services, of which the idle ones are kept on purpose.
func (w *world) descriptors(t *testing.T) int {
	t.Helper()
	n := len(w.proc(t, "fd"))
	for _, s := range w.services {
		n -= int(s.Open())
	}
	return n
}

func (w *world) proc(t *testing.T, what string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(w.PID()), what))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// metric reads one figure without labels; -1 when it is not there.
func (w *world) metric(t *testing.T, name string) float64 {
	t.Helper()
	b, err := w.Admin(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var v float64
		if n, _ := fmt.Sscanf(line, name+" %g", &v); n == 1 {
			return v
		}
	}
	return -1
}

// until polls, and fails after 30 seconds.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not come about", what)
		case <-tick.C:
		}
	}
}
