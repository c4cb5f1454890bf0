package main

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/past"
	"chaperone/cmd/chaperone/revision"
)

func (a *app) policyPromote() *cobra.Command {
	var in admin.Promotion
	c := &cobra.Command{
		Use: "promote [PATH]", Short: "Put the policy in the shadow, or the one at PATH, in force", Args: cobra.MaximumNArgs(1),
		Long: `Put a policy in force at once: the one in the shadow (policy.shadow), or the one at
PATH. It must pass its check and its tests. It is kept as a revision and decides, also
after a restart, until another is promoted; promoting the path of the configuration
(policy.path) makes the proxy follow edits there again.`,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.admin()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if in.Path, err = filepath.Abs(args[0]); err != nil {
					return err
				}
			}
			in.By = a.user()
			out, err := client.Promote(c.Context(), in)
			return a.promoted(out, err)
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "`TEXT` for the history")
	return c
}

func (a *app) policyRollback() *cobra.Command {
	var in admin.Rollback
	c := &cobra.Command{
		Use: "rollback [REVISION]", Short: "Put the revision that was in force before, or REVISION, in force again", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.admin()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				in.Revision = args[0]
			}
			in.By = a.user()
			out, err := client.Rollback(c.Context(), in)
			return a.promoted(out, err)
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "`TEXT` for the history")
	return c
}

func (a *app) promoted(out admin.Promoted, err error) error {
	if err != nil {
		return err
	}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "policy %s is in force; before it was %s\n", out.Revision, out.Was)
		if out.Pinned {
			fmt.Fprintln(w, "it decides until another is promoted; edits at policy.path take no effect")
		}
		for _, a := range out.Replicas {
			if a.Done {
				fmt.Fprintf(w, "in force on %s (%s) after %v\n", a.ID, a.Host, a.Took.Round(time.Millisecond))
			} else {
				fmt.Fprintf(w, "NOT in force on %s (%s): %s; see `chaperone doctor` there\n", a.ID, a.Host, a.Why)
			}
		}
	})
}

func (a *app) policyRevisions() *cobra.Command {
	return &cobra.Command{
		Use: "revisions", Short: "List the policies that were in force, with who put them there", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			list, err := keeper(s).History()
			if err != nil {
				return err
			}
			slices.SortStableFunc(list, func(a, b revision.Entry) int { return a.Time.Compare(b.Time) }) // those of other replicas came later
			slices.Reverse(list)
			pinned := keeper(s).Pinned()
			return a.print(list, func(w io.Writer) {
				row(w, "REVISION", "SINCE", "HOW", "BY", "FROM", "REASON")
				for _, e := range list {
					mark := ""
					if pinned == e.Revision {
						mark, pinned = " (pinned)", "" // the last time; before that it was another's turn
					}
					row(w, e.Revision+mark, e.Time.Local().Format(time.DateTime), e.How, e.By, orDash(e.From), e.Reason)
				}
			})
		},
	}
}

// difference is a kind of decision that another policy, or a rule that only reports,
// would have made otherwise.
type difference struct {
	past.FlipKey
	Policy  string   `json:"policy,omitzero"` // in the shadow; empty for a report
	Count   int      `json:"count"`
	Reason  string   `json:"reason"`
	Such    []string `json:"such"`
	newest  time.Time
	reports bool
}

func (a *app) policyDiff() *cobra.Command {
	var since, policyRevision string
	c := &cobra.Command{
		Use: "diff", Short: "Show where the policy in the shadow, and rules that only report, would decide otherwise", Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			from, err := parseTime(since, time.Now())
			if err != nil {
				return err
			}
			log, err := a.logPath()
			if err != nil {
				return err
			}
			states, err := past.Scan(c.Context(), audit.Lines(log), func() map[string]*difference { return map[string]*difference{} },
				func(m map[string]*difference, d *past.Decision) {
					if d.Time.Before(from) || policyRevision != "" && (d.Shadow == nil || d.Shadow.Policy != policyRevision) {
						return
					}
					differs(m, d)
				}, func(map[string]*difference, error) {})
			if err != nil {
				return err
			}
			list := merged(states)
			return a.print(list, func(w io.Writer) { describeDiff(w, list) })
		},
	}
	c.Flags().StringVar(&since, "since", "", "from `TIME` on: 7d (ago), yesterday, 2026-03-14")
	c.Flags().StringVar(&policyRevision, "revision", "", "of the policy `REVISION` in the shadow only")
	return c
}

func differs(m map[string]*difference, d *past.Decision) {
	q := &d.Question
	k := past.FlipKey{Agent: q.Agent.ID, Human: past.Name(q.Human), Action: past.What(q), From: d.Result}
	add := func(x difference) {
		key := fmt.Sprint(x.FlipKey, x.Policy, x.reports, map[bool]string{true: x.Reason}[x.reports])
		old := m[key]
		if old == nil {
			old = &x
			m[key] = old
		}
		old.Count++
		if len(old.Such) < 3 {
			old.Such = append(old.Such, d.ID)
		}
		if d.Time.After(old.newest) {
			old.newest, old.Reason = d.Time, x.Reason
		}
	}
	if s := d.Shadow; s != nil {
		k.To = s.Result
		add(difference{FlipKey: k, Policy: s.Policy, Reason: fmt.Sprint(joined(s.Reasons))})
	}
	for _, reason := range d.Reports {
		k.To = "report"
		add(difference{FlipKey: k, Reason: reason, reports: true})
	}
}

func joined(list []string) string {
	var out strings.Builder
	for i, s := range list {
		if i > 0 {
			out.WriteString(" ")
		}
		out.WriteString(s)
	}
	return out.String()
}

func merged(states []map[string]*difference) []*difference {
	all := map[string]*difference{}
	for _, m := range states {
		for k, d := range m {
			if old := all[k]; old != nil {
				old.Count += d.Count
				continue
			}
			all[k] = d
		}
	}
	list := []*difference{}
	for _, d := range all {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *difference) int {
		return cmp.Or(b.Count-a.Count, cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}

func describeDiff(w io.Writer, list []*difference) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no difference is recorded")
		return
	}
	row(w, "COUNT", "WOULD BE", "AGENT", "HUMAN", "ACTION", "POLICY", "WHY", "SUCH AS")
	for _, d := range list {
		row(w, d.Count, fmt.Sprintf("%s → %s", d.From, d.To), d.Agent, orDash(d.Human), d.Action, orDash(d.Policy), d.Reason, d.Such[0])
	}
}
