// Package opa answers policy questions with Rego, as OPA parses, compiles and
// evaluates it.
package opa

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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
const entry = "data.chaperone.decision"

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
	// Steps and Timeout bound one evaluation: 50,000 expressions, 50 ms.
	Steps   int
	Timeout time.Duration
}

// Engine is one compiled policy with its data. It is immutable and safe for
// concurrent use; it implements [policy.Engine].
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
	answers  *memory[policy.Answer] // nil: none may be remembered
	callers  *memory[caller]
	actions  *memory[*ast.Term]
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
	e := &Engine{revision: src.revision(), steps: o.Steps, timeout: o.Timeout, compiler: compiler, grants: g}
	if e.steps == 0 {
		e.steps = 50_000
	}
	if e.timeout == 0 {
		e.timeout = 50 * time.Millisecond
	}
	if err := e.prepare(src.data); err != nil {
		return nil, fmt.Errorf("preparing policy: %w", err)
	}
	return e, nil
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
	e.reads = readsOf(refs)
	if e.reads.memorable() && repeatable(e.compiler.Modules) {
		e.answers = newMemory[policy.Answer]()
	}
	e.callers, e.actions = newMemory[caller](), newMemory[*ast.Term]()
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
	if e.answers == nil {
		return e.evaluate(ctx, q)
	}
	var space [maxKeySize]byte
	k := e.reads.key(space[:0], q)
	if a, ok := e.answers.recall(k); ok {
		return apart(a), nil
	}
	a, err := e.evaluate(ctx, q)
	if err == nil {
		e.answers.keep(k, apart(a))
	}
	return a, err
}

// evaluate puts q to OPA.
func (e *Engine) evaluate(ctx context.Context, q *policy.Question) (policy.Answer, error) {
	v, err := e.eval(ctx, ast.NewTerm(e.input(q)), nil)
	if err != nil {
		return policy.Answer{}, err
	}
	a, err := answer(v)
	a.Revision = e.revision
	return a, err
}

func (e *Engine) eval(ctx context.Context, input *ast.Term, tracer topdown.QueryTracer) (ast.Value, error) {
	now := time.Now()
	cancel := &budget{ctx: ctx, left: e.steps, deadline: now.Add(e.timeout)}
	q := topdown.NewQuery(e.query).WithCompiler(e.compiler).WithStore(e.store).WithTransaction(e.txn).
		WithMetrics(metrics.NoOp()).WithTime(now).WithCancel(cancel).WithInput(input).WithStrictBuiltinErrors(true)
	if tracer != nil {
		q = q.WithQueryTracer(tracer)
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

var (
	resultKey      = ast.StringTerm("result")
	reasonsKey     = ast.StringTerm("reasons")
	obligationsKey = ast.StringTerm("obligations")
)

// answer reads {"result", "reasons", "obligations"}; the last two may be absent.
func answer(v ast.Value) (policy.Answer, error) {
	object, ok := v.(ast.Object)
	if !ok {
		return policy.Answer{}, fmt.Errorf("%w: it is no object", ErrAnswer)
	}
	var a policy.Answer
	result, ok := valueOf(object, resultKey).(ast.String)
	if !ok {
		return a, fmt.Errorf("%w: result is no string", ErrAnswer)
	}
	switch a.Result = policy.Result(result); a.Result {
	case policy.Allow, policy.Deny, policy.Ask:
	default:
		return policy.Answer{}, fmt.Errorf("%w: result is none of allow, deny, ask", ErrAnswer)
	}
	var err error
	if a.Reasons, err = reasons(valueOf(object, reasonsKey)); err != nil {
		return policy.Answer{}, err
	}
	if o := valueOf(object, obligationsKey); o != nil {
		j, err := ast.JSON(o)
		obligations, ok := j.(map[string]any)
		if err != nil || !ok {
			return policy.Answer{}, fmt.Errorf("%w: obligations is no object", ErrAnswer)
		}
		if len(obligations) > 0 {
			a.Obligations = obligations
		}
	}
	return a, nil
}

func valueOf(o ast.Object, key *ast.Term) ast.Value {
	if t := o.Get(key); t != nil {
		return t.Value
	}
	return nil
}

// reasons reads an array or set of strings, a set in its order.
func reasons(v ast.Value) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.(interface{ Foreach(func(*ast.Term)) })
	if _, object := v.(ast.Object); !ok || object {
		return nil, fmt.Errorf("%w: reasons is no list", ErrAnswer)
	}
	var out []string
	var err error
	list.Foreach(func(t *ast.Term) {
		s, ok := t.Value.(ast.String)
		if !ok {
			err = fmt.Errorf("%w: a reason is no string", ErrAnswer)
		}
		out = append(out, string(s))
	})
	return out, err
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
