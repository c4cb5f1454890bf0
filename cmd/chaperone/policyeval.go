package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/past"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/proxy/identity"
)

// asked is the question that the flags of eval put.
type asked struct {
	agent, owner, human, data string
	labels                    map[string]string
	scopes                    []string
	action, on                string
	input, record, policy     string
	trace                     bool
}

func (a *app) policyEval() *cobra.Command {
	var q asked
	c := &cobra.Command{
		Use:   "eval (--agent A [--human H] METHOD URL | --agent A --action ACTION [--on RESOURCE] | --input FILE | --record ID)",
		Short: "Ask the policy about one request and explain the answer",
		Long: `Ask the policy about one request, without sending it. The request is named by the
catalogue as the proxy would name it, or taken from a record of the decision log.
Exit code 3 when policy says no.`,
		Example: "  chaperone policy eval --agent triage-bot --human alice@acme.com DELETE https://api.github.com/repos/acme/web",
		Args:    func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, args []string) error {
			x, err := a.explain(c.Context(), &q, args)
			if x == nil {
				return err
			}
			return a.printAnswer(x, q.trace, err)
		},
	}
	f := c.Flags()
	f.StringVar(&q.agent, "agent", "", "`NAME` of the agent")
	f.StringVar(&q.owner, "owner", "", "its owner")
	f.StringToStringVar(&q.labels, "label", nil, "a label of it, `KEY=VALUE`")
	f.StringVar(&q.human, "human", "", "`HUMAN` for whom it acts")
	f.StringArrayVar(&q.scopes, "scope", nil, "`ACTIONS[@RESOURCES]` of the session")
	f.StringVar(&q.data, "data", "", "the request's `BODY`")
	f.StringVar(&q.action, "action", "", "`ACTION` in place of a request, such as github:issues/create")
	f.StringVar(&q.on, "on", "", "`RESOURCE` of the action, such as acme/web")
	f.StringVar(&q.input, "input", "", "a whole input document in `FILE` (- for standard input) instead")
	f.StringVar(&q.record, "record", "", "the request of the decision log's record `ID` instead")
	f.StringVar(&q.policy, "policy", "", "ask the policy at `PATH` instead of the configuration's")
	f.BoolVar(&q.trace, "trace", false, "also print the input, and the expressions that failed as OPA does")
	return c
}

// explain puts the question that flags and arguments make. A nil explanation means
// that there was none to put.
func (a *app) explain(ctx context.Context, q *asked, args []string) (*opa.Explanation, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	files, err := candidate(s, q.policy)
	if err != nil {
		return nil, err
	}
	engine, err := loadEngine(files, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	if pinned := keeper(s).Pinned(); q.policy == "" && pinned != "" && pinned != engine.Revision() {
		fmt.Fprintf(a.stderr, "chaperone: note: promoted policy %s decides; this asks policy.path, and --policy %s that one\n", pinned, filepath.Join(s.State, "policy", pinned))
	}
	if q.input != "" {
		b, err := a.readInput(q.input)
		if err != nil {
			return nil, err
		}
		x, err := engine.ExplainJSON(ctx, b)
		return &x, err
	}
	question, err := a.questionFor(s, q, args, engine.Reads())
	if err != nil {
		return nil, err
	}
	x, err := engine.Explain(ctx, question)
	return &x, err
}

func (a *app) questionFor(s *settings.Settings, q *asked, args []string, reads opa.Reads) (*policy.Question, error) {
	if q.record != "" {
		return a.recorded(q.record, reads)
	}
	catalogue, err := loadCatalogue(s)
	if err != nil {
		return nil, err
	}
	return q.question(catalogue, args)
}

// recorded makes the question of a record, as far as it says.
func (a *app) recorded(id string, reads opa.Reads) (*policy.Question, error) {
	path, err := a.logPath()
	if err != nil {
		return nil, err
	}
	for x, err := range audit.Exchanges(path, audit.Filter{ID: id}) {
		if err != nil {
			return nil, err
		}
		p, err := past.Read(x.Decision.Raw)
		if err != nil {
			return nil, err
		}
		if why := p.Unknown(reads); why != "" {
			fmt.Fprintln(a.stderr, "chaperone: note: the record does not say all that was asked: "+why)
		}
		return &p.Question, nil
	}
	return nil, problem.Failure(fmt.Errorf("no record %s in %s", id, path), "the id is in the answer's Chaperone-Decision header and in `chaperone log tail --json`")
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
	out, err := q.subject(catalogue, args)
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

// subject is what is to be done: a request, or an action by its name.
func (q *asked) subject(catalogue *action.Catalogue, args []string) (*policy.Question, error) {
	if q.action == "" {
		_, out, err := classify(catalogue, args, &written{data: q.data})
		return out, err
	}
	kinds := catalogue.Find(q.action)
	if len(kinds) == 0 || len(args) > 0 {
		return nil, problem.Misuse(fmt.Sprintf("%q is no action of the catalogue, or stands beside a request", q.action), "`chaperone service show SERVICE` lists the actions")
	}
	service, operation, _ := strings.Cut(q.action, ":")
	out := &policy.Question{Phase: policy.PhaseRequest, Time: time.Now().Unix(), Action: action.Known(service, operation, kinds[0].Access)}
	out.Resource = policy.Resource{ID: q.on, Keys: action.ResourceKeys(q.on)}
	if q.on != "" {
		out.Resource.Type = kinds[0].Resource
	}
	out.Request = policy.Request{Method: http.MethodGet, Scheme: "https", Port: 443, Path: "/", BodyState: policy.BodyAbsent}
	if s := catalogue.Service(service); len(s.Hosts) > 0 {
		out.Request.Host = s.Hosts[0]
	}
	return out, nil
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
		Story       []string        `json:"story,omitzero"`
		Input       json.RawMessage `json:"input"`
	}{x.Answer.Result, x.Answer.Reasons, x.Answer.Obligations, x.Answer.Revision, lines(x.Story), x.Input}, func(w io.Writer) {
		fmt.Fprintln(w, x.Answer.Result)
		for _, reason := range x.Answer.Reasons {
			fmt.Fprintln(w, "  "+reason)
		}
		if len(x.Answer.Obligations) > 0 {
			fmt.Fprintf(w, "  obligations: %s\n", strconv.Quote(fmt.Sprint(x.Answer.Obligations)))
		}
		if x.Story != "" {
			fmt.Fprintf(w, "\nhow it came about:\n%s\n", x.Story)
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

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
