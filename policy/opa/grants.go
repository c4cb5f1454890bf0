package opa

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"chaperone/policy"
	"chaperone/policy/opa/machine"
)

// grantsFile is the data that is kept out of the engine: of it only the documents
// of one agent and one human go into a question.
const grantsFile = "chaperone/grants.yaml"

// grant is one entry of a list.
type grant struct {
	Actions   []string        `yaml:"actions"`
	Access    []policy.Access `yaml:"access"`
	Resources []string        `yaml:"resources"`
	// Report makes a deny, or an ask, one that is written down and not enforced.
	Report bool `yaml:"report"`
}

// rawGrant reaches requests that no catalogue names.
type rawGrant struct {
	Hosts      []string `yaml:"hosts"`
	Methods    []string `yaml:"methods"`
	PathPrefix string   `yaml:"path_prefix"`
}

// principal is what an agent, a human or a group is granted.
type principal struct {
	Allow      []grant    `yaml:"allow"`
	Ask        []grant    `yaml:"ask"`
	Deny       []grant    `yaml:"deny"`
	Raw        []rawGrant `yaml:"raw"`
	Autonomous bool       `yaml:"autonomous"` // agents only
	Groups     []string   `yaml:"groups"`     // humans only
}

// grants are the documents of grants.yaml. A document is converted at its first
// use and kept.
type grants struct {
	agents, humans, groups map[string]*principal

	values sync.Map // principalKey -> machine.Value
	mu     sync.Mutex
	made   map[string]machine.Value // what documents have in common, by what it is made of
}

type principalKey struct {
	human bool
	id    string
}

type grantsDocument struct {
	Grants struct {
		Agents map[string]*principal `yaml:"agents"`
		Humans map[string]*principal `yaml:"humans"`
		Groups map[string]*principal `yaml:"groups"`
	} `yaml:"grants"`
}

// parseGrants reads grants.yaml, if there is one, and reports all its faults.
func parseGrants(src *sources) (*grants, Faults) {
	b, ok := src.files[grantsFile]
	if !ok {
		return &grants{}, nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return nil, yamlFaults(grantsFile, err)
	}
	faults := emptyLists(&root)
	var doc grantsDocument
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil && err != io.EOF {
		return nil, append(faults, decodeFaults(&root, err)...)
	}
	if err := dec.Decode(&yaml.Node{}); err != io.EOF {
		return nil, append(faults, Fault{File: grantsFile, Message: "a second document follows (---); all grants stand in one"})
	}
	g := &grants{agents: doc.Grants.Agents, humans: doc.Grants.Humans, groups: doc.Grants.Groups}
	faults = append(faults, g.check(&root)...)
	faults.sort()
	return g, faults
}

// emptyLists finds lists that were left without entries. A list that is not there
// stands for any, so that emptying one must not come to the same.
func emptyLists(n *yaml.Node) Faults {
	var faults Faults
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, list := n.Content[i], n.Content[i+1]
			if list.Kind == yaml.AliasNode {
				list = list.Alias
			}
			if slices.Contains([]string{"actions", "access", "resources", "hosts", "methods"}, name.Value) && (list.Kind == yaml.SequenceNode && len(list.Content) == 0 || list.Tag == "!!null") {
				faults = append(faults, Fault{File: grantsFile, Line: name.Line, Col: name.Column, Message: name.Value + " is empty: name some, or take the line out where any is meant"})
			}
		}
	}
	for _, c := range n.Content {
		faults = append(faults, emptyLists(c)...)
	}
	return faults
}

var (
	actionForm   = regexp.MustCompile(`^(\*:\*|[a-z0-9][a-z0-9-]*:(\*|[A-Za-z0-9_.:@/-]+|[A-Za-z0-9_.:@/-]*[/.]\*))$`)
	resourceForm = regexp.MustCompile(`^(\*|[^*\s]+|[^*\s]+/\*)$`)
	accessNames  = []policy.Access{policy.AccessRead, policy.AccessList, policy.AccessWrite, policy.AccessDelete, policy.AccessAdmin}
)

