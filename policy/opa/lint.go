package opa

import (
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"chaperone/policy"
)

// linter looks at a policy that compiles for what makes it open or slow.
type linter struct {
	src      *sources
	compiler *ast.Compiler
	schema   *schema
	names    *vocabulary
	faults   Faults

	absent map[*ast.Rule][]ast.Ref // what [linter.mayLack] found
	must   map[*ast.Rule][]ast.Ref // what [linter.mustRead] found
}

func (l *linter) fault(loc *ast.Location, rule string, warning bool, format string, args ...any) {
	l.faults = append(l.faults, faultAt(loc, rule, warning, format, args...))
}

func (l *linter) lint() Faults {
	l.absent, l.must = map[*ast.Rule][]ast.Ref{}, map[*ast.Rule][]ast.Ref{}
	l.answerForm()
	l.index()
	l.negations()
	for _, name := range slices.Sorted(maps.Keys(l.compiler.Modules)) {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		for _, r := range l.compiler.Modules[name].Rules {
			ast.WalkRules(r, func(r *ast.Rule) bool {
				l.rule(r)
				return false
			})
		}
	}
	return l.faults
}

// rule looks at the body of one rule.
func (l *linter) rule(r *ast.Rule) {
	ast.WalkBodies(r, func(b ast.Body) bool {
		known := aliases(b)
		for _, e := range b {
			l.constants(e, known)
			l.patterns(e)
			l.paths(e, known)
			l.arguments(e, known)
			l.costly(e)
		}
		l.searches(b)
		return false
	})
	l.nested(r)
	if r.Head.Value != nil {
		l.patterns(r.Head.Value)
	}
}

// aliases are the local variables of a body that stand for a reference.
func aliases(b ast.Body) map[ast.Var]ast.Ref {
	known := map[ast.Var]ast.Ref{}
	for _, e := range b {
		if left, right, ok := equality(e); ok && !e.Negated {
			v, isVar := left.Value.(ast.Var)
			ref, isRef := right.Value.(ast.Ref)
			if isVar && isRef {
				known[v] = expand(ref, known)
			}
		}
	}
	return known
}

// expand puts what a local variable stands for in its place.
func expand(ref ast.Ref, known map[ast.Var]ast.Ref) ast.Ref {
	if len(ref) == 0 {
		return ref
	}
	v, ok := ref[0].Value.(ast.Var)
	if base, aliased := known[v]; ok && aliased {
		return append(slices.Clone(base), ref[1:]...)
	}
	return ref
}

func equality(e *ast.Expr) (left, right *ast.Term, ok bool) {
	if !e.IsCall() || len(e.Operands()) != 2 {
		return nil, nil, false
	}
	switch e.Operator().String() {
	case "eq", "equal", "assign":
		return e.Operand(0), e.Operand(1), true
	}
	return nil, nil, false
}

// refOf returns the reference that a term is, or stands for.
func refOf(t *ast.Term, known map[ast.Var]ast.Ref) ast.Ref {
	switch v := t.Value.(type) {
	case ast.Ref:
		return expand(v, known)
	case ast.Var:
		return known[v]
	}
	return nil
}

// members are the inputs that hold one of a fixed set of words.
var members = map[string][]string{
	"input.action.access":      {"read", "list", "write", "delete", "admin", "unknown"},
	"input.phase":              {"connect", "request"},
	"input.request.scheme":     {"http", "https"},
	"input.request.body_state": {"absent", "unread", "parsed", "truncated", "unparsable"},
}

// comparisons are the operators whose sides are compared.
var comparisons = map[string]bool{"eq": true, "equal": true, "neq": true, "internal.member_2": true, "startswith": true}

