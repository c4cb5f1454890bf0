package opa

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"chaperone/policy"
)

// standing is one grant at its place in the file.
type standing struct {
	grant
	kind, who, list string // "agent", "triage-bot", "allow"
	node            *yaml.Node
}

// lists are those of a principal whose entries are grants.
var lists = [...]string{"allow", "ask", "deny"}

// survey finds grants that name what does not exist, and as warnings those that can
// never take effect. The file has passed [grants.check].
func (g *grants) survey(text []byte, v *vocabulary) Faults {
	var root yaml.Node
	if yaml.Unmarshal(text, &root) != nil {
		return nil
	}
	s := surveyor{v: v, root: &root}
	for kind, all := range map[string]map[string]*principal{"agent": g.agents, "human": g.humans, "group": g.groups} {
		for id, p := range all {
			if p != nil {
				s.principal(kind, id, p)
			}
		}
	}
	s.unused(g)
	for id, p := range g.agents {
		if p != nil && !p.Autonomous {
			s.forNobody(g, id, p)
		}
	}
	return s.faults
}

type surveyor struct {
	v      *vocabulary
	root   *yaml.Node
	faults Faults
}

func (s *surveyor) fault(n *yaml.Node, warning bool, rule, format string, args ...any) {
	f := Fault{File: grantsFile, Rule: rule, Warning: warning, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		f.Line, f.Col = n.Line, n.Column
	}
	s.faults = append(s.faults, f)
}

// below returns the value of a key, or an element of a list; nil where there is none.
func below(n *yaml.Node, path ...any) *yaml.Node {
	for _, step := range path {
		if n == nil {
			return nil
		}
		for n.Kind == yaml.DocumentNode || n.Kind == yaml.AliasNode {
			if n.Kind == yaml.AliasNode {
				n = n.Alias
			} else if n = n.Content[0]; n == nil {
				return nil
			}
		}
		n = one(n, step)
	}
	return n
}

func one(n *yaml.Node, step any) *yaml.Node {
	switch step := step.(type) {
	case string:
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1]
			}
		}
	case int:
		if n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return n.Content[step]
		}
	}
	return nil
}

func (s *surveyor) of(kind, id string, p *principal) []standing {
	var out []standing
	for _, list := range lists {
		for i, g := range p.listed(list) {
			out = append(out, standing{g, kind, id, list, below(s.root, "grants", kind+"s", id, list, i)})
		}
	}
	return out
}

func (p *principal) listed(list string) []grant {
	switch list {
	case "allow":
		return p.Allow
	case "ask":
		return p.Ask
	}
	return p.Deny
}

func (s *surveyor) principal(kind, id string, p *principal) {
	all := s.of(kind, id, p)
	for i, x := range all {
		s.named(x)
		for j, other := range all {
			if i == j || other.list == "allow" && x.list != "allow" || other.list == "ask" && x.list == "deny" || !other.covers(&x.grant) {
				continue
			}
			if x.list == other.list && (j > i && x.covers(&other.grant) || other.Report != x.Report) || other.Report && x.list != other.list {
				continue // of two alike, the second is the one too many
			}
			s.overruled(x, other)
			break
		}
	}
}

func (s *surveyor) overruled(x, other standing) {
	where := "another entry"
	if other.node != nil {
		where = fmt.Sprintf("line %d", other.node.Line)
	}
	switch {
	case x.list == other.list:
		s.fault(x.node, true, "redundant-grant", "%s %s: %s says all of this already", x.kind, x.who, where)
	case other.list == "deny":
		s.fault(x.node, true, "contradictory-grant", "%s %s: it never takes effect, since %s denies all of it", x.kind, x.who, where)
	default:
		s.fault(x.node, true, "contradictory-grant", "%s %s: it always asks, since %s says so for all of it", x.kind, x.who, where)
	}
}

// named compares a grant with what the catalogue has.
func (s *surveyor) named(x standing) {
	var reached []Name
	sure := true
	for i, pattern := range x.Actions {
		at := below(x.node, "actions", i)
		list, wrong := s.v.reached(pattern)
		if wrong != "" {
			s.fault(at, false, "unknown-action", "%s; `chaperone service show` lists the names", wrong)
			return
		}
		sure = sure && len(list) > 0
		some := slices.DeleteFunc(slices.Clone(list), func(n Name) bool { return len(x.Access) > 0 && !slices.Contains(x.Access, n.Access) })
		if len(list) > 0 && len(some) == 0 {
			s.fault(at, true, "unreachable-grant", "it reaches nothing: no action of %s is %s", pattern, joinAccess(x.Access))
		}
		reached = append(reached, some...)
	}
	if !sure || len(reached) == 0 || slices.Contains(x.Resources, "*") {
		return
	}
	for i, pattern := range x.Resources {
		if slices.ContainsFunc(reached, func(n Name) bool { return n.mayBeOn(pattern) }) {
			continue
		}
		s.fault(below(x.node, "resources", i), true, "unreachable-grant", "it reaches nothing: %s", s.otherwise(reached, pattern))
	}
}

