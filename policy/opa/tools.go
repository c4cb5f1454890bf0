package opa

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/lineage"

	"chaperone/policy"
)

// TestResult is how one test ended.
type TestResult struct {
	Name     string        `json:"name"`
	Place    string        `json:"place"`
	Pass     bool          `json:"pass"`
	Message  string        `json:"message,omitempty"`
	Output   string        `json:"output,omitempty"`
	Duration time.Duration `json:"duration_ns"`
}

// TestReport is how all tests ended.
type TestReport struct {
	Results  []TestResult `json:"results"`
	Coverage float64      `json:"coverage_percent"`
}

// Failed counts the tests that did not pass.
func (r *TestReport) Failed() int {
	n := 0
	for _, t := range r.Results {
		if !t.Pass {
			n++
		}
	}
	return n
}

// Test runs the policy's own tests (*_test.rego) on OPA's evaluator.
func Test(ctx context.Context, files fs.FS) (TestReport, error) {
	src, err := read(files, true)
	if err != nil {
		return TestReport{}, err
	}
	if len(src.faults) > 0 {
		return TestReport{}, src.faults
	}
	store := inmem.NewFromObject(src.data)
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return TestReport{}, err
	}
	coverage := cover.New()
	ch, err := tester.NewRunner().SetStore(store).SetModules(src.modules).CapturePrintOutput(true).SetTimeout(10*time.Second).
		SetCoverageQueryTracer(coverage).RunTests(ctx, txn)
	if err != nil {
		return TestReport{}, fmt.Errorf("running tests: %w", err)
	}
	var rep TestReport
	for r := range ch {
		x := TestResult{Name: r.Package + "." + r.Name, Pass: !r.Fail && r.Error == nil, Output: string(r.Output), Duration: r.Duration}
		if r.Location != nil {
			x.Place = fmt.Sprintf("%s:%d", r.Location.File, r.Location.Row)
		}
		if r.Error != nil {
			x.Message = r.Error.Error()
		}
		rep.Results = append(rep.Results, x)
	}
	rep.Coverage = coverage.Report(src.modules).Coverage
	return rep, nil
}

// Explanation is an answer with what led to it.
type Explanation struct {
	Answer policy.Answer
	Input  json.RawMessage
	Trace  string // the expressions that failed, as OPA prints them
	Story  string // the same in words: a line for each rule that was tried
}

// Explain answers a question, and tells which expressions failed or were noted on
// the way.
func (e *Engine) Explain(ctx context.Context, q *policy.Question) (Explanation, error) {
	all := *e
	all.reads, all.callers = readsAll, newMemory[*caller]()
	return all.explain(ctx, ast.NewTerm(all.input(q)))
}

// ExplainJSON is Explain for an input document as JSON. Where it has no grants,
// those of its agent and human are put in.
func (e *Engine) ExplainJSON(ctx context.Context, input []byte) (Explanation, error) {
	var doc map[string]any
	if err := json.Unmarshal(input, &doc); err != nil {
		return Explanation{}, fmt.Errorf("reading input: %w", err)
	}
	v, err := ast.InterfaceToValue(doc)
	if err != nil {
		return Explanation{}, fmt.Errorf("reading input: %w", err)
	}
	if _, ok := doc["grants"]; !ok {
		var q policy.Question
		q.Agent.ID = textAt(doc, "agent", "id")
		if doc["human"] != nil {
			q.Human = &policy.Human{Sub: textAt(doc, "human", "sub"), Email: textAt(doc, "human", "email")}
		}
		granted := e.grants.value(&q)
		v.(ast.Object).Insert(ast.StringTerm("grants"), granted.Term())
	}
	return e.explain(ctx, ast.NewTerm(v))
}

func textAt(doc map[string]any, object, name string) string {
	o, _ := doc[object].(map[string]any)
	s, _ := o[name].(string)
	return s
}

func (e *Engine) explain(ctx context.Context, input *ast.Term) (Explanation, error) {
	tracer := topdown.NewBufferTracer()
	v, err := e.eval(ctx, input, time.Now().Add(10*time.Second), tracer) // tracing takes its time
	var x Explanation
	if j, jerr := ast.JSON(input.Value); jerr == nil {
		x.Input, _ = json.MarshalIndent(j, "", "  ")
	}
	var trace bytes.Buffer
	topdown.PrettyTraceWithLocation(&trace, lineage.Fails(*tracer))
	x.Trace = strings.TrimSpace(trace.String())
	x.Story = tell(*tracer, input.Value)
	if err != nil {
		return x, err
	}
	x.Answer, err = answer(v)
	x.Answer.Revision = e.revision
	return x, err
}

// IsFault reports whether err is about the policy itself, and returns the faults.
func IsFault(err error) (Faults, bool) {
	var f Faults
	ok := errors.As(err, &f)
	return f, ok
}
