package opa

import (
	"net/url"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"chaperone/policy"
)

// The input's keys, made once.
var (
	kAgent, kInstance, kHuman, kSession     = text("agent"), text("instance"), text("human"), text("session")
	kAction, kResource, kResourceKeys       = text("action"), text("resource"), text("resource_keys")
	kActions, kRequest, kCredential, kPhase = text("actions"), text("request"), text("credential"), text("phase")
	kTime, kGrants, kRaw                    = text("time"), text("grants"), text("raw")
	kID, kOwner, kLabels, kSub, kIss        = text("id"), text("owner"), text("labels"), text("sub"), text("iss")
	kEmail, kGroups, kPurpose, kScope       = text("email"), text("groups"), text("purpose"), text("scope")
	kCreated, kExpires, kParent, kChain     = text("created"), text("expires"), text("parent"), text("chain")
	kResources, kService, kOperation        = text("resources"), text("service"), text("operation")
	kAccess, kKnown, kKeys, kType           = text("access"), text("known"), text("keys"), text("type")
	kMethod, kScheme, kHost, kPort, kPath   = text("method"), text("scheme"), text("host"), text("port"), text("path")
	kQuery, kHeaders, kBody, kBodyState     = text("query"), text("headers"), text("body"), text("body_state")
	kKind                                   = text("kind")

	null        = ast.NullTerm()
	emptyArray  = ast.ArrayTerm()
	emptyObject = ast.ObjectTerm()
	hidden      = ast.ArrayTerm(ast.StringTerm("[credential]"))
)

func text(s string) *ast.Term { return ast.StringTerm(s) }

// maybe is null for what is not there.
func maybe(s string) *ast.Term {
	if s == "" {
		return null
	}
	return ast.StringTerm(s)
}

func number(n int64) *ast.Term { return ast.IntNumberTerm(int(n)) }

func list(ss []string) *ast.Term {
	if len(ss) == 0 {
		return emptyArray
	}
	terms := make([]*ast.Term, len(ss))
	for i, s := range ss {
		terms[i] = text(s)
	}
	return ast.ArrayTerm(terms...)
}

type pair = [2]*ast.Term

// input makes the document of docs/policy.md. Parts that the policy does not read
// are null or empty.
func (e *Engine) input(q *policy.Question) ast.Value {
	request := &q.Request
	path, query, headers, body := emptyArray, emptyObject, emptyObject, null
	if e.reads.path {
		path = segments(request.Path)
	}
	if e.reads.query {
		query = queryTerm(request)
	}
	if e.reads.headers {
		headers = headerTerm(request)
	}
	if e.reads.body && request.Body != nil {
		if v, err := ast.InterfaceToValue(request.Body); err == nil {
			body = ast.NewTerm(v)
		}
	}
	resource, actions := emptyObject, emptyArray
	instance, credential, phase, now := null, null, null, null
	if e.reads.instance {
		instance = text(q.Instance)
	}
	if e.reads.credential {
		credential = credentialTerm(q.Credential)
	}
	if e.reads.phase {
		phase = text(string(q.Phase))
	}
	if e.reads.time {
		now = number(q.Time)
	}
	if e.reads.resource {
		resource = resourceTerm(&q.Resource)
	} else if e.reads.resourceID {
		resource = ast.ObjectTerm(pair{kType, maybe(q.Resource.Type)}, pair{kID, maybe(q.Resource.ID)})
	}
	raw := null
	if e.reads.raw && !q.Action.Known {
		raw = ast.ObjectTerm(pair{kPath, segments(request.Path)})
	}
	if e.reads.actions {
		actions = actionsTerm(q.Actions)
	}
	c := e.caller(q)
	return ast.NewObject(
		pair{kAgent, c.agent}, pair{kInstance, instance}, pair{kHuman, c.human}, pair{kSession, c.session},
		pair{kAction, e.action(&q.Action)}, pair{kResource, resource}, pair{kResourceKeys, list(q.Resource.Keys)}, pair{kActions, actions},
		pair{kRequest, ast.ObjectTerm(
			pair{kMethod, text(request.Method)}, pair{kScheme, text(request.Scheme)}, pair{kHost, text(request.Host)}, pair{kPort, number(int64(request.Port))},
			pair{kPath, path}, pair{kQuery, query}, pair{kHeaders, headers}, pair{kBody, body}, pair{kBodyState, text(string(request.BodyState))},
		)},
		pair{kCredential, credential}, pair{kPhase, phase}, pair{kTime, now}, pair{kGrants, c.grants}, pair{kRaw, raw},
	)
}

// caller is the part of the input that is about who asks. It is the same for all
// requests of a session, and kept.
type caller struct{ agent, human, session, grants *ast.Term }

func (e *Engine) caller(q *policy.Question) caller {
	var space [maxKeySize]byte
	k := e.reads.caller(space[:0], q)
	if c, ok := e.callers.recall(k); ok {
		return c
	}
	c := caller{agent: e.agentTerm(&q.Agent), human: humanTerm(q.Human), session: e.sessionTerm(q.Session), grants: null}
	if e.reads.grants {
		c.grants = e.grants.term(q)
	}
	e.callers.keep(k, c)
	return c
}

