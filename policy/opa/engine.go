// Package opa answers policy questions with Rego, as OPA parses, checks and plans it.
// A machine of ours executes the plan; OPA's own evaluator answers where the machine
// does not, checks it, and explains.
package opa

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"chaperone/policy"
)

// entry is what every policy must define.
const (
	entry     = "data.chaperone.decision"
	entryPath = "chaperone/decision"
)

var (
	// ErrBudget is wrapped when a policy takes more steps or time than it may.
	ErrBudget = errors.New("policy exceeded its budget")
	// ErrUndefined is wrapped when a policy gives no answer.
	ErrUndefined = errors.New("policy gives no answer")
	// ErrAnswer is wrapped when an answer is not of the agreed form.
	ErrAnswer = errors.New("policy's answer is not of the agreed form")
)

// Options of [Load]; zero limits take the default beside them.
type Options struct {
	// FS holds *.rego, and *.yaml and *.json as data under the path of their folder.
	// Files that end in _test.rego and the folder schema are left out.
	FS fs.FS
	// Schema is the JSON schema of the input; nil checks no types.
	Schema []byte
	// Steps and Timeout bound one evaluation: 50,000 expressions, 10 ms.
	Steps   int
	Timeout time.Duration
	// Alarm is called, once and from another goroutine, when an answer of the machine
	// turned out to differ from OPA's. From then on OPA answers. Nil is no alarm.
	Alarm func(what string)
}

// Engine is one compiled policy with its data. It is safe for concurrent use, and the
// answer to a question never changes; it implements [policy.Engine].
type Engine struct {
	revision string
	steps    int
	timeout  time.Duration
	compiler *ast.Compiler
	query    ast.Body
	store    storage.Store
	txn      storage.Transaction // one read transaction for good: the store never changes
	grants   *grants
	reads    reads
	looks    Reads
	answers  *memory[policy.Answer] // nil: none may be remembered
	callers  *memory[*caller]
	twin     *twin
	counts   *counts
}

// counts are how many questions were asked, and how many of them were answered from
// memory.
type counts struct{ asked, recalled atomic.Uint64 }

// Counts tells how many questions the engine was asked since it was loaded, and how
// many of them it answered from memory.
func (e *Engine) Counts() (asked, recalled uint64) {
	return e.counts.asked.Load(), e.counts.recalled.Load()
}

var _ policy.Engine = (*Engine)(nil)

// Load parses and compiles a policy. The error is [Faults], with all of them, when
// the policy itself is at fault.
func Load(o Options) (*Engine, error) {
	src, err := read(o.FS, false)
	if err != nil {
		return nil, err
	}
	compiler, faults := compile(src, o.Schema)
	if len(faults) > 0 {
		return nil, faults
	}
	g, faults := parseGrants(src)
	if len(faults) > 0 {
		return nil, faults
	}
	e := &Engine{revision: src.revision(), steps: o.Steps, timeout: o.Timeout, compiler: compiler, grants: g, twin: &twin{every: sampleEvery, alarm: o.Alarm}, counts: new(counts)}
	if e.steps == 0 {
		e.steps = 50_000
	}
	if e.timeout == 0 {
		e.timeout = 10 * time.Millisecond
	}
	if err := e.prepare(src.data); err != nil {
		return nil, fmt.Errorf("preparing policy: %w", err)
	}
	e.prepareTwin(src, &o)
	return e, nil
}

// Current reports whether loading files would make nothing but another e: they are
// what e was loaded from, and the machine that answers for it is trusted.
func (e *Engine) Current(files fs.FS) bool {
	src, err := read(files, false)
	return err == nil && len(src.faults) == 0 && src.revision() == e.revision && e.twin.program.Load() != nil
}

// prepare compiles the query, finds out what it reads, and loads the data.
func (e *Engine) prepare(data map[string]any) error {
	body, err := ast.ParseBody("answer = " + entry)
	if err != nil {
		return err
	}
	if e.query, err = e.compiler.QueryCompiler().Compile(body); err != nil {
		return err
	}
	refs, err := dependencies.Base(e.compiler, e.query)
	if err != nil {
		return err
	}
	e.reads, e.looks = readsOf(refs), looksOf(refs)
	if e.reads.memorable() && repeatable(e.compiler.Modules) {
		e.answers = newMemory[policy.Answer]()
	}
	e.callers = newMemory[*caller]()
	e.store = inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(false))
	e.txn, err = e.store.NewTransaction(context.Background())
	return err
}

