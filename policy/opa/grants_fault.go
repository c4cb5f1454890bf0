package opa

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// grantKeys are the keys of each part of grants.yaml, by the type that it is read into.
var grantKeys = map[string][]string{
	"opa.grantsDocument": {"grants"},
	"opa.principal":      {"allow", "ask", "deny", "raw", "autonomous", "groups"},
	"opa.grant":          {"actions", "access", "resources", "report"},
	"opa.rawGrant":       {"hosts", "methods", "path_prefix"},
}

var (
	unknownField = regexp.MustCompile(`^field (\S+) not found in type (.*)`)
	wrongKind    = regexp.MustCompile("^cannot unmarshal (\\S+)(?: `(.*)`)? into (.*)")
)

// decodeFaults says in the words of grants.yaml what a decoder says in those of Go.
func decodeFaults(root *yaml.Node, err error) Faults {
	faults := yamlFaults(grantsFile, err)
	for i := range faults {
		f := &faults[i]
		if m := unknownField.FindStringSubmatch(f.Message); m != nil {
			keys, ok := grantKeys[m[2]]
			if !ok {
				keys = []string{"agents", "humans", "groups"}
			}
			f.Message = m[1] + " is no key here, where there is " + strings.Join(keys, ", ") + meant(m[1], keys)
			f.locate(scalar(root, m[1], func(n *yaml.Node) bool { return n.Line == f.Line }))
			continue
		}
		if m := wrongKind.FindStringSubmatch(f.Message); m != nil {
			begin, _, short := strings.Cut(m[2], "...") // so the decoder shortens it
			n := scalar(root, "", func(n *yaml.Node) bool {
				return n.Line == f.Line && begin != "" && (n.Value == m[2] || short && strings.HasPrefix(n.Value, begin))
			})
			f.Message = "a list is wanted here"
			if n != nil {
				f.Message += ", such as [" + n.Value + "]"
			}
			switch {
			case strings.HasPrefix(m[3], "[]opa."):
				f.Message = "a list of grants is wanted here: each begins with a dash"
			case !strings.HasPrefix(m[3], "[]"):
				f.Message = map[string]string{"bool": "true or false is wanted here", "string": "a text is wanted here"}[m[3]]
			}
			if f.Message == "" {
				f.Message = "keys with values are wanted here"
			}
			f.locate(n)
		}
	}
	return faults
}

func (f *Fault) locate(n *yaml.Node) {
	if n != nil {
		f.Line, f.Col = n.Line, n.Column
	}
}

// scalar returns the first scalar in n that is as wanted, and of that text unless it is
// empty, or nil.
func scalar(n *yaml.Node, text string, wanted func(*yaml.Node) bool) *yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode && (text == "" || n.Value == text) && wanted(n) {
		return n
	}
	for _, c := range n.Content {
		if found := scalar(c, text, wanted); found != nil {
			return found
		}
	}
	return nil
}

// UnknownActions finds grants for actions that no catalogue has, as [Check] does. text
// is that of grants.yaml, for the places. An allow for what does not exist grants
// nothing, which is a warning; a deny or an ask leaves open what it was written for.
func (e *Engine) UnknownActions(n Names, text []byte) Faults {
	v := &vocabulary{names: n, actions: map[string][]Name{}}
	seen := map[string]bool{}
	var faults Faults
	for _, list := range [...]string{"deny", "ask", "allow"} {
		for kind, all := range map[string]map[string]*principal{"agent": e.grants.agents, "human": e.grants.humans, "group": e.grants.groups} {
			for id, p := range all {
				faults = append(faults, v.unknown(kind+" "+id, list, p, seen)...)
			}
		}
	}
	var root yaml.Node
	if len(faults) > 0 && yaml.Unmarshal(text, &root) == nil {
		for i := range faults {
			f := &faults[i]
			f.locate(scalar(&root, f.Text, func(*yaml.Node) bool { return true }))
			f.Text = ""
			f.show(&sources{files: map[string][]byte{grantsFile: text}})
		}
	}
	faults.sort()
	return faults
}

// unknown looks at the patterns of one list of p, which may be nil, that were not seen
// before; their text is that of the fault.
func (v *vocabulary) unknown(who, list string, p *principal, seen map[string]bool) (faults Faults) {
	if p == nil {
		return nil
	}
	for _, g := range p.listed(list) {
		for _, pattern := range g.Actions {
			if seen[pattern] {
				continue
			}
			seen[pattern] = true
			if _, wrong := v.reached(pattern); wrong != "" {
				faults = append(faults, Fault{File: grantsFile, Warning: list == "allow", Message: who + ", " + list + ": " + wrong, Text: pattern})
			}
		}
	}
	return slices.Clip(faults)
}
