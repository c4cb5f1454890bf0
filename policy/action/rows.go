package action

import (
	"slices"
	"strings"

	"chaperone/policy"
)

// Row is one operation of a service, for people.
type Row struct {
	Method string        `json:"method,omitempty"`
	Path   string        `json:"path,omitempty"`
	Key    string        `json:"key,omitempty"`  // how a protocol names it, in place of method and path
	Host   string        `json:"host,omitempty"` // the first of the part it belongs to
	Action string        `json:"action"`
	Access policy.Access `json:"access"`
	Marks  []string      `json:"marks,omitempty"`
	// Effects are what the marks say of what the operation leaves behind.
	Effects Effects `json:"-"`
}

// Rows returns the operations of a service and its parts by path, method and key.
// It reads them anew each time.
func (s *Service) Rows() []Row {
	if s.whole != nil {
		whole, err := s.whole()
		if err != nil {
			return nil // a shipped file: the tests read them all
		}
		s = whole
	}
	out := s.rows(s.Name, "", "")
	for _, name := range sorted(s.APIs) {
		api := s.APIs[name]
		out = append(out, api.rows(s.Name, name+".", api.Hosts[0])...)
	}
	return out
}

func (s *Service) rows(service, prefix, host string) []Row {
	named := &Service{Name: service}
	var out []Row
	for p, methods := range s.Paths {
		for method, row := range methods {
			if op, err := named.operation(prefix + row); err == nil {
				out = append(out, Row{method, p, "", host, op.action.ID, op.action.Access, op.marks, effects(service, prefix, op.marks)})
			}
		}
	}
	for key, row := range s.Ops {
		if op, err := named.operation(prefix + row); err == nil {
			out = append(out, Row{"", "", key, host, op.action.ID, op.action.Access, op.marks, effects(service, prefix, op.marks)})
		}
	}
	shown := len(out)
	for key, row := range s.Also { // what is an operation of its own too is there already
		op, err := named.operation(prefix + row)
		if err == nil && !slices.ContainsFunc(out[:shown], func(r Row) bool { return r.Action == op.action.ID }) {
			out = append(out, Row{"", "", key, host, op.action.ID, op.action.Access, op.marks, effects(service, prefix, op.marks)})
		}
	}
	slices.SortFunc(out, func(a, b Row) int {
		return strings.Compare(a.Path+" "+a.Method+a.Key, b.Path+" "+b.Method+b.Key)
	})
	return out
}

// Covered reports whether a grant's pattern covers the action of the row: it is one
// of its keys.
func (r *Row) Covered(pattern string) bool { return slices.Contains(r.Keys(), pattern) }

// Keys are the patterns that cover the row, as [policy.Action] has them.
func (r *Row) Keys() []string {
	service, operation, _ := strings.Cut(r.Action, ":")
	return known(service, operation, r.Access).Keys
}
