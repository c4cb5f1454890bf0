package past

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/audit"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/rego"
)

var decisions = flag.Int("decisions", 5000, "how many decisions TestReplay asks again; a million take less than a minute")

// candidate is the shipped policy in which so many agents may do the same.
func candidate(t *testing.T, agents int) *opa.Engine {
	t.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(rego.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(rego.FS, name)
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var y strings.Builder
	y.WriteString("grants:\n  agents:\n")
	for i := range agents {
		fmt.Fprintf(&y, "    agent-%d:\n      allow:\n        - {actions: [\"github:issues/*\", \"github:repos/get\"], resources: [\"acme/*\"]}\n", i)
	}
	y.WriteString("  humans: {\"*\": {allow: [{actions: [\"*:*\"]}]}}\n")
	files["chaperone/grants.yaml"] = &fstest.MapFile{Data: []byte(y.String())}
	e, err := opa.Load(opa.Options{FS: files, Schema: rego.InputSchema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// write makes a log of n decisions of twenty agents, all allowed, with records that
// cannot be compared among them.
func write(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l, err := audit.Open(audit.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	ops := [...]string{"issues/create", "issues/list", "repos/get"}
	var r audit.Record
	begin := time.Now().Add(-24 * time.Hour)
	for i := range n {
		l.Reopen(&r, begin.Add(time.Duration(i)*time.Millisecond))
		session := i / 50
		r.Agent = audit.Agent{ID: "agent-" + strconv.Itoa(session%20), Instance: "i_" + strconv.Itoa(session), Owner: "team:dev"}
		human := strconv.Itoa(rng.IntN(400))
		r.Human = &policy.Human{Sub: "u" + human, Iss: "https://idp.acme.com", Email: "h" + human + "@acme.com"}
		r.Session, r.Purpose = "s_"+strconv.Itoa(session), "triage"
		r.Action = action.Known("github", ops[rng.IntN(len(ops))], policy.AccessWrite)
		r.Resource = policy.Resource{Type: "repository", ID: "acme/repo-" + strconv.Itoa(rng.IntN(1000))}
		r.Request = audit.Request{Method: "POST", Scheme: "https", Host: "api.github.com", Path: "/repos/x", Protocol: "HTTP/2.0", BodyState: policy.BodyUnread}
		r.Decision = audit.Decision{Result: policy.Allow, Policy: "3f9c2a71", Reasons: []string{"The grants cover it."}}
		switch i % 1000 {
		case 1: // refused before policy was asked
			r.Decision = audit.Decision{Result: policy.Deny, Reasons: []string{"The session has expired."}}
		case 2: // as older versions wrote them
			r.Request.BodyState = ""
		case 3: // narrowed
			r.Scope = []policy.Scope{{Actions: []string{"slack:*"}}}
			r.Decision.Result = policy.Deny
		}
		r.Outcome = audit.Outcome{Status: 201, Total: 30 * time.Millisecond}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReplay(t *testing.T) {
	n := *decisions
	path := write(t, n)
	covered, err := ParseAllowed("agent=agent-19,action=github:issues/*,to=deny")
	if err != nil {
		t.Fatal(err)
	}
	r := Replay{Engine: candidate(t, 19), Allowed: []Allowed{covered}} // the twentieth lost its grants
	begun := time.Now()
	got, err := r.Run(t.Context(), audit.Lines(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d decisions in %s", n, time.Since(begun).Round(time.Millisecond))
	if got.Decisions != n || got.Before != n/1000 || got.Inexact != n/1000 || got.Older != n/1000 {
		t.Errorf("%+v", got)
	}
	if got.Same+got.Flipped+got.Before+got.Inexact != n || got.Flipped == 0 {
		t.Errorf("%+v", got)
	}
	uncovered := 0
	for _, f := range got.Flips {
		if f.Agent != "agent-19" || f.To != policy.Deny || len(f.Examples) == 0 || !strings.Contains(f.Reason, "Agent agent-19 has no grant for") {
			t.Errorf("%+v", f)
		}
		if f.Covered != strings.HasPrefix(f.Action, "github:issues/") {
			t.Errorf("covered: %+v", f)
		}
		if !f.Covered {
			uncovered += f.Count
		}
	}
	if uncovered != got.Uncovered || uncovered == 0 {
		t.Errorf("%d are not covered, not %d", uncovered, got.Uncovered)
	}
}

const record = `{"time":"2026-11-24T10:00:00Z","id":"X","event":"decision","agent":{"id":"a","labels":{"t":"1"}},"human":{"sub":"s","groups":["g"]},"session":"s_1",` +
	`"scope":[{"actions":["github:*"]}],"action":{"id":"github:issues/get","service":"github","operation":"issues/get","access":"read"},"resource":{"type":"repository","id":"acme/web","repo":"web","owner":"acme"},` +
	`"request":{"method":"GET","scheme":"http","host":"x.example:8080","path":"/a","query":["k"],"body_state":"absent"},"decision":{"result":"allow","policy":"r"},"credential":{"id":"gh","handle":"h"}}`

// FuzzRead: whatever a line holds, it is read or refused, and what a reader remembers
// of it is what it read.
func FuzzRead(f *testing.F) {
	f.Add([]byte(record))
	f.Add([]byte(`{"id":"a","time":"2026-11-24T10:00:00Z","agent":null,"actions":[{"action":{"id":"github:issues/get","service":"github","operation":"issues/get"}}],"chain":[{"session":"s"}]}`))
	f.Add([]byte(`{"agent":{"id":1}}`))
	r := NewReader()
	f.Fuzz(func(t *testing.T, line []byte) {
		once, err := Read(line)
		for range 2 {
			var again Decision
			if err2 := r.Read(line, &again); (err == nil) != (err2 == nil) {
				t.Fatalf("%v, then %v", err, err2)
			}
			if err == nil && !reflect.DeepEqual(once, &again) {
				t.Fatalf("%+v, then %+v", once, &again)
			}
		}
		if err == nil && !json.Valid(line) {
			t.Error("what is no JSON was read")
		}
	})
}

func TestParseAllowed(t *testing.T) {
	for text, ok := range map[string]bool{"all": true, "agent=a,to=deny": true, "": false, "agent": false, "agnt=a": false, "agent=": false} {
		if _, err := ParseAllowed(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRead(t *testing.T) {
	d, err := Read([]byte(record))
	if err != nil {
		t.Fatal(err)
	}
	q := &d.Question
	if q.Request.Host != "x.example" || q.Request.Port != 8080 || q.Request.Scheme != "http" || q.Human.Groups[0] != "g" || q.Agent.Labels["t"] != "1" ||
		strings.Join(q.Action.Keys, " ") != "github:issues/get github:issues/* github:* *:*" || strings.Join(q.Resource.Keys, " ") != "acme/web acme/* *" ||
		len(q.Resource.Params) != 2 || q.Session.Scope[0].Actions[0] != "github:*" || q.Credential.ID != "gh" {
		t.Errorf("%+v", d)
	}
	for want, reads := range map[string]opa.Reads{"": {Body: true, Person: true}, "values of the query": {Query: true}, "header fields": {Headers: true}, "owner and kind of the credential": {Credential: true}} {
		if got := d.Unknown(reads); got != want {
			t.Errorf("%+v: %q", reads, got)
		}
	}
	for _, bad := range []string{"", "{", `{"time":1}`} {
		if _, err := Read([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
