// Package past makes of a record the question that was put when it was written.
package past

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/proxy/authority"
)

// Decision is a recorded decision with its question.
type Decision struct {
	ID       string
	Time     time.Time
	Result   policy.Result
	Reasons  []string
	Policy   string // revision that answered; empty: the request was refused before policy was asked
	Unmet    string // obligation that could not be met, so that an allow became a deny
	Session  string
	Shadow   *Shadow // what the policy in the shadow answered, where it answered otherwise
	Reports  []string
	Question policy.Question

	older bool // written before records held all that policy is asked
	query bool
}

// Shadow is what another policy answered.
type Shadow struct {
	Result  policy.Result `json:"result"`
	Reasons []string      `json:"reasons"`
	Policy  string        `json:"policy"`
}

type line struct {
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	Agent struct {
		ID, Instance, Owner string
		Labels              map[string]string
	} `json:"agent"`
	Human   *policy.Human  `json:"human"`
	Session string         `json:"session"`
	Purpose string         `json:"purpose"`
	Scope   []policy.Scope `json:"scope"`
	Chain   []policy.Link  `json:"chain"`
	act
	Actions []act `json:"actions"`
	Request struct {
		Method, Scheme, Host, Path string
		Query                      []string
		BodyState                  policy.BodyState `json:"body_state"`
	} `json:"request"`
	Decision struct {
		Result      policy.Result
		Reasons     []string
		Policy      string
		Unmet       string
		Shadow      *Shadow
		Obligations struct {
			Report []string
		}
	} `json:"decision"`
	Credential *struct{ ID string } `json:"credential"`
}

type act struct {
	Action struct {
		ID, Service, Operation, Unknown string
		Access                          policy.Access
	} `json:"action"`
	Resource map[string]string `json:"resource"`
}

// Read takes a decision's line of the log apart.
func Read(raw []byte) (*Decision, error) {
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, fmt.Errorf("reading a record: %w", err)
	}
	d := &Decision{
		ID: l.ID, Time: l.Time, Result: l.Decision.Result, Reasons: l.Decision.Reasons, Policy: l.Decision.Policy, Unmet: l.Decision.Unmet,
		Session: l.Session, Shadow: l.Decision.Shadow, Reports: l.Decision.Obligations.Report, older: l.Request.BodyState == "", query: len(l.Request.Query) > 0,
	}
	q := &d.Question
	q.Agent = policy.Agent{ID: l.Agent.ID, Owner: l.Agent.Owner, Labels: l.Agent.Labels}
	q.Instance, q.Human, q.Phase, q.Time = l.Agent.Instance, l.Human, policy.PhaseRequest, l.Time.Unix()
	q.Session = &policy.Session{ID: l.Session, Purpose: l.Purpose, Scope: l.Scope, Chain: l.Chain}
	if len(l.Chain) == 0 {
		q.Session.Chain = []policy.Link{{Session: l.Session, Agent: l.Agent.ID, Instance: l.Agent.Instance}}
	}
	q.Action, q.Resource = l.named()
	for i := range l.Actions {
		var a policy.Act
		a.Action, a.Resource = l.Actions[i].named()
		q.Actions = append(q.Actions, a)
	}
	if l.Credential != nil && l.Credential.ID != "" {
		q.Credential = &policy.Credential{ID: l.Credential.ID, Service: q.Action.Service}
	}
	q.Request = policy.Request{Method: l.Request.Method, Scheme: "https", Path: l.Request.Path, BodyState: l.Request.BodyState}
	if l.Request.Scheme != "" {
		q.Request.Scheme = l.Request.Scheme
	}
	if q.Request.Method == "CONNECT" {
		q.Phase = policy.PhaseConnect
	}
	d.where(l.Request.Host)
	return d, nil
}

func (d *Decision) where(host string) {
	standard := 443
	if d.Question.Request.Scheme == "http" {
		standard = 80
	}
	r := &d.Question.Request
	if !strings.Contains(host, ":") { // the common form needs no parser
		r.Host, r.Port = host, standard
	} else if h, port, err := authority.Parse(host, standard); err == nil {
		r.Host, r.Port = h, port
	}
}

func (a *act) named() (policy.Action, policy.Resource) {
	x := policy.Action{Service: a.Action.Service, Access: a.Action.Access, Why: a.Action.Unknown}
	if a.Action.ID != "" {
		x = action.Known(a.Action.Service, a.Action.Operation, a.Action.Access)
	}
	r := policy.Resource{Type: a.Resource["type"], ID: a.Resource["id"]}
	if x.Known {
		r.Keys = action.ResourceKeys(r.ID)
	}
	if n := len(a.Resource); n > 0 {
		for _, name := range slices.Sorted(maps.Keys(a.Resource)) {
			if name != "type" && name != "id" {
				r.Params = append(r.Params, policy.Param{Name: name, Value: a.Resource[name]})
			}
		}
	}
	return x, r
}

// Unknown says what of its question a record does not hold although a policy with
// these reads looks at it. The zero Reads stands for a policy that looks at everything.
func (d *Decision) Unknown(r opa.Reads) string {
	var parts []string
	state := d.Question.Request.BodyState
	for what, unknown := range map[string]bool{
		"values of the query":              r.Query && d.query,
		"header fields":                    r.Headers,
		"the body":                         r.Body && state != policy.BodyAbsent,
		"owner and kind of the credential": r.Credential && d.Question.Credential != nil,
		"times and parent of the session":  r.Times,
		"labels, groups and scope, which older records lack": r.Person && d.older,
	} {
		if unknown {
			parts = append(parts, what)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Older reports whether the record was written before records held all that policy
// is asked.
func (d *Decision) Older() bool { return d.older }
