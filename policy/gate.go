package policy

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
)

// Gate puts questions to the engine in force and fails closed. The zero Gate
// refuses everything until [Gate.Use]. It is safe for concurrent use.
type Gate struct {
	engine atomic.Pointer[Engine]
	shadow atomic.Pointer[Engine]
	// Obligations names what this program can carry out along with an allow. An
	// answer that obliges to anything else is a deny. Set before first use.
	Obligations map[string]bool
}

// Use swaps in the engine that answers from now on.
func (g *Gate) Use(e Engine) { g.engine.Store(&e) }

// Shadow puts an engine beside the one in force: it is asked the same and decides
// nothing. Nil takes it away.
func (g *Gate) Shadow(e Engine) {
	if e == nil {
		g.shadow.Store(nil)
		return
	}
	g.shadow.Store(&e)
}

// compare asks the engine in the shadow, and returns its answer where it differs.
func (g *Gate) compare(ctx context.Context, q *Question, a *Answer) *Answer {
	e := g.shadow.Load()
	if e == nil {
		return nil
	}
	other, _ := g.ask(ctx, *e, q) // an error is a deny, as the answer says
	if other.Result == a.Result && sameDuties(other.Obligations, a.Obligations) {
		return nil
	}
	return &other
}

// sameDuties compares what two answers oblige to; what is only reported is no duty.
func sameDuties(a, b map[string]any) bool {
	if len(a)+len(b) == 0 {
		return true
	}
	a, b = maps.Clone(a), maps.Clone(b)
	delete(a, "report")
	delete(b, "report")
	return len(a)+len(b) == 0 || reflect.DeepEqual(a, b)
}

// Revision returns the revision of the policy in force, or the empty string.
func (g *Gate) Revision() string {
	if e := g.engine.Load(); e != nil {
		return (*e).Revision()
	}
	return ""
}

// ReadsBody reports whether the policy in force, or in the shadow, wants the request's body.
func (g *Gate) ReadsBody() bool {
	e, s := g.engine.Load(), g.shadow.Load()
	return e != nil && (*e).ReadsBody() || s != nil && (*s).ReadsBody()
}

// Decide returns a permit if and only if policy allows every action of q. The
// answer is filled as far as policy gave one, also beside an error. The error
// wraps [ErrDenied], [ErrApproval], [ErrPolicyFailed] or [ErrNoPolicy].
func (g *Gate) Decide(ctx context.Context, q *Question) (*Permit, Answer, error) {
	e, err := g.current()
	if err != nil {
		return nil, Answer{Result: Deny}, err
	}
	a, err := g.ask(ctx, e, q)
	a.Shadow = g.compare(ctx, q, &a)
	if err != nil {
		return nil, a, err
	}
	return &Permit{gate: g, engine: e, q: q, target: q.Request.Target(), digest: q.Request.BodyDigest, duties: a.Obligations}, a, nil
}

func (g *Gate) current() (Engine, error) {
	e := g.engine.Load()
	if e == nil || *e == nil {
		return nil, ErrNoPolicy
	}
	return *e, nil
}

// ask evaluates q, once for each of its actions when they are several: one
// deny refuses all, and one ask makes the whole an ask.
func (g *Gate) ask(ctx context.Context, e Engine, q *Question) (Answer, error) {
	if len(q.Actions) == 0 {
		return g.eval(ctx, e, q)
	}
	var all Answer
	var asked error
	for i := range q.Actions {
		one := *q
		one.Action, one.Resource = q.Actions[i].Action, q.Actions[i].Resource
		a, err := g.eval(ctx, e, &one)
		if err != nil && a.Result != Ask {
			return a, err
		}
		if err != nil && asked == nil {
			asked, all.Result = err, Ask
		}
		if merr := merge(&all, a); merr != nil {
			return Answer{Result: Deny, Reasons: []string{merr.Error()}, Revision: a.Revision}, fmt.Errorf("%w: %w", ErrDenied, merr)
		}
		all.Each = append(all.Each, a.Obligations)
	}
	return all, asked
}

func (g *Gate) eval(ctx context.Context, e Engine, q *Question) (Answer, error) {
	a, err := e.Eval(ctx, q)
	if err != nil {
		return Answer{Result: Deny, Reasons: []string{"The policy could not be evaluated."}, Revision: e.Revision()},
			fmt.Errorf("%w: %w", ErrPolicyFailed, err)
	}
	if a.Revision == "" {
		a.Revision = e.Revision()
	}
	switch a.Result {
	case Allow:
		if name := g.unmet(a.Obligations); name != "" {
			a.Result = Deny
			a.Reasons = append(a.Reasons, fmt.Sprintf("The policy obliges to %q, which this proxy cannot carry out.", name))
			return a, fmt.Errorf("%w: obligation %q cannot be met", ErrDenied, name)
		}
		return a, nil
	case Ask:
		return a, fmt.Errorf("%w: %s", ErrApproval, strings.Join(a.Reasons, " "))
	default:
		a.Result = Deny
		return a, fmt.Errorf("%w: %s", ErrDenied, strings.Join(a.Reasons, " "))
	}
}

func (g *Gate) unmet(obligations map[string]any) string {
	for name := range obligations {
		if !g.Obligations[name] {
			return name
		}
	}
	return ""
}

// merge adds the answer about one action to the answer about all. Limits and reports of
// all actions add up; other obligations of one name must agree: there is no telling
// which of two would do.
func merge(all *Answer, one Answer) error {
	if all.Result == "" {
		all.Result = one.Result
	}
	all.Revision = one.Revision
	for _, r := range one.Reasons {
		if !slices.Contains(all.Reasons, r) {
			all.Reasons = append(all.Reasons, r)
		}
	}
	for name, v := range one.Obligations {
		old, ok := all.Obligations[name]
		if name == "limits" || name == "report" {
			v, ok = union(old, v), false
		}
		if ok && fmt.Sprint(old) != fmt.Sprint(v) {
			return fmt.Errorf("the actions of one request carry different obligations %q", name)
		}
		if all.Obligations == nil {
			all.Obligations = map[string]any{}
		}
		all.Obligations[name] = v
	}
	return nil
}

// union adds to a list what of another it does not have. What is no list is left to
// whoever reads it.
func union(old, more any) any {
	a, _ := old.([]any)
	b, ok := more.([]any)
	if !ok {
		return more
	}
	out := slices.Clone(a)
	for _, v := range b {
		if !slices.ContainsFunc(out, func(x any) bool { return reflect.DeepEqual(x, v) }) {
			out = append(out, v)
		}
	}
	return out
}
