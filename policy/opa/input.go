package opa

import (
	"net/url"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"chaperone/policy"
	"chaperone/policy/opa/machine"
)

// The input's objects, by their keys.
var (
	inputShape = machine.NewShape("agent", "instance", "human", "session", "action", "resource", "resource_keys", "actions",
		"request", "credential", "phase", "time", "grants", "raw")
	requestShape    = machine.NewShape("method", "scheme", "host", "port", "path", "query", "headers", "body", "body_state")
	agentShape      = machine.NewShape("id", "owner", "labels")
	humanShape      = machine.NewShape("sub", "iss", "email", "groups")
	sessionShape    = machine.NewShape("id", "purpose", "scope", "created", "expires", "parent", "chain")
	narrowShape     = machine.NewShape("scope", "chain")
	scopeShape      = machine.NewShape("actions", "resources")
	linkShape       = machine.NewShape("session", "agent", "instance")
	actionShape     = machine.NewShape("id", "service", "operation", "access", "known", "keys")
	actShape        = machine.NewShape("id", "service", "operation", "access", "known", "keys", "resource")
	resourceShape   = machine.NewShape("type", "id")
	credentialShape = machine.NewShape("id", "owner", "kind", "service")
	pathShape       = machine.NewShape("path")

	null        = machine.Nothing()
	forGood     = (*machine.Arena)(nil) // what it makes is shared
	emptyArray  = forGood.Array()
	emptyObject = forGood.Object()
	hidden      = forGood.Texts([]string{"[credential]"})
)

// maybe is null for what is not there.
func maybe(s string) machine.Value {
	if s == "" {
		return null
	}
	return machine.Text(s)
}

// document makes the input of docs/policy.md. Parts that the policy does not read
// are left empty, as if there were none.
func (e *Engine) document(a *machine.Arena, q *policy.Question, c *caller) machine.Value {
	resource, actions, credential, raw := emptyObject, emptyArray, null, null
	if e.reads.resource {
		resource = resourceValue(a, &q.Resource)
	} else if e.reads.resourceID {
		resource = a.Make(resourceShape, maybe(q.Resource.Type), maybe(q.Resource.ID))
	}
	if e.reads.actions {
		actions = actionsValue(a, q.Actions)
	}
	if e.reads.credential && q.Credential != nil {
		x := q.Credential
		credential = a.Make(credentialShape, machine.Text(x.ID), machine.Text(x.Owner), machine.Text(x.Kind), machine.Text(x.Service))
	}
	if e.reads.raw && !q.Action.Known {
		raw = a.Make(pathShape, segments(a, q.Request.Path))
	}
	instance, phase, now := null, null, null
	if e.reads.instance {
		instance = machine.Text(q.Instance)
	}
	if e.reads.phase {
		phase = machine.Text(string(q.Phase))
	}
	if e.reads.time {
		now = machine.Int(q.Time)
	}
	return a.Make(inputShape, c.agent, instance, c.human, c.session, actionValue(a, &q.Action), resource, a.Texts(q.Resource.Keys), actions,
		e.request(a, &q.Request), credential, phase, now, c.grants, raw)
}

func (e *Engine) request(a *machine.Arena, r *policy.Request) machine.Value {
	path, query, headers, body := emptyArray, emptyObject, emptyObject, null
	if e.reads.path {
		path = segments(a, r.Path)
	}
	if e.reads.query {
		query = queryValue(a, r)
	}
	if e.reads.headers {
		headers = multiMap(a, r.Header, r.HiddenHeaders)
	}
	if e.reads.body && r.Body != nil {
		if v, err := machine.FromJSON(r.Body); err == nil {
			body = v
		}
	}
	return a.Make(requestShape, machine.Text(r.Method), machine.Text(r.Scheme), machine.Text(r.Host), machine.Int(int64(r.Port)),
		path, query, headers, body, machine.Text(string(r.BodyState)))
}

// input is the document as OPA's evaluator takes it.
func (e *Engine) input(q *policy.Question) ast.Value {
	c := e.caller(q)
	rest := e.document(nil, q, &caller{agent: null, human: null, session: null, grants: null})
	object := rest.AST().(ast.Object)
	for name, t := range c.terms() {
		object.Insert(ast.StringTerm(name), t)
	}
	return object
}

// caller is the part of the input that is about who asks. It is the same for all
// requests of a session, and kept.
type caller struct {
	agent, human, session, grants machine.Value
	// terms are the same for OPA's evaluator, made when it is asked first.
	terms func() map[string]*ast.Term
}

