package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chaperone/policy"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 123456000, time.UTC)

func open(t testing.TB, o Options) *Log {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "decisions.jsonl")
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// full returns a record with every field set.
func full(l *Log) *Record {
	r := l.Open(noon)
	r.ID = "01KK0000000000000000000000"
	r.Agent = Agent{ID: "triage-bot", Instance: "i_1", Owner: "team:dev"}
	r.Human = &policy.Human{Sub: "alice", Iss: "https://idp.example", Email: "alice@acme.com"}
	r.Session, r.Purpose = "s_1", "triage"
	r.Chain = []policy.Link{{Session: "s_0", Agent: "boss", Instance: "i_0"}, {Session: "s_1", Agent: "triage-bot", Instance: "i_1"}}
	r.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r.Action = policy.Action{ID: "github:issues/create", Service: "github", Operation: "issues/create", Access: policy.AccessWrite, Known: true}
	r.Resource = policy.Resource{Type: "repository", ID: "acme/web", Params: []policy.Param{{Name: "owner", Value: "acme"}, {Name: "repo", Value: "web"}}}
	r.Actions = []policy.Act{{Action: r.Action, Resource: r.Resource}, {Action: policy.Action{Service: "github", Access: policy.AccessUnknown, Why: "no_route"}}}
	r.Request = Request{Method: "POST", Host: "api.github.com", Path: "/repos/acme/web/issues", QueryKeys: []string{"per_page"}, Protocol: "HTTP/2.0", Client: "127.0.0.1:40000"}
	r.Decision = Decision{Result: policy.Allow, Reasons: []string{"The agent may."}, Policy: "abc123", Obligations: map[string]any{"notify": true}}
	r.Credential = Credential{ID: "gh-alice", Handle: "h_fingerprint", Beside: Beside{"app", "h_second"}}

	r.Outcome = Outcome{201, 120, 4096, 41 * time.Millisecond, 40 * time.Millisecond, 300 * time.Microsecond, "upstream_cut", 1, "coding", true, true}
	return r
}

const golden = `{"time":"2026-03-14T12:00:00.123456Z","id":"01KK0000000000000000000000","event":"decision","agent":{"id":"triage-bot","instance":"i_1","owner":"team:dev"},"human":{"sub":"alice","iss":"https://idp.example","email":"alice@acme.com"},"session":"s_1","purpose":"triage","chain":[{"session":"s_0","agent":"boss","instance":"i_0"},{"session":"s_1","agent":"triage-bot","instance":"i_1"}],"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","action":{"id":"github:issues/create","service":"github","operation":"issues/create","access":"write"},"resource":{"type":"repository","id":"acme/web","owner":"acme","repo":"web"},"actions":[{"action":{"id":"github:issues/create","service":"github","operation":"issues/create","access":"write"},"resource":{"type":"repository","id":"acme/web","owner":"acme","repo":"web"}},{"action":{"service":"github","access":"unknown","unknown":"no_route"}}],"request":{"method":"POST","host":"api.github.com","path":"/repos/acme/web/issues","query":["per_page"],"protocol":"HTTP/2.0","client":"127.0.0.1:40000"},"decision":{"result":"allow","reasons":["The agent may."],"policy":"abc123","obligations":{"notify":true}},"credential":{"id":"gh-alice","handle":"h_fingerprint","beside":{"id":"app","handle":"h_second"}},"alarm":"handle_place","seq":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000"}
{"time":"2026-03-14T12:00:00.123456Z","id":"01KK0000000000000000000000","event":"alarm","alarm":"handle_place","what":"The agent may.","agent":{"id":"triage-bot","instance":"i_1","owner":"team:dev"},"human":{"sub":"alice","iss":"https://idp.example","email":"alice@acme.com"},"session":"s_1","action":{"id":"github:issues/create","service":"github","operation":"issues/create","access":"write"},"resource":{"type":"repository","id":"acme/web","owner":"acme","repo":"web"},"request":{"method":"POST","host":"api.github.com","path":"/repos/acme/web/issues","query":["per_page"],"protocol":"HTTP/2.0","client":"127.0.0.1:40000"},"credential":{"id":"gh-alice","handle":"h_fingerprint","beside":{"id":"app","handle":"h_second"}},"seq":2,"prev":"PREV1"}
{"time":"2026-03-14T12:00:00.164456Z","id":"01KK0000000000000000000000","event":"outcome","outcome":{"status":201,"bytes_in":120,"bytes_out":4096,"total_us":41000,"upstream_us":40000,"added_us":300,"error":"upstream_cut","scrubbed":1,"unsearched":"coding","indeterminate":true,"renewed":true},"seq":3,"prev":"PREV2"}
`