// constants finds words that an input can never be: access levels, actions, services,
// types of resources, and parameters of resources that no service has.
func (l *linter) constants(e *ast.Expr, known map[ast.Var]ast.Ref) {
	ast.WalkRefs(e, func(ref ast.Ref) bool {
		l.parameter(expand(ref, known), e.Location)
		l.field(expand(ref, known), e.Location)
		return false
	})
	if !e.IsCall() || !comparisons[e.Operator().String()] || len(e.Operands()) < 2 {
		return
	}
	a, b := e.Operand(0), e.Operand(1)
	op := e.Operator().String()
	if ref := refOf(b, known); ref != nil && op == "internal.member_2" {
		if s, ok := a.Value.(ast.String); ok && dotted(ref) == "input.action.keys" {
			l.actionWord(e.Location, string(s))
		}
		return
	}
	if refOf(a, known) == nil {
		a, b = b, a
	}
	ref := refOf(a, known)
	if ref == nil {
		return
	}
	for _, s := range words(b) {
		l.word(e.Location, dotted(ref), s, op == "startswith")
	}
}

// words are the strings of a constant.
func words(t *ast.Term) []string {
	switch v := t.Value.(type) {
	case ast.String:
		return []string{string(v)}
	case *ast.Array, ast.Set:
		var out []string
		v.(interface{ Foreach(func(*ast.Term)) }).Foreach(func(t *ast.Term) {
			if s, ok := t.Value.(ast.String); ok {
				out = append(out, string(s))
			}
		})
		return out
	}
	return nil
}

func (l *linter) word(loc *ast.Location, path, s string, begins bool) {
	if allowed, ok := members[path]; ok && !begins {
		if !slices.Contains(allowed, s) {
			l.fault(loc, "unknown-word", false, "%s is never %q, but one of %s%s", path, s, strings.Join(allowed, ", "), meant(s, allowed))
		}
		return
	}
	if right := spelledAs(path, s); right != s {
		l.fault(loc, "unknown-word", false, "%s is never %q: it is written as in %q", path, s, right)
		return
	}
	if l.names.names == nil || s == "" {
		return
	}
	switch path {
	case "input.action.id":
		if begins {
			s = strings.TrimRight(s, ":") + map[bool]string{true: ":*", false: "*"}[strings.HasSuffix(s, ":")]
		}
		l.actionWord(loc, s)
	case "input.action.service", "input.credential.service":
		if !begins && !l.names.hasService(s) {
			l.fault(loc, "unknown-action", false, "no service is named %s%s", s, meant(s, l.names.allServices()))
		}
	case "input.resource.type":
		if all := l.everywhere(func(n Name) []string { return []string{n.Resource} }); !begins && !all[s] {
			l.fault(loc, "unknown-word", false, "no resource is of type %q%s", s, meant(s, slices.Collect(maps.Keys(all))))
		}
	}
}

func (l *linter) actionWord(loc *ast.Location, s string) {
	if l.names.names == nil || !strings.Contains(s, ":") {
		return
	}
	if _, wrong := l.names.reached(s); wrong != "" {
		l.fault(loc, "unknown-action", false, "%s", wrong)
	}
}

// everywhere collects something of all actions of all services.
func (l *linter) everywhere(what func(Name) []string) map[string]bool {
	all := map[string]bool{}
	for _, service := range l.names.allServices() {
		for _, n := range l.names.of(service) {
			for _, s := range what(n) {
				all[s] = true
			}
		}
	}
	return all
}

// parameter finds parameters of resources that no service has.
func (l *linter) parameter(ref ast.Ref, loc *ast.Location) {
	if l.names.names == nil || len(ref) < 3 || dotted(ref[:2]) != "input.resource" {
		return
	}
	name, ok := ref[2].Value.(ast.String)
	if !ok || name == "id" || name == "type" {
		return
	}
	if name == "keys" {
		l.fault(loc, "unknown-word", false, "a resource has no keys; did you mean input.resource_keys?")
		return
	}
	if all := l.everywhere(func(n Name) []string { return n.Parameters }); !all[string(name)] {
		l.fault(loc, "unknown-word", false, "no resource has a parameter %s%s", string(name), meant(string(name), append(slices.Collect(maps.Keys(all)), "id", "type")))
	}
}

