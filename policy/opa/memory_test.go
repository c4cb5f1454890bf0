package opa

import (
	"bytes"
	"fmt"
	"testing"
	"testing/fstest"

	"chaperone/policy"
)

// changes are one for each part of a question that policy input shows.
var changes = map[string]func(*policy.Question){
	"agent":    func(q *policy.Question) { q.Agent.ID = "other" },
	"owner":    func(q *policy.Question) { q.Agent.Owner = "other" },
	"label":    func(q *policy.Question) { q.Agent.Labels = map[string]string{"tier": "2"} },
	"instance": func(q *policy.Question) { q.Instance = "i_2" },
	"no human": func(q *policy.Question) { q.Human = nil },
	"sub":      func(q *policy.Question) { q.Human = &policy.Human{Sub: "x", Email: q.Human.Email} },
	"iss":      func(q *policy.Question) { q.Human = &policy.Human{Sub: q.Human.Sub, Email: q.Human.Email, Iss: "x"} },
	"email":    func(q *policy.Question) { q.Human = &policy.Human{Sub: q.Human.Sub, Email: "x"} },
	"groups": func(q *policy.Question) {
		q.Human = &policy.Human{Sub: q.Human.Sub, Email: q.Human.Email, Groups: []string{"eng"}}
	},
	"session":     func(q *policy.Question) { q.Session.ID = "s_2" },
	"purpose":     func(q *policy.Question) { q.Session.Purpose = "x" },
	"created":     func(q *policy.Question) { q.Session.Created++ },
	"expires":     func(q *policy.Question) { q.Session.Expires++ },
	"parent":      func(q *policy.Question) { q.Session.Parent = "s_0" },
	"chain":       func(q *policy.Question) { q.Session.Chain = append(q.Session.Chain, policy.Link{Session: "s_2"}) },
	"empty scope": func(q *policy.Question) { q.Session.Scope = []policy.Scope{} },
	"scope":       func(q *policy.Question) { q.Session.Scope = []policy.Scope{{Actions: []string{"*:*"}}} },
	"scope, resources": func(q *policy.Question) {
		q.Session.Scope = []policy.Scope{{Actions: []string{"*:*"}, Resources: []string{}}}
	},
	"action":        func(q *policy.Question) { q.Action.ID = "x" },
	"service":       func(q *policy.Question) { q.Action.Service = "x" },
	"operation":     func(q *policy.Question) { q.Action.Operation = "x" },
	"access":        func(q *policy.Question) { q.Action.Access = policy.AccessAdmin },
	"known":         func(q *policy.Question) { q.Action.Known = false },
	"keys":          func(q *policy.Question) { q.Action.Keys = q.Action.Keys[1:] },
	"resource":      func(q *policy.Question) { q.Resource.ID = "x" },
	"resource type": func(q *policy.Question) { q.Resource.Type = "x" },
	"resource keys": func(q *policy.Question) { q.Resource.Keys = q.Resource.Keys[1:] },
	"param":         func(q *policy.Question) { q.Resource.Params = []policy.Param{{Name: "owner", Value: "x"}} },
	"actions":       func(q *policy.Question) { q.Actions = []policy.Act{{Action: q.Action}} },
	"method":        func(q *policy.Question) { q.Request.Method = "GET" },
	"scheme":        func(q *policy.Question) { q.Request.Scheme = "http" },
	"host":          func(q *policy.Question) { q.Request.Host = "x" },
	"port":          func(q *policy.Question) { q.Request.Port = 8443 },
	"path":          func(q *policy.Question) { q.Request.Path = "/x" },
	"body state":    func(q *policy.Question) { q.Request.BodyState = policy.BodyUnread },
	"no credential": func(q *policy.Question) { q.Credential = nil },
	"credential": func(q *policy.Question) {
		q.Credential = &policy.Credential{ID: "x", Owner: "org", Kind: "bearer", Service: "github"}
	},
	"credential owner": func(q *policy.Question) {
		q.Credential = &policy.Credential{ID: "gh", Owner: "x", Kind: "bearer", Service: "github"}
	},
	"phase": func(q *policy.Question) { q.Phase = policy.PhaseConnect },
	"time":  func(q *policy.Question) { q.Time++ },
}

func plain() *policy.Question {
	return question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web")
}

