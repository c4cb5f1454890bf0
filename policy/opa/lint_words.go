package opa

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// spelledAs is how the input spells a word of which only one case of letters is there.
func spelledAs(path, s string) string {
	switch path {
	case "input.request.method":
		return strings.ToUpper(s)
	case "input.request.host", "input.request.scheme":
		return strings.ToLower(s)
	}
	return s
}

// field finds header fields under names that are not in lower case: none is there.
func (l *linter) field(ref ast.Ref, loc *ast.Location) {
	if len(ref) < 4 || dotted(ref[:3]) != "input.request.headers" {
		return
	}
	if name, ok := ref[3].Value.(ast.String); ok && strings.ToLower(string(name)) != string(name) {
		l.fault(loc, "unknown-word", false, "no header field is named %q in the input, where names are in lower case: write %q", string(name), strings.ToLower(string(name)))
	}
}

// patterns finds patterns of actions that reach none, wherever they stand: in arguments
// of helpers, in tables that are looked up by the action.
func (l *linter) patterns(x any) {
	if l.names.names == nil {
		return
	}
	ast.WalkTerms(x, func(t *ast.Term) bool {
		s, ok := t.Value.(ast.String)
		if !ok || strings.ContainsAny(string(s), " \n/") && strings.Contains(string(s), "://") {
			return false
		}
		service, operation, ok := strings.Cut(string(s), ":")
		if !ok || operation == "" || strings.ContainsAny(string(s), " \t\n%") || !l.names.hasService(service) {
			return false
		}
		if _, wrong := l.names.reached(string(s)); wrong != "" && !l.told(t.Location, wrong) {
			l.fault(t.Location, "unknown-action", true, "%s", wrong)
		}
		return false
	})
}

// told reports whether a line has a fault of these words already.
func (l *linter) told(loc *ast.Location, message string) bool {
	for _, f := range l.faults {
		if loc != nil && f.File == loc.File && f.Line == loc.Row && f.Message == message {
			return true
		}
	}
	return false
}

// paths follows the paths of object.get into the input, where OPA's types do not reach.
func (l *linter) paths(e *ast.Expr, known map[ast.Var]ast.Ref) {
	if l.schema == nil {
		return
	}
	check := func(op string, args []*ast.Term, loc *ast.Location) {
		if op != "object.get" || len(args) < 2 {
			return
		}
		ref := refOf(args[0], known)
		if len(ref) == 0 || !ref[0].Equal(ast.InputRootDocument) {
			return
		}
		path := []*ast.Term{args[1]}
		if list, ok := args[1].Value.(*ast.Array); ok {
			path = nil
			list.Foreach(func(t *ast.Term) { path = append(path, t) })
		}
		if name, others := l.schema.at(ref[1:]).missing(path); name != "" {
			l.fault(loc, "untyped-argument", false, "%s has no %s%s", dotted(ref), name, meant(name, others))
		}
	}
	if e.IsCall() {
		check(e.Operator().String(), e.Operands(), e.Location)
	}
	ast.WalkTerms(e, func(t *ast.Term) bool {
		if call, ok := t.Value.(ast.Call); ok {
			check(call[0].String(), call[1:], t.Location)
		}
		return false
	})
}

// nested warns of comprehensions within comprehensions that both go through data.
func (l *linter) nested(r *ast.Rule) {
	var visit func(x any, outer bool)
	visit = func(x any, outer bool) {
		ast.WalkTerms(x, func(t *ast.Term) bool {
			body, ok := comprehension(t)
			if !ok {
				return false
			}
			through := l.goesThrough(body)
			if through && outer {
				l.fault(t.Location, "costly", true, "this goes through data for each element of what goes through data already: prepare a table in a rule of its own, and look up in it")
				return true
			}
			visit(body, outer || through)
			return true
		})
	}
	visit(r.Body, false)
	if r.Head.Value != nil {
		visit(r.Head.Value, false)
	}
}

func comprehension(t *ast.Term) (ast.Body, bool) {
	switch c := t.Value.(type) {
	case *ast.ArrayComprehension:
		return c.Body, true
	case *ast.SetComprehension:
		return c.Body, true
	case *ast.ObjectComprehension:
		return c.Body, true
	}
	return nil, false
}

// goesThrough reports whether a body itself has a variable in a reference to data.
func (l *linter) goesThrough(b ast.Body) bool {
	found := false
	for _, e := range b {
		ast.WalkTerms(e, func(t *ast.Term) bool {
			if _, inner := comprehension(t); inner {
				return true
			}
			if ref, ok := t.Value.(ast.Ref); ok && l.iterates(ref) {
				found = true
			}
			return false
		})
	}
	return found
}