func TestLines(t *testing.T) {
	l := open(t, Options{})
	r := full(l)
	r.Alarm = "handle_place"
	if err := errors.Join(r.Commit(), r.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(l.o.Path)
	if err != nil {
		t.Fatal(err)
	}
	rows := bytes.Split(got, []byte("\n"))
	if len(rows) < 3 {
		t.Fatalf("got\n%s", got)
	}
	want := strings.NewReplacer("PREV1", fmt.Sprintf("%x", sum(rows[0])), "PREV2", fmt.Sprintf("%x", sum(rows[1]))).Replace(golden)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if info, _ := os.Stat(l.o.Path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestEmptyFieldsAreAbsent(t *testing.T) {
	l := open(t, Options{})
	r := l.Open(noon)
	r.Request.Method = "GET"
	r.Decision.Result = policy.Deny
	if err := errors.Join(r.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(l.o.Path)
	for line := range strings.Lines(string(b)) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		walk(t, "", v)
	}
	if n := strings.Count(string(b), "\n"); n != 2 {
		t.Errorf("%d lines for a refused request, want 2", n)
	}
}

func walk(t *testing.T, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			t.Errorf("%s is empty", path)
		}
		for k, x := range v {
			walk(t, path+"."+k, x)
		}
	case []any:
		if len(v) == 0 {
			t.Errorf("%s is empty", path)
		}
	case string:
		if v == "" {
			t.Errorf("%s is empty", path)
		}
	case nil:
		t.Errorf("%s is null", path)
	}
}

// TestSchemaIsDocumented checks docs/log-schema.md against a record in which
// everything is set.
func TestSchemaIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/log-schema.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(golden) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		for k, x := range v {
			names := []string{k}
			if o, ok := x.(map[string]any); ok && k != "resource" {
				names = nil
				for f := range o {
					names = append(names, k+"."+f)
				}
			}
			for _, n := range names {
				if !strings.Contains(string(doc), "| `"+n+"` |") {
					t.Errorf("docs/log-schema.md does not have a row for %s", n)
				}
			}
		}
	}
}

