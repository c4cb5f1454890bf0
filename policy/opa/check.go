package opa

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"chaperone/policy"
)

// Names is what is known of services and their actions. A check without them knows
// no misspelt action.
type Names interface {
	// Services lists all services.
	Services() []string
	// Actions lists the actions of one service; none of a service that is not known.
	Actions(service string) []Name
}

// Name is one action as a catalogue has it.
type Name struct {
	ID         string
	Access     policy.Access
	Resource   string   // type of its resource, empty when it has none
	Parts      int      // parts between slashes of the resource's id; 0: none or any number
	Parameters []string // names under which the resource shows its parameters
}

// CheckOptions say what [Check] looks at.
type CheckOptions struct {
	FS     fs.FS
	Schema []byte // JSON schema of the input; nil checks no types
	Names  Names  // nil: names of actions are not checked
}

// Check returns everything that is wrong with a policy, in the order of files and
// lines: syntax, types, strictness, functions that it may not use, grants that name
// what does not exist or can never take effect, conditions that an absent value turns
// into an allow; and, as warnings, what makes it slow.
func Check(o CheckOptions) (Faults, error) {
	src, err := read(o.FS, true)
	if err != nil {
		return nil, err
	}
	compiler, faults := compile(src, o.Schema)
	sound := len(faults) == 0
	g, more := parseGrants(src)
	faults = append(faults, more...)
	v := &vocabulary{names: o.Names, actions: map[string][]Name{}}
	if len(more) == 0 {
		faults = append(faults, g.survey(src.files[grantsFile], v)...)
	}
	if sound {
		l := &linter{src: src, compiler: compiler, schema: parseSchema(o.Schema), names: v}
		faults = append(faults, l.lint()...)
	}
	for i := range faults {
		faults[i].show(src)
	}
	faults.sort()
	return slices.CompactFunc(faults, func(a, b Fault) bool { return a.File == b.File && a.Line == b.Line && a.Message == b.Message }), nil
}

// Errors returns the faults that are no warnings.
func (f Faults) Errors() Faults {
	return slices.DeleteFunc(slices.Clone(f), func(x Fault) bool { return x.Warning })
}

// show adds the line at which a fault is.
func (f *Fault) show(src *sources) {
	if f.Text != "" || f.Line == 0 {
		return
	}
	if lines := strings.Split(string(src.files[f.File]), "\n"); f.Line <= len(lines) {
		f.Text = lines[f.Line-1]
	}
}

// Snippet is the fault with its line and a caret below its column.
func (f Fault) Snippet() string {
	kind := "error"
	if f.Warning {
		kind = "warning"
	}
	text := f.place() + ": " + kind + ": " + f.Message
	if f.Rule != "" {
		text += " [" + f.Rule + "]"
	}
	if f.Text == "" {
		return text
	}
	text += fmt.Sprintf("\n%6d | %s", f.Line, f.Text)
	if f.Col > 0 && f.Col <= len(f.Text)+1 {
		pad := strings.Map(func(r rune) rune {
			if r == '\t' {
				return r
			}
			return ' '
		}, f.Text[:f.Col-1])
		text += "\n       | " + pad + "^"
	}
	return text
}

// vocabulary remembers what it asked of the names.
type vocabulary struct {
	names    Names
	services []string
	actions  map[string][]Name
}

func (v *vocabulary) allServices() []string {
	if v.services == nil && v.names != nil {
		v.services = v.names.Services()
	}
	return v.services
}

func (v *vocabulary) of(service string) []Name {
	if v.names == nil {
		return nil
	}
	list, ok := v.actions[service]
	if !ok {
		list = v.names.Actions(service)
		v.actions[service] = list
	}
	return list
}

func (v *vocabulary) hasService(name string) bool { return slices.Contains(v.allServices(), name) }

// reached returns the actions that a pattern reaches, and what is wrong with it when
// it reaches none.
func (v *vocabulary) reached(pattern string) (list []Name, wrong string) {
	if v.names == nil || pattern == "*:*" {
		return nil, ""
	}
	service, operation, _ := strings.Cut(pattern, ":")
	if !v.hasService(service) {
		return nil, fmt.Sprintf("no service is named %s%s", service, meant(service, v.allServices()))
	}
	all := v.of(service)
	if operation == "*" || len(all) == 0 { // a service of which only hosts are known
		return all, ""
	}
	var ids []string
	prefix, wild := strings.CutSuffix(pattern, "*")
	for _, n := range all {
		if n.ID == pattern || wild && strings.HasPrefix(n.ID, prefix) {
			list = append(list, n)
		}
		ids = append(ids, n.ID)
	}
	if len(list) > 0 {
		return list, ""
	}
	if wild {
		return nil, fmt.Sprintf("no action begins with %s%s", prefix, meant(pattern, prefixes(ids)))
	}
	return nil, fmt.Sprintf("no action is named %s%s", pattern, meant(pattern, ids))
}

// prefixes returns the patterns that cover the given actions.
func prefixes(ids []string) []string {
	var out []string
	for _, id := range ids {
		for i := len(id) - 1; i > 0; i-- {
			if id[i] == '/' || id[i] == '.' {
				out = append(out, id[:i+1]+"*")
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// faultAt is a fault at a place in Rego.
func faultAt(loc *ast.Location, rule string, warning bool, format string, args ...any) Fault {
	f := Fault{Rule: rule, Warning: warning, Message: fmt.Sprintf(format, args...)}
	if loc != nil {
		f.File, f.Line, f.Col = loc.File, loc.Row, loc.Col
	}
	return f
}