// TestNoTwoInputsShareAKey holds what remembering rests on: questions whose inputs
// differ are kept apart, whatever part of the input the policy reads.
func TestNoTwoInputsShareAKey(t *testing.T) {
	policies := map[string]*Engine{"shipped": engine(t, testGrants)}
	for _, ref := range []string{"agent.labels.x", "instance", "human", "session", "session.scope", "session.chain", "action", "resource", "resource.id", "resource.type", "resource.owner", "raw", "raw.path", "actions", "request.path", "credential", "phase", "time", "grants"} {
		e, err := Load(Options{FS: custom(fmt.Sprintf("decision := {\"result\": \"allow\"} if input.%s", ref))})
		if err != nil {
			t.Fatal(err)
		}
		policies[ref] = e
	}
	whole := *engine(t, testGrants)
	whole.reads = readsAll
	whole.reads.headers, whole.reads.query, whole.reads.body = false, false, false
	policies["everything"] = &whole
	unnamed := func() *policy.Question {
		q := plain()
		q.Action.Known = false
		return q
	}
	for name, e := range policies {
		sameKeySameInput(t, name+", unknown action", e, unnamed)
		sameKeySameInput(t, name, e, plain)
	}
}

func sameKeySameInput(t *testing.T, name string, e *Engine, plain func() *policy.Question) {
	t.Helper()
	was, key := e.input(plain()), e.reads.key(nil, plain())
	for what, change := range changes {
		q := plain()
		change(q)
		if differs := e.input(q).Compare(was) != 0; differs && bytes.Equal(e.reads.key(nil, q), key) {
			t.Errorf("%s: another %s, another input, the same key", name, what)
		} else if name == "everything" && !differs {
			t.Errorf("another %s does not show in the input", what)
		}
	}
}

// TestRemembered compares what is remembered with what OPA answers.
func TestRemembered(t *testing.T) {
	e := engine(t, testGrants)
	if e.answers == nil {
		t.Fatal("the shipped policy's answers are not remembered")
	}
	for range 2 {
		for what, change := range changes {
			q := plain()
			change(q)
			want, werr := e.evaluate(t.Context(), q)
			got, err := e.Eval(t.Context(), q)
			if fmt.Sprint(got, err) != fmt.Sprint(want, werr) {
				t.Errorf("%s: got %v, %v; OPA says %v, %v", what, got, err, want, werr)
			}
			_ = append(got.Reasons, "of somebody else")
		}
	}
}

// TestNotRemembered lists what turns the memory off.
func TestNotRemembered(t *testing.T) {
	for _, cond := range []string{`input.request.body.x`, `input.request.headers["x-a"]`, `input.request.query.x`, `count(input.request) > 0`,
		`io.jwt.decode_verify(input.agent.id, {"secret": "x"})[0]`} {
		e, err := Load(Options{FS: custom(fmt.Sprintf("decision := {\"result\": \"allow\"} if %s", cond))})
		if err != nil {
			t.Fatal(err)
		}
		if e.answers != nil {
			t.Errorf("answers that depend on %s are remembered", cond)
		}
	}
}

// TestMemoryIsBounded asks more different questions than may be remembered.
func TestMemoryIsBounded(t *testing.T) {
	e, err := Load(Options{FS: fstest.MapFS{"p.rego": {Data: []byte("package chaperone\n\ndecision := {\"result\": \"allow\", \"obligations\": {\"x\": input.request.port}}")}}})
	if err != nil {
		t.Fatal(err)
	}
	q := plain()
	for i := range shards*shardSize + 5000 {
		q.Request.Port = i
		if a, err := e.Eval(t.Context(), q); err != nil || fmt.Sprint(a.Obligations["x"]) != fmt.Sprint(i) {
			t.Fatal(i, a, err)
		}
	}
	n := 0
	for i := range e.answers.shards {
		n += len(e.answers.shards[i].kept)
	}
	if n > shards*shardSize || n < shards*shardSize/2 {
		t.Errorf("%d answers are kept", n)
	}
	q.Request.Host = string(make([]byte, maxKeySize))
	if a, err := e.Eval(t.Context(), q); err != nil || a.Result != policy.Allow {
		t.Errorf("a question too long to be remembered: %v, %v", a, err)
	}
	a, _ := e.Eval(t.Context(), plain())
	a.Obligations["x"] = "changed"
	if b, _ := e.Eval(t.Context(), plain()); fmt.Sprint(b.Obligations["x"]) != "443" {
		t.Errorf("what a caller changed is remembered: %v", b)
	}
}
