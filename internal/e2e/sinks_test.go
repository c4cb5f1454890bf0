package e2e

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"
)

// takers takes what three sinks send and remembers the decision ids: one is well, one
// slow, one down until it is back.
type takers struct {
	*httptest.Server
	mu   sync.Mutex
	down bool
	ids  map[string]map[string]bool // sink -> ids of requests whose outcome it has
}

func newTakers(t *testing.T) *takers {
	k := &takers{down: true, ids: map[string]map[string]bool{"/webhook": {}, "/ocsf": {}, "/otlp/v1/logs": {}}}
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		if err != nil {
			return
		}
		if r.URL.Path == "/ocsf" {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(30 * time.Millisecond):
			}
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.down && r.URL.Path == "/otlp/v1/logs" {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		for _, id := range ended(t, r.URL.Path, b) {
			k.ids[r.URL.Path][id] = true
		}
	}))
	t.Cleanup(k.Close)
	return k
}

// ended are the ids in a body of requests that have ended.
func ended(t *testing.T, path string, b []byte) (ids []string) {
	switch path {
	case "/webhook":
		var lines []struct{ ID, Event string }
		if err := json.Unmarshal(b, &lines); err != nil {
			t.Error(err)
		}
		for _, l := range lines {
			if l.Event == "outcome" {
				ids = append(ids, l.ID)
			}
		}
	case "/ocsf":
		var events []struct {
			Status   int `json:"status_id"`
			Metadata struct{ UID string }
		}
		if err := json.Unmarshal(b, &events); err != nil {
			t.Error(err)
		}
		for _, e := range events {
			if e.Status != 0 {
				ids = append(ids, e.Metadata.UID)
			}
		}
	default:
		var m logs.LogsData
		if err := proto.Unmarshal(b, &m); err != nil {
			t.Error(err)
		}
		for _, r := range m.ResourceLogs[0].ScopeLogs[0].LogRecords {
			var l struct{ ID, Event string }
			if err := json.Unmarshal([]byte(r.Body.GetStringValue()), &l); err != nil {
				t.Error(err)
			}
			if l.Event == "outcome" {
				ids = append(ids, l.ID)
			}
		}
	}
	return ids
}

func (k *takers) back() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = false
}

func (k *takers) count(sink string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.ids[sink])
}

// TestSinksHaveWhatTheServiceHas puts a load on the proxy while one sink is well, one
// slow and one down, which comes back: what the service received is in the log, and
// what is in the log is at each sink.
func TestSinksHaveWhatTheServiceHas(t *testing.T) {
	w := begin(t)
	k := newTakers(t)
	w.send(t, k)
	s, c := w.open(t, human)
	const each = 100
	var agents sync.WaitGroup
	for i := range load {
		agents.Go(func() {
			for n := range each {
				target, want := "https://api.github.com/repos/acme/web/issues", http.StatusOK
				if (i+n)%10 == 0 {
					target, want = "https://api.github.com/user", http.StatusForbidden
				}
				if code, body, err := get(t.Context(), c, target, s.Handles["gh"]); err != nil || code != want {
					t.Errorf("%s: %d %s %v", target, code, body, err)
					return
				}
			}
		})
	}
	agents.Wait()
	c.CloseIdleConnections()
	if k.count("/otlp/v1/logs") > 0 {
		t.Error("the sink that is down took something")
	}
	k.back()
	records := w.requests(t, load*each)
	for sink := range k.ids {
		until(t, fmt.Sprintf("%d requests at %s", len(records), sink), func() bool { return k.count(sink) >= len(records) })
	}
	allowed := 0
	for id, is := range records {
		for sink := range k.ids {
			k.mu.Lock()
			if !k.ids[sink][id] {
				t.Errorf("%s does not have %s", sink, id)
			}
			k.mu.Unlock()
		}
		if is == "allow" {
			allowed++
		}
	}
	if got := len(w.services["api.github.com"].Received()); got != allowed || allowed < load*each*8/10 {
		t.Errorf("the service received %d requests, the log allowed %d", got, allowed)
	}
	w.sweep(t, s.secrets(t)...)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

// send starts the proxy anew with sinks that lead to the takers.
func (w *world) send(t *testing.T, k *takers) {
	t.Helper()
	f, err := os.OpenFile(w.Config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "\nsinks:\n  - {name: hook, kind: webhook, url: %q}\n  - {name: siem, kind: ocsf, url: %q}\n  - {name: otel, kind: otlp, url: %q}\n", k.URL+"/webhook", k.URL+"/ocsf", k.URL+"/otlp")
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSinksOverKill kills the proxy twice in the middle of a load: what the service
// received is in the log, and each sink has the requests that ended, those and no others.
func TestSinksOverKill(t *testing.T) {
	w := begin(t)
	k := newTakers(t)
	k.back()
	w.send(t, k)
	s, c := w.open(t, human)
	service := w.services["api.github.com"]
	for round := 1; round <= 2; round++ {
		ctx, stop := context.WithCancel(t.Context())
		var agents sync.WaitGroup
		for i := range load {
			agents.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					url := fmt.Sprintf("https://api.github.com/repos/acme/web/issues/%d-%d-%d", round, i, n)
					if _, _, err := get(ctx, c, url, s.Handles["gh"]); err != nil {
						return // killed
					}
				}
			})
		}
		until(t, "500 requests", func() bool { return len(service.Received()) >= 500*round })
		w.Kill()
		stop()
		agents.Wait()
		if err := w.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	records, err := w.Records()
	if err != nil {
		t.Fatal(err)
	}
	allowed, ended := map[string]bool{}, map[string]bool{}
	for _, r := range records {
		switch {
		case r.Event == "outcome":
			ended[r.ID] = true
		case r.Event == "decision" && r.Decision.Result == "allow":
			allowed[r.Request.Path] = true
		}
	}
	for _, r := range service.Received() {
		if !allowed[r.Target] {
			t.Errorf("the service received %s, which the log does not have", r.Target)
		}
	}
	for sink := range k.ids {
		until(t, fmt.Sprintf("%d requests at %s", len(ended), sink), func() bool { return k.count(sink) >= len(ended) })
		k.mu.Lock()
		for id := range ended {
			if !k.ids[sink][id] {
				t.Errorf("%s does not have %s", sink, id)
			}
		}
		if len(k.ids[sink]) != len(ended) {
			t.Errorf("%s has %d requests that ended, the log %d", sink, len(k.ids[sink]), len(ended))
		}
		k.mu.Unlock()
	}
	w.verb(t, "", "log", "verify")
	w.sweep(t, s.secrets(t)...)
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

// requests are the results of all decisions, by id, once n of them are about requests
// and all outcomes are in the log.
func (w *world) requests(t *testing.T, n int) map[string]string {
	t.Helper()
	all := map[string]string{}
	until(t, "all outcomes", func() bool {
		records, err := w.Records()
		if err != nil {
			return false
		}
		open, asked := map[string]bool{}, 0
		for _, r := range records {
			switch r.Event {
			case "decision":
				open[r.ID] = true
				all[r.ID] = r.Decision.Result
				if strings.EqualFold(r.Request.Method, http.MethodConnect) {
					all[r.ID] = "connect"
					continue
				}
				asked++
			case "outcome":
				delete(open, r.ID)
			}
		}
		return len(open) == 0 && asked >= n
	})
	return all
}
