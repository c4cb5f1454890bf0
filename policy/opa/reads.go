package opa

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// reads says which parts of the input a policy refers to. What it does not refer
// to is neither made nor part of what an answer is remembered under.
type reads struct {
	query, headers, body, path              bool
	resourceID, resource, raw               bool
	actions, credential                     bool
	session, scope, chain, instance, labels bool
	phase, time, grants                     bool
}

// readsAll is for input that people look at.
var readsAll = reads{
	query: true, headers: true, body: true, path: true, resourceID: true, resource: true, raw: true, actions: true, credential: true,
	session: true, scope: true, chain: true, instance: true, labels: true, phase: true, time: true, grants: true,
}

// readsOf takes the references that OPA finds reachable. One that ends early, or goes
// on with a variable, reads all that is below.
func readsOf(refs []ast.Ref) reads {
	var r reads
	for _, ref := range refs {
		if !ref.HasPrefix(ast.InputRootRef) {
			continue
		}
		name, known := keyAt(ref, 1)
		sub, subKnown := keyAt(ref, 2)
		for _, part := range r.parts() {
			if !known || part.name == name && (part.sub == "" || !subKnown || part.sub == sub) {
				*part.flag = true
			}
		}
		if !known || name == "resource" {
			r.resourceID = true
			r.resource = r.resource || sub != "id" && sub != "type" // a parameter, or all of them
		}
	}
	return r
}

// part is a place in the input: a key, or a key below one.
type part struct {
	flag      *bool
	name, sub string
}

func (r *reads) parts() []part {
	return []part{
		{&r.query, "request", "query"}, {&r.headers, "request", "headers"}, {&r.body, "request", "body"}, {&r.path, "request", "path"},
		{&r.raw, "raw", ""}, {&r.actions, "actions", ""}, {&r.credential, "credential", ""},
		{&r.scope, "session", "scope"}, {&r.chain, "session", "chain"}, {&r.session, "session", "id"}, {&r.session, "session", "purpose"},
		{&r.session, "session", "created"}, {&r.session, "session", "expires"}, {&r.session, "session", "parent"},
		{&r.instance, "instance", ""}, {&r.labels, "agent", "labels"}, {&r.phase, "phase", ""}, {&r.time, "time", ""}, {&r.grants, "grants", ""},
	}
}

// keyAt returns the constant key at a place of a reference, if there is one.
func keyAt(ref ast.Ref, i int) (string, bool) {
	if len(ref) <= i {
		return "", false
	}
	s, ok := ref[i].Value.(ast.String)
	return string(s), ok
}

// repeatable reports whether equal input always gives an equal answer: no reachable
// function depends on anything else.
func repeatable(modules map[string]*ast.Module) bool {
	ok := true
	for _, m := range modules {
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.IsCall() {
				b := ast.BuiltinMap[e.Operator().String()]
				ok = ok && (b == nil || !b.IsNondeterministic())
			}
			return false
		})
		ast.WalkTerms(m, func(t *ast.Term) bool {
			if call, is := t.Value.(ast.Call); is {
				b := ast.BuiltinMap[call[0].String()]
				ok = ok && (b == nil || !b.IsNondeterministic())
			}
			return false
		})
	}
	return ok
}

// Reads says which parts of a question that a record does not hold a policy looks at.
type Reads struct {
	Query, Headers, Body bool
	Credential           bool // more of it than its id
	Times                bool // the session's created, expires or parent
	Person               bool // labels, groups or scope
}

// Reads returns what e's policy looks at.
func (e *Engine) Reads() Reads { return e.looks }

func looksOf(refs []ast.Ref) Reads {
	var r Reads
	for _, ref := range refs {
		if !ref.HasPrefix(ast.InputRootRef) {
			continue
		}
		name, known := keyAt(ref, 1)
		sub, subKnown := keyAt(ref, 2)
		has := func(object string, members ...string) bool {
			return !known || name == object && (!subKnown || slices.Contains(members, sub))
		}
		r.Query = r.Query || has("request", "query")
		r.Headers = r.Headers || has("request", "headers")
		r.Body = r.Body || has("request", "body")
		r.Credential = r.Credential || has("credential", "owner", "kind", "service")
		r.Times = r.Times || has("session", "created", "expires", "parent")
		r.Person = r.Person || has("agent", "labels") || has("human", "groups") || has("session", "scope")
	}
	return r
}
