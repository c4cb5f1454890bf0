package opa

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// lacking are parts of the input that may not be there, and how much of a reference
// below them must be read elsewhere in a body so that they are there.
var lacking = []struct {
	path  string
	guard int // terms of the reference; 0: the whole of it
}{
	{"input.human", 2}, {"input.credential", 2}, {"input.raw", 2}, {"input.resource", 0}, {"input.agent.labels", 0},
	{"input.request.headers", 0}, {"input.request.query", 0}, {"input.request.body", 0}, {"input.session.scope", 3}, {"input.grants", 0},
}

// nullable are leaves that are null when there is none, so that != holds.
var nullable = []string{
	"input.session.purpose", "input.session.parent", "input.resource.id", "input.resource.type", "input.human.email", "input.human.iss", "input.action.operation",
}

// guardOf returns the part of a reference that must be there, or nil when it always is.
func guardOf(ref ast.Ref) ast.Ref {
	name := dotted(ref)
	for _, x := range lacking {
		if rest, ok := strings.CutPrefix(name, x.path); ok && (rest != "" && rest[0] == '.' || rest == "" && len(ref) > 2) {
			n := x.guard
			if n == 0 {
				n = min(len(ref), strings.Count(name, ".")+1)
			}
			return ref[:n]
		}
	}
	return nil
}

// side says whether a rule, where it holds, works towards an allow.
type side int8

const (
	towards side = 1
	against side = -1
)

// negations finds conditions that hold because something is not there, where that
// makes an allow.
func (l *linter) negations() {
	done := map[*ast.Rule]side{}
	var visit func(r *ast.Rule, p side)
	visit = func(r *ast.Rule, p side) {
		if done[r] == p || done[r] == towards {
			return
		}
		done[r] = p
		l.body(r.Body, p, visit)
		if r.Head.Value != nil {
			l.eachRule(r.Head.Value, func(x *ast.Rule) { visit(x, p) })
		}
		if r.Else != nil {
			visit(r.Else, sideOf(r.Else, p))
		}
	}
	for _, r := range l.compiler.GetRulesExact(ast.MustParseRef(entry)) {
		visit(r, sideOf(r, towards))
	}
}

// sideOf looks at the answer that a rule gives.
func sideOf(r *ast.Rule, otherwise side) side {
	value := r.Head.Value
	if v, local := value.Value.(ast.Var); local { // the compiler moved it into the body
		for _, e := range r.Body {
			if left, right, ok := equality(e); ok && left.Value.Compare(v) == 0 {
				value = right
			}
		}
	}
	o, ok := value.Value.(ast.Object)
	if !ok {
		return otherwise
	}
	if t := o.Get(resultKey); t != nil && t.Value.Compare(ast.String("deny")) == 0 {
		return against
	}
	return otherwise
}

func (l *linter) body(b ast.Body, p side, visit func(*ast.Rule, side)) {
	emptied := emptiness(b)
	for _, e := range b {
		q := p
		if e.Negated || l.mentions(e, emptied) {
			q = -p
		}
		if p == towards && e.Negated {
			l.negated(b, e)
		}
		if p == towards && !e.Negated {
			l.unequal(b, e)
		}
		if p == against && !e.Negated {
			l.escaped(b, e)
		}
		l.eachRule(e, func(r *ast.Rule) { visit(r, q) })
	}
}

// emptiness returns what a body counts and finds to be none.
func emptiness(b ast.Body) []ast.Ref {
	counted, known := map[ast.Var]ast.Ref{}, aliases(b)
	var out []ast.Ref
	for _, e := range b {
		if e.IsCall() && e.Operator().String() == "count" && len(e.Operands()) == 2 {
			ref := refOf(e.Operand(0), known)
			if v, isVar := e.Operand(1).Value.(ast.Var); ref != nil && isVar {
				counted[v] = ref
			}
			if ref != nil && e.Operand(1).Equal(ast.IntNumberTerm(0)) {
				out = append(out, ref)
			}
		}
		left, right, ok := equality(e)
		if !ok {
			continue
		}
		for _, pair := range [][2]*ast.Term{{left, right}, {right, left}} {
			v, _ := pair[0].Value.(ast.Var)
			if ref := counted[v]; ref != nil && pair[1].Equal(ast.IntNumberTerm(0)) {
				out = append(out, ref)
			}
			ref := refOf(pair[0], known)
			if set, isSet := pair[1].Value.(ast.Set); ref != nil && isSet && set.Len() == 0 {
				out = append(out, ref)
			}
		}
	}
	return out
}

func (l *linter) mentions(e *ast.Expr, refs []ast.Ref) bool {
	found := false
	ast.WalkRefs(e, func(r ast.Ref) bool {
		found = found || slices.ContainsFunc(refs, func(x ast.Ref) bool { return r.Equal(x) })
		return found
	})
	return found
}

// eachRule calls f for the rules that x refers to.
func (l *linter) eachRule(x any, f func(*ast.Rule)) {
	ast.WalkRefs(x, func(ref ast.Ref) bool {
		if len(ref) > 0 && ref[0].Equal(ast.DefaultRootDocument) {
			for _, r := range l.compiler.GetRules(ref.GroundPrefix()) {
				f(r)
			}
		}
		return false
	})
}

