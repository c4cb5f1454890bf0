package machine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// compiled is a program of a module whose package is test and whose entry is p.
func compiled(t *testing.T, src string, steps int) *Program {
	t.Helper()
	m, err := ast.ParseModule("p.rego", "package test\n\n"+src)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Plan(t.Context(), map[string]*ast.Module{"p.rego": m}, ast.CapabilitiesForThisVersion(), "test/p")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Plan: plan, Entry: "test/p", Data: FromAST(ast.NewObject()), Strict: true, Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

const endless = `p if {
	some a in input
	some b in input
	some c in input
	a + b + c == -1
}`

func numbers(n int) Value {
	list := make([]Value, n)
	for i := range list {
		list[i] = Int(int64(i))
	}
	return (*Arena)(nil).Array(list...)
}

// TestBounds: steps, deadline and request end an evaluation, and the machine works on.
func TestBounds(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx      context.Context
		deadline time.Time
		steps    int
		want     error
	}{
		"steps":    {t.Context(), soon(), 1000, ErrBudget},
		"deadline": {t.Context(), time.Now().Add(5 * time.Millisecond), 1 << 40, ErrBudget},
		"gone":     {gone, soon(), 1 << 40, ErrBudget},
		"enough":   {t.Context(), soon(), 10_000_000, nil},
	} {
		n := 300
		if tc.want == nil {
			n = 20
		}
		m := compiled(t, endless, tc.steps).Machine()
		results, err := m.Eval(tc.ctx, tc.deadline, numbers(n))
		if !errors.Is(err, tc.want) || len(results) > 0 {
			t.Errorf("%s: %v, %v", name, results, err)
		}
		if m.top != 0 {
			t.Errorf("%s: %d locals are still in use", name, m.top)
		}
	}
}

// TestNothingStays looks for what a question held in a machine that was given back.
func TestNothingStays(t *testing.T) {
	p := compiled(t, `p := {"a": [x | some x in input.list], "s": {x | some x in input.list}, "t": sprintf("%s", [input.text]), "q": q, "c": upper(input.text)}

q[x] := y if some x, y in input.object`, 0)
	for _, fail := range []bool{false, true} {
		m := p.Machine()
		a := m.Arena()
		deadline := soon()
		if fail {
			m.program.steps = 64
			deadline = time.Time{}
		}
		long := make([]string, 100)
		for i := range long {
			long[i] = fmt.Sprint("secret ", i)
		}
		input := a.Object(Field{"list", a.Texts(long)}, Field{"text", Text("secret")}, Field{"object", a.Object(Field{"secret", Text("secret")})})
		if _, err := m.Eval(t.Context(), deadline, input); (err != nil) != fail {
			t.Fatal(err)
		}
		m.Close()
		for _, x := range []any{m.stack, m.memo, m.args, m.results[:cap(m.results)]} {
			if found := fmt.Sprintf("%+v", reflect.ValueOf(x)); strings.Contains(found, "secret") {
				t.Errorf("a text of the question is still in a machine: %.200s", found)
			}
		}
		for _, c := range m.arena.kept {
			for _, v := range append(c.keys[:cap(c.keys)], c.vals[:cap(c.vals)]...) {
				if v.kind != Undefined {
					t.Fatalf("a value of the question is still in an arena: %v", v)
				}
			}
		}
	}
}

