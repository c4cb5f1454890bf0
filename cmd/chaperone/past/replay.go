package past

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"chaperone/policy"
	"chaperone/policy/opa"
)

// Replay asks a policy again what was asked of the one in force.
type Replay struct {
	Engine       *opa.Engine
	Since, Until time.Time // zero: no bound
	Agent        string    // empty: all
	Allowed      []Allowed // flips that are meant
}

// Report is what became of all decisions.
type Report struct {
	Policy    string         `json:"policy"` // revision of the candidate
	Decisions int            `json:"decisions"`
	Same      int            `json:"same"`
	Flipped   int            `json:"flipped"`
	Uncovered int            `json:"uncovered"` // flips that no --allow-flips covers
	Before    int            `json:"before_policy"`
	Inexact   int            `json:"inexact"`
	Because   map[string]int `json:"inexact_because,omitempty"` // what the records do not hold -> decisions
	Older     int            `json:"older,omitempty"`           // of the inexact, those from before records held all
	Unread    int            `json:"unread,omitempty"`          // lines that are no record of this program
	Failed    int            `json:"failed,omitempty"`          // questions that the candidate could not answer: denies
	Flips     []Flip         `json:"flips"`
	Why       string         `json:"unread_because,omitempty"`
}

// Flip is one kind of change.
type Flip struct {
	FlipKey
	Count    int       `json:"count"`
	Reason   string    `json:"reason"` // of the last one
	Examples []Example `json:"examples"`
	Covered  bool      `json:"covered"`
}

// FlipKey is what flips are grouped by.
type FlipKey struct {
	Agent  string        `json:"agent"`
	Human  string        `json:"human,omitempty"`
	Action string        `json:"action"`
	From   policy.Result `json:"from"`
	To     policy.Result `json:"to"`
}

// Example is one decision that flips.
type Example struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Resource string    `json:"resource,omitempty"`
}

const maxExamples = 3

// Allowed covers flips: all of whose patterns match. An empty pattern matches all.
type Allowed struct{ Agent, Human, Action, From, To string }

// ParseAllowed reads "all", or KEY=PATTERN with commas between: agent, human, action,
// from, to.
func ParseAllowed(text string) (Allowed, error) {
	var a Allowed
	if text == "all" {
		return a, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		field := map[string]*string{"agent": &a.Agent, "human": &a.Human, "action": &a.Action, "from": &a.From, "to": &a.To}[strings.TrimSpace(key)]
		if !ok || field == nil || value == "" {
			return a, fmt.Errorf("%q is neither all nor agent=, human=, action=, from= or to= with a pattern", part)
		}
		if _, err := path.Match(value, ""); err != nil {
			return a, fmt.Errorf("%q is no pattern: %w", value, err)
		}
		*field = strings.TrimSpace(value)
	}
	return a, nil
}

func (a *Allowed) covers(k *FlipKey) bool {
	for pattern, s := range map[string]string{"g" + a.Agent: k.Agent, "h" + a.Human: k.Human, "c" + a.Action: k.Action, "f" + a.From: string(k.From), "t" + a.To: string(k.To)} {
		pattern = pattern[1:]
		prefix, wild := strings.CutSuffix(pattern, "*")
		if pattern != "" && pattern != s && !(wild && strings.HasPrefix(s, prefix)) {
			return false
		}
	}
	return true
}

// tally is what one goroutine has counted.
type tally struct {
	Report
	flips map[FlipKey]*Flip
}

// Run replays the decisions of a log's lines.
func (r *Replay) Run(ctx context.Context, lines iter.Seq2[[]byte, error]) (*Report, error) {
	gate := &policy.Gate{Obligations: policy.All()}
	gate.Use(r.Engine)
	reads := r.Engine.Reads()
	tallies, err := Scan(ctx, lines, func() *tally { return &tally{flips: map[FlipKey]*Flip{}} },
		func(t *tally, d *Decision) { r.one(ctx, gate, reads, t, d) },
		func(t *tally, err error) { t.Unread++; t.Why = err.Error() })
	if err != nil {
		return nil, err
	}
	return r.sum(tallies), nil
}