// arguments follows parts of the input into functions, where OPA's types do not reach.
func (l *linter) arguments(e *ast.Expr, known map[ast.Var]ast.Ref) {
	if l.schema == nil {
		return
	}
	calls := func(op ast.Ref, args []*ast.Term) {
		for i, a := range args {
			if ref := refOf(a, known); len(ref) > 0 && ref[0].Equal(ast.InputRootDocument) {
				l.follow(op, i, ref, 4)
			}
		}
	}
	if e.IsCall() {
		calls(e.Operator(), e.Operands())
	}
	ast.WalkTerms(e, func(t *ast.Term) bool {
		if call, ok := t.Value.(ast.Call); ok {
			if op, ok := call[0].Value.(ast.Ref); ok {
				calls(op, call[1:])
			}
		}
		return false
	})
}

// follow checks what a function reads of its argument, which is a part of the input.
func (l *linter) follow(op ast.Ref, i int, part ast.Ref, depth int) {
	s := l.schema.at(part[1:])
	if s == nil || depth == 0 {
		return
	}
	for _, f := range l.compiler.GetRulesExact(op) {
		if i >= len(f.Head.Args) {
			continue
		}
		param, ok := f.Head.Args[i].Value.(ast.Var)
		if !ok {
			continue
		}
		if len(part) == 1 {
			l.fault(f.Location, "whole-input", true, "%s takes the whole input: OPA does not check its types there, and no answer can be remembered; pass single values", named(op))
		}
		ast.WalkRefs(f, func(ref ast.Ref) bool {
			if len(ref) > 1 && ref[0].Value.Compare(param) == 0 {
				if name, others := s.missing(ref[1:]); name != "" {
					l.fault(ref[0].Location, "untyped-argument", false, "%s is given %s, which has no %s%s", named(op), dotted(part), name, meant(name, others))
				}
			}
			return false
		})
	}
}

// answerForm compares the answers that stand in the text with their agreed form.
func (l *linter) answerForm() {
	for name, m := range l.src.modules {
		if m.Package.Path.String() != "data.chaperone" || strings.HasSuffix(name, "_test.rego") {
			continue
		}
		ast.WalkRules(m, func(r *ast.Rule) bool {
			if r.Head.Ref().String() == "decision" && r.Head.Value != nil {
				l.answer(r.Head.Value)
			}
			return false
		})
	}
}

var answerKeys = []string{"result", "reasons", "obligations"}

func (l *linter) answer(t *ast.Term) {
	o, ok := t.Value.(ast.Object)
	if !ok {
		if !ast.IsConstant(t.Value) {
			return // made elsewhere
		}
		l.fault(t.Location, "answer", false, `the answer is no object {"result", "reasons", "obligations"}`)
		return
	}
	hasResult := false
	o.Foreach(func(k, v *ast.Term) {
		name, _ := k.Value.(ast.String)
		word, constant := v.Value.(ast.String)
		switch {
		case name == "":
		case !slices.Contains(answerKeys, string(name)):
			l.fault(k.Location, "answer", false, "an answer has no %s%s", string(name), meant(string(name), answerKeys))
		case name == "result":
			hasResult = true
			if results := []string{"allow", "deny", "ask"}; constant && !slices.Contains(results, string(word)) {
				l.fault(v.Location, "answer", false, "result is none of allow, deny, ask, and counts as a deny%s", meant(string(word), results))
			}
		case name == "obligations":
			l.obligations(v)
		}
	})
	if !hasResult {
		l.fault(t.Location, "answer", false, "an answer without result is a deny")
	}
}

func (l *linter) obligations(t *ast.Term) {
	o, ok := t.Value.(ast.Object)
	if !ok {
		return
	}
	o.Foreach(func(k, _ *ast.Term) {
		if name, ok := k.Value.(ast.String); ok && !slices.Contains(policy.Obligations[:], string(name)) {
			l.fault(k.Location, "answer", false, "no obligation is named %s, so that this is a deny%s", string(name), meant(string(name), policy.Obligations[:]))
		}
	})
}
