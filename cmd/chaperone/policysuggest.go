package main

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/past"
	"chaperone/cmd/chaperone/problem"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
)

// suggestion is what `policy suggest` says.
type suggestion struct {
	Agent   string         `json:"agent"`
	Since   time.Time      `json:"since,omitzero"`
	Uses    int            `json:"uses"`    // allowed requests
	Unnamed int            `json:"unnamed"` // of them, those that no catalogue names: raw grants cover them
	Allow   []opa.Grant    `json:"allow"`
	Diff    string         `json:"diff"`
	Unused  []opa.Standing `json:"unused"` // granted, and not used since
}

func (a *app) policySuggest() *cobra.Command {
	var agent, since string
	c := &cobra.Command{
		Use: "suggest --agent NAME", Short: "Suggest the narrowest grants that cover what an agent really did", Args: noArguments,
		Long: `Suggest the narrowest grants that cover what an agent was allowed and did, as a diff
against today's grants.yaml that git apply takes, and list what is granted and was not
used. Look at it before you commit it: what is rare is not seen in a short time.`,
		Example: "  chaperone policy suggest --agent triage-bot --since 30d",
		RunE: func(c *cobra.Command, _ []string) error {
			if agent == "" {
				return problem.Misuse("policy suggest wants --agent", "`chaperone agent list` names them")
			}
			from, err := parseTime(since, time.Now())
			if err != nil {
				return err
			}
			s, err := a.settings()
			if err != nil {
				return err
			}
			files, err := policyFiles(s)
			if err != nil {
				return err
			}
			log, err := a.logPath()
			if err != nil {
				return err
			}
			states, err := past.Scan(c.Context(), audit.Lines(log), func() *used { return &used{from: from, agent: agent, all: map[opa.UsedBy]opa.Used{}} },
				(*used).add, func(*used, error) {})
			if err != nil {
				return err
			}
			out, err := suggest(files, agent, from, states)
			if err != nil {
				return err
			}
			return a.print(out, func(w io.Writer) { describeSuggestion(w, out) })
		},
	}
	c.Flags().StringVar(&agent, "agent", "", "`NAME` of the agent")
	c.Flags().StringVar(&since, "since", "30d", "by what it did from `TIME` on: 30d (ago), 2026-03-14")
	return c
}

// used is what one goroutine has seen of the log.
type used struct {
	from    time.Time
	agent   string
	uses    []opa.Use
	seen    map[opa.Use]bool
	count   int
	unnamed int
	all     map[opa.UsedBy]opa.Used // of all time, for the last use
}

func (u *used) add(d *past.Decision) {
	q := &d.Question
	if d.Result != policy.Allow || q.Action.Operation == action.Traded { // which takes no grant
		return
	}
	if len(q.Actions) == 0 {
		u.one(d, &q.Action, &q.Resource)
	}
	for i := range q.Actions {
		u.one(d, &q.Actions[i].Action, &q.Actions[i].Resource)
	}
}

func (u *used) one(d *past.Decision, action *policy.Action, resource *policy.Resource) {
	q := &d.Question
	use := opa.Use{Action: action.ID, Access: action.Access, Resource: resource.ID}
	recent := !d.Time.Before(u.from)
	if recent && q.Agent.ID == u.agent {
		u.count++
		if !action.Known {
			u.unnamed++
		} else if !u.seen[use] {
			if u.seen == nil {
				u.seen = map[opa.Use]bool{}
			}
			u.seen[use] = true
			u.uses = append(u.uses, use)
		}
	}
	if !action.Known {
		return
	}
	by := opa.UsedBy{Use: use, Agent: q.Agent.ID, Human: past.Name(q.Human)}
	n := u.all[by]
	if recent {
		n.Count++
	}
	if d.Time.After(n.Last) {
		n.Last = d.Time
	}
	u.all[by] = n
}

func suggest(files fs.FS, agent string, from time.Time, states []*used) (*suggestion, error) {
	out := &suggestion{Agent: agent, Since: from, Unused: []opa.Standing{}}
	all := map[opa.UsedBy]opa.Used{}
	var uses []opa.Use
	for _, u := range states {
		out.Uses, out.Unnamed, uses = out.Uses+u.count, out.Unnamed+u.unnamed, append(uses, u.uses...)
		for by, n := range u.all {
			old := all[by]
			old.Count += n.Count
			if n.Last.After(old.Last) {
				old.Last = n.Last
			}
			all[by] = old
		}
	}
	if out.Uses == 0 {
		return nil, problem.Failure(fmt.Errorf("agent %s was allowed nothing since then", agent), "see `chaperone log query --agent "+agent+"`, and choose an earlier --since")
	}
	out.Allow = opa.Suggest(uses)
	before, after, err := opa.WithAllow(files, agent, out.Allow)
	if err != nil {
		return nil, err
	}
	out.Diff = unified("chaperone/grants.yaml", before, after)
	standings, err := opa.Standings(files, all)
	for _, x := range standings {
		if x.Count == 0 && (x.Kind != "agent" || x.Who == agent) && x.Who != "*" {
			out.Unused = append(out.Unused, x)
		}
	}
	return out, err
}

func describeSuggestion(w io.Writer, s *suggestion) {
	fmt.Fprint(w, s.Diff)
	if s.Diff == "" {
		fmt.Fprintln(w, "the grants are as narrow as what was used")
	}
	fmt.Fprintf(w, "\n# agent %s was allowed %s", s.Agent, several(s.Uses, "request"))
	if s.Unnamed > 0 {
		fmt.Fprintf(w, ", %d of them by raw grants, which stay", s.Unnamed)
	}
	fmt.Fprintln(w)
	for _, x := range s.Unused {
		last := "never used"
		if !x.Last.IsZero() {
			last = "last used " + x.Last.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "# granted and not used: %s %s: %s (line %d), %s\n", x.Kind, x.Who, x.Pattern, x.Line, last)
	}
}

// unified is a unified diff of two texts that differ in one place, as git apply takes it.
func unified(name, before, after string) string {
	if before == after {
		return ""
	}
	a, b := strings.SplitAfter(before, "\n"), strings.SplitAfter(after, "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	const context = 3
	from, lead := max(0, head-context), head-max(0, head-context)
	trail := slices.DeleteFunc(slices.Clone(a[len(a)-tail:][:min(tail, context)]), func(s string) bool { return s == "" })
	removed, added := a[head:len(a)-tail], b[head:len(b)-tail]
	var out strings.Builder
	fmt.Fprintf(&out, "--- a/%s\n+++ b/%s\n@@ -%d,%d +%d,%d @@\n", name, name, from+1, lead+len(removed)+len(trail), from+1, lead+len(added)+len(trail))
	write := func(mark string, lines []string) {
		for _, l := range lines {
			out.WriteString(mark + strings.TrimSuffix(l, "\n") + "\n")
		}
	}
	write(" ", a[from:head])
	write("-", removed)
	write("+", added)
	write(" ", trail)
	return out.String()
}
