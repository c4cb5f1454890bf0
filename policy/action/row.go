package action

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"chaperone/policy"
)

// levels orders access levels, weakest first.
var levels = map[policy.Access]int{policy.AccessRead: 1, policy.AccessList: 2, policy.AccessWrite: 3, policy.AccessDelete: 4, policy.AccessAdmin: 5}

// Stronger reports whether a changes more than b. What is no level is weaker than all.
func Stronger(a, b policy.Access) bool { return levels[a] > levels[b] }

// operation reads one row.
func (s *Service) operation(row string) (*operation, error) {
	words := strings.Fields(row)
	if len(words) < 2 {
		return nil, fmt.Errorf("%q is not \"operation access …\"", row)
	}
	access := policy.Access(words[1])
	if levels[access] == 0 {
		return nil, fmt.Errorf("access %q is none of read, list, write, delete, admin", words[1])
	}
	if !plainOperation(words[0]) {
		return nil, fmt.Errorf("operation %q has odd characters", words[0])
	}
	if words[0] == Traded {
		return nil, fmt.Errorf("operation %q is what the proxy does by itself at token endpoints", Traded)
	}
	op := &operation{action: known(s.Name, words[0], access), marks: words[2:]}
	op.action.Mints = mints(op.marks)
	for _, m := range op.marks {
		op.uploads = op.uploads || m == MarkUpload
		if names, ok := strings.CutPrefix(m, MarkOn); ok {
			op.on = strings.FieldsFunc(names, func(r rune) bool { return r == ',' })
			op.picky = true
		}
	}
	return op, nil
}

// known returns the action of an operation with the patterns that cover it.
func known(service, name string, access policy.Access) policy.Action {
	id := service + ":" + name
	keys := []string{id}
	for rest := name; ; {
		i := strings.LastIndexAny(rest, "/.")
		if i <= 0 {
			break
		}
		keys = append(keys, service+":"+rest[:i+1]+"*")
		rest = rest[:i]
	}
	keys = append(keys, service+":*", "*:*")
	return policy.Action{ID: id, Service: service, Operation: name, Access: access, Known: true, Keys: keys}
}

// unknown returns the action of a request that no catalogue names.
func unknown(service, why string) policy.Action {
	return policy.Action{Service: service, Access: policy.AccessUnknown, Why: why}
}

func compileRule(r ResourceRule) (*rule, error) {
	c := &rule{kind: r.Type}
	rest := r.ID
	for rest != "" {
		i := strings.IndexByte(rest, '{')
		j := strings.IndexByte(rest, '}')
		if i < 0 || j < i {
			return nil, fmt.Errorf("id %q is not made of {parameters}", r.ID)
		}
		c.seps = append(c.seps, rest[:i])
		c.names = append(c.names, rest[i+1:j])
		rest = rest[j+1:]
	}
	if r.Type == "" || len(c.names) == 0 {
		return nil, errors.New("type or id is missing")
	}
	return c, nil
}

// operation is one row of a catalogue, ready to be handed out.
type operation struct {
	action  policy.Action
	marks   []string
	on      []string // the service's arguments that it takes
	picky   bool     // it takes no others
	uploads bool     // it takes files in a multipart body
}

func (o *operation) takes(argument string) bool {
	return !o.picky || slices.Contains(o.on, argument)
}

// rule is a compiled ResourceRule: the parameters at params, joined by seps.
type rule struct {
	kind  string
	names []string
	seps  []string // before each name
}
