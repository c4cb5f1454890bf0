package index

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
)

type testKey struct{ ed25519.PrivateKey }

func (k testKey) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.PrivateKey, msg), nil }
func (k testKey) Verify(msg, sig []byte) bool {
	return ed25519.Verify(k.Public().(ed25519.PublicKey), msg, sig)
}

var key = testKey{ed25519.NewKeyFromSeed(make([]byte, 32))}

var start = time.Date(2026, 3, 14, 9, 0, 0, 0, time.Local)

// write makes a log of n requests in small segments, some of which end in another
// segment than they began in.
func write(t testing.TB, path string, n int, size int64) {
	t.Helper()
	l, err := audit.Open(audit.Options{Path: path, MaxSize: size})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var late []*audit.Record
	for i := range n {
		r := l.Open(start.Add(time.Duration(i) * time.Second))
		describeRequest(r, rng, i)
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
		if i%50 == 7 {
			late = append(late, r)
			continue
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if len(late) > 3 {
			if err := late[0].Close(); err != nil {
				t.Fatal(err)
			}
			late = late[1:]
		}
	}
	if err := l.Close(); err != nil { // some never end
		t.Fatal(err)
	}
}

func describeRequest(r *audit.Record, rng *rand.Rand, i int) {
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	r.Agent = audit.Agent{ID: pick("triage-bot", "deploy-bot", "sales-bot"), Instance: "i_" + strconv.Itoa(i/20), Owner: "team:dev"}
	r.Human = &policy.Human{Sub: pick("a", "b", "c"), Iss: "https://idp.example"}
	if r.Human.Sub != "c" {
		r.Human.Email = r.Human.Sub + "@acme.com"
	}
	r.Session, r.Purpose = "s_"+strconv.Itoa(i/10), "line\n\"quoted\" – ü"
	op := pick("issues/create", "issues/list", "pulls/get")
	r.Action = policy.Action{ID: "github:" + op, Service: "github", Operation: op, Access: policy.AccessWrite, Known: true}
	r.Resource = policy.Resource{Type: "repository", ID: pick("acme/web", "acme/api", "acme/docs")}
	if i%97 == 3 {
		r.Actions = []policy.Act{{Action: r.Action, Resource: r.Resource}, {Action: policy.Action{ID: "slack:chat", Service: "slack"}, Resource: policy.Resource{ID: "C1"}}}
	}
	if r.Credential = (audit.Credential{ID: pick("gh", "app"), Handle: "f_1"}); i%89 == 5 {
		r.Credential.Beside = audit.Beside{ID: "client", Handle: "f_2"}
	}
	r.Request = audit.Request{Method: "POST", Host: "api.github.com", Path: "/repos/" + r.Resource.ID, Protocol: "HTTP/1.1", Client: "127.0.0.1:1"}
	r.Decision = audit.Decision{Result: policy.Allow, Policy: "p1"}
	r.Outcome.Status = 200
	if rng.IntN(10) == 0 {
		r.Decision.Result, r.Outcome.Status, r.Outcome.Error, r.Alarm = policy.Deny, 403, "handle_theft", "handle_theft"
	}
}

func list(t testing.TB, q Query) []string {
	t.Helper()
	var got []string
	for x, err := range List(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, describe(x))
	}
	return got
}

func describe(x audit.Exchange) string {
	s := string(x.Decision.Raw)
	if x.Outcome != nil {
		s += string(x.Outcome.Raw)
	}
	return s
}

func filters() map[string]audit.Filter {
	return map[string]audit.Filter{
		"all": {}, "agent": {Agent: "triage-bot"}, "human by address": {Human: "a@acme.com"}, "human by subject": {Human: "c"},
		"who touched": {Resource: "acme/web", Since: start.Add(time.Minute), Until: start.Add(10 * time.Minute)},
		"pattern":     {Action: "github:issues/*", Resource: "acme/*"}, "one of several": {Resource: "C1"}, "service of one": {Service: "slack"},
		"denied": {Result: "deny"}, "alarm": {Result: "alarm"}, "status": {Status: "403"}, "status pattern": {Status: "2*"}, "error": {Error: "handle*"},
		"path is not in the index": {Path: "/repos/acme/api", Agent: "sales-bot"}, "nothing": {Agent: "nobody"}, "session": {Session: "s_3"},
		"purpose": {Purpose: "line\n*"}, "instance": {Instance: "i_5"}, "credential": {Credential: "gh"}, "a credential beside": {Credential: "client"}, "either credential": {Credential: "c*"}, "handle beside": {Handle: "f_2"}, "future": {Since: start.Add(1000 * time.Hour)},
	}
}

