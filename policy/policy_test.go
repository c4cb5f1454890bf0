package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// engine answers by the operation that is asked about.
type engine struct {
	revision string
	answers  map[string]Answer
	err      error
	asked    atomic.Int32
}

func (e *engine) Eval(_ context.Context, q *Question) (Answer, error) {
	e.asked.Add(1)
	return e.answers[q.Action.Operation], e.err
}
func (e *engine) Revision() string { return e.revision }
func (e *engine) ReadsBody() bool  { return false }

func allows(revision string) *engine {
	return &engine{revision: revision, answers: map[string]Answer{"": {Result: Allow}, "a": {Result: Allow, Reasons: []string{"A."}}, "b": {Result: Allow, Reasons: []string{"B."}}}}
}

func question(operations ...string) *Question {
	q := &Question{Request: Request{Method: "GET", Scheme: "https", Host: "a.example", Port: 443, Path: "/x"}, Credential: &Credential{ID: "c"}}
	for _, o := range operations {
		q.Actions = append(q.Actions, Act{Action: Action{Operation: o}})
	}
	return q
}

func TestDecide(t *testing.T) {
	deny := Answer{Result: Deny, Reasons: []string{"No."}}
	for name, tc := range map[string]struct {
		engine *engine
		q      *Question
		want   error
		result Result
	}{
		"allow":               {allows("1"), question(), nil, Allow},
		"deny":                {&engine{answers: map[string]Answer{"": deny}}, question(), ErrDenied, Deny},
		"ask":                 {&engine{answers: map[string]Answer{"": {Result: Ask}}}, question(), ErrApproval, Ask},
		"nothing":             {&engine{}, question(), ErrDenied, Deny},
		"another word":        {&engine{answers: map[string]Answer{"": {Result: "yes"}}}, question(), ErrDenied, Deny},
		"error beside allow":  {&engine{answers: map[string]Answer{"": {Result: Allow}}, err: errors.New("odd")}, question(), ErrPolicyFailed, Deny},
		"unknown obligation":  {&engine{answers: map[string]Answer{"": {Result: Allow, Obligations: map[string]any{"mask": true}}}}, question(), ErrDenied, Deny},
		"known obligation":    {&engine{answers: map[string]Answer{"": {Result: Allow, Obligations: map[string]any{"notify": true}}}}, question(), nil, Allow},
		"all of several":      {allows("1"), question("a", "b"), nil, Allow},
		"one of several":      {&engine{answers: map[string]Answer{"a": {Result: Allow}, "b": deny}}, question("a", "b"), ErrDenied, Deny},
		"one asks":            {&engine{answers: map[string]Answer{"a": {Result: Ask}, "b": {Result: Allow}}}, question("a", "b"), ErrApproval, Ask},
		"one asks, one not":   {&engine{answers: map[string]Answer{"a": {Result: Ask}, "b": deny}}, question("a", "b"), ErrDenied, Deny},
		"obligations collide": {&engine{answers: map[string]Answer{"a": {Result: Allow, Obligations: map[string]any{"notify": 1}}, "b": {Result: Allow, Obligations: map[string]any{"notify": 2}}}}, question("a", "b"), ErrDenied, Deny},
	} {
		t.Run(name, func(t *testing.T) {
			g := Gate{Obligations: map[string]bool{"notify": true}}
			g.Use(tc.engine)
			p, a, err := g.Decide(t.Context(), tc.q)
			if !errors.Is(err, tc.want) || a.Result != tc.result {
				t.Errorf("got %+v, %v; want %s, %v", a, err, tc.result, tc.want)
			}
			if (p != nil) != (tc.want == nil) {
				t.Errorf("permit %v beside %v", p, err)
			}
		})
	}
	if _, _, err := new(Gate).Decide(t.Context(), question()); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("the zero gate: %v", err)
	}
	var g Gate
	g.Use(allows("1"))
	if _, a, _ := g.Decide(t.Context(), question("a", "b")); strings.Join(a.Reasons, " ") != "A. B." || a.Revision != "1" {
		t.Errorf("reasons of several: %+v", a)
	}
}

// TestDutiesOfSeveral: limits and reports of several actions add up, and what each
// action takes stays known.
func TestDutiesOfSeveral(t *testing.T) {
	rate, deletions := map[string]any{"of": "requests", "max": 5}, map[string]any{"of": "requests", "max": 1, "name": "deletions"}
	g := Gate{Obligations: All()}
	g.Use(&engine{answers: map[string]Answer{
		"a": {Result: Allow, Obligations: map[string]any{"limits": []any{rate}, "report": []any{"A."}}},
		"b": {Result: Allow, Obligations: map[string]any{"limits": []any{rate, deletions}, "report": []any{"B."}}},
		"c": {Result: Allow},
	}})
	_, a, err := g.Decide(t.Context(), question("a", "b", "c"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(a.Obligations["limits"], a.Obligations["report"]); got != fmt.Sprint([]any{rate, deletions}, []any{"A.", "B."}) {
		t.Errorf("together they oblige to %s", got)
	}
	if len(a.Each) != 3 || a.Each[0]["limits"].([]any)[0] == nil || len(a.Each[1]["limits"].([]any)) != 2 || a.Each[2] != nil {
		t.Errorf("each obliges to %v", a.Each)
	}
}

func TestPermit(t *testing.T) {
	var g Gate
	g.Use(allows("1"))
	q := question()
	target := q.Request.Target()
	p, _, err := g.Decide(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Target){
		"method": func(t *Target) { t.Method = "POST" }, "scheme": func(t *Target) { t.Scheme = "http" }, "host": func(t *Target) { t.Host = "b.example" },
		"port": func(t *Target) { t.Port = 444 }, "path": func(t *Target) { t.Path = "/y" },
	} {
		other := target
		change(&other)
		if p.Covers(other) == nil || p.Redeem(t.Context(), other) == nil {
			t.Errorf("the permit covers another %s", name)
		}
	}
	for name, none := range map[string]*Permit{"nil": nil, "zero": {}} {
		if none.Covers(Target{}) == nil || none.Redeem(t.Context(), Target{}) == nil || none.Credential() != nil {
			t.Errorf("the %s permit covers something", name)
		}
		if _, bound := none.BodyDigest(); bound {
			t.Errorf("the %s permit is bound to a body", name)
		}
	}
	if p.Credential() == nil || p.Credential().ID != "c" {
		t.Errorf("credential %+v", p.Credential())
	}
	var spent atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if p.Redeem(t.Context(), target) == nil {
				spent.Add(1)
			}
		})
	}
	wg.Wait()
	if spent.Load() != 1 || p.Covers(target) == nil {
		t.Errorf("spent %d times", spent.Load())
	}
}

func TestRedeemAsksTheNewerPolicy(t *testing.T) {
	for name, tc := range map[string]struct {
		next *engine
		want error
	}{
		"that allows": {allows("2"), nil},
		"that denies": {&engine{revision: "2"}, ErrDenied},
		"that fails":  {&engine{revision: "2", err: errors.New("odd")}, ErrPolicyFailed},
	} {
		var g Gate
		g.Use(allows("1"))
		q := question()
		p, _, err := g.Decide(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		g.Use(tc.next)
		if err := p.Redeem(t.Context(), q.Request.Target()); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
		if tc.next.asked.Load() != 1 {
			t.Errorf("%s: it was asked %d times", name, tc.next.asked.Load())
		}
		if p.Redeem(t.Context(), q.Request.Target()) == nil {
			t.Errorf("%s: the permit can be spent again", name)
		}
	}
}