// action returns the term of an action, which is the same each time it is named.
func (e *Engine) action(a *policy.Action) *ast.Term {
	var space [maxKeySize]byte
	k := key(space[:0]).action(a)
	if t, ok := e.actions.recall(k); ok {
		return t
	}
	t := actionTerm(a, nil)
	e.actions.keep(k, t)
	return t
}

func (e *Engine) agentTerm(a *policy.Agent) *ast.Term {
	labels := emptyObject
	if e.reads.labels && len(a.Labels) > 0 {
		var pairs []pair
		for k, v := range a.Labels {
			pairs = append(pairs, pair{text(k), text(v)})
		}
		labels = ast.ObjectTerm(pairs...)
	}
	return ast.ObjectTerm(pair{kID, text(a.ID)}, pair{kOwner, text(a.Owner)}, pair{kLabels, labels})
}

func humanTerm(h *policy.Human) *ast.Term {
	if h == nil {
		return null
	}
	return ast.ObjectTerm(pair{kSub, maybe(h.Sub)}, pair{kIss, maybe(h.Iss)}, pair{kEmail, maybe(h.Email)}, pair{kGroups, list(h.Groups)})
}

func (e *Engine) sessionTerm(s *policy.Session) *ast.Term {
	if s == nil {
		return null
	}
	scope, chain := null, emptyArray
	if e.reads.scope && s.Scope != nil {
		terms := make([]*ast.Term, len(s.Scope))
		for i, x := range s.Scope {
			resources := null
			if x.Resources != nil {
				resources = list(x.Resources)
			}
			terms[i] = ast.ObjectTerm(pair{text("actions"), list(x.Actions)}, pair{kResources, resources})
		}
		scope = ast.ArrayTerm(terms...)
	}
	if e.reads.chain {
		terms := make([]*ast.Term, len(s.Chain))
		for i, l := range s.Chain {
			terms[i] = ast.ObjectTerm(pair{kSession, text(l.Session)}, pair{kAgent, text(l.Agent)}, pair{kInstance, text(l.Instance)})
		}
		chain = ast.ArrayTerm(terms...)
	}
	if !e.reads.session {
		return ast.ObjectTerm(pair{kScope, scope}, pair{kChain, chain})
	}
	return ast.ObjectTerm(pair{kID, text(s.ID)}, pair{kPurpose, maybe(s.Purpose)}, pair{kScope, scope}, pair{kCreated, number(s.Created)},
		pair{kExpires, number(s.Expires)}, pair{kParent, maybe(s.Parent)}, pair{kChain, chain})
}

func actionTerm(a *policy.Action, resource *ast.Term) *ast.Term {
	pairs := []pair{{kID, text(a.ID)}, {kService, text(a.Service)}, {kOperation, maybe(a.Operation)}, {kAccess, text(string(a.Access))},
		{kKnown, ast.InternedTerm(a.Known)}, {kKeys, list(a.Keys)}}
	if resource != nil {
		pairs = append(pairs, pair{kResource, resource})
	}
	return ast.ObjectTerm(pairs...)
}

func actionsTerm(acts []policy.Act) *ast.Term {
	terms := make([]*ast.Term, len(acts))
	for i := range acts {
		terms[i] = actionTerm(&acts[i].Action, resourceTerm(&acts[i].Resource))
	}
	return ast.ArrayTerm(terms...)
}

func resourceTerm(r *policy.Resource) *ast.Term {
	pairs := make([]pair, 0, len(r.Params)+2)
	pairs = append(pairs, pair{kType, maybe(r.Type)}, pair{kID, maybe(r.ID)})
	for _, p := range r.Params {
		if p.Name != "type" && p.Name != "id" {
			pairs = append(pairs, pair{text(p.Name), text(p.Value)})
		}
	}
	return ast.ObjectTerm(pairs...)
}

func credentialTerm(c *policy.Credential) *ast.Term {
	if c == nil {
		return null
	}
	return ast.ObjectTerm(pair{kID, text(c.ID)}, pair{kOwner, text(c.Owner)}, pair{kKind, text(c.Kind)}, pair{kService, text(c.Service)})
}

// segments splits an escaped path and decodes each part.
func segments(path string) *ast.Term {
	var terms []*ast.Term
	for s := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if u, err := url.PathUnescape(s); err == nil {
			s = u
		}
		terms = append(terms, text(s))
	}
	return ast.ArrayTerm(terms...)
}

func queryTerm(r *policy.Request) *ast.Term {
	values, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return emptyObject // the classify station has refused it
	}
	return multiMap(values, r.HiddenQuery)
}

func headerTerm(r *policy.Request) *ast.Term {
	return multiMap(r.Header, r.HiddenHeaders)
}

// multiMap makes {lower-case name: [values]}; hidden names show that there
// is something, and not what.
func multiMap(m map[string][]string, hide []string) *ast.Term {
	pairs := make([]pair, 0, len(m))
	for k, v := range m {
		name := strings.ToLower(k)
		values := list(v)
		for _, h := range hide {
			if h == name {
				values = hidden
			}
		}
		pairs = append(pairs, pair{text(name), values})
	}
	return ast.ObjectTerm(pairs...)
}
