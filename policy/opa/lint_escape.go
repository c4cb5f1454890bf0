package opa

import (
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// orders are the comparisons that hold for a range of values.
var orders = map[string]string{"neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}

// escaped looks at a comparison that works towards a deny: where the value is absent it
// does not hold, and nothing is denied. Comparisons with == name what is to be denied,
// which an absent value is not; but what is in a body can be kept from being read.
func (l *linter) escaped(b ast.Body, e *ast.Expr) {
	known := aliases(b)
	if t, alone := e.Terms.(*ast.Term); alone {
		if name := dotted(refOf(t, known)); strings.HasPrefix(name, "input.request.body.") {
			l.unreadBody(e, name)
		}
		return
	}
	if !e.IsCall() {
		return
	}
	op := e.Operator().String()
	for i, t := range e.Operands() {
		ref := refOf(t, known)
		if ref == nil {
			continue
		}
		if name := dotted(ref); strings.HasPrefix(name, "input.request.body.") {
			if _, local := e.Operand(0).Value.(ast.Var); op != "eq" && op != "assign" || !local || i == 0 {
				l.unreadBody(e, name)
			}
			return
		}
		if orders[op] == "" || len(e.Operands()) != 2 {
			continue
		}
		other := e.Operand(1 - i)
		if guard := guardOf(ref); guard != nil && !l.said(b, e, guard, known) && !other.Equal(ast.NullTerm()) {
			l.fault(e.Location, "escaped-deny", false, "this does not hold where there is no %s, and so an absent value escapes the deny: %s", ref, l.closed(op, ref, other, guard))
			return
		}
	}
}

// closed says how to write a comparison that an absent value does not escape.
func (l *linter) closed(op string, ref ast.Ref, other *ast.Term, guard ast.Ref) string {
	if op == "neq" && ast.IsConstant(other.Value) {
		return "write not " + ref.String() + " == " + other.String() + ", or first " + guard.String() + " != null if that is meant"
	}
	return "add a rule for where it is absent, and say first " + guard.String() + " != null here"
}

// said reports whether another expression of the body speaks of a part of the input.
func (l *linter) said(b ast.Body, but *ast.Expr, guard ast.Ref, known map[ast.Var]ast.Ref) bool {
	for _, e := range b {
		if left, right, ok := equality(e); ok {
			if _, local := left.Value.(ast.Var); local && refOf(right, nil) != nil {
				continue // a name for it
			}
		}
		if e == but || e.Negated || isNull(e) {
			continue
		}
		found := false
		ast.WalkTerms(e, func(t *ast.Term) bool {
			if ref := refOf(t, known); ref != nil && ref.HasPrefix(guard) {
				found = true
			}
			return found
		})
		if found {
			return true
		}
	}
	return slices.ContainsFunc(l.readBy(b, but, 6), func(r ast.Ref) bool { return r.HasPrefix(guard) && !l.within(but, r, known) && !l.named(b, r) })
}

// within reports whether an expression reads a part of the input, by itself or by a name.
func (l *linter) within(e *ast.Expr, ref ast.Ref, known map[ast.Var]ast.Ref) bool {
	return slices.ContainsFunc(e.Operands(), func(t *ast.Term) bool { r := refOf(t, known); return r != nil && r.Equal(ref) })
}

// named reports whether a body gives a part of the input a name.
func (l *linter) named(b ast.Body, ref ast.Ref) bool {
	return slices.ContainsFunc(b, func(e *ast.Expr) bool {
		left, right, ok := equality(e)
		if !ok {
			return false
		}
		_, local := left.Value.(ast.Var)
		r := refOf(right, nil)
		return local && r != nil && r.Equal(ref)
	})
}

// unreadBody finds denials by what stands in the body, in a policy that allows what it
// could not read.
func (l *linter) unreadBody(e *ast.Expr, name string) {
	for _, m := range slices.Sorted(maps.Keys(l.compiler.Modules)) {
		if strings.HasSuffix(m, "_test.rego") {
			continue
		}
		found := false
		ast.WalkRefs(l.compiler.Modules[m], func(ref ast.Ref) bool {
			found = found || dotted(ref) == "input.request.body_state"
			return found
		})
		if found {
			return
		}
	}
	l.fault(e.Location, "escaped-deny", false, "this does not hold where the body could not be read or is of another form than %s, and so it escapes the deny: deny also where input.request.body_state is none of parsed and absent", name)
}