// negated looks at a "not" that works towards an allow.
func (l *linter) negated(b ast.Body, e *ast.Expr) {
	var refs []ast.Ref
	known := aliases(b)
	ast.WalkRefs(e, func(ref ast.Ref) bool {
		if ref = expand(ref, known); guardOf(ref) != nil {
			refs = append(refs, ref)
		}
		return false
	})
	l.eachRule(e, func(r *ast.Rule) { refs = append(refs, l.mayLack(r, 6)...) })
	read := l.readBy(b, e, 6)
	for _, ref := range refs {
		if guard := guardOf(ref); !slices.ContainsFunc(read, func(r ast.Ref) bool { return r.HasPrefix(guard) }) {
			l.fault(e.Location, "open-negation", false, "this also holds where there is no %s, and so an absent value allows: say first what must be there, such as %s != null", dotted(ref), dotted(guard))
			return
		}
	}
}

// unequal looks at a != that works towards an allow.
func (l *linter) unequal(b ast.Body, e *ast.Expr) {
	if !e.IsCall() || e.Operator().String() != "neq" || len(e.Operands()) != 2 {
		return
	}
	known := aliases(b)
	ref := refOf(e.Operand(0), known)
	if ref == nil || !slices.Contains(nullable, dotted(ref)) || !ast.IsConstant(e.Operand(1).Value) || e.Operand(1).Equal(ast.NullTerm()) {
		return
	}
	for _, other := range b {
		if other != e && !other.Negated && there(other, ref, known) {
			return
		}
	}
	l.fault(e.Location, "open-negation", false, "this also holds where %s is null, and so an absent value allows: add %s != null", dotted(ref), dotted(ref))
}

// there reports whether an expression holds only where a reference is not null.
func there(e *ast.Expr, ref ast.Ref, known map[ast.Var]ast.Ref) bool {
	if !e.IsCall() {
		return false
	}
	if left, right, ok := equality(e); ok {
		_, local := left.Value.(ast.Var)
		if local && refOf(right, nil) != nil || isNull(e) {
			return false // a name for it, or the contrary
		}
	}
	if e.Operator().String() == "neq" && !e.Operand(0).Equal(ast.NullTerm()) && !e.Operand(1).Equal(ast.NullTerm()) {
		return false
	}
	return slices.ContainsFunc(e.Operands(), func(t *ast.Term) bool { r := refOf(t, known); return r != nil && r.Equal(ref) })
}

// mayLack returns the parts of the input without which r does not hold.
func (l *linter) mayLack(r *ast.Rule, depth int) []ast.Ref {
	if out, ok := l.absent[r]; ok || depth == 0 {
		return out
	}
	l.absent[r] = nil // recursion ends here
	var out []ast.Ref
	known := aliases(r.Body)
	for _, e := range r.Body {
		if e.Negated {
			continue
		}
		ast.WalkRefs(e, func(ref ast.Ref) bool {
			if ref = expand(ref, known); guardOf(ref) != nil {
				out = append(out, ref)
			}
			return false
		})
		l.eachRule(e, func(x *ast.Rule) { out = append(out, l.mayLack(x, depth-1)...) })
	}
	l.absent[r] = out
	return out
}

// readBy returns the parts of the input that must be there for a body to hold, not
// counting one of its expressions.
func (l *linter) readBy(b ast.Body, but *ast.Expr, depth int) []ast.Ref {
	var out []ast.Ref
	known := aliases(b)
	for _, e := range b {
		if e == but || e.Negated || isNull(e) {
			continue
		}
		ast.WalkRefs(e, func(ref ast.Ref) bool {
			if ref = expand(ref, known); len(ref) > 1 && ref[0].Equal(ast.InputRootDocument) {
				out = append(out, ref)
			}
			if len(ref) > 1 && ref[0].Equal(ast.DefaultRootDocument) {
				out = append(out, l.always(l.compiler.GetRules(ref.GroundPrefix()), depth-1)...)
			}
			return false
		})
	}
	return out
}

// always returns what each of several rules must read.
func (l *linter) always(rules []*ast.Rule, depth int) []ast.Ref {
	var all []ast.Ref
	for i, r := range rules {
		one, ok := l.must[r]
		if !ok && depth > 0 {
			l.must[r] = nil
			one = l.readBy(r.Body, nil, depth)
			if r.Head.Value != nil {
				one = append(one, l.readBy(ast.NewBody(ast.NewExpr(r.Head.Value)), nil, depth)...)
			}
			l.must[r] = one
		}
		if i == 0 {
			all = one
			continue
		}
		all = slices.DeleteFunc(slices.Clone(all), func(ref ast.Ref) bool { return !slices.ContainsFunc(one, func(x ast.Ref) bool { return ref.Equal(x) }) })
	}
	return all
}

// isNull reports whether an expression says that something is not there.
func isNull(e *ast.Expr) bool {
	left, right, ok := equality(e)
	return ok && (left.Equal(ast.NullTerm()) || right.Equal(ast.NullTerm()))
}
