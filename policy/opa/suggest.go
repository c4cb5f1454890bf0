package opa

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"chaperone/policy"
)

// Use is what an agent was allowed to do.
type Use struct {
	Action   string
	Access   policy.Access
	Resource string
}

// Used says how often, and when last.
type Used struct {
	Count int       `json:"count"`
	Last  time.Time `json:"last,omitzero"`
}

// Grant is an entry of a list of grants.yaml.
type Grant struct {
	Actions   []string        `json:"actions"`
	Access    []policy.Access `json:"access,omitempty"`
	Resources []string        `json:"resources,omitempty"`
}

// From how many of a kind on a suggestion speaks of all of them.
const (
	manySiblings = 4 // resources below one prefix
	manyReads    = 3 // reading operations of one group
)

// Suggest returns the narrowest grants that cover all uses, a little generalised: many
// repositories of one owner are all of them, and many ways of reading one kind of
// thing are all ways of reading it.
func Suggest(uses []Use) []Grant {
	on := map[string]map[string]bool{}
	level := map[string]map[policy.Access]bool{}
	for _, u := range uses {
		if on[u.Action] == nil {
			on[u.Action], level[u.Action] = map[string]bool{}, map[policy.Access]bool{}
		}
		on[u.Action][u.Resource] = true
		level[u.Action][u.Access] = true
	}
	byResources := map[string]*Grant{}
	for _, action := range slices.Sorted(maps.Keys(on)) {
		resources := generalised(on[action])
		key := strings.Join(resources, "\n")
		if byResources[key] == nil {
			byResources[key] = &Grant{Resources: resources}
		}
		byResources[key].Actions = append(byResources[key].Actions, action)
	}
	var out []Grant
	for _, key := range slices.Sorted(maps.Keys(byResources)) {
		out = append(out, reading(byResources[key], level)...)
	}
	slices.SortStableFunc(out, func(a, b Grant) int { return cmp.Compare(a.Actions[0], b.Actions[0]) })
	return out
}

