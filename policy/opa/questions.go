package opa

import (
	"strings"

	"chaperone/policy"
)

// sampleQuestions are questions of one agent for one human, as catalogues and
// sessions shape them: known actions of each access level with and without a
// resource, those that the agent's grants speak of, a narrowed session, several
// actions, and a request that no catalogue names.
func sampleQuestions(agent, human string, p *principal) []*policy.Question {
	actions := []string{"github:issues/create", "slack:chat.postMessage"}
	resources := []string{"acme/web", ""}
	if p != nil {
		for _, list := range [][]grant{p.Allow, p.Ask, p.Deny} {
			for _, g := range list[:min(len(list), 3)] {
				actions = append(actions, g.Actions...)
				resources = append(resources, g.Resources...)
			}
		}
	}
	var out []*policy.Question
	for i, a := range actions[:min(len(actions), 12)] {
		q := sampleQuestion(agent, human, a, accessNames[i%len(accessNames)], resources[i%len(resources)])
		narrowed := *q
		narrowed.Session = &policy.Session{ID: "s_1", Scope: []policy.Scope{{Actions: q.Action.Keys[:1]}, {Actions: []string{"*:*"}, Resources: q.Resource.Keys}}}
		several := *q
		several.Actions = []policy.Act{{Action: q.Action, Resource: q.Resource}}
		out = append(out, q, &narrowed, &several)
	}
	unknown := sampleQuestion(agent, human, "", policy.AccessUnknown, "")
	if p != nil && len(p.Raw) > 0 && len(p.Raw[0].Hosts) > 0 && len(p.Raw[0].Methods) > 0 {
		raw := p.Raw[0]
		unknown.Request.Host, unknown.Request.Method, unknown.Request.Path = raw.Hosts[0], raw.Methods[0], raw.PathPrefix
	}
	odd := *unknown
	odd.Request.Path = "/a/../%2e%2e/b"
	return append(out, unknown, &odd, &policy.Question{Session: &policy.Session{}})
}

func sampleQuestion(agent, human, action string, access policy.Access, resource string) *policy.Question {
	q := &policy.Question{
		Agent: policy.Agent{ID: agent, Owner: "team:dev", Labels: map[string]string{"tier": "1"}}, Instance: "i_1",
		Session:    &policy.Session{ID: "s_1", Created: 1, Expires: 2, Chain: []policy.Link{{Session: "s_1", Agent: agent, Instance: "i_1"}}},
		Request:    policy.Request{Method: "POST", Scheme: "https", Host: "api.example.com", Port: 443, Path: "/a/b", Body: map[string]any{"n": 1.5, "list": []any{"x", nil, true}}, BodyState: policy.BodyParsed},
		Credential: &policy.Credential{ID: "c", Owner: "org", Kind: "bearer", Service: "s"},
		Action:     policy.Action{ID: action, Access: access, Known: action != ""}, Phase: policy.PhaseRequest, Time: 1_700_000_000,
	}
	if human != "" {
		q.Human = &policy.Human{Sub: human, Email: human, Groups: []string{"g"}}
	}
	if service, operation, ok := strings.Cut(action, ":"); ok {
		operation = strings.ReplaceAll(operation, "*", "x")
		q.Action.ID, q.Action.Service, q.Action.Operation = service+":"+operation, service, operation
		q.Action.Keys = []string{q.Action.ID}
		if i := strings.LastIndexAny(operation, "/."); i > 0 {
			q.Action.Keys = append(q.Action.Keys, service+":"+operation[:i+1]+"*")
		}
		q.Action.Keys = append(q.Action.Keys, service+":*", "*:*")
	}
	q.Resource.Keys = []string{"*"}
	if resource = strings.ReplaceAll(resource, "*", "x"); resource != "" {
		q.Resource = policy.Resource{Type: "repository", ID: resource, Params: []policy.Param{{Name: "owner", Value: "acme"}}, Keys: []string{resource}}
		if i := strings.LastIndexByte(resource, '/'); i > 0 {
			q.Resource.Keys = append(q.Resource.Keys, resource[:i+1]+"*")
		}
		q.Resource.Keys = append(q.Resource.Keys, "*")
	}
	return q
}
