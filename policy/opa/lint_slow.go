package opa

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// manyRules is from how many rules of one name on it matters that each is left at
// once: below, all of them together cost less than a microsecond.
const manyRules = 8

// nothing is an input whose every value equals nothing: a rule that the index still
// finds then is one that it cannot leave out.
type nothing struct{}

// Resolve implements ast.ValueResolver.
func (nothing) Resolve(ast.Ref) (ast.Value, error) { return ast.String("\x00"), nil }

// index warns of rules, among many of one name, that OPA's index cannot use.
func (l *linter) index() {
	seen := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(l.compiler.Modules)) {
		if strings.HasSuffix(file, "_test.rego") {
			continue
		}
		for _, r := range l.compiler.Modules[file].Rules {
			ref := r.Ref().GroundPrefix()
			if !seen[ref.String()] && len(r.Head.Args) == 0 {
				l.indexed(ref)
			}
			seen[ref.String()] = true
		}
	}
}

func (l *linter) indexed(ref ast.Ref) {
	rules, index := l.compiler.GetRulesExact(ref), l.compiler.RuleIndex(ref)
	if len(rules) < manyRules || index == nil {
		return
	}
	found, err := index.Lookup(nothing{})
	if err != nil {
		return
	}
	for _, slow := range found.Rules {
		if len(slow.Body) > 0 && !slow.Default {
			l.fault(slow.Location, "not-indexed", true, "one of %d rules %s, and it is tried for every request: begin it with a comparison of the input with a constant, such as input.action.id == \"…\"", len(rules), named(ref))
		}
	}
}

// searches warns where a body goes through data for an element with a certain value.
func (l *linter) searches(b ast.Body) {
	elements := map[ast.Var]ast.Ref{}
	for _, e := range b {
		left, right, ok := equality(e)
		if !ok || e.Negated {
			continue
		}
		for _, pair := range [][2]*ast.Term{{left, right}, {right, left}} {
			v, isVar := pair[0].Value.(ast.Var)
			ref, isRef := pair[1].Value.(ast.Ref)
			if isVar && isRef && l.iterates(ref) {
				elements[v] = ref
			}
			l.sought(e, pair[0], pair[1], elements)
		}
	}
}

// iterates reports whether a reference goes through data, by a variable at its end.
func (l *linter) iterates(ref ast.Ref) bool {
	if len(ref) < 3 || !ref[0].Equal(ast.DefaultRootDocument) || len(l.compiler.GetRules(ref.GroundPrefix())) > 0 {
		return false
	}
	v, ok := ref[len(ref)-1].Value.(ast.Var)
	return ok && (v.IsWildcard() || v.IsGenerated())
}

func (l *linter) sought(e *ast.Expr, member, value *ast.Term, elements map[ast.Var]ast.Ref) {
	ref, ok := member.Value.(ast.Ref)
	if !ok || len(ref) < 2 {
		return
	}
	if _, constant := ref[len(ref)-1].Value.(ast.String); !constant {
		return
	}
	v, _ := ref[0].Value.(ast.Var)
	in, found := elements[v]
	if !found && len(ref) > 3 && l.iterates(ref[:len(ref)-1]) {
		in, found = ref[:len(ref)-1], true
	}
	key, isRef := value.Value.(ast.Ref)
	isRef = isRef && len(key) > 0 && key[0].Equal(ast.InputRootDocument)
	if !found || !isRef && !ast.IsConstant(value.Value) {
		return
	}
	where := dotted(in.GroundPrefix())
	l.fault(e.Location, "search", true, "this goes through all of %s: key it by %s and look up %s[%v]", where, named(ref), where, value)
}

// costly warns of functions whose work grows with what they are given.
func (l *linter) costly(e *ast.Expr) {
	check := func(op string, args []*ast.Term, loc *ast.Location) {
		switch op {
		case "walk":
			l.fault(loc, "costly", true, "walk visits every value there is: name the path")
		case "glob.match", "regex.match":
			if len(args) > 0 && !ast.IsConstant(args[0].Value) {
				l.fault(loc, "costly", true, "%s with a pattern that is not a constant is made anew for each request: use input.action.keys and input.resource_keys, which are the patterns, as keys", op)
			}
		}
	}
	if e.IsCall() {
		check(e.Operator().String(), e.Operands(), e.Location)
	}
	ast.WalkTerms(e, func(t *ast.Term) bool {
		if call, ok := t.Value.(ast.Call); ok {
			check(fmt.Sprint(call[0]), call[1:], t.Location)
		}
		return false
	})
}
