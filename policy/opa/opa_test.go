package opa

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"chaperone/policy"
)

func shipped(t testing.TB) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(os.DirFS("../../rego"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".go") {
			return err
		}
		b, err := os.ReadFile("../../rego/" + name)
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

const testGrants = `
grants:
  agents:
    triage-bot:
      allow:
        - {actions: ["github:issues/*", "github:repos/get"], resources: ["acme/*"]}
        - {actions: ["slack:chat.postMessage"], resources: [C1]}
      ask:
        - {actions: ["github:pulls/merge"]}
      deny:
        - {actions: ["github:issues/lock"]}
      raw:
        - {hosts: [status.example.com], methods: [GET], path_prefix: /api/}
    reporter:
      autonomous: true
      allow: [{actions: ["*:*"], access: [read, list]}]
  groups:
    eng: {allow: [{actions: ["github:*"], resources: ["acme/*"]}], raw: [{hosts: [status.example.com], methods: [GET, POST], path_prefix: /}]}
  humans:
    alice@acme.com: {groups: [eng]}
    "*": {allow: [{actions: ["*:*"], access: [read]}]}
`

func engine(t testing.TB, grantsYAML string) *Engine {
	t.Helper()
	files := shipped(t)
	if grantsYAML != "" {
		files[grantsFile] = &fstest.MapFile{Data: []byte(grantsYAML)}
	}
	e, err := Load(Options{FS: files, Schema: files["schema/input.json"].Data})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func question(agent, human, action string, access policy.Access, resource string) *policy.Question {
	q := &policy.Question{
		Agent: policy.Agent{ID: agent, Owner: "team:dev", Labels: map[string]string{"tier": "1"}}, Instance: "i_1",
		Session: &policy.Session{ID: "s_1", Purpose: "triage", Created: 1, Expires: 2, Chain: []policy.Link{{Session: "s_1", Agent: agent, Instance: "i_1"}}},
		Request: policy.Request{
			Method: "POST", Scheme: "https", Host: "api.github.com", Port: 443, Path: "/repos/acme/web/issues", RawQuery: "a=1&a=2&access_token=x",
			Header: map[string][]string{"Content-Type": {"application/json"}, "Authorization": {"Bearer chh_x"}}, HiddenHeaders: []string{"authorization"}, HiddenQuery: []string{"access_token"},
			Body: map[string]any{"title": "x"}, BodyState: policy.BodyParsed,
		},
		Credential: &policy.Credential{ID: "gh", Owner: "org", Kind: "bearer", Service: "github"},
		Phase:      policy.PhaseRequest, Time: 1700000000,
	}
	if human != "" {
		q.Human = &policy.Human{Sub: human, Email: human}
	}
	if action == "" {
		q.Action = policy.Action{Access: policy.AccessUnknown, Why: "unknown_host"}
		return q
	}
	service, operation, _ := strings.Cut(action, ":")
	q.Action = policy.Action{ID: action, Service: service, Operation: operation, Access: access, Known: true, Keys: []string{action}}
	if i := strings.LastIndexAny(operation, "/."); i > 0 {
		q.Action.Keys = append(q.Action.Keys, service+":"+operation[:i+1]+"*")
	}
	q.Action.Keys = append(q.Action.Keys, service+":*", "*:*")
	q.Resource = policy.Resource{Type: "repository", ID: resource, Keys: []string{"*"}, Params: []policy.Param{{Name: "owner", Value: "acme"}}}
	if resource != "" {
		q.Resource.Keys = []string{resource}
		if i := strings.LastIndexByte(resource, '/'); i > 0 {
			q.Resource.Keys = append(q.Resource.Keys, resource[:i+1]+"*")
		}
		q.Resource.Keys = append(q.Resource.Keys, "*")
	}
	return q
}

func TestShippedPolicy(t *testing.T) {
	e := engine(t, testGrants)
	raw := func(host, method, path string) func(*policy.Question) {
		return func(q *policy.Question) { q.Request.Host, q.Request.Method, q.Request.Path = host, method, path }
	}
	for name, tc := range map[string]struct {
		q      *policy.Question
		change func(*policy.Question)
		want   policy.Result
		reason string
	}{
		"granted":                    {question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"), nil, policy.Allow, "The grants cover it."},
		"other resource":             {question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "other/web"), nil, policy.Deny, "Agent triage-bot has no grant for github:issues/create on other/web."},
		"no resource":                {question("triage-bot", "alice@acme.com", "github:issues/list", policy.AccessList, ""), nil, policy.Deny, "Agent triage-bot has no grant for github:issues/list."},
		"other action":               {question("triage-bot", "alice@acme.com", "github:repos/delete", policy.AccessAdmin, "acme/web"), nil, policy.Deny, "Agent triage-bot has no grant for github:repos/delete on acme/web."},
		"human has less":             {question("triage-bot", "bob@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"), nil, policy.Deny, "bob@acme.com may not have github:issues/create on acme/web done on their behalf."},
		"human may read":             {question("triage-bot", "bob@acme.com", "github:repos/get", policy.AccessRead, "acme/web"), nil, policy.Allow, ""},
		"ask":                        {question("triage-bot", "alice@acme.com", "github:pulls/merge", policy.AccessWrite, "acme/web"), nil, policy.Ask, "github:pulls/merge on acme/web needs approval when Agent triage-bot asks for it."},
		"forbidden":                  {question("triage-bot", "alice@acme.com", "github:issues/lock", policy.AccessWrite, "acme/web"), nil, policy.Deny, "Agent triage-bot is forbidden to do github:issues/lock on acme/web."},
		"no human":                   {question("triage-bot", "", "github:issues/create", policy.AccessWrite, "acme/web"), nil, policy.Deny, "Agent triage-bot may not act without a human."},
		"autonomous":                 {question("reporter", "", "github:issues/list", policy.AccessList, "acme/web"), nil, policy.Allow, ""},
		"autonomous, write":          {question("reporter", "", "github:issues/create", policy.AccessWrite, "acme/web"), nil, policy.Deny, ""},
		"unknown agent":              {question("nobody", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"), nil, policy.Deny, "Agent nobody has no grant for github:issues/create on acme/web."},
		"scope covers":               {question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"), scope("github:issues/*", "acme/web"), policy.Allow, ""},
		"scope does not":             {question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"), scope("github:repos/*", "acme/web"), policy.Deny, "The session is not for github:issues/create on acme/web."},
		"scope, other resource":      {question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"), scope("github:issues/*", "acme/api"), policy.Deny, ""},
		"unknown action":             {question("triage-bot", "alice@acme.com", "", "", ""), raw("status.example.com", "GET", "/api/x"), policy.Allow, "The grants cover it."},
		"unknown action, no grant":   {question("reporter", "", "", "", ""), raw("status.example.com", "GET", "/api/x"), policy.Deny, ""},
		"unknown action, other path": {question("triage-bot", "alice@acme.com", "", "", ""), raw("status.example.com", "GET", "/other"), policy.Deny, ""},
		"unknown action, write":      {question("triage-bot", "alice@acme.com", "", "", ""), raw("status.example.com", "POST", "/api/x"), policy.Deny, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.change != nil {
				tc.change(tc.q)
			}
			a, err := e.Eval(t.Context(), tc.q)
			if err != nil || a.Result != tc.want || a.Revision != e.Revision() {
				t.Fatalf("got %+v, %v; want %s", a, err, tc.want)
			}
			if tc.reason != "" && !strings.Contains(strings.Join(a.Reasons, "\n"), tc.reason) {
				t.Errorf("reasons %q lack %q", a.Reasons, tc.reason)
			}
			if len(a.Reasons) == 0 {
				t.Error("no reason is given")
			}
		})
	}
}

func scope(action, resource string) func(*policy.Question) {
	return func(q *policy.Question) {
		q.Session.Scope = []policy.Scope{{Actions: []string{action}, Resources: []string{resource}}}
	}
}

func TestShippedGrantsGrantNothing(t *testing.T) {
	a, err := engine(t, "").Eval(t.Context(), question("triage-bot", "alice@acme.com", "github:repos/get", policy.AccessRead, "acme/web"))
	if err != nil || a.Result != policy.Deny {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestShippedPolicyPassesItsTests(t *testing.T) {
	files := shipped(t)
	if faults, err := Check(CheckOptions{FS: files, Schema: files["schema/input.json"].Data}); err != nil || len(faults) > 0 {
		t.Fatal(faults, err)
	}
	rep, err := Test(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Results {
		if !r.Pass {
			t.Errorf("%s (%s): %s", r.Name, r.Place, r.Message)
		}
	}
	if len(rep.Results) < 15 || rep.Coverage < 90 {
		t.Errorf("%d tests cover %.0f %%", len(rep.Results), rep.Coverage)
	}
}

// TestStockOPA evaluates the whole input as JSON with OPA's own API and compares.
func TestStockOPA(t *testing.T) {
	e := engine(t, testGrants)
	for _, q := range []*policy.Question{
		question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"),
		question("triage-bot", "bob@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"),
		question("triage-bot", "alice@acme.com", "github:pulls/merge", policy.AccessWrite, "acme/web"),
		question("nobody", "", "", "", ""),
	} {
		a, err := e.Eval(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		x, err := e.Explain(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var input any
		if err := json.Unmarshal(x.Input, &input); err != nil {
			t.Fatal(err)
		}
		rs, err := rego.New(rego.Query(entry), rego.Compiler(e.compiler), rego.Input(input)).Eval(t.Context())
		if err != nil || len(rs) != 1 {
			t.Fatal(rs, err)
		}
		got, _ := json.Marshal(rs[0].Expressions[0].Value)
		v, _ := ast.InterfaceToValue(rs[0].Expressions[0].Value)
		want, err := answer(v)
		if err != nil || fmt.Sprint(want.Result, want.Reasons) != fmt.Sprint(a.Result, a.Reasons) {
			t.Errorf("OPA says %s, the engine %+v", got, a)
		}
		if a.Result == policy.Deny && x.Trace == "" {
			t.Error("a deny without a trace")
		}
	}
}

// TestInputIsWhole compares the input with the contract: every key always present.
func TestInputIsWhole(t *testing.T) {
	e := engine(t, testGrants)
	for _, q := range []*policy.Question{question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"), {Session: &policy.Session{}}} {
		x, err := e.Explain(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(x.Input, &m); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{"agent", "instance", "human", "session", "action", "resource", "resource_keys", "actions", "request", "credential", "phase", "time", "grants"} {
			if _, ok := m[k]; !ok {
				t.Errorf("input lacks %s: %s", k, x.Input)
			}
		}
		for _, k := range []string{"method", "scheme", "host", "port", "path", "query", "headers", "body", "body_state"} {
			if _, ok := m["request"].(map[string]any)[k]; !ok {
				t.Errorf("input.request lacks %s", k)
			}
		}
		if q.Human == nil && m["human"] != nil {
			t.Errorf("human %v", m["human"])
		}
		if s := string(x.Input); strings.Contains(s, "chh_x") || q.Human != nil && !strings.Contains(s, "[credential]") {
			t.Errorf("a credential's place shows: %s", s)
		}
	}
}

func custom(src string) fstest.MapFS {
	return fstest.MapFS{"p.rego": {Data: []byte("package chaperone\n\n" + src)}}
}

func TestOddPolicies(t *testing.T) {
	q := question("a", "h", "s:o", policy.AccessRead, "r")
	for name, tc := range map[string]struct {
		src  string
		want error
	}{
		"undefined":        {`decision := {"result": "allow"} if input.agent.id == "other"`, ErrUndefined},
		"true":             {`decision := true`, ErrAnswer},
		"a string":         {`decision := "allow"`, ErrAnswer},
		"another result":   {`decision := {"result": "allowed"}`, ErrAnswer},
		"result true":      {`decision := {"result": true}`, ErrAnswer},
		"no result":        {`decision := {"allow": true}`, ErrAnswer},
		"reasons no list":  {`decision := {"result": "allow", "reasons": "x"}`, ErrAnswer},
		"reasons object":   {`decision := {"result": "allow", "reasons": {"x": "y"}}`, ErrAnswer},
		"reason no string": {`decision := {"result": "allow", "reasons": [1]}`, ErrAnswer},
		"obligations list": {`decision := {"result": "allow", "obligations": [1]}`, ErrAnswer},
		"endless":          {"decision := {\"result\": \"allow\"} if count([1 | some a in _n; some b in _n; some c in _n; a + b + c == 0]) == 0\n\n_n := [" + strings.Repeat("1,", 299) + "1]", ErrBudget},
		"allow":            {`decision := {"result": "allow"}`, nil},
		"allow, set":       {`decision := {"result": "allow", "reasons": {"b", "a"}, "obligations": {}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Load(Options{FS: custom(tc.src)})
			if err != nil {
				t.Fatal(err)
			}
			a, err := e.Eval(t.Context(), q)
			if !errors.Is(err, tc.want) || err != nil && a.Result == policy.Allow {
				t.Errorf("got %+v, %v; want %v", a, err, tc.want)
			}
			if tc.want == nil && a.Result != policy.Allow {
				t.Errorf("got %+v", a)
			}
		})
	}
	conflict, err := Load(Options{FS: custom("decision := {\"result\": \"allow\"}\n\ndecision := {\"result\": \"deny\"}")})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := conflict.Eval(t.Context(), q); err == nil || a.Result == policy.Allow {
		t.Errorf("two answers: %+v, %v", a, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, _ := Load(Options{FS: custom(`decision := {"result": "allow"} if count([1 | some a in _n; some b in _n; a + b == 0]) == 0` + "\n\n_n := [" + strings.Repeat("1,", 99) + "1]")})
	if _, err := e.Eval(ctx, q); err == nil {
		t.Error("evaluated for a request that is gone")
	}
}

func TestLoadRefuses(t *testing.T) {
	files := shipped(t)
	schema := files["schema/input.json"].Data
	for name, tc := range map[string]struct {
		files fs.FS
		want  string
	}{
		"empty":            {fstest.MapFS{}, "no .rego file"},
		"no decision":      {custom(`x := 1`), "does not define data.chaperone.decision"},
		"syntax":           {custom(`decision := {`), "p.rego:3:"},
		"misspelt input":   {custom(`decision := {"result": "allow"} if input.acton.id == "x"`), "undefined ref: input.acton"},
		"http.send":        {custom(`decision := {"result": "allow"} if http.send({"method": "get", "url": "http://x"})`), "http.send may not be used"},
		"clock":            {custom(`decision := {"result": "allow"} if time.now_ns() > 0`), "time.now_ns may not be used"},
		"DNS":              {custom(`decision := {"result": "allow"} if net.lookup_ip_addr("x")`), "may not be used"},
		"runtime":          {custom(`decision := {"result": "allow"} if opa.runtime().env.HOME`), "may not be used"},
		"unused variable":  {custom("decision := {\"result\": \"allow\"} if {\n\tx := 1\n}"), "unused"},
		"grants: unknown":  {with(files, "grants:\n  agent: {}\n"), "chaperone/grants.yaml:2"},
		"grants: pattern":  {with(files, "grants:\n  agents:\n    a:\n      allow:\n        - {actions: [\"git*hub:x\"]}\n"), "chaperone/grants.yaml:5:22: agent a: action \"git*hub:x\""},
		"grants: access":   {with(files, "grants:\n  agents:\n    a: {allow: [{actions: [\"*:*\"], access: [reed]}]}\n"), `access "reed"`},
		"grants: resource": {with(files, "grants:\n  agents:\n    a: {allow: [{actions: [\"*:*\"], resources: [\"a*b\"]}]}\n"), `resource "a*b"`},
		"grants: nothing":  {with(files, "grants:\n  agents:\n    a: {allow: [{resources: [x]}]}\n"), "grants nothing"},
		"grants: group":    {with(files, "grants:\n  humans:\n    a: {groups: [none]}\n"), `group "none" is not defined`},
		"grants: empty":    {with(files, "grants:\n  agents:\n    a:\n      allow:\n        - actions: [\"*:*\"]\n          resources: []\n"), "chaperone/grants.yaml:6:11: resources is empty"},
		"grants: null":     {with(files, "grants:\n  agents:\n    a:\n      allow:\n        - actions: [\"*:*\"]\n          access:\n"), "chaperone/grants.yaml:6:11: access is empty"},
		"grants: second":   {with(files, "grants: {}\n---\ngrants: {}\n"), "a second document"},
		"grants: twice":    {with(files, "grants: {}\ngrants: {}\n"), "already defined"},
		"grants: .yml":     {fstest.MapFS{"p.rego": custom(`decision := {"result": "allow"}`)["p.rego"], "chaperone/grants.yml": {Data: []byte("grants: {}")}}, "only"},
		"grants: raw":      {with(files, "grants:\n  agents:\n    a: {raw: [{hosts: [x]}]}\n"), "raw grant needs"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Load(Options{FS: tc.files, Schema: schema})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want %q", e, err, tc.want)
			}
			if faults, cerr := Check(CheckOptions{FS: tc.files, Schema: schema}); cerr == nil && len(faults.Errors()) == 0 {
				t.Error("Check finds nothing")
			}
		})
	}
}

func with(files fstest.MapFS, grants string) fstest.MapFS {
	out := fstest.MapFS{grantsFile: {Data: []byte(grants)}}
	for name, f := range files {
		if out[name] == nil {
			out[name] = f
		}
	}
	return out
}

func TestReads(t *testing.T) {
	for src, want := range map[string]bool{
		`decision := {"result": "allow"} if input.request.body.x == 1`:           true,
		`decision := {"result": "allow"} if input.request.method == "GET"`:       false,
		"decision := {\"result\": \"allow\"} if _f(input)\n\n_f(x) if x.request": true,
		"decision := {\"result\": \"allow\"} if input[_x]\n\n_x := \"request\"":  true,
	} {
		e, err := Load(Options{FS: custom(src)})
		if err != nil {
			t.Fatal(err)
		}
		if e.ReadsBody() != want {
			t.Errorf("%s: reads the body: %v", src, e.ReadsBody())
		}
	}
	if engine(t, "").ReadsBody() {
		t.Error("the shipped policy reads bodies")
	}
}

func TestConcurrent(t *testing.T) {
	e := engine(t, testGrants)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				human := []string{"alice@acme.com", "bob@acme.com"}[i%2]
				a, err := e.Eval(t.Context(), question("triage-bot", human, "github:issues/create", policy.AccessWrite, "acme/web"))
				if err != nil || (a.Result == policy.Allow) != (i%2 == 0) {
					t.Errorf("%s: %+v, %v", human, a, err)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzInput compares the input with itself after a way through JSON: what the engine
// sees is what `opa eval` sees.
func FuzzInput(f *testing.F) {
	f.Add("triage-bot", "alice@acme.com", "/repos/acme/web", "a=1&b=%20", "X-A", "v", int64(1))
	f.Add("", "", "//%2F/%", "a=%zz", "", "\xff", int64(-1))
	e := *engine(f, testGrants)
	e.reads = readsAll
	f.Fuzz(func(t *testing.T, agent, human, path, query, name, value string, n int64) {
		for _, s := range []string{agent, human, path, query, name, value} {
			if u, err := url.PathUnescape(s); !utf8.ValidString(s) || err == nil && !utf8.ValidString(u) {
				t.Skip("JSON has no such text")
			}
		}
		if values, err := url.ParseQuery(query); err == nil && !utf8.ValidString(fmt.Sprint(values)) {
			t.Skip("JSON has no such text")
		}
		q := question(agent, human, "github:issues/create", policy.AccessWrite, path)
		q.Request.Path, q.Request.RawQuery, q.Request.Header = path, query, map[string][]string{name: {value}}
		q.Resource.Params, q.Time = []policy.Param{{Name: name, Value: value}}, n
		input := e.input(q)
		j, err := ast.JSON(input)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ast.ValueFromReader(bytes.NewReader(b))
		if err != nil || back.Compare(input) != 0 {
			t.Errorf("%v\n%v, %v", input, back, err)
		}
	})
}

// TestCurrent shows when a policy need not be loaded again.
func TestCurrent(t *testing.T) {
	const grants = "chaperone/grants.yaml"
	files := shipped(t)
	e, err := Load(Options{FS: files})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if !e.Current(files) {
		t.Error("the same files are not current")
	}
	before := files[grants]
	files[grants] = &fstest.MapFile{Data: []byte(string(before.Data) + "# a word more\n")}
	if e.Current(files) {
		t.Error("other grants are current")
	}
	files[grants] = before
	e.distrust("by the test")
	if e.Current(files) {
		t.Error("an engine whose machine lost its trust is current: loading would mend it")
	}
}