func (r *Replay) one(ctx context.Context, gate *policy.Gate, reads opa.Reads, t *tally, d *Decision) {
	if !r.Since.IsZero() && d.Time.Before(r.Since) || !r.Until.IsZero() && !d.Time.Before(r.Until) || r.Agent != "" && d.Question.Agent.ID != r.Agent {
		return
	}
	t.Decisions++
	if d.Policy == "" {
		t.Before++
		return
	}
	if why := d.Unknown(reads); why != "" {
		t.Inexact++
		if d.Older() {
			t.Older++
		}
		if t.Because == nil {
			t.Because = map[string]int{}
		}
		t.Because[why]++
		return
	}
	_, a, _ := gate.Decide(ctx, &d.Question) // an error is a deny, as the answer says
	was := d.Result
	if d.Unmet != "" {
		was = policy.Allow // it was not policy that refused
	}
	if a.Revision == "" {
		t.Failed++
	}
	if a.Result == was {
		t.Same++
		return
	}
	t.Flipped++
	t.flip(d, was, &a)
}

func (t *tally) flip(d *Decision, was policy.Result, a *policy.Answer) {
	q := &d.Question
	k := FlipKey{Agent: q.Agent.ID, Human: Name(q.Human), Action: What(q), From: was, To: a.Result}
	f := t.flips[k]
	if f == nil {
		f = &Flip{FlipKey: k}
		t.flips[k] = f
	}
	f.Count++
	f.Reason = strings.Join(a.Reasons, " ")
	if len(f.Examples) < maxExamples {
		f.Examples = append(f.Examples, Example{d.ID, d.Time, q.Resource.ID})
	}
}

// Name is how people read a human.
func Name(h *policy.Human) string {
	if h == nil {
		return ""
	}
	return cmp.Or(h.Email, h.Sub)
}

// What names what was to be done: the action, or the request without its path.
func What(q *policy.Question) string {
	if q.Action.ID != "" {
		return q.Action.ID
	}
	return q.Request.Method + " " + q.Request.Host
}

func (r *Replay) sum(tallies []*tally) *Report {
	all := tally{flips: map[FlipKey]*Flip{}}
	all.Policy, all.Because = r.Engine.Revision(), map[string]int{}
	for _, t := range tallies {
		all.Decisions, all.Same, all.Flipped, all.Before = all.Decisions+t.Decisions, all.Same+t.Same, all.Flipped+t.Flipped, all.Before+t.Before
		all.Inexact, all.Older, all.Unread, all.Failed = all.Inexact+t.Inexact, all.Older+t.Older, all.Unread+t.Unread, all.Failed+t.Failed
		all.Why = cmp.Or(all.Why, t.Why)
		for why, n := range t.Because {
			all.Because[why] += n
		}
		for k, f := range t.flips {
			if g := all.flips[k]; g != nil {
				g.Count += f.Count
				g.Examples = append(g.Examples, f.Examples...)
				continue
			}
			all.flips[k] = f
		}
	}
	all.Flips = []Flip{}
	for _, f := range slices.SortedFunc(maps.Values(all.flips), bySize) {
		slices.SortFunc(f.Examples, func(a, b Example) int { return a.Time.Compare(b.Time) })
		f.Examples = f.Examples[:min(len(f.Examples), maxExamples)]
		f.Covered = slices.ContainsFunc(r.Allowed, func(a Allowed) bool { return a.covers(&f.FlipKey) })
		if !f.Covered {
			all.Uncovered += f.Count
		}
		all.Flips = append(all.Flips, *f)
	}
	return &all.Report
}

func bySize(a, b *Flip) int {
	return cmp.Or(b.Count-a.Count, strings.Compare(a.Agent, b.Agent), strings.Compare(a.Human, b.Human), strings.Compare(a.Action, b.Action), strings.Compare(string(a.To), string(b.To)))
}