// TestAnswersAreTheLogs holds what the index answers against what a reading of all
// lines gives, for segments packed and not, indexed and not.
func TestAnswersAreTheLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	write(t, path, 1500, 64<<10)
	want := map[string][]string{}
	for name, f := range filters() {
		for x, err := range audit.Exchanges(path, f) {
			if err != nil {
				t.Fatal(err)
			}
			want[name] = append(want[name], describe(x))
		}
	}
	check := func(state string, q Query) {
		for name, f := range filters() {
			q.Path, q.Filter = path, f
			if got := list(t, q); !slices.Equal(got, want[name]) {
				t.Errorf("%s, %s: %d exchanges, want %d", state, name, len(got), len(want[name]))
			}
			counted := q
			counted.Group = []string{"agent", "human", "status", "day"}
			groups, err := Count(t.Context(), counted)
			n := 0
			for _, g := range groups {
				n += g.Count
			}
			if err != nil || n != len(want[name]) {
				t.Errorf("%s, %s: counted %d, want %d (%v)", state, name, n, len(want[name]), err)
			}
		}
	}
	check("no index", Query{})
	if n, err := NewMaker(path, key).Update(); err != nil || n < 5 {
		t.Fatalf("%d parts, %v", n, err)
	}
	notices := 0
	check("index", Query{Key: key, Notice: func(m string) {
		if notices == 0 {
			t.Log(m)
		}
		notices++
	}})
	segments, err := audit.Segments(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments[:len(segments)-1] {
		if _, err := audit.Pack(s); err != nil {
			t.Fatal(err)
		}
	}
	check("packed", Query{Key: key, Notice: func(m string) {
		if notices == 0 {
			t.Log(m)
		}
		notices++
	}})
	if rep, err := audit.Verify(path, ""); err != nil || rep.Bad != nil {
		t.Errorf("%+v, %v", rep, err)
	}
	if n, err := NewMaker(path, key).Update(); err != nil || n != 0 || notices != 0 {
		t.Errorf("a second look wrote %d parts, %v; told %d times", n, err, notices)
	}
}

func TestGroups(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	write(t, path, 1500, 64<<10)
	if _, err := NewMaker(path, key).Update(); err != nil {
		t.Fatal(err)
	}
	fields := []string{"human", "agent", "action", "hour", "status"}
	f := audit.Filter{Resource: "acme/web"}
	want := map[string]*Group{}
	for x, err := range audit.Exchanges(path, f) {
		if err != nil {
			t.Fatal(err)
		}
		count(want, fields, &x)
	}
	got, err := Count(t.Context(), Query{Path: path, Filter: f, Group: fields, Key: key})
	if err != nil || len(got) != len(want) || len(got) < 20 {
		t.Fatalf("%d groups, want %d (%v)", len(got), len(want), err)
	}
	for i, g := range got {
		w := want[joined(g.Key)]
		if w == nil || g.Count != w.Count || g.Denied != w.Denied || g.Alarms != w.Alarms || !g.First.Equal(w.First) || !g.Last.Equal(w.Last) {
			t.Errorf("%+v, want %+v", g, w)
		}
		if i > 0 && g.Count > got[i-1].Count {
			t.Errorf("not the largest first")
		}
	}
}

// TestUnsoundIndexHidesNothing damages, changes, exchanges and forges index files:
// each is noticed, and the answer comes from the lines.
func TestUnsoundIndexHidesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	write(t, path, 600, 32<<10)
	if _, err := NewMaker(path, key).Update(); err != nil {
		t.Fatal(err)
	}
	q := Query{Path: path, Key: key, Filter: audit.Filter{Agent: "triage-bot"}}
	want := list(t, q)
	files, _ := filepath.Glob(filepath.Join(Dir(path), "*.idx"))
	whole, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(files[2])
	if err != nil {
		t.Fatal(err)
	}
	forger := testKey{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))}
	segment, err := audit.OpenSegment(mustSegments(t, path)[1])
	if err != nil {
		t.Fatal(err)
	}
	defer segment.Close()
	number, _ := audit.SegmentNumber(path, segment.Name())
	part, err := Build(segment, number, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := part.encode(forger)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(whole)
	at := bytes.Index(changed, []byte(`"rows":`))
	changed[at+7]++
	flipped := bytes.Clone(whole)
	flipped[bytes.Index(flipped, []byte(`"blobs"`))+2000+len(columnNames)*40] ^= 1
	for name, b := range map[string][]byte{"cut short": whole[:len(whole)/2], "empty": {}, "head changed": changed, "column changed": flipped, "another's": other, "signed by another": forged, "rubbish": bytes.Repeat([]byte("x"), 9000)} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(files[1], b, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := list(t, q); !slices.Equal(got, want) {
				t.Errorf("%d exchanges, want %d", len(got), len(want))
			}
			if _, err := NewMaker(path, key).Update(); err != nil {
				t.Fatal(err)
			}
			if name == "column changed" { // the head is sound: only a reading of that column tells
				return
			}
			again, err := os.ReadFile(files[1])
			if err != nil || !bytes.Equal(again, whole) {
				t.Errorf("it was not made anew as it was (%v)", err)
			}
		})
	}
}