func TestChainOverRotation(t *testing.T) {
	l := open(t, Options{MaxSize: 4 << 10})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				r := full(l)
				r.ID = l.Open(time.Now()).ID
				if err := errors.Join(r.Commit(), r.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rep, err := Verify(l.o.Path, "")
	if err != nil || rep.Bad != nil || rep.Lines != 400 || rep.Segments < 20 {
		t.Fatalf("%+v, %v", rep, err)
	}
	n := 0
	for x, err := range Exchanges(l.o.Path, Filter{Action: "github:issues/*", Human: "alice@acme.com"}) {
		if err != nil || x.Outcome == nil || x.Outcome.ID != x.Decision.ID {
			t.Fatalf("%+v, %v", x, err)
		}
		n++
	}
	if n != 200 {
		t.Errorf("%d exchanges, want 200", n)
	}
	again, err := Open(l.o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Open(noon).Close(), again.Close()); err != nil {
		t.Fatal(err)
	}
	if rep, err = Verify(l.o.Path, rep.Head); err != nil || rep.Bad != nil || rep.Lines != 402 {
		t.Errorf("after reopening: %+v, %v", rep, err)
	}
}

func TestRotationByAgeAndKeep(t *testing.T) {
	now := noon
	l := open(t, Options{MaxAge: time.Hour, Keep: 2, Now: func() time.Time { return now }})
	for range 6 {
		if err := errors.Join(l.Open(now).Close(), l.Flush()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
	}
	segments, err := Segments(l.o.Path)
	if err != nil || len(segments) != 3 {
		t.Errorf("%v, %v", segments, err)
	}
	if rep, err := Verify(l.o.Path, ""); err != nil || rep.Bad != nil || rep.First != 7 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestVerifyFindsTampering(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "decisions.jsonl")
	l := open(t, Options{Path: path})
	for range 5 {
		if err := full(l).Close(); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	whole, _ := os.ReadFile(path)
	rep, _ := Verify(path, "")
	rows := bytes.SplitAfter(whole, []byte("\n"))[:10]
	join := func(rows ...[]byte) []byte { return bytes.Join(rows, nil) }
	for name, tc := range map[string]struct {
		in   []byte
		head string
		want string
	}{
		"changed":             {bytes.Replace(whole, []byte("triage-bot"), []byte("other--bot"), 1), "", "record 1 was changed"},
		"removed":             {join(append(append([][]byte{}, rows[:3]...), rows[4:]...)...), "", "1 records before this one were removed"},
		"moved":               {join(rows[0], rows[2], rows[1], rows[3]), "", "removed"},
		"inserted":            {join(rows[0], rows[1], rows[1], rows[2]), "", "inserted or moved"},
		"rubbish":             {join(rows[0], []byte("rubbish\n"), rows[1]), "", "not a record"},
		"end cut off":         {join(rows[:8]...), rep.Head, "its end was cut off"},
		"start cut off":       {join(rows[2:]...), "", ""}, // as pruned segments are: First tells
		"last record changed": {bytes.Replace(whole, []byte(`"added_us":300,"error":"upstream_cut","scrubbed":1,"unsearched":"coding","indeterminate":true,"renewed":true},"seq":10`), []byte(`"added_us":301,"error":"upstream_cut","scrubbed":1,"unsearched":"coding","indeterminate":true,"renewed":true},"seq":10`), 1), rep.Head, "its end was cut off, or all of it was rewritten"},
	} {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(tc.in, whole) {
				t.Fatal("nothing was tampered with")
			}
			p := filepath.Join(t.TempDir(), "decisions.jsonl")
			if err := os.WriteFile(p, tc.in, 0o600); err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(p, tc.head)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				if rep.Bad != nil || rep.First != 3 {
					t.Errorf("%+v", rep)
				}
				return
			}
			if rep.Bad == nil || !strings.Contains(rep.Bad.Error(), tc.want) {
				t.Errorf("got %v, want %q", rep.Bad, tc.want)
			}
		})
	}
}

