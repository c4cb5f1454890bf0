package opa

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"chaperone/policy"
	"chaperone/policy/opa/machine"
)

// sampleEvery is how often an answer of the machine is asked of OPA again.
const sampleEvery = 1024

// Bounds of the comparison at load.
const (
	maxInputs = 500
	checkTime = 2 * time.Second
)

// twin is the machine beside OPA's evaluator, and how far it is trusted. It answers
// as long as no answer of its was seen to differ from OPA's.
type twin struct {
	program atomic.Pointer[machine.Program] // nil: OPA answers
	why     string                          // why there was none from the start
	every   uint64
	alarm   func(string)

	asked   atomic.Uint64
	busy    atomic.Bool // an answer is being asked again
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// Close waits for what the engine does in the background. An engine that is closed
// still answers; its answers are not compared any more.
func (e *Engine) Close() {
	e.twin.mu.Lock()
	e.twin.closed = true
	e.twin.mu.Unlock()
	e.twin.running.Wait()
}

// Slow says why questions are answered by OPA's evaluator and not by the machine, which
// is a tenth as slow; it is empty for a policy that the machine answers for.
func (e *Engine) Slow() string { return e.twin.why }

// prepareTwin makes the machine ready, if it can answer for this policy, and asks
// both. What is wrong is kept as the reason for doing without.
func (e *Engine) prepareTwin(src *sources, o *Options) {
	if !repeatable(e.compiler.Modules) {
		e.twin.why = "the policy calls a function whose value is not the same each time"
		return
	}
	p, err := e.plan(src)
	if err != nil {
		e.twin.why = err.Error()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	for _, input := range slices.Concat(e.samples(), testInputs(ctx, o)) {
		if why := e.compare(ctx, p, input); why != "" {
			e.twin.why = why
			return
		}
	}
	e.twin.program.Store(p)
}

func (e *Engine) plan(src *sources) (*machine.Program, error) {
	plan, err := machine.Plan(context.Background(), src.modules, capabilities(), entryPath)
	if err != nil {
		return nil, err
	}
	data, err := machine.FromJSON(src.data)
	if err != nil {
		return nil, fmt.Errorf("reading data: %w", err)
	}
	return machine.New(machine.Options{Plan: plan, Entry: entryPath, Data: data, Strict: true, Steps: e.steps})
}

// compare puts one input to both and returns how they differ. Where the machine
// gives up there is no difference: OPA is asked then.
func (e *Engine) compare(ctx context.Context, p *machine.Program, input ast.Value) (why string) {
	defer func() {
		if r := recover(); r != nil {
			why = fmt.Sprintf("the machine stops: %v", r)
		}
	}()
	deadline := time.Now().Add(e.timeout)
	m := p.Machine()
	defer m.Close()
	got, err := decision(m.Eval(ctx, deadline, machine.FromAST(input)))
	if err != nil {
		return ""
	}
	want, err := e.eval(ctx, ast.NewTerm(input), deadline, nil)
	switch {
	case errors.Is(err, ErrBudget):
		return ""
	case err != nil:
		return fmt.Sprintf("the machine answers where OPA does not: %v", err)
	case want.Compare(got.AST()) != 0:
		return fmt.Sprintf("the machine answers %v where OPA answers %v", got.AST(), want)
	}
	return ""
}

// decision is the one result of the entry.
func decision(results []machine.Value, err error) (machine.Value, error) {
	if err != nil {
		return machine.Value{}, err
	}
	if len(results) != 1 {
		return machine.Value{}, ErrUndefined
	}
	v := results[0].Field("result")
	if v.Kind() == machine.Undefined {
		return v, ErrUndefined
	}
	return v, nil
}

// execute puts q to the machine. What would be a panic is an error.
func (e *Engine) execute(ctx context.Context, p *machine.Program, q *policy.Question, deadline time.Time) (a policy.Answer, err error) {
	defer func() {
		if r := recover(); r != nil {
			a, err = policy.Answer{}, fmt.Errorf("machine stopped: %v", r)
		}
	}()
	m := p.Machine()
	defer m.Close()
	v, err := decision(m.Eval(ctx, deadline, e.document(m.Arena(), q, e.caller(q))))
	if err != nil {
		return policy.Answer{}, err
	}
	a, err = plainAnswer(&v)
	a.Revision = e.revision
	return a, err
}

// sample asks OPA again, beside the request, what the machine has just answered, one
// time in so many. While one is being asked, others are not. The input is made now:
// what the question points to may change when the request goes on.
func (e *Engine) sample(q *policy.Question, got policy.Answer) {
	t := e.twin
	if t.asked.Add(1)%t.every != 0 || !t.busy.CompareAndSwap(false, true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		t.busy.Store(false)
		return
	}
	input, got := ast.NewTerm(e.input(q)), apart(got)
	t.running.Go(func() {
		defer t.busy.Store(false)
		v, err := e.eval(context.Background(), input, time.Now().Add(e.timeout), nil)
		if errors.Is(err, ErrBudget) {
			return
		}
		want := policy.Answer{}
		if err == nil {
			want, err = answer(v)
		}
		if want.Revision = e.revision; err != nil || !same(got, want) {
			e.distrust(fmt.Sprintf("policy %s: the machine answered %s %q where OPA answers %s %q (%v); OPA answers from now on", e.revision, got.Result, got.Reasons, want.Result, want.Reasons, err))
		}
	})
}

// distrust has OPA answer from now on, forgets what the machine answered, and
// raises the alarm.
func (e *Engine) distrust(what string) {
	if e.twin.program.Swap(nil) == nil {
		return
	}
	e.answers.forget()
	if e.twin.alarm != nil {
		e.twin.alarm(what)
	}
}

func same(a, b policy.Answer) bool {
	return a.Result == b.Result && slices.Equal(a.Reasons, b.Reasons) && fmt.Sprint(a.Obligations) == fmt.Sprint(b.Obligations)
}

// samples are questions of each shape that catalogues give, about principals of each kind
// that the grants name, one of which has none.
func (e *Engine) samples() []ast.Value {
	whole := *e
	whole.reads = readsAll
	whole.callers = newMemory[*caller]()
	var inputs []ast.Value
	for _, agent := range append(some(e.grants.agents), "no such agent") {
		for _, human := range append(some(e.grants.humans), "no such human", "") {
			for _, q := range sampleQuestions(agent, human, e.grants.agents[agent]) {
				inputs = append(inputs, whole.input(q))
			}
		}
	}
	return inputs[:min(len(inputs), maxInputs)]
}

// some returns up to four names, in order.
func some(all map[string]*principal) []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names[:min(len(names), 4)]
}

// collector takes the inputs that a policy's own tests put in.
type collector struct {
	mu     sync.Mutex
	seen   map[string]bool
	inputs []ast.Value
}

// Enabled implements topdown.QueryTracer.
func (*collector) Enabled() bool { return true }

// Config implements topdown.QueryTracer.
func (*collector) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements topdown.QueryTracer.
func (c *collector) TraceEvent(e topdown.Event) {
	r, ok := e.Node.(*ast.Rule)
	input := e.Input()
	if !ok || e.Op != topdown.EnterOp || input == nil || r.Head.Name != "decision" && r.Head.Ref().String() != "decision" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := input.String(); len(c.inputs) < maxInputs && !c.seen[text] {
		c.seen[text] = true
		c.inputs = append(c.inputs, input.Value)
	}
}

// testInputs runs the policy's tests for the inputs that they put in. How the tests
// end does not matter here.
func testInputs(ctx context.Context, o *Options) []ast.Value {
	src, err := read(o.FS, true)
	if err != nil || len(src.faults) > 0 {
		return nil
	}
	store := inmem.NewFromObject(src.data)
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil
	}
	c := &collector{seen: map[string]bool{}}
	results, err := tester.NewRunner().SetStore(store).SetModules(src.modules).SetTimeout(checkTime).SetCoverageQueryTracer(c).RunTests(ctx, txn)
	if err != nil {
		return nil
	}
	for range results { // until all have ended
	}
	return c.inputs
}
