package index

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
)

var (
	millions = flag.Int("millions", 0, "how many million records TestMillions asks")
	keepIn   = flag.String("millions-dir", "", "where TestMillions keeps its log for another run")
)

// TestMillions measures what the index takes and how long questions take, over as
// many records as -millions says, packed. With -millions=10 it needs about 5 GB.
func TestMillions(t *testing.T) {
	if *millions == 0 {
		t.Skip("say -millions=10")
	}
	dir := *keepIn
	if dir == "" {
		dir = t.TempDir()
	}
	path := filepath.Join(dir, "decisions.jsonl")
	begin := time.Now()
	if s, err := audit.Segments(path); err != nil || len(s) == 0 {
		generate(t, path, *millions*1_000_000)
	}
	lines, packed, indexed := sizes(t, path, dir)
	t.Logf("made, indexed and packed in %s: lines %.2f GB, packed %.2f GB, index %.1f MB", time.Since(begin).Round(time.Second), float64(lines)/1e9, float64(packed)/1e9, float64(indexed)/1e6)
	day := time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)
	who := audit.Filter{Resource: "acme/web", Since: day, Until: day.AddDate(0, 0, 1)}
	for _, q := range []struct {
		name  string
		f     audit.Filter
		group []string
	}{
		{"who touched acme/web on 14 March, by human, agent, action", who, []string{"human", "agent", "action"}},
		{"who ever touched acme/web, by human, agent, action", audit.Filter{Resource: "acme/web"}, []string{"human", "agent", "action"}},
		{"all by agent and result", audit.Filter{}, []string{"agent", "result"}},
		{"all by human and day", audit.Filter{}, []string{"human", "day"}},
		{"denied in one session", audit.Filter{Session: "s_777", Result: "deny"}, nil},
		{"every alarm, listed", audit.Filter{Result: "alarm", Human: "h7@acme.com"}, nil},
		{"deletes by human", audit.Filter{Access: "delete"}, []string{"human"}},
	} {
		start := time.Now()
		n := ask(t, Query{Path: path, Key: key, Filter: q.f, Group: q.group})
		took := time.Since(start)
		t.Logf("%6.0f ms  %8d lines  %s", float64(took.Microseconds())/1e3, n, q.name)
		if took > 2*time.Second && *millions <= 10 {
			t.Errorf("%s took %s", q.name, took)
		}
	}
}

func ask(t *testing.T, q Query) (n int) {
	q.Notice = func(m string) { t.Error(m) }
	if q.Group != nil {
		groups, err := Count(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return len(groups)
	}
	for _, err := range List(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func sizes(t *testing.T, path, dir string) (lines, packed, indexed int64) {
	segments := mustSegments(t, path)
	for _, name := range segments {
		s, err := audit.OpenSegment(name)
		if err != nil {
			t.Fatal(err)
		}
		lines += s.Size()
		s.Close()
	}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		switch {
		case err != nil:
		case filepath.Ext(name) == ".idx":
			indexed += info.Size()
		default:
			packed += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, packed, indexed
}

// generate writes n records over the days around 14 March, indexes and packs them.
func generate(t *testing.T, path string, n int) {
	l, err := audit.Open(audit.Options{Path: path, MaxSize: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	step := 30 * 24 * time.Hour / time.Duration(n)
	ops := [...]string{"issues/create", "issues/list", "pulls/get", "repos/get", "contents/get", "issues/update", "repos/delete", "actions/list"}
	access := [...]policy.Access{policy.AccessWrite, policy.AccessList, policy.AccessRead, policy.AccessRead, policy.AccessRead, policy.AccessWrite, policy.AccessDelete, policy.AccessList}
	var r audit.Record
	for i := range n {
		l.Reopen(&r, from.Add(time.Duration(i)*step))
		session, op, human := i/500, rng.IntN(len(ops)), rng.IntN(400)
		r.Agent = audit.Agent{ID: "agent-" + strconv.Itoa(session%60), Instance: "i_" + strconv.Itoa(session), Owner: "team:" + strconv.Itoa(session%9)}
		r.Human = &policy.Human{Sub: "u" + strconv.Itoa(human), Iss: "https://idp.acme.com", Email: "h" + strconv.Itoa(human) + "@acme.com"}
		r.Session, r.Purpose = "s_"+strconv.Itoa(session), "triage of the backlog"
		r.Action = policy.Action{ID: "github:" + ops[op], Service: "github", Operation: ops[op], Access: access[op], Known: true}
		r.Resource = policy.Resource{Type: "repository", ID: "acme/repo-" + strconv.Itoa(rng.IntN(3000))}
		if i%400 == 0 {
			r.Resource.ID = "acme/web"
		}
		r.Request = audit.Request{Method: "GET", Host: "api.github.com", Path: "/repos/" + r.Resource.ID + "/" + ops[op], Protocol: "HTTP/2.0", Client: "10.0.0." + strconv.Itoa(session%250) + ":" + strconv.Itoa(30000+session%20000)}
		r.Decision = audit.Decision{Result: policy.Allow, Policy: "3f9c2a71"}
		r.Credential = audit.Credential{ID: "gh-" + strconv.Itoa(human), Handle: fmt.Sprintf("h_%016x", uint64(human)*0x9e3779b97f4a7c15)}
		r.Outcome = audit.Outcome{Status: 200, BytesOut: int64(rng.IntN(50000)), Total: time.Duration(rng.IntN(300)) * time.Millisecond, Added: 300 * time.Microsecond}
		if rng.IntN(40) == 0 {
			r.Decision.Result, r.Decision.Reasons, r.Outcome.Status, r.Outcome.Error = policy.Deny, []string{"No grant covers it."}, 403, "denied"
		}
		if rng.IntN(100000) == 0 {
			r.Alarm = "handle_theft"
		}
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
	for _, name := range mustSegments(t, path) {
		if name == path {
			continue
		}
		if _, err := audit.Pack(name); err != nil {
			t.Fatal(err)
		}
	}
}