// generalised lists resources; one that is none covers an action without.
func generalised(set map[string]bool) []string {
	if set[""] {
		return nil // only a grant for any resource reaches an action on none
	}
	siblings := map[string]int{}
	for r := range set {
		if i := strings.LastIndexByte(r, '/'); i > 0 {
			siblings[r[:i+1]]++
		}
	}
	var out []string
	for r := range set {
		if i := strings.LastIndexByte(r, '/'); i > 0 && siblings[r[:i+1]] >= manySiblings {
			r = r[:i+1] + "*"
		}
		out = append(out, r)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// reading takes many reading operations of one group together.
func reading(g *Grant, level map[string]map[policy.Access]bool) []Grant {
	groups := map[string][]string{}
	for _, a := range g.Actions {
		if i := strings.LastIndexAny(a, "/."); i > 0 && onlyReads(level[a]) {
			groups[a[:i+1]+"*"] = append(groups[a[:i+1]+"*"], a)
		}
	}
	rest := Grant{Resources: g.Resources}
	all := Grant{Resources: g.Resources, Access: []policy.Access{policy.AccessRead, policy.AccessList}}
	for _, a := range g.Actions {
		i := strings.LastIndexAny(a, "/.")
		if i > 0 && onlyReads(level[a]) && len(groups[a[:i+1]+"*"]) >= manyReads {
			all.Actions = append(all.Actions, a[:i+1]+"*")
			continue
		}
		rest.Actions = append(rest.Actions, a)
	}
	all.Actions = slices.Compact(all.Actions)
	return slices.DeleteFunc([]Grant{all, rest}, func(g Grant) bool { return len(g.Actions) == 0 })
}

func onlyReads(set map[policy.Access]bool) bool {
	for a := range set {
		if a != policy.AccessRead && a != policy.AccessList {
			return false
		}
	}
	return true
}

// Standing is a grant of today with the use that was made of it.
type Standing struct {
	Kind    string `json:"kind"` // agent, human or group
	Who     string `json:"who"`
	Pattern string `json:"action"`
	Line    int    `json:"line"`
	Used
}

// UsedBy is a use with who made it, for whom.
type UsedBy struct {
	Use
	Agent, Human string
}

// Standings lists the allows of grants.yaml, each pattern by itself, with the use that
// was made of it: those of agents by them, those of humans and their groups for them.
func Standings(files fs.FS, uses map[UsedBy]Used) ([]Standing, error) {
	src, err := read(files, false)
	if err != nil {
		return nil, err
	}
	g, faults := parseGrants(src)
	if len(faults) > 0 {
		return nil, faults
	}
	var root yaml.Node
	if err := yaml.Unmarshal(src.files[grantsFile], &root); err != nil {
		return nil, yamlFaults(grantsFile, err)
	}
	s := surveyor{root: &root, v: new(vocabulary)}
	var out []Standing
	for kind, all := range map[string]map[string]*principal{"agent": g.agents, "human": g.humans, "group": g.groups} {
		for id, p := range all {
			if p == nil {
				continue
			}
			for _, x := range s.of(kind, id, p) {
				out = append(out, g.standings(x, uses)...)
			}
		}
	}
	slices.SortFunc(out, func(a, b Standing) int { return a.Line - b.Line })
	return out, nil
}

func (g *grants) standings(x standing, uses map[UsedBy]Used) (out []Standing) {
	if x.list != "allow" {
		return nil
	}
	for i, pattern := range x.Actions {
		one := Standing{Kind: x.kind, Who: x.who, Pattern: pattern}
		if n := below(x.node, "actions", i); n != nil {
			one.Line = n.Line
		}
		grant := x.grant
		grant.Actions = []string{pattern}
		for u, n := range uses {
			if !g.concerns(x.kind, x.who, u) || !grant.covers(u.asGrant()) {
				continue
			}
			one.Count += n.Count
			if n.Last.After(one.Last) {
				one.Last = n.Last
			}
		}
		out = append(out, one)
	}
	return out
}

func (g *grants) concerns(kind, who string, u UsedBy) bool {
	switch kind {
	case "agent":
		return u.Agent == who
	case "human":
		return who == "*" || u.Human == who
	}
	h := g.humans[u.Human]
	return h != nil && slices.Contains(h.Groups, who)
}

func (u *UsedBy) asGrant() *grant {
	x := &grant{Actions: []string{u.Action}, Access: []policy.Access{u.Access}}
	if u.Resource != "" {
		x.Resources = []string{u.Resource}
	}
	return x
}

// errLayout is returned where grants.yaml cannot be changed line by line.
var errLayout = errors.New("grants.yaml is laid out in a way in which the entry cannot be changed alone")

// WithAllow returns grants.yaml with other allows for an agent, and all else as it was,
// comments too.
func WithAllow(files fs.FS, agent string, allow []Grant) (before, after string, err error) {
	b, err := fs.ReadFile(files, grantsFile)
	if err != nil {
		return "", "", fmt.Errorf("reading grants: %w", err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return "", "", yamlFaults(grantsFile, err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	agents := below(&root, "grants", "agents")
	if agents == nil || agents.Kind != yaml.MappingNode {
		return "", "", errLayout
	}
	from, to, column, entry := place(agents, agent, lines)
	entry = setAllow(entry, allow)
	text, err := encodeEntry(agent, entry, column)
	if err != nil {
		return "", "", err
	}
	if len(agents.Content) == 0 { // agents: {}
		text = strings.Replace(lines[from], "{}", "", 1) + text
		text = strings.Replace(text, ": \n", ":\n", 1)
	}
	after = strings.Join(lines[:from], "") + text + strings.Join(lines[to:], "")
	if !sameElse(b, []byte(after), agent) {
		return "", "", errLayout
	}
	return string(b), after, nil
}

// place finds the lines [from, to) of an agent's entry, or where a new one goes.
func place(agents *yaml.Node, agent string, lines []string) (from, to, column int, entry *yaml.Node) {
	if len(agents.Content) == 0 {
		return agents.Line - 1, agents.Line, strings.Index(lines[agents.Line-1], "agents") + 2, nil
	}
	column = agents.Content[0].Column - 1
	for i := 0; i < len(agents.Content); i += 2 {
		key, value := agents.Content[i], agents.Content[i+1]
		if key.Value == agent {
			return key.Line - 1, lastLine(value), column, value
		}
	}
	end := lastLine(agents)
	return end, end, column, nil
}

func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}

// setAllow replaces the list allow of an entry, which stands first.
func setAllow(entry *yaml.Node, allow []Grant) *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, g := range allow {
		one := &yaml.Node{Kind: yaml.MappingNode}
		add := func(name string, values []string) {
			if len(values) == 0 {
				return
			}
			seq := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, v := range values {
				seq.Content = append(seq.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v})
			}
			one.Content = append(one.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, seq)
		}
		var access []string
		for _, a := range g.Access {
			access = append(access, string(a))
		}
		add("actions", g.Actions)
		add("access", access)
		add("resources", g.Resources)
		list.Content = append(list.Content, one)
	}
	out := &yaml.Node{Kind: yaml.MappingNode}
	if len(list.Content) > 0 {
		out.Content = append(out.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "allow"}, list)
	}
	if entry != nil && entry.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(entry.Content); i += 2 {
			if entry.Content[i].Value != "allow" {
				out.Content = append(out.Content, entry.Content[i], entry.Content[i+1])
			}
		}
	}
	return out
}

func encodeEntry(agent string, entry *yaml.Node, column int) (string, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: agent, Tag: "!!str"}, entry}}); err != nil {
		return "", fmt.Errorf("writing grants: %w", err)
	}
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(strings.Repeat(" ", column) + line)
	}
	return out.String(), nil
}

// sameElse reports whether two grants files say the same but for an agent's allows.
func sameElse(a, b []byte, agent string) bool {
	var x, y grantsDocument
	if yaml.Unmarshal(a, &x) != nil || yaml.Unmarshal(b, &y) != nil {
		return false
	}
	for _, d := range []*grantsDocument{&x, &y} {
		p := d.Grants.Agents[agent]
		if p == nil {
			p = &principal{}
		}
		other := *p
		other.Allow = nil
		if d.Grants.Agents == nil {
			d.Grants.Agents = map[string]*principal{}
		}
		d.Grants.Agents[agent] = &other
	}
	return reflect.DeepEqual(x, y)
}
