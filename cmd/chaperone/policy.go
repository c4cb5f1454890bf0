package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/proxy/authority"
	"chaperone/proxy/identity"
	"chaperone/rego"
)

func (a *app) policyVerbs() *cobra.Command {
	return group("policy", "Check, test and ask the policy; no proxy need run", a.policyCheck(), a.policyTest(), a.policyEval())
}

func (a *app) policyCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Find everything that is wrong with the policy", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			files, err := policyFiles(s)
			if err != nil {
				return err
			}
			err = opa.Check(files, rego.InputSchema)
			if faults, ok := opa.IsFault(err); ok {
				if a.json {
					if err := a.print(faults, nil); err != nil {
						return err
					}
				}
				return problem.Failure(fmt.Errorf("the policy has %d faults:\n%w", len(faults), faults), "a proxy that runs keeps the last good policy until they are mended")
			}
			if err != nil {
				return err
			}
			return a.print([]opa.Fault{}, func(w io.Writer) { fmt.Fprintln(w, "the policy is sound") })
		},
	}
}

func (a *app) policyTest() *cobra.Command {
	var least float64
	c := &cobra.Command{
		Use: "test", Short: "Run the policy's own tests (*_test.rego)", Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			files, err := policyFiles(s)
			if err != nil {
				return err
			}
			report, err := opa.Test(c.Context(), files)
			if err != nil {
				return err
			}
			failed := 0
			for _, r := range report.Results {
				if !r.Pass {
					failed++
				}
			}
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
	return c
}

func describeTests(w io.Writer, r *opa.TestReport, failed int) {
	for _, t := range r.Results {
		if !t.Pass {
			fmt.Fprintf(w, "FAIL %s (%s) %s\n%s", t.Name, t.Place, t.Message, t.Output)
		}
	}
	fmt.Fprintf(w, "%d of %d tests pass, %.1f %% of the policy is covered\n", len(r.Results)-failed, len(r.Results), r.Coverage)
}

// asked is the question that the flags of eval put.
type asked struct {
	agent, owner, human, data string
	labels                    map[string]string
	scopes                    []string
	input                     string
	trace                     bool
}

func (a *app) policyEval() *cobra.Command {
	var q asked
	c := &cobra.Command{
		Use:   "eval (--agent A [--human H] METHOD URL | --input FILE)",
		Short: "Ask the policy about one request and explain the answer",
		Long: `Ask the policy about one request, without sending it. The request is named by the
catalogue as the proxy would name it. Exit code 3 when policy says no.`,
		Example: "  chaperone policy eval --agent triage-bot --human alice@acme.com DELETE https://api.github.com/repos/acme/web",
		Args:    func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			engine, err := loadPolicy(s, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			var x opa.Explanation
			if q.input != "" {
				b, err := a.readInput(q.input)
				if err != nil {
					return err
				}
				x, err = engine.ExplainJSON(c.Context(), b)
				return a.printAnswer(&x, q.trace, err)
			}
			catalogue, err := loadCatalogue(s)
			if err != nil {
				return err
			}
			question, err := q.question(catalogue, args)
			if err != nil {
				return err
			}
			x, err = engine.Explain(c.Context(), question)
			return a.printAnswer(&x, q.trace, err)
		},
	}
	f := c.Flags()
	f.StringVar(&q.agent, "agent", "", "`NAME` of the agent")
	f.StringVar(&q.owner, "owner", "", "its owner")
	f.StringToStringVar(&q.labels, "label", nil, "a label of it, `KEY=VALUE`")
	f.StringVar(&q.human, "human", "", "`HUMAN` for whom it acts")
	f.StringArrayVar(&q.scopes, "scope", nil, "`ACTIONS[@RESOURCES]` of the session")
	f.StringVar(&q.data, "data", "", "the request's `BODY`")
	f.StringVar(&q.input, "input", "", "a whole input document in `FILE` (- for standard input) instead")
	f.BoolVar(&q.trace, "trace", false, "also print the expressions that failed")
	return c
}

func (a *app) readInput(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.stdin)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading input: %w", err)
	}
	return b, nil
}