// mayBeOn reports whether an action can be on a resource that a pattern covers.
func (n *Name) mayBeOn(pattern string) bool {
	if n.Resource == "" {
		return false
	}
	parts := strings.Count(pattern, "/") + 1
	if strings.HasSuffix(pattern, "/*") {
		return n.Parts == 0 || n.Parts >= parts
	}
	return n.Parts == 0 || n.Parts == parts
}

func (s *surveyor) otherwise(reached []Name, pattern string) string {
	for _, n := range reached {
		if n.Resource != "" {
			return fmt.Sprintf("%s is on a %s, whose name has %d parts between slashes, and %s has not", n.ID, n.Resource, n.Parts, pattern)
		}
	}
	return reached[0].ID + " is on no resource; leave resources out"
}

func joinAccess(list []policy.Access) string {
	var words []string
	for _, a := range list {
		words = append(words, string(a))
	}
	return strings.Join(words, " or ")
}

// covers reports whether every request that x reaches is reached by g.
func (g *grant) covers(x *grant) bool {
	for _, a := range x.Actions {
		if !slices.ContainsFunc(g.Actions, func(p string) bool { return reaches(p, a, ":/.") }) {
			return false
		}
	}
	if len(g.Access) > 0 && (len(x.Access) == 0 || slices.ContainsFunc(x.Access, func(a policy.Access) bool { return !slices.Contains(g.Access, a) })) {
		return false
	}
	if len(g.Resources) == 0 || slices.Contains(g.Resources, "*") {
		return true
	}
	if len(x.Resources) == 0 {
		return false
	}
	for _, r := range x.Resources {
		if !slices.ContainsFunc(g.Resources, func(p string) bool { return reaches(p, r, "/") }) {
			return false
		}
	}
	return true
}

// reaches reports whether pattern p covers all that pattern q does.
func reaches(p, q, seps string) bool {
	if p == q || p == "*" || p == "*:*" {
		return true
	}
	prefix, wild := strings.CutSuffix(p, "*")
	return wild && strings.ContainsAny(prefix[len(prefix)-1:], seps) && strings.HasPrefix(q, prefix)
}

// meets reports whether some request may be reached by both.
func (g *grant) meets(x *grant) bool {
	either := func(a, b []string, seps string) bool {
		if len(a) == 0 || len(b) == 0 {
			return true
		}
		return slices.ContainsFunc(a, func(p string) bool {
			return slices.ContainsFunc(b, func(q string) bool { return reaches(p, q, seps) || reaches(q, p, seps) })
		})
	}
	access := len(g.Access) == 0 || len(x.Access) == 0 || slices.ContainsFunc(g.Access, func(a policy.Access) bool { return slices.Contains(x.Access, a) })
	return access && either(g.Actions, x.Actions, ":/.") && either(g.Resources, x.Resources, "/")
}

// forNobody warns of what an agent is granted and no human may have done.
func (s *surveyor) forNobody(g *grants, id string, p *principal) {
	var theirs []grant
	for who, h := range g.humans {
		if h == nil {
			continue
		}
		for _, part := range g.ofHuman(h) {
			theirs = append(append(theirs, part.Allow...), part.Ask...)
		}
		if who == "*" && len(h.Allow) > 0 && h.Allow[0].covers(&grant{Actions: []string{"*:*"}}) {
			return
		}
	}
	for _, x := range s.of("agent", id, p) {
		if x.list != "deny" && !slices.ContainsFunc(theirs, func(t grant) bool { return t.meets(&x.grant) }) {
			s.fault(x.node, true, "unreachable-grant", "agent %s: no human may have this done on their behalf, and the agent is not autonomous", id)
		}
	}
}

// unused warns of groups that nobody is in.
func (s *surveyor) unused(g *grants) {
	for name := range g.groups {
		in := false
		for _, h := range g.humans {
			in = in || h != nil && slices.Contains(h.Groups, name)
		}
		if !in {
			s.fault(below(s.root, "grants", "groups", name), true, "unused-group", "group %s: no human is in it", name)
		}
	}
}
