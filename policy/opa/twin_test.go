package opa

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"

	"chaperone/policy"
	"chaperone/policy/opa/machine"
)

func load(t testing.TB, src string) *Engine {
	t.Helper()
	e, err := Load(Options{FS: custom(src)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// twinPolicies use what policies are made of: sets, comprehensions, every, with,
// else, partial objects, functions, defaults and data.
var twinPolicies = map[string]string{
	"sets": `decision := {"result": "deny", "reasons": {x | some x in input.list; is_string(x)} | _extra} if not _open

decision := {"result": "allow", "reasons": [sprintf("%v", [x]) | some x in _all]} if _open

_extra contains "extra" if count(input.list) > 2

_all contains x if some x in input.list

_all contains k if some k, _ in input.object

_open if {
	some x in input.list
	input.object[x]
}`,
	"every": `default decision := {"result": "deny"}

decision := {"result": "allow", "reasons": [r | some i, x in input.list; r := sprintf("%d: %v", [i, x])]} if {
	every x in input.list {
		x != input.text
		not x in _bad
	}
}

_bad := {"b", 1, null, [1], 1.5}`,
	"with": `decision := {"result": _result, "reasons": [concat(",", [_first, _second])]}

_result := "allow" if _f(input.object) == _f(input.object) with input.text as "other"

else := "ask" if _name with input.text as "b"

else := "deny"

_first := _name if true

else := "none"

_second := x if x := _name with input.text as "c"

else := "nothing"

_name := input.text if is_string(input.text)

_f(o) := object.get(o, input.text, "nowhere")`,
	"objects": `decision := {"result": "allow", "obligations": _by, "reasons": [json.marshal(_names), json.marshal(_inverse)]} if count(_by) < 3

else := {"result": "ask", "obligations": {"n": count(_by), "max": max([n | some n in input.list; is_number(n)])}}

_by[k] := v if {
	some k, v in input.object
	not is_null(v)
}

_names[x] contains i if {
	some i, x in input.list
	is_string(x)
}

_inverse := {v: k | some k, v in input.object; is_string(v); k == input.text}`,
	"alike": `decision := {"result": "allow", "reasons": _r, "obligations": {"f": _f(input.object)}}

_r contains "a" if input.text == "a"

_r contains "a, too" if {
	input.text == "a"
	input.number > 0
}

_r contains "b" if input.text == "b"

_r contains sprintf("c %v", [x]) if {
	input.text == "c"
	some x in input.list
}

_r contains "d" if input.object.a == "a"

_r contains "e" if input.object.a == "b"

_r contains "f" if input.object.a == "c"

_r contains "g" if input.object.a == "b"

_r contains "h" if input.object.b == "a"

_r contains "i" if input.object.b == "b"

_r contains "j" if input.object.b == 1

default _f(_) := "other"

_f(o) := "a" if o.a == "a"

_f(o) := "b" if o.a == "b"

_f(o) := x if {
	o.a == "c"
	x := o.b
}

_f(o) := o.c if o.a == ""`,
	"numbers": `decision := {"result": "allow", "reasons": [sprintf("%v %v %v", [_sum, _order, _lookup])]}

_sum := sum([x | some x in input.list; is_number(x)])

_order := [x | some x in input.list; x > input.number; x <= 3]

_lookup := input.list[input.number] if input.number >= 0

else := input.number * 2 if input.number > 1

else := round(input.number)`,
}

// random makes documents out of few values, so that they meet.
type random struct{ *rand.Rand }

func (r random) scalar() any {
	return []any{"a", "b", "c", "", "long enough text", 0, 1, 2, 1.5, -1, true, false, nil}[r.IntN(13)]
}

func (r random) value(depth int) any {
	switch n := r.IntN(8); {
	case n == 0 && depth > 0:
		return r.list(depth - 1)
	case n == 1 && depth > 0:
		return r.object(depth - 1)
	}
	return r.scalar()
}

func (r random) list(depth int) []any {
	list := make([]any, r.IntN(12))
	for i := range list {
		list[i] = r.value(depth)
	}
	return list
}

func (r random) object(depth int) map[string]any {
	object := map[string]any{}
	for range r.IntN(12) {
		object[[]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}[r.IntN(12)]] = r.value(depth)
	}
	return object
}

// TestMachineIsOPA asks both of random documents, under policies that read them whole.
func TestMachineIsOPA(t *testing.T) {
	for name, src := range twinPolicies {
		e := load(t, src)
		p := e.twin.program.Load()
		if p == nil {
			t.Fatalf("%s: %s", name, e.Slow())
		}
		answered, r := 0, random{rand.New(rand.NewPCG(1, 2))}
		for range 2000 {
			document := map[string]any{"list": r.list(2), "object": r.object(2), "text": r.scalar(), "number": r.scalar()}
			if r.IntN(4) == 0 {
				delete(document, []string{"list", "object", "text", "number"}[r.IntN(4)])
			}
			input := ast.MustInterfaceToValue(document)
			if why := e.compare(t.Context(), p, input); why != "" {
				t.Errorf("%s: %v: %s", name, input, why)
			}
			m := p.Machine()
			if _, err := decision(m.Eval(t.Context(), time.Now().Add(time.Second), machine.FromAST(input))); err == nil {
				answered++
			}
			m.Close()
		}
		if answered < 400 {
			t.Errorf("%s: the machine answers %d of 2000", name, answered)
		}
	}
}

// randomQuestion varies each part of a question among a few values.
func randomQuestion(r random) *policy.Question {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	q := question(pick("triage-bot", "reporter", "nobody"), pick("", "alice@acme.com", "bob@acme.com"),
		pick("", "github:issues/create", "github:issues/lock", "github:pulls/merge", "github:repos/get", "slack:chat.postMessage"),
		accessNames[r.IntN(len(accessNames))], pick("", "acme/web", "other/web", "C1"))
	if q.Human != nil && r.IntN(5) == 0 {
		q.Human.Email = ""
	}
	switch r.IntN(4) {
	case 0:
		scope(pick("github:issues/*", "*:*", "github:pulls/merge"), pick("acme/web", "acme/*", "*"))(q)
	case 1:
		q.Session.Scope = []policy.Scope{{Actions: []string{pick("github:*", "x:*")}}}
	}
	q.Request.Host, q.Request.Method = pick("status.example.com", "api.github.com"), pick("GET", "POST")
	q.Request.Path = pick("/api/x", "/api", "/api/../x", "/apiary", "/api/%2e%2e/x", "/api/a%2fb", "/", "/api/a;b")
	return q
}

// TestMachineIsOPAOnQuestions asks both of random questions under the shipped policy.
func TestMachineIsOPAOnQuestions(t *testing.T) {
	e := engine(t, testGrants)
	if e.Slow() != "" {
		t.Fatal(e.Slow())
	}
	r, results := random{rand.New(rand.NewPCG(3, 4))}, map[policy.Result]int{}
	for range 3000 {
		q := randomQuestion(r)
		deadline := time.Now().Add(time.Second)
		got, gerr := e.execute(t.Context(), e.twin.program.Load(), q, deadline)
		want, err := e.interpret(t.Context(), q, deadline)
		if fmt.Sprint(got, gerr) != fmt.Sprint(want, err) {
			t.Fatalf("the machine says %v, %v; OPA says %v, %v", got, gerr, want, err)
		}
		results[got.Result]++
	}
	if len(results) != 3 {
		t.Errorf("only %v", results)
	}
}

// FuzzMachine asks both of a document and a policy's condition that the fuzzer makes up.
func FuzzMachine(f *testing.F) {
	for name := range twinPolicies {
		f.Add(name, `{"list": [1, "a"], "object": {"a": "b"}, "text": "a", "number": 1}`)
	}
	f.Add("sets", `{"list": [1.0, 1, 1e0, 10000000000000000000000, -0], "object": {"1": 1}}`)
	engines := map[string]*Engine{}
	for name, src := range twinPolicies {
		engines[name] = load(f, src)
	}
	f.Fuzz(func(t *testing.T, name, document string) {
		e := engines[name]
		if e == nil {
			t.Skip()
		}
		input, err := ast.ValueFromReader(strings.NewReader(document))
		if err != nil {
			t.Skip()
		}
		if why := e.compare(t.Context(), e.twin.program.Load(), input); why != "" {
			t.Error(why)
		}
	})
}

// TestDistrust has a machine answer that belongs to another policy: the alarm is
// raised once, what it said is forgotten, and OPA answers.
func TestDistrust(t *testing.T) {
	var alarms []string
	e, err := Load(Options{FS: custom(`decision := {"result": "deny", "reasons": ["x"]}`), Alarm: func(what string) { alarms = append(alarms, what) }})
	if err != nil || e.Slow() != "" {
		t.Fatal(err, e.Slow())
	}
	e.twin.program.Store(load(t, `decision := {"result": "allow", "reasons": ["x"]}`).twin.program.Load())
	q := plain()
	for range sampleEvery - 1 { // the policy reads nothing; the memory would answer
		if a, err := e.evaluate(t.Context(), q); err != nil || a.Result != policy.Allow {
			t.Fatal(a, err)
		}
	}
	if a, err := e.Eval(t.Context(), q); err != nil || a.Result != policy.Allow {
		t.Fatal(a, err)
	}
	e.Close()
	if len(alarms) != 1 || !strings.Contains(alarms[0], `allow ["x"] where OPA answers deny`) {
		t.Errorf("alarms %q", alarms)
	}
	if a, err := e.Eval(t.Context(), q); err != nil || a.Result != policy.Deny {
		t.Errorf("after the alarm: %v, %v", a, err)
	}
	e.distrust("again")
	if len(alarms) != 1 {
		t.Errorf("alarms %q", alarms)
	}
}

// losesTrust is a request during which the machine is found out.
type losesTrust struct {
	context.Context
	found func()
}

func (l losesTrust) Err() error {
	l.found()
	return nil
}

// TestDistrustMeanwhile: an answer of a machine that lost its trust before the answer was
// remembered is not remembered.
func TestDistrustMeanwhile(t *testing.T) {
	e := load(t, `decision := {"result": "deny", "reasons": ["x"]}`)
	e.twin.program.Store(load(t, "decision := {\"result\": \"allow\", \"reasons\": [\"x\"]} if count([1 | some _ in _n; some _ in _n]) > 0\n\n_n := ["+strings.Repeat("1,", 50)+"1]").twin.program.Load())
	ctx := losesTrust{t.Context(), func() { e.distrust("found out") }}
	if a, err := e.Eval(ctx, plain()); err != nil || a.Result != policy.Allow || e.twin.program.Load() != nil {
		t.Fatal(a, err)
	}
	if a, err := e.Eval(t.Context(), plain()); err != nil || a.Result != policy.Deny {
		t.Errorf("%v, %v", a, err)
	}
}

// TestCompareFindsDifferences: at load a machine that answers otherwise is not taken.
func TestCompareFindsDifferences(t *testing.T) {
	e := load(t, `decision := {"result": "deny", "reasons": ["x"]} if input.phase`)
	for src, want := range map[string]string{
		`decision := {"result": "allow", "reasons": ["x"]}`:                 "the machine answers",
		`decision := {"result": "deny", "reasons": ["x", input.agent.id]}`:  "the machine answers",
		`decision := {"result": "deny", "reasons": ["x"]}`:                  "",
		`decision := {"result": "deny", "reasons": ["x"]} if input.no_such`: "",
	} {
		p := load(t, src).twin.program.Load()
		if why := e.compare(t.Context(), p, e.samples()[0]); want == "" && why != "" || !strings.Contains(why, want) {
			t.Errorf("%s: %q, want %q", src, why, want)
		}
	}
	other := load(t, `decision := {"result": "deny"} if input.no_such`)
	if why := other.compare(t.Context(), e.twin.program.Load(), e.samples()[0]); !strings.Contains(why, "where OPA does not") {
		t.Errorf("%q", why)
	}
}

// TestTestsFeedTheMachine: the inputs of a policy's own tests are asked of both.
func TestTestsFeedTheMachine(t *testing.T) {
	if n := len(testInputs(t.Context(), &Options{FS: shipped(t)})); n < 20 {
		t.Errorf("%d inputs", n)
	}
}

// TestSlow lists policies that the machine is not for, and what it gives up on.
func TestSlow(t *testing.T) {
	e := load(t, "decision := {\"result\": \"allow\"} if input.request.port == 443\n\nelse := {\"result\": \"deny\"} if io.jwt.decode_verify(input.agent.id, {\"secret\": \"x\"})[0]")
	if e.Slow() == "" || e.twin.program.Load() != nil {
		t.Error("the machine takes a policy whose answers differ from call to call")
	}
	if a, err := e.Eval(t.Context(), plain()); err != nil || a.Result != policy.Allow {
		t.Errorf("%v, %v", a, err)
	}
	files := custom(`decision := {"result": "allow"} if data.names[input.request.port] == "x"`)
	files["data.json"] = &fstest.MapFile{Data: []byte(`{"names": {"443": "x"}}`)}
	e, err := Load(Options{FS: files})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.execute(t.Context(), e.twin.program.Load(), plain(), time.Now().Add(time.Second)); err == nil {
		t.Error("the machine looks a number up in data")
	}
	if a, err := e.Eval(t.Context(), plain()); err != nil || a.Result != policy.Allow {
		t.Errorf("OPA is not asked when the machine gives up: %v, %v", a, err)
	}
}

// TestMachinePanics has a machine answer with what is no document.
func TestMachinePanics(t *testing.T) {
	result := ir.Operand{Value: ir.StringIndex(0)}
	plan := &ir.Policy{
		Static: &ir.Static{Strings: []*ir.StringConst{{Value: "result"}}}, Funcs: &ir.Funcs{},
		Plans: &ir.Plans{Plans: []*ir.Plan{{Name: "p", Blocks: []*ir.Block{{Stmts: []ir.Stmt{
			&ir.MakeArrayStmt{Target: 3}, &ir.ArrayAppendStmt{Value: ir.Operand{Value: ir.Local(9)}, Array: 3},
			&ir.MakeObjectStmt{Target: 4}, &ir.ObjectInsertStmt{Key: result, Value: ir.Operand{Value: ir.Local(3)}, Object: 4},
			&ir.ResultSetAddStmt{Value: 4},
		}}}}}},
	}
	p, err := machine.New(machine.Options{Plan: plan, Entry: "p"})
	if err != nil {
		t.Fatal(err)
	}
	e := load(t, `decision := {"result": "allow"}`)
	e.twin.program.Store(p)
	if _, err := e.execute(t.Context(), p, plain(), time.Now().Add(time.Second)); err == nil || !strings.Contains(err.Error(), "machine stopped") {
		t.Error(err)
	}
	if a, err := e.Eval(t.Context(), plain()); err != nil || a.Result != policy.Allow {
		t.Errorf("%v, %v", a, err)
	}
	if why := e.compare(t.Context(), p, e.samples()[0]); why == "" {
		t.Error("a machine that stops is taken")
	}
}

// TestSamplesEndWithTheEngine: after Close nothing is compared any more, and answers
// still come.
func TestSamplesEndWithTheEngine(t *testing.T) {
	e := engine(t, testGrants)
	e.twin.every = 1
	for range 50 {
		if a, err := e.evaluate(context.Background(), plain()); err != nil || a.Result != policy.Allow {
			t.Fatal(a, err)
		}
	}
	e.Close()
	e.twin.program.Store(load(t, `decision := {"result": "deny", "reasons": ["x"]}`).twin.program.Load())
	if a, err := e.evaluate(context.Background(), plain()); err != nil || a.Result != policy.Deny || e.twin.busy.Load() {
		t.Errorf("%v, %v", a, err)
	}
	e.Close()
	if e.twin.program.Load() == nil {
		t.Error("compared after Close")
	}
}

// TestSharedParts compares documents whose equal parts were made once with those of
// an agent that is alone.
func TestSharedParts(t *testing.T) {
	r := random{rand.New(rand.NewPCG(5, 6))}
	pick := func(list ...string) (out []string) {
		for _, s := range list {
			if r.IntN(2) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	all := &grants{agents: map[string]*principal{}}
	for i := range 300 {
		p := &principal{}
		for range r.IntN(4) {
			x := grant{Actions: pick("a:x", "a:*", "a:x/*", "*:*"), Resources: pick("r", "r/*", "*", "a")}
			for _, a := range pick("read", "list", "a") {
				x.Access = append(x.Access, policy.Access(a))
			}
			p.Allow, p.Deny = append(p.Allow, x), append(p.Deny, grant{Actions: pick("a:x", "a"), Resources: pick("a")})
			p.Raw = append(p.Raw, rawGrant{Hosts: pick("a", "b"), Methods: pick("a", "GET")})
		}
		all.agents[fmt.Sprint(i)] = p
	}
	for id, p := range all.agents {
		k := principalKey{id: id}
		shared, alone := all.document(k), (&grants{agents: map[string]*principal{id: p}}).document(k)
		if shared.AST().Compare(alone.AST()) != 0 {
			t.Fatalf("%s among others: %v\nalone: %v", id, shared.AST(), alone.AST())
		}
	}
}