func (e *Engine) caller(q *policy.Question) *caller {
	var space [maxKeySize]byte
	k := e.reads.caller(space[:0], q)
	if c, ok := e.callers.recall(k); ok {
		return c
	}
	c := &caller{agent: e.agentValue(&q.Agent), human: humanValue(q.Human), session: e.sessionValue(q.Session), grants: null}
	if e.reads.grants {
		c.grants = e.grants.value(q)
	}
	c.terms = sync.OnceValue(func() map[string]*ast.Term {
		terms := map[string]*ast.Term{"agent": c.agent.Term(), "human": c.human.Term(), "session": c.session.Term(), "grants": c.grants.Term()}
		for _, t := range terms {
			t.Value.Hash() // sorts it now, before it is shared
		}
		return terms
	})
	e.callers.keep(k, c)
	return c
}

func (e *Engine) agentValue(a *policy.Agent) machine.Value {
	labels := emptyObject
	if e.reads.labels && len(a.Labels) > 0 {
		var fields []machine.Field
		for k, v := range a.Labels {
			fields = append(fields, machine.Field{Name: k, Value: machine.Text(v)})
		}
		labels = forGood.Object(fields...)
	}
	return forGood.Make(agentShape, machine.Text(a.ID), machine.Text(a.Owner), labels)
}

func humanValue(h *policy.Human) machine.Value {
	if h == nil {
		return null
	}
	return forGood.Make(humanShape, maybe(h.Sub), maybe(h.Iss), maybe(h.Email), forGood.Texts(h.Groups))
}

func (e *Engine) sessionValue(s *policy.Session) machine.Value {
	if s == nil {
		return null
	}
	scope, chain := null, emptyArray
	if e.reads.scope && s.Scope != nil {
		list := make([]machine.Value, len(s.Scope))
		for i, x := range s.Scope {
			resources := null
			if x.Resources != nil {
				resources = forGood.Texts(x.Resources)
			}
			list[i] = forGood.Make(scopeShape, forGood.Texts(x.Actions), resources)
		}
		scope = forGood.Array(list...)
	}
	if e.reads.chain {
		list := make([]machine.Value, len(s.Chain))
		for i, l := range s.Chain {
			list[i] = forGood.Make(linkShape, machine.Text(l.Session), machine.Text(l.Agent), machine.Text(l.Instance))
		}
		chain = forGood.Array(list...)
	}
	if !e.reads.session {
		return forGood.Make(narrowShape, scope, chain)
	}
	return forGood.Make(sessionShape, machine.Text(s.ID), maybe(s.Purpose), scope, machine.Int(s.Created), machine.Int(s.Expires), maybe(s.Parent), chain)
}

func actionValue(a *machine.Arena, x *policy.Action) machine.Value {
	return a.Make(actionShape, machine.Text(x.ID), machine.Text(x.Service), maybe(x.Operation), machine.Text(string(x.Access)), machine.Bool(x.Known), a.Texts(x.Keys))
}

func actionsValue(a *machine.Arena, acts []policy.Act) machine.Value {
	list := make([]machine.Value, len(acts))
	for i := range acts {
		x := &acts[i].Action
		list[i] = a.Make(actShape, machine.Text(x.ID), machine.Text(x.Service), maybe(x.Operation), machine.Text(string(x.Access)), machine.Bool(x.Known),
			a.Texts(x.Keys), resourceValue(a, &acts[i].Resource))
	}
	return a.Array(list...)
}

func resourceValue(a *machine.Arena, r *policy.Resource) machine.Value {
	fields := make([]machine.Field, 0, len(r.Params)+2)
	fields = append(fields, machine.Field{Name: "type", Value: maybe(r.Type)}, machine.Field{Name: "id", Value: maybe(r.ID)})
	for _, p := range r.Params {
		if p.Name != "type" && p.Name != "id" {
			fields = append(fields, machine.Field{Name: p.Name, Value: machine.Text(p.Value)})
		}
	}
	return a.Object(fields...)
}

// segments splits an escaped path and decodes each part.
func segments(a *machine.Arena, path string) machine.Value {
	var list []string
	for s := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if u, err := url.PathUnescape(s); err == nil {
			s = u
		}
		list = append(list, s)
	}
	return a.Texts(list)
}

func queryValue(a *machine.Arena, r *policy.Request) machine.Value {
	values, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return emptyObject // the classify station has refused it
	}
	return multiMap(a, values, r.HiddenQuery)
}

// multiMap makes {lower-case name: [values]}; hidden names show that there
// is something, and not what.
func multiMap(a *machine.Arena, m map[string][]string, hide []string) machine.Value {
	fields := make([]machine.Field, 0, len(m))
	for k, v := range m {
		name := strings.ToLower(k)
		values := a.Texts(v)
		for _, h := range hide {
			if h == name {
				values = hidden
			}
		}
		fields = append(fields, machine.Field{Name: name, Value: values})
	}
	return a.Object(fields...)
}