// check finds what YAML takes and a grant must not be.
func (g *grants) check(root *yaml.Node) Faults {
	var c checker
	for kind, all := range map[string]map[string]*principal{"agent": g.agents, "human": g.humans, "group": g.groups} {
		for id, p := range all {
			if p == nil {
				continue
			}
			c.who, c.at = kind+" "+id, func() *yaml.Node { return below(root, "grants", kind+"s", id) }
			c.principal(kind, p)
			c.groups(p.Groups, g.groups)
		}
	}
	return c.faults
}

type checker struct {
	who    string
	at     func() *yaml.Node // where the principal stands
	faults Faults
}

// add notes a fault at the first place of a principal that is the offending word, or
// where the principal itself is.
func (c *checker) add(word, format string, args ...any) {
	f := Fault{File: grantsFile, Message: c.who + ": " + fmt.Sprintf(format, args...)}
	p := c.at()
	n := scalar(p, word, func(*yaml.Node) bool { return word != "" })
	if n == nil {
		n = p
	}
	if n != nil {
		f.Line, f.Col = n.Line, n.Column
	}
	c.faults = append(c.faults, f)
}

func (c *checker) principal(kind string, p *principal) {
	if p.Autonomous && kind != "agent" {
		c.add("autonomous", "autonomous is for agents")
	}
	if len(p.Groups) > 0 && kind != "human" {
		c.add("groups", "groups is for humans")
	}
	for _, g := range slices.Concat(p.Allow, p.Ask, p.Deny) {
		c.grant(&g)
	}
	for _, g := range p.Allow {
		if g.Report {
			c.add("report", "report is for deny and ask: an allow that is only reported would be none")
		}
	}
	for _, r := range p.Raw {
		if len(r.Hosts) == 0 || len(r.Methods) == 0 || !strings.HasPrefix(r.PathPrefix, "/") {
			c.add("raw", "a raw grant needs hosts, methods, and a path_prefix that begins with /")
		}
		for _, m := range r.Methods {
			if m != strings.ToUpper(m) {
				c.add(m, "method %q is not in capitals", m)
			}
		}
	}
}

func (c *checker) groups(names []string, defined map[string]*principal) {
	for _, name := range names {
		if defined[name] == nil {
			c.add(name, "group %q is not defined%s", name, meant(name, slices.Collect(maps.Keys(defined))))
		}
	}
}

func (c *checker) grant(g *grant) {
	if g.Actions == nil {
		c.add("", "a grant without actions grants nothing")
	}
	for _, a := range g.Actions {
		if !actionForm.MatchString(a) {
			c.add(a, "action %q is not of the form service:operation, service:prefix/*, service:prefix.*, service:* or *:*", a)
		}
	}
	for _, a := range g.Access {
		if !slices.Contains(accessNames, a) {
			c.add(string(a), "access %q is none of read, list, write, delete, admin%s", a, meant(string(a), members["input.action.access"][:5]))
		}
	}
	for _, r := range g.Resources {
		if !resourceForm.MatchString(r) {
			c.add(r, "resource %q is not of the form name, prefix/* or *", r)
		}
	}
}

var (
	grantsShape   = machine.NewShape("agent", "human", "reported")
	documentShape = machine.NewShape("allow", "ask", "deny", "report", "raw", "autonomous")
	rawShape      = machine.NewShape("hosts", "methods", "path_prefix")
	entryShape    = machine.NewShape("access", "resources")
)

// reports says whether a document, or null, has grants that are only reported.
func reports(document machine.Value) bool {
	if document.Kind() != machine.Object {
		return false
	}
	index := document.Field("report")
	return index.Len() > 0
}

// value returns {"agent": document or null, "human": document or null, "reported": bool}.
func (g *grants) value(q *policy.Question) machine.Value {
	agent, human := g.document(principalKey{false, q.Agent.ID}), machine.Nothing()
	if q.Human != nil {
		id := q.Human.Email
		if id == "" || g.humans[id] == nil {
			id = q.Human.Sub
		}
		human = g.document(principalKey{true, id})
	}
	return forGood.Make(grantsShape, agent, human, machine.Bool(reports(agent) || reports(human)))
}