// TestAllocations: what the policy does not make anew costs no memory.
func TestAllocations(t *testing.T) {
	m := compiled(t, `p if {
	some key in input.keys
	some grant in input.index[key]
	grant[input.access]
	not input.denied
}`, 0).Machine()
	in, err := FromJSON(map[string]any{"keys": []any{"a", "b"}, "index": map[string]any{"b": []any{map[string]any{"read": true}}}, "access": "read"})
	if err != nil {
		t.Fatal(err)
	}
	deadline := soon()
	if n := testing.AllocsPerRun(100, func() {
		if results, err := m.Eval(t.Context(), deadline, in); err != nil || len(results) != 1 {
			t.Fatal(results, err)
		}
		m.arena.reset()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestNewRefuses gives plans that no planner makes: an error, never a panic.
func TestNewRefuses(t *testing.T) {
	plan := func(stmts ...ir.Stmt) *ir.Policy {
		return &ir.Policy{Static: &ir.Static{}, Funcs: &ir.Funcs{}, Plans: &ir.Plans{Plans: []*ir.Plan{{Name: "p", Blocks: []*ir.Block{{Stmts: stmts}}}}}}
	}
	text := ir.Operand{Value: ir.StringIndex(7)}
	for name, p := range map[string]*ir.Policy{
		"nothing":          {},
		"no such string":   plan(&ir.AssignVarStmt{Source: text, Target: 3}, &ir.IsDefinedStmt{Source: 3}),
		"no such function": plan(&ir.CallStmt{Func: "f"}),
		"no operand":       plan(&ir.EqualStmt{}),
		"a function that OPA lacks": {Static: &ir.Static{BuiltinFuncs: []*ir.BuiltinFunc{{Name: "no.such"}}},
			Funcs: &ir.Funcs{}, Plans: &ir.Plans{}},
		"no entry": {Static: &ir.Static{}, Funcs: &ir.Funcs{}, Plans: &ir.Plans{}},
	} {
		if _, err := New(Options{Plan: p, Entry: "p"}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	odd, err := New(Options{Plan: plan(&ir.SetAddStmt{Value: ir.Operand{Value: ir.Bool(true)}, Set: 3}), Entry: "p"})
	if err != nil {
		t.Fatal(err)
	}
	m := odd.Machine()
	if _, err := m.Eval(t.Context(), soon(), Value{}); err == nil || !strings.Contains(err.Error(), "machine stopped") {
		t.Errorf("a member for nothing: %v", err)
	}
	m.Close()
}

// TestFirstConstantEnds: a rule without a value looks no further than to the first
// body that holds, and one that may have two values to all.
func TestFirstConstantEnds(t *testing.T) {
	const many = `some a in input
	some b in input
	a >= 0
	b >= 0`
	for src, quick := range map[string]bool{
		"p if {\n\t" + many + "\n}":                                        true,
		"p := x if {\n\tx := true\n\t" + many + "\n}":                      false,
		"default p := false\n\np if q\n\nq if {\n\t" + many + "\n}":        true,
		"p if not q\n\np if q\n\nq if {\n\t" + many + "\n}":                true,
		"p if q with input as input\n\nq if {\n\t" + many + "\n}":          true,
		"p := 1 if {\n\t" + many + "\n}\n\np := 1 if {\n\t" + many + "\n}": false,
	} {
		m := compiled(t, src, 0).Machine()
		results, err := m.Eval(t.Context(), soon(), numbers(50))
		if err != nil || len(results) != 1 {
			t.Fatalf("%s: %v, %v", src, results, err)
		}
		if used := m.program.steps - m.left; quick != (used < 500) {
			t.Errorf("%s: %d steps", src, used)
		}
	}
	for _, two := range [][2]string{{"1", "2"}, {`"a"`, `"b"`}, {"true", "false"}} {
		m := compiled(t, fmt.Sprintf("p := %s if count(input) > 0\n\np := %s if count(input) > 1", two[0], two[1]), 0).Machine()
		if results, err := m.Eval(t.Context(), soon(), numbers(3)); !errors.Is(err, ErrConflict) {
			t.Errorf("two values: %v, %v", results, err)
		}
	}
}

// TestValues compares order, equality and hashes with those of OPA, and both ways of
// making composites.
func TestValues(t *testing.T) {
	var values []ast.Value
	for _, s := range []string{`null`, `false`, `true`, `-1`, `0`, `1`, `1.0`, `1e0`, `1.5`, `10000000000000000000000`, `1e22`, `""`, `"a"`, `"b"`, `[]`, `[1]`, `[1.0]`, `[1, 2]`, `{}`,
		`{"a": 1}`, `{"a": 1.0}`, `{"b": 1, "a": 2}`, `{1: 2}`, `set()`, `{1}`, `{2, 1}`, `{1, 2}`, `{[1], {2}}`, `[1,2,3,4,5,6,7,8,9,10]`, `{1,2,3,4,5,6,7,8,9,10}`, `{"a","b","c","d","e","f","g","h","i"}`,
		`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9}`, `{"i":9,"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8}`} {
		values = append(values, ast.MustParseTerm(s).Value)
	}
	for _, x := range values {
		for _, y := range values {
			a, b, want := FromAST(x), fromAST(&Arena{}, y), x.Compare(y)
			if got := compare(&a, &b); got != want && got*want <= 0 {
				t.Errorf("%v and %v: %d, want %d", x, y, got, want)
			}
			if equal(&a, &b) != (want == 0) {
				t.Errorf("%v and %v: equal %v", x, y, want != 0)
			}
			if want == 0 && a.hash() != b.hash() {
				t.Errorf("%v and %v are equal, and hash otherwise", x, y)
			}
		}
		v := FromAST(x)
		if back := v.AST(); back.String() != x.String() {
			t.Errorf("%v came back as %v", x, back)
		}
	}
}
