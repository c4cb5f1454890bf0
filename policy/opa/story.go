package opa

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// story tells in words how an evaluation went: which rules held, and where the others
// ended, with what the input had there.
type story struct {
	input ast.Value
	rules map[uint64]*told // by query id
	order []*told
}

type told struct {
	rule  *ast.Rule
	held  bool
	ended *ast.Expr // the expression at which it ended
	local *ast.ValueMap
}

func tell(trace []*topdown.Event, input ast.Value) string {
	s := &story{input: input, rules: map[uint64]*told{}}
	for _, e := range trace {
		s.event(e)
	}
	var b strings.Builder
	said := map[string]bool{}
	for _, t := range s.order {
		for line := range strings.Lines(s.sentence(t)) {
			if !said[line] {
				said[line] = true
				b.WriteString(line)
			}
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func (s *story) event(e *topdown.Event) {
	if r, ok := e.Node.(*ast.Rule); ok {
		switch e.Op {
		case topdown.EnterOp:
			t := &told{rule: r}
			s.rules[e.QueryID] = t
			s.order = append(s.order, t)
		case topdown.ExitOp:
			if t := s.rules[e.QueryID]; t != nil {
				t.held = true
			}
		}
		return
	}
	if expr, ok := e.Node.(*ast.Expr); ok && e.Op == topdown.FailOp {
		if t := s.rules[e.QueryID]; t != nil && !t.held {
			t.ended, t.local = expr, e.Locals
		}
	}
}

// sentence is one line about a rule; the rule with the answer, and rules that hold
// whatever is asked, are left out.
func (s *story) sentence(t *told) string {
	name := t.rule.Head.Ref().String()
	place := fmt.Sprintf("%s:%d", t.rule.Location.File, t.rule.Location.Row)
	switch {
	case t.rule.Default:
		return ""
	case t.held:
		return fmt.Sprintf("+ %s holds (%s)\n", name, place)
	case t.ended == nil:
		return ""
	}
	at := place
	if l := t.ended.Location; l != nil {
		at = fmt.Sprintf("%s:%d", l.File, l.Row)
	}
	text := strings.TrimSpace(t.ended.String())
	if l := t.ended.Location; l != nil && len(l.Text) > 0 {
		text = strings.Join(strings.Fields(string(l.Text)), " ")
	}
	verb := "does not hold"
	if t.ended.Negated {
		verb = "is not so"
	}
	line := fmt.Sprintf("- %s does not hold: %q %s (%s)", name, text, verb, at)
	if values := s.values(t.ended); values != "" {
		line += "; " + values
	}
	return line + "\n"
}

// values says what the input has where an expression looks.
func (s *story) values(e *ast.Expr) string {
	var parts []string
	ast.WalkRefs(e, func(ref ast.Ref) bool {
		if len(ref) < 2 || !ref[0].Equal(ast.InputRootDocument) || !ref.IsGround() {
			return false
		}
		text := dotted(ref) + " is "
		if v, err := s.input.Find(ref[1:]); err == nil {
			text += short(v.String())
		} else {
			text += "not there"
		}
		if !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
		return false
	})
	return strings.Join(parts, ", ")
}

func short(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
