package opa

import (
	"slices"

	"chaperone/policy"
)

// Reach is what the grants may allow at most, whoever asks and on whatever it is.
type Reach struct {
	grants []grant
	raw    []string // hosts
}

// Reach returns what the grants may allow at most; nil for a policy that reads no
// grants, of which that cannot be told.
func (e *Engine) Reach() *Reach {
	if !e.reads.grants {
		return nil
	}
	r := new(Reach)
	for _, p := range e.grants.agents {
		r.grants = append(append(r.grants, p.Allow...), p.Ask...)
		for _, raw := range p.Raw {
			r.raw = append(r.raw, raw.Hosts...)
		}
	}
	return r
}

// May reports whether some agent has a grant for an action of that level that one of
// keys reaches.
func (r *Reach) May(keys []string, access policy.Access) bool {
	return slices.ContainsFunc(r.grants, func(g grant) bool {
		return (len(g.Access) == 0 || slices.Contains(g.Access, access)) && slices.ContainsFunc(g.Actions, func(a string) bool { return slices.Contains(keys, a) })
	})
}

// Raw are the hosts to which some agent may send requests that no catalogue names.
func (r *Reach) Raw() []string { return r.raw }
