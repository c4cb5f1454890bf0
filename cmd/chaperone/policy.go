package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/rego"
)

func (a *app) policyVerbs() *cobra.Command {
	return group("policy", "Write, test, ask and stage the policy", a.policyCheck(), a.policyTest(), a.policyEval(), a.policyReplay(),
		a.policyDiff(), a.policyBuild(), a.policyPromote(), a.policyRollback(), a.policyRevisions(), a.policySuggest())
}

// names is the catalogue as a policy's check looks at it.
type names struct{ catalogue *action.Catalogue }

// Services implements [opa.Names].
func (n names) Services() []string {
	var out []string
	for _, s := range n.catalogue.Services() {
		out = append(out, s.Name)
	}
	return out
}

// Actions implements [opa.Names].
func (n names) Actions(service string) []opa.Name {
	s := n.catalogue.Service(service)
	if s == nil {
		return nil
	}
	var out []opa.Name
	for _, k := range s.Kinds() {
		out = append(out, opa.Name(k))
	}
	return out
}

// candidate reads a policy that was named on the command line, or else the one of the
// configuration.
func candidate(s *settings.Settings, path string) (fs.FS, error) {
	if path == "" {
		return policyFiles(s)
	}
	other := *s
	other.Policy.Path = path
	return policyFiles(&other)
}

func (a *app) policyCheck() *cobra.Command {
	var path string
	var strict bool
	c := &cobra.Command{
		Use: "check", Short: "Find everything that is wrong with the policy", Args: noArguments,
		Long: `Find everything that is wrong with the policy: syntax and types, names of actions
and resources that no catalogue has, grants that can never take effect, conditions
that an absent value turns into an allow, and, as warnings, what makes it slow.`,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			files, err := candidate(s, path)
			if err != nil {
				return err
			}
			catalogue, err := loadCatalogue(s)
			if err != nil {
				return err
			}
			faults, err := opa.Check(opa.CheckOptions{FS: files, Schema: rego.InputSchema, Names: names{catalogue}})
			if err != nil {
				return err
			}
			return a.printFaults(faults, strict)
		},
	}
	c.Flags().StringVar(&path, "policy", "", "check the policy at `PATH` instead of the configuration's")
	c.Flags().BoolVar(&strict, "strict", false, "fail on warnings too")
	return c
}

// printFaults prints what a check found, and fails where there is more than warnings.
func (a *app) printFaults(faults opa.Faults, strict bool) error {
	errs := faults.Errors()
	if faults == nil {
		faults = opa.Faults{}
	}
	warnings := len(faults) - len(errs)
	err := a.print(faults, func(w io.Writer) {
		for _, f := range faults {
			fmt.Fprintln(a.stderr, f.Snippet())
		}
		if len(errs) == 0 {
			fmt.Fprintln(w, "the policy is sound"+map[bool]string{true: ", with " + count(warnings, "warning")}[warnings > 0])
		}
	})
	switch {
	case err != nil:
		return err
	case len(errs) > 0:
		return problem.Failure(fmt.Errorf("the policy has %s", count(len(errs), "fault")), "a proxy that runs keeps the last good policy until they are mended")
	case strict && warnings > 0:
		return problem.Failure(fmt.Errorf("the policy has %s", count(warnings, "warning")), "--strict fails on them; each names its remedy")
	}
	return nil
}

func (a *app) policyTest() *cobra.Command {
	var least float64
	var path string
	c := &cobra.Command{
		Use: "test", Short: "Run the policy's own tests: *_test.rego and cases/*.yaml", Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			files, err := candidate(s, path)
			if err != nil {
				return err
			}
			report, err := testPolicy(c.Context(), s, files)
			if err != nil {
				return err
			}
			failed := report.Failed()
			if err := a.print(report, func(w io.Writer) { describeTests(w, &report, failed) }); err != nil {
				return err
			}
			if failed > 0 {
				return problem.Failure(fmt.Errorf("%d of %d policy tests failed", failed, len(report.Results)), "`chaperone policy eval` explains one decision")
			}
			if report.Coverage < least {
				return problem.Failure(fmt.Errorf("the tests cover %.1f %% of the policy", report.Coverage), fmt.Sprintf("at least %.1f %% were asked for with --coverage", least))
			}
			return nil
		},
	}
	c.Flags().Float64Var(&least, "coverage", 0, "fail below this `PERCENT` of the policy's lines")
	c.Flags().StringVar(&path, "policy", "", "test the policy at `PATH` instead of the configuration's")
	return c
}

// testPolicy runs the tests in Rego, then the tables.
func testPolicy(ctx context.Context, s *settings.Settings, files fs.FS) (opa.TestReport, error) {
	report, err := opa.Test(ctx, files)
	if err != nil {
		return report, err
	}
	cases, err := opa.Cases(files)
	if err != nil || len(cases) == 0 {
		return report, err
	}
	catalogue, err := loadCatalogue(s)
	if err != nil {
		return report, err
	}
	engine, err := loadEngine(files, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return report, err
	}
	defer engine.Close()
	report.Results = append(report.Results, engine.RunCases(ctx, cases, func(c *opa.Case) (*policy.Question, error) { return questionOf(catalogue, c) })...)
	return report, nil
}

// questionOf makes the question of a case.
func questionOf(catalogue *action.Catalogue, c *opa.Case) (*policy.Question, error) {
	q := asked{agent: c.Agent, owner: c.Owner, human: c.Human, labels: c.Labels, scopes: c.Scope, data: c.Body, action: c.Action, on: c.On}
	out, err := q.question(catalogue, strings.Fields(c.Do))
	if err != nil {
		return nil, err
	}
	if out.Human != nil {
		out.Human.Groups = c.Groups
	}
	if !c.Time.IsZero() {
		out.Time = c.Time.Unix()
	}
	return out, nil
}

func describeTests(w io.Writer, r *opa.TestReport, failed int) {
	for _, t := range r.Results {
		if !t.Pass {
			fmt.Fprintf(w, "FAIL %s (%s) %s\n%s", t.Name, t.Place, t.Message, t.Output)
			if t.Message != "" && t.Output == "" {
				fmt.Fprintln(w)
			}
		}
	}
	fmt.Fprintf(w, "%d of %d tests pass, %.1f %% of the policy is covered\n", len(r.Results)-failed, len(r.Results), r.Coverage)
}

// count writes a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