// document returns the indexed document of a principal, or null. Humans without
// one of their own share that of everybody, so that the cache is bounded by the file.
func (g *grants) document(k principalKey) machine.Value {
	var parts []*principal
	if k.human {
		p := g.humans[k.id]
		if p == nil {
			k.id = "*"
		}
		parts = g.ofHuman(p)
	} else if p := g.agents[k.id]; p != nil {
		parts = []*principal{p}
	}
	if len(parts) == 0 {
		return machine.Nothing()
	}
	if v, ok := g.values.Load(k); ok {
		return v.(machine.Value)
	}
	v, _ := g.values.LoadOrStore(k, g.documentOf(parts))
	return v.(machine.Value)
}

// ofHuman returns a human's own grants, those of their groups, and everybody's.
func (g *grants) ofHuman(p *principal) []*principal {
	var parts []*principal
	if p != nil {
		parts = append(parts, p)
		for _, name := range p.Groups {
			if group := g.groups[name]; group != nil {
				parts = append(parts, group)
			}
		}
	}
	if all := g.humans["*"]; all != nil && all != p {
		parts = append(parts, all)
	}
	return parts
}

// documentOf indexes grants by action pattern. Of ten thousand agents many are granted
// the same: equal parts are made once, which saves memory, and keeps in the
// processor's caches what every question looks at.
func (g *grants) documentOf(parts []*principal) machine.Value {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.made == nil {
		g.made = map[string]machine.Value{}
	}
	var allow, ask, deny, report []grant
	var raw []machine.Value
	autonomous := false
	for _, p := range parts {
		allow = append(allow, p.Allow...)
		ask, report = apartReported(ask, report, p.Ask)
		deny, report = apartReported(deny, report, p.Deny)
		autonomous = autonomous || p.Autonomous
		for _, r := range p.Raw {
			raw = append(raw, forGood.Make(rawShape, g.flags(r.Hosts), g.flags(r.Methods), machine.Text(r.PathPrefix)))
		}
	}
	return forGood.Make(documentShape, g.index(allow), g.index(ask), g.index(deny), g.index(report), forGood.Array(raw...), machine.Bool(autonomous))
}

// apartReported takes the grants that are only reported apart from the others.
func apartReported(enforced, reported, list []grant) (e, r []grant) {
	for _, g := range list {
		if g.Report {
			reported = append(reported, g)
		} else {
			enforced = append(enforced, g)
		}
	}
	return enforced, reported
}

// once makes a value, or returns the one that was made under this key.
func (g *grants) once(k key, make func() machine.Value) machine.Value {
	v, ok := g.made[string(k)]
	if !ok {
		v = make()
		g.made[string(k)] = v
	}
	return v
}

func (g *grants) index(list []grant) machine.Value {
	type entries struct {
		key  key
		list []machine.Value
	}
	byPattern := map[string]*entries{}
	for _, x := range list {
		access, resources := x.Access, x.Resources
		if len(access) == 0 {
			access = accessNames
		}
		if len(resources) == 0 {
			resources = []string{"*"}
		}
		var names []string
		for _, a := range access {
			names = append(names, string(a))
		}
		k := key("entry").list(names).list(resources)
		entry := g.once(k, func() machine.Value { return forGood.Make(entryShape, g.flags(names), g.flags(resources)) })
		for _, pattern := range x.Actions {
			e := byPattern[pattern]
			if e == nil {
				e = &entries{key: key("entries")}
				byPattern[pattern] = e
			}
			e.key, e.list = append(e.key, k...), append(e.list, entry)
		}
	}
	fields := make([]machine.Field, 0, len(byPattern))
	for pattern, e := range byPattern {
		name := g.once(key("name").text(pattern), func() machine.Value { return machine.Text(pattern) })
		fields = append(fields, machine.Field{Name: name.String(), Value: g.once(e.key, func() machine.Value { return forGood.Array(e.list...) })})
	}
	return forGood.Object(fields...)
}

// flags makes {name: true}, which is looked up and not searched.
func (g *grants) flags(names []string) machine.Value {
	return g.once(key("flags").list(names), func() machine.Value {
		fields := make([]machine.Field, len(names))
		for i, n := range names {
			fields[i] = machine.Field{Name: n, Value: machine.Bool(true)}
		}
		return forGood.Object(fields...)
	})
}

// dataPath is where OPA's loader puts a data file: under the folder that it is in.
func dataPath(name string) []string {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	return strings.Split(dir, "/")
}
