package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
)

// TestNewerLog reads a log of a newer version: fields and events that are not known are
// passed over, by the index as by the lines.
func TestNewerLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	var b strings.Builder
	zero := strings.Repeat("0", 64)
	for i, event := range []string{"decision", "approval", "outcome", "decision", "outcome"} {
		fmt.Fprintf(&b, `{"v":9,"time":"2026-03-14T12:00:0%d.000000Z","id":"r%d","event":%q,"agent":{"id":"bot","model":{"name":"m","temperature":0.2}},"new":[{"deep":[[]]}],"outcome":{"status":200,"phases":{"dns":1}},"request":{"method":"GET"},"decision":{"result":"allow"},"seq":%d,"prev":"%s"}`+"\n",
			i, i/3, event, i+1, zero)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{{Path: path, Key: key}, {Path: path, NoIndex: true}} {
		q.Filter = audit.Filter{Agent: "bot", Status: "200"}
		if got := list(t, q); len(got) != 2 {
			t.Errorf("%d exchanges, want 2: %q", len(got), got)
		}
	}
	if e, err := audit.Parse([]byte(`{"id":"x"}`)); err == nil {
		t.Errorf("a line without an event is one: %+v", e)
	}
	if err := os.WriteFile(path, []byte("{\"id\":\"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range List(t.Context(), Query{Path: path}) {
		if err == nil {
			t.Error("a line that is no event was passed over in silence")
		}
	}
}

// TestClockJumps writes while the clock is set back and forth: each span holds what its
// times say, indexed or not.
func TestClockJumps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l, err := audit.Open(audit.Options{Path: path, MaxSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	jumps := []time.Duration{0, time.Hour, -48 * time.Hour, 30 * time.Minute, 400 * 24 * time.Hour, -time.Hour}
	for i := range 300 {
		r := l.Open(start.Add(jumps[i%len(jumps)] + time.Duration(i)*time.Second))
		r.Agent.ID, r.Decision.Result = "bot", policy.Allow
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMaker(path, key).Update(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []audit.Filter{
		{Since: start, Until: start.Add(20 * time.Minute)}, {Until: start}, {Since: start.Add(24 * time.Hour)}, {Since: start.Add(time.Hour), Until: start.Add(2 * time.Hour)},
	} {
		var want []string
		for x, err := range audit.Exchanges(path, f) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, describe(x))
		}
		if got := list(t, Query{Path: path, Key: key, Filter: f}); len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%v: %d exchanges, want %d", f, len(got), len(want))
		}
	}
}
