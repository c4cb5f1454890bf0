package past

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/proxy/authority"
)

// memo remembers values under the text that they were decoded from.
type memo[T any] map[string]*T

// maxMemo is how many values one memo holds; a full one begins anew.
const maxMemo = 4096

// decode gives what text holds: nil for nothing or null. fill makes of what was
// decoded what is remembered.
func decode[From, T any](m memo[T], text []byte, fill func(*From) T) (*T, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	if v := m[string(text)]; v != nil {
		return v, nil
	}
	var from From
	if err := json.Unmarshal(text, &from); err != nil {
		return nil, err
	}
	if len(m) >= maxMemo {
		clear(m)
	}
	v := fill(&from)
	m[string(text)] = &v
	return &v, nil
}

// same is for what is remembered as it was decoded.
func same[T any](v *T) T { return *v }

type agent struct {
	ID, Instance, Owner string
	Labels              map[string]string
}

type request struct {
	Method, Scheme, Host, Path string
	Query                      []string
	BodyState                  policy.BodyState `json:"body_state"`

	address string // Host without its port
	port    int
}

type decision struct {
	Result      policy.Result
	Reasons     []string
	Policy      string
	Unmet       string
	Shadow      *Shadow
	Obligations struct {
		Report []string
	}
}

type credential struct{ ID string }

type act struct {
	Action struct {
		ID, Service, Operation, Unknown string
		Access                          policy.Access
	} `json:"action"`
	Resource map[string]string `json:"resource"`
}

// fill makes a decision of the members of its record.
func (r *Reader) fill(f *fields, d *Decision) error {
	agent, e1 := decode(r.agents, f.agent, same[agent])
	human, e2 := decode(r.humans, f.human, same[policy.Human])
	scope, e3 := decode(r.scopes, f.scope, same[[]policy.Scope])
	chain, e4 := decode(r.chains, f.chain, same[[]policy.Link])
	request, e5 := decode(r.requests, f.request, (*request).addressed)
	decision, e6 := decode(r.decisions, f.decision, same[decision])
	credential, e7 := decode(r.credentials, f.credential, same[credential])
	one, e8 := decode(r.acts, f.act(&r.key), (*act).named)
	several, e9 := decode(r.several, f.actions, named)
	at, e10 := moment(f.time)
	if err := errors.Join(e1, e2, e3, e4, e5, e6, e7, e8, e9, e10); err != nil {
		return err
	}
	req, dec, who, what := or(request), or(decision), or(agent), or(one)
	*d = Decision{
		ID: f.id, Time: at, Result: dec.Result, Reasons: dec.Reasons, Policy: dec.Policy, Unmet: dec.Unmet,
		Session: f.session, Shadow: dec.Shadow, Reports: dec.Obligations.Report, older: req.BodyState == "", query: len(req.Query) > 0,
		session: policy.Session{ID: f.session, Purpose: f.purpose, Scope: or(scope), Chain: or(chain)},
	}
	if len(d.session.Chain) == 0 {
		d.session.Chain = []policy.Link{{Session: f.session, Agent: who.ID, Instance: who.Instance}}
	}
	d.Question = policy.Question{
		Agent: policy.Agent{ID: who.ID, Owner: who.Owner, Labels: who.Labels}, Instance: who.Instance, Human: human, Session: &d.session,
		Action: what.Action, Resource: what.Resource, Actions: or(several), Phase: policy.PhaseRequest, Time: at.Unix(),
		Request: policy.Request{Method: req.Method, Scheme: req.Scheme, Host: req.address, Port: req.port, Path: req.Path, BodyState: req.BodyState},
	}
	if credential != nil && credential.ID != "" {
		d.Question.Credential = &policy.Credential{ID: credential.ID, Service: what.Action.Service}
	}
	if req.Method == "CONNECT" {
		d.Question.Phase = policy.PhaseConnect
	}
	return nil
}

func or[T any](v *T) (out T) {
	if v != nil {
		out = *v
	}
	return out
}

func moment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339Nano, text)
}

// act is the text of the record's one action on its resource.
func (f *fields) act(key *[]byte) []byte {
	if len(f.action) == 0 && len(f.resource) == 0 {
		return nil
	}
	k := append((*key)[:0], '{')
	if len(f.action) > 0 {
		k = append(append(k, `"action":`...), f.action...)
	}
	if len(f.action) > 0 && len(f.resource) > 0 {
		k = append(k, ',')
	}
	if len(f.resource) > 0 {
		k = append(append(k, `"resource":`...), f.resource...)
	}
	*key = append(k, '}')
	return *key
}

func named(list *[]act) []policy.Act {
	var out []policy.Act
	for i := range *list {
		out = append(out, (*list)[i].named())
	}
	return out
}

func (a *act) named() policy.Act {
	x := policy.Action{Service: a.Action.Service, Access: a.Action.Access, Why: a.Action.Unknown}
	if a.Action.ID != "" {
		x = action.Known(a.Action.Service, a.Action.Operation, a.Action.Access)
	}
	r := policy.Resource{Type: a.Resource["type"], ID: a.Resource["id"]}
	if x.Known {
		r.Keys = action.ResourceKeys(r.ID)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Resource)) {
		if name != "type" && name != "id" {
			r.Params = append(r.Params, policy.Param{Name: name, Value: a.Resource[name]})
		}
	}
	return policy.Act{Action: x, Resource: r}
}

// addressed adds what follows from scheme and host.
func (r *request) addressed() request {
	standard := 443
	if r.Scheme == "http" {
		standard = 80
	}
	if r.Scheme == "" {
		r.Scheme = "https"
	}
	if !strings.Contains(r.Host, ":") { // the common form needs no parser
		r.address, r.port = r.Host, standard
	} else if h, port, err := authority.Parse(r.Host, standard); err == nil {
		r.address, r.port = h, port
	}
	return *r
}