// question makes of the flags what the proxy would make of the request.
func (q *asked) question(catalogue *action.Catalogue, args []string) (*policy.Question, error) {
	d := delegation{Spec: identity.Spec{Agent: q.agent}, scopes: q.scopes}
	spec, err := d.spec()
	if err != nil {
		return nil, err
	}
	out, err := classify(catalogue, args, q.data)
	if err != nil {
		return nil, err
	}
	now := time.Now().Unix()
	out.Agent = policy.Agent{ID: q.agent, Owner: q.owner, Labels: q.labels}
	out.Instance = "i_eval"
	out.Session = &policy.Session{ID: "s_eval", Scope: spec.Scope, Created: now, Expires: now + 3600, Chain: []policy.Link{{Session: "s_eval", Agent: q.agent, Instance: "i_eval"}}}
	if q.human != "" {
		iss, sub, email, err := identity.ParseHuman(q.human)
		if err != nil {
			return nil, err
		}
		out.Human = &policy.Human{Iss: iss, Sub: sub, Email: email}
	}
	return out, nil
}

// classify names a request that is written as METHOD URL, or URL alone for GET.
func classify(catalogue *action.Catalogue, args []string, data string) (*policy.Question, error) {
	const hint = "write METHOD URL, such as GET https://api.github.com/user"
	if len(args) == 1 {
		args = []string{http.MethodGet, args[0]}
	}
	if len(args) != 2 {
		return nil, problem.Misuse("a request is METHOD URL", hint)
	}
	u, err := url.Parse(args[1])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, problem.Misuse(fmt.Sprintf("%q is not a URL that could be requested", args[1]), hint)
	}
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	host, port, err := authority.Parse(u.Host, port)
	if err != nil {
		return nil, problem.Misuse(err.Error(), hint)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	r := &action.Request{Method: strings.ToUpper(args[0]), Host: host, Path: path, RawQuery: u.RawQuery, Header: http.Header{}, BodyState: policy.BodyAbsent}
	q := &policy.Question{Phase: policy.PhaseRequest, Time: time.Now().Unix(), Request: policy.Request{
		Method: r.Method, Scheme: u.Scheme, Host: host, Port: port, Path: path, RawQuery: u.RawQuery, BodyState: policy.BodyAbsent,
	}}
	if data != "" {
		r.Body = []byte(data)
		r.Header.Set("Content-Type", contentType(data))
		q.Request.Body, r.BodyState = action.ParseBody(r.Header, r.Body)
		q.Request.BodyState = r.BodyState
	}
	q.Request.Header = r.Header
	if err := catalogue.Classify(r, q); err != nil {
		return nil, err
	}
	return q, nil
}

// contentType guesses what a client would say of a body.
func contentType(data string) string {
	if json.Valid([]byte(data)) {
		return "application/json"
	}
	return "application/x-www-form-urlencoded"
}

// printAnswer prints what policy said, and makes exit code 3 of anything but allow.
func (a *app) printAnswer(x *opa.Explanation, trace bool, err error) error {
	if err != nil {
		return problem.Failure(fmt.Errorf("asking the policy: %w", err), "the proxy denies such a request; `chaperone policy check` finds faults")
	}
	perr := a.print(struct {
		Result      policy.Result   `json:"result"`
		Reasons     []string        `json:"reasons"`
		Obligations map[string]any  `json:"obligations,omitzero"`
		Policy      string          `json:"policy"`
		Input       json.RawMessage `json:"input"`
	}{x.Answer.Result, x.Answer.Reasons, x.Answer.Obligations, x.Answer.Revision, x.Input}, func(w io.Writer) {
		fmt.Fprintln(w, x.Answer.Result)
		for _, reason := range x.Answer.Reasons {
			fmt.Fprintln(w, "  "+reason)
		}
		if len(x.Answer.Obligations) > 0 {
			fmt.Fprintf(w, "  obligations: %s\n", strconv.Quote(fmt.Sprint(x.Answer.Obligations)))
		}
		if trace {
			fmt.Fprintf(w, "\ninput: %s\n\n%s\n", x.Input, x.Trace)
		}
	})
	if perr != nil {
		return perr
	}
	if x.Answer.Result != policy.Allow {
		return exitCode(problem.Refused)
	}
	return nil
}