// Revision implements [policy.Engine]: the first 12 hexadecimal digits of a SHA-256
// over names and contents of the files.
func (e *Engine) Revision() string { return e.revision }

// ReadsBody implements [policy.Engine].
func (e *Engine) ReadsBody() bool { return e.reads.body }

// Eval implements [policy.Engine]. An answer that was given before to a question that
// differs in nothing that the policy reads is given again.
func (e *Engine) Eval(ctx context.Context, q *policy.Question) (policy.Answer, error) {
	e.counts.asked.Add(1)
	if e.answers == nil {
		return e.evaluate(ctx, q)
	}
	var space [maxKeySize]byte
	k := e.reads.key(space[:0], q)
	if a, ok := e.answers.recall(k); ok {
		e.counts.recalled.Add(1)
		return apart(a), nil
	}
	trusted := e.twin.program.Load()
	a, err := e.evaluate(ctx, q)
	if err == nil {
		e.answers.keep(k, apart(a))
	}
	if trusted != e.twin.program.Load() { // the machine lost its trust meanwhile
		e.answers.forget()
	}
	return a, err
}

// evaluate puts q to the machine, and to OPA where there is none or it gives up.
func (e *Engine) evaluate(ctx context.Context, q *policy.Question) (policy.Answer, error) {
	deadline := time.Now().Add(e.timeout)
	if p := e.twin.program.Load(); p != nil {
		if a, err := e.execute(ctx, p, q, deadline); err == nil {
			e.sample(q, a)
			return a, nil
		}
	}
	return e.interpret(ctx, q, deadline)
}

// interpret puts q to OPA's evaluator.
func (e *Engine) interpret(ctx context.Context, q *policy.Question, deadline time.Time) (policy.Answer, error) {
	v, err := e.eval(ctx, ast.NewTerm(e.input(q)), deadline, nil)
	if err != nil {
		return policy.Answer{}, err
	}
	a, err := answer(v)
	a.Revision = e.revision
	return a, err
}

func (e *Engine) eval(ctx context.Context, input *ast.Term, deadline time.Time, tracer topdown.QueryTracer) (ast.Value, error) {
	cancel := &budget{ctx: ctx, left: e.steps, deadline: deadline}
	q := topdown.NewQuery(e.query).WithCompiler(e.compiler).WithStore(e.store).WithTransaction(e.txn).
		WithMetrics(metrics.NoOp()).WithTime(time.Now()).WithCancel(cancel).WithInput(input).WithStrictBuiltinErrors(true)
	if tracer != nil {
		q = q.WithQueryTracer(tracer).WithIndexing(false) // so that rules which the index leaves out tell why
	}
	var out ast.Value
	err := q.Iter(ctx, func(r topdown.QueryResult) error {
		out = r[ast.Var("answer")].Value
		return nil
	})
	switch {
	case topdown.IsCancel(err):
		return nil, fmt.Errorf("%w: %d steps or %v", ErrBudget, e.steps, e.timeout)
	case err != nil:
		return nil, fmt.Errorf("evaluating: %w", err)
	case out == nil:
		return nil, ErrUndefined
	}
	return out, nil
}

// budget stops an evaluation after so many expressions, at a time, or when the
// request is gone. It needs no goroutine and no timer.
type budget struct {
	ctx      context.Context
	left     int
	deadline time.Time
	over     bool
}

// Cancel implements topdown.Cancel.
func (b *budget) Cancel() { b.over = true }

// Cancelled implements topdown.Cancel; OPA asks before each expression.
func (b *budget) Cancelled() bool {
	b.left--
	if b.left < 0 || b.left&63 == 0 && (time.Now().After(b.deadline) || b.ctx.Err() != nil) {
		b.over = true
	}
	return b.over
}

// revision is over everything that was read.
func (s *sources) revision() string {
	h := sha256.New()
	for _, name := range s.names {
		fmt.Fprintf(h, "%s\n%d\n", name, len(s.files[name]))
		h.Write(s.files[name])
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