func mustSegments(t *testing.T, path string) []string {
	t.Helper()
	s, err := audit.Segments(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzEntry holds the quick reader of lines against encoding/json.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"time":"2026-03-14T12:00:00.123456Z","id":"a","event":"decision","agent":{"id":"x\ny"},"resource":{"n":[1,{"id":2}],"id":"r"},"actions":[{}]}`))
	f.Add([]byte(`{"time":"2026-03-14T12:00:00Z","id":"a","event":"outcome","outcome":{"status":404,"error":"e"}} `))
	f.Fuzz(func(t *testing.T, line []byte) {
		var e entry
		if !e.read(line) {
			return
		}
		ev, err := audit.Parse(line)
		if err != nil || strings.Contains(string(line), `":`) && hasDuplicates(line) {
			return // what the log does not write: either reading will do, neither may crash
		}
		if string(e.id) != ev.ID || string(e.event) != ev.Event {
			t.Errorf("%q: %q %q, want %q %q", line, e.id, e.event, ev.ID, ev.Event)
		}
	})
}

func hasDuplicates(line []byte) bool {
	d := json.NewDecoder(bytes.NewReader(line))
	seen := map[string]bool{}
	for {
		tok, err := d.Token()
		if err != nil {
			return false
		}
		if s, ok := tok.(string); ok {
			s = strings.ToLower(s)
			if seen[s] {
				return true
			}
			seen[s] = true
		}
	}
}

func TestMoment(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10000 {
		want := time.UnixMicro(rng.Int64N(4e15)).UTC()
		text := want.Format("2006-01-02T15:04:05.000000Z")
		if got, ok := moment([]byte(text)); !ok || got != want.UnixMicro() {
			t.Fatalf("%s: %d, want %d", text, got, want.UnixMicro())
		}
	}
	if _, ok := moment([]byte("2026-13-14T12:00:00.123456Z")); ok {
		t.Error("month 13")
	}
}

// TestWhileItMoves asks while the log is written, rotated, packed and pruned.
func TestWhileItMoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	write(t, path, 50, 0)
	done := make(chan error, 1)
	go func() { done <- move(path) }()
	for asked := 0; ; asked++ {
		n := 0
		for _, err := range List(t.Context(), Query{Path: path, Key: key, Filter: audit.Filter{Session: "s_1"}}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 10 {
			t.Fatalf("%d exchanges, want 10", n)
		}
		select {
		case err := <-done:
			if err != nil || asked == 0 {
				t.Fatalf("%v after %d questions", err, asked)
			}
			return
		default:
		}
	}
}

func move(path string) error {
	l, err := audit.Open(audit.Options{Path: path, MaxSize: 16 << 10})
	if err != nil {
		return err
	}
	defer l.Close()
	for range 400 {
		r := l.Open(time.Now())
		r.Agent.ID, r.Decision.Result = "other", policy.Allow
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			return err
		}
		segments, err := audit.Segments(path)
		if err != nil {
			return err
		}
		if len(segments) < 2 || audit.IsPacked(segments[len(segments)-2]) {
			continue
		}
		if _, err := NewMaker(path, key).Update(); err != nil {
			return fmt.Errorf("update: %w", err)
		}
		if _, err := audit.Pack(segments[len(segments)-2]); err != nil {
			return err
		}
	}
	return nil
}

func TestGroupableHasNoSub(t *testing.T) {
	if g := Groupable(); slices.Contains(g, "sub") || !slices.Contains(g, "human") || !reflect.DeepEqual(g[len(g)-2:], []string{"day", "hour"}) {
		t.Errorf("%q", g)
	}
}
