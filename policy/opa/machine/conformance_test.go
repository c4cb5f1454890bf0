package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/test/cases"
)

// planner takes the plan of a query out of OPA's rego package.
type planner struct{ plan *ir.Policy }

func (*planner) IsTarget(name string) bool { return name == "machine" }

func (p *planner) PrepareForEval(_ context.Context, plan *ir.Policy, _ ...rego.PrepareOption) (rego.TargetPluginEval, error) {
	p.plan = plan
	return nil, nil
}

// differences reads the listed cases: name, a tab, why.
func differences(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	listed := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, why, ok := strings.Cut(s.Text(), "\t"); ok {
			listed[name] = why
		} else if s.Text() != "" && !strings.HasPrefix(s.Text(), "#") {
			t.Errorf("differences.txt gives no reason for %s", s.Text())
		}
	}
	return listed
}

// TestConformance runs OPA's own suite. What comes out otherwise is listed with its reason,
// and nothing else is.
func TestConformance(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	set, err := cases.Load(filepath.Join(strings.TrimSpace(string(dir)), "v1", "test", "cases", "testdata", "v1"))
	if err != nil || len(set.Cases) < 2000 {
		t.Fatal(len(set.Cases), err)
	}
	p := &planner{}
	rego.RegisterPlugin("machine", p)
	listed := differences(t)
	same := 0
	for _, tc := range set.Sorted().Cases {
		for k, v := range tc.Env {
			t.Setenv(k, v)
		}
		difference := conform(t.Context(), p, &tc)
		why, known := listed[tc.Note]
		switch {
		case difference == "" && known:
			t.Errorf("%s conforms, and is listed (%s)", tc.Note, why)
		case difference != "" && !known:
			t.Errorf("%s\t%s", tc.Note, strings.ReplaceAll(difference, "\n", " "))
		case difference == "":
			same++
		}
	}
	t.Logf("%d of %d cases conform", same, len(set.Cases))
}

// conform returns how the machine differs from what a case expects.
func conform(ctx context.Context, p *planner, tc *cases.TestCase) string {
	wantError := tc.WantError != nil || tc.WantErrorCode != nil
	var modules []func(*rego.Rego)
	for i, m := range tc.Modules {
		modules = append(modules, rego.Module(fmt.Sprintf("m%d.rego", i), m))
	}
	if _, err := rego.New(append(modules, rego.Query(tc.Query), rego.Target("machine"), rego.SetRegoVersion(ast.RegoV1))...).PrepareForEval(ctx); err != nil {
		if wantError {
			return ""
		}
		return "planning: " + err.Error()
	}
	data, input := map[string]any{}, Value{}
	if tc.Data != nil {
		data = *tc.Data
	}
	base, err := FromJSON(data)
	if err != nil {
		return err.Error()
	}
	switch {
	case tc.InputTerm != nil:
		input = FromAST(ast.MustParseTerm(*tc.InputTerm).Value)
	case tc.Input != nil:
		if input, err = FromJSON(*tc.Input); err != nil {
			return err.Error()
		}
	}
	program, err := New(Options{Plan: p.plan, Entry: "eval", Data: base, Strict: tc.StrictError})
	if err != nil {
		return err.Error()
	}
	m := program.Machine()
	_, _ = m.Eval(ctx, time.Now().Add(5*time.Second), input)
	m.Close()
	m = program.Machine() // the same one, as a rule: what it went through must not show
	defer m.Close()
	results, err := m.Eval(ctx, time.Now().Add(5*time.Second), input)
	switch {
	case errors.Is(err, ErrBudget):
		return err.Error()
	case wantError && err == nil:
		return fmt.Sprintf("no error, want %v %v", deref(tc.WantError), deref(tc.WantErrorCode))
	case wantError:
		return ""
	case err != nil:
		return err.Error()
	case tc.WantDefined != nil && *tc.WantDefined != (len(results) > 0):
		return fmt.Sprintf("defined: %v", len(results) > 0)
	case tc.WantResult == nil:
		return ""
	}
	if difference := compareResults(tc, *tc.WantResult, results); difference == "" {
		return ""
	}
	// Some cases fail on OPA too where a library of its is newer than its own go.mod says.
	stock, err := rego.New(append(modules, rego.Query(tc.Query), rego.SetRegoVersion(ast.RegoV1))...).Eval(ctx)
	if err != nil {
		return err.Error()
	}
	var want []map[string]any
	for _, r := range stock {
		want = append(want, r.Bindings)
	}
	return compareResults(tc, want, results)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// compareResults compares as OPA's own runner does: as JSON, without generated names.
func compareResults(tc *cases.TestCase, expected []map[string]any, results []Value) string {
	got, want := ast.NewSet(), ast.NewSet()
	for i := range results {
		bindings := ast.NewObject()
		results[i].AST().(ast.Object).Foreach(func(k, v *ast.Term) {
			if name := string(k.Value.(ast.String)); strings.HasPrefix(name, "^") || strings.HasPrefix(name, "_") {
				return
			}
			j, err := ast.JSON(v.Value)
			if err != nil {
				return
			}
			bindings.Insert(k, ast.NewTerm(ast.MustInterfaceToValue(arranged(tc, j))))
		})
		got.Add(ast.NewTerm(bindings))
	}
	for _, w := range expected {
		o := map[string]any{}
		for k, v := range w {
			o[k] = arranged(tc, v)
		}
		want.Add(ast.NewTerm(ast.MustInterfaceToValue(o)))
	}
	if got.Compare(want) != 0 {
		return fmt.Sprintf("got %v, want %v", got, want)
	}
	return ""
}

func arranged(tc *cases.TestCase, v any) any {
	if list, ok := v.([]any); ok && tc.SortBindings {
		list = slices.Clone(list)
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return list
	}
	return v
}