func TestTornLineIsSetAside(t *testing.T) {
	l := open(t, Options{})
	if err := errors.Join(full(l).Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	f, _ := os.OpenFile(l.o.Path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"time":"2026-03-14T12:0`)
	f.Close()
	if rep, err := Verify(l.o.Path, ""); err != nil || rep.Bad != nil || !rep.Torn {
		t.Errorf("a torn line is not tampering: %+v, %v", rep, err)
	}
	var notices []string
	o := l.o
	o.Notice = func(m string) { notices = append(notices, m) }
	again := open(t, o)
	if err := errors.Join(full(again).Close(), again.Close()); err != nil {
		t.Fatal(err)
	}
	aside, _ := filepath.Glob(l.o.Path + ".torn-*")
	if len(aside) != 1 || len(notices) != 1 {
		t.Errorf("set aside %v, told %v", aside, notices)
	}
	if rep, err := Verify(l.o.Path, ""); err != nil || rep.Bad != nil || rep.Torn || rep.Lines != 4 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestInUse(t *testing.T) {
	l := open(t, Options{})
	if _, err := Open(l.o); !errors.Is(err, ErrInUse) {
		t.Errorf("second open: %v", err)
	}
}

// TestFullDisk lets the kernel refuse writes beyond a size, and gives the space
// back. It runs in a process of its own, since the limit is the process's.
func TestFullDisk(t *testing.T) {
	if os.Getenv("CHAPERONE_TEST_FULL_DISK") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), "CHAPERONE_TEST_FULL_DISK=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	var notices []string
	l := open(t, Options{Notice: func(m string) { notices = append(notices, m) }})
	waiting := full(l)
	if err := waiting.Commit(); err != nil {
		t.Fatal(err)
	}
	limit := &syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, limit); err != nil {
		t.Fatal(err)
	}
	small := *limit
	small.Cur = 3000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	taken := 0 // into the ring, until the log is found to be full
	for taken < 3 || l.Failed() == nil {
		if err := full(l).Commit(); err == nil {
			taken++
		}
	}
	for range 5 {
		if err := full(l).Commit(); !errors.Is(err, ErrLog) {
			t.Errorf("a decision that cannot be written: %v", err)
		}
	}
	if err := waiting.Close(); err != nil { // the outcome of what was forwarded is kept
		t.Errorf("outcome while the disk is full: %v", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, limit); err != nil {
		t.Fatal(err)
	}
	r := full(l)
	if err := errors.Join(r.Commit(), r.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	rep, err := Verify(l.o.Path, "")
	if err != nil || rep.Bad != nil || rep.Torn || rep.Lines != uint64(4+taken) {
		t.Errorf("%+v, %v; %d decisions were taken", rep, err, taken)
	}
	if len(notices) != 2 {
		t.Errorf("told %q", notices)
	}
}

// TestKilled kills a process that writes under load: whatever Commit returned for
// is in the log.
func TestKilled(t *testing.T) {
	if path := os.Getenv("CHAPERONE_TEST_LOG"); path != "" {
		l := open(t, Options{Path: path})
		var mu sync.Mutex
		for range 8 {
			go func() {
				for {
					r := full(l)
					r.ID = l.Open(time.Now()).ID
					if r.Commit() == nil {
						mu.Lock()
						fmt.Println(r.ID)
						mu.Unlock()
						r.Close()
					}
				}
			}()
		}
		select {}
	}
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), "CHAPERONE_TEST_LOG="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if told[sc.Text()] = true; len(told) == 500 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	l := open(t, Options{Path: path}) // sets a torn line aside
	l.Close()
	for e, err := range Events(path) {
		if err != nil {
			t.Fatal(err)
		}
		delete(told, e.ID)
	}
	for id := range told {
		if len(id) == 26 {
			t.Errorf("committed and gone: %s", id)
		}
	}
	if rep, err := Verify(path, ""); err != nil || rep.Bad != nil || rep.Lines < 500 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestLine(t *testing.T) {
	l := open(t, Options{})
	r := full(l)
	r.Alarm = ""
	r.Purpose = "x\x1b[31m"
	if err := errors.Join(r.Commit(), r.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	for x := range Exchanges(l.o.Path, Filter{}) {
		x.Decision.Time = x.Decision.Time.Local()
		line := x.Line(Layout{})
		for _, want := range []string{"allow", "triage-bot/i_1", "alice@acme.com", "github:issues/create acme/web", "201", "41.0ms (+300µs)", "INDETERMINATE"} {
			if !strings.Contains(line, want) {
				t.Errorf("%q lacks %q", line, want)
			}
		}
		x.Decision.Agent.ID = "evil\x1b[2J\u202e"
		if strings.ContainsAny(x.Line(Layout{}), "\x1b\u202e") {
			t.Error("an escape sequence reached the terminal")
		}
		for _, width := range []int{30, 40, 79, 80, 110, 149, 150, 300} {
			if got := x.Line(Layout{Width: width}); len([]rune(got)) > width || !strings.Contains(got, "github:is") {
				t.Errorf("width %d: %q", width, got)
			}
		}
		if got := x.Line(Layout{Colour: true}); strings.Count(got, "\x1b[") != 2 {
			t.Errorf("colours: %q", got)
		}
	}
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

func FuzzParse(f *testing.F) {
	for line := range strings.Lines(golden) {
		f.Add([]byte(strings.TrimSpace(line)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		if strings.ContainsAny((Exchange{Decision: e}).Line(Layout{}), "\x1b\n\x00") {
			t.Fatalf("control bytes reach the terminal from %q", b)
		}
	})
}

func BenchmarkCommitAndClose(b *testing.B) {
	l := open(b, Options{})
	proto := full(l)
	proto.Actions, proto.Chain, proto.Decision.Obligations, proto.Alarm = nil, nil, nil, ""
	b.ReportAllocs()
	for b.Loop() {
		r := l.Open(noon)
		id := r.ID
		*r = *proto
		r.ID = id
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
