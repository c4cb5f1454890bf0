package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/past"
	"chaperone/cmd/chaperone/problem"
	"chaperone/policy/opa"
	"chaperone/rego"
)

func (a *app) policyReplay() *cobra.Command {
	var since, until, path, agent string
	var allow []string
	c := &cobra.Command{
		Use: "replay", Short: "Ask a policy again what the decision log says was asked, and show what flips", Args: noArguments,
		Long: `Ask a policy again what the decision log says was asked, and show which decisions
it would answer otherwise. Records hold no body, no values of the query and no header
fields: decisions that depend on those are counted apart and not compared. Exit code 3
when a decision flips that --allow-flips does not cover.`,
		Example: "  chaperone policy replay --since 7d --policy ./candidate --allow-flips agent=triage-bot,action=github:repos/*,to=deny",
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := newReplay(since, until, allow)
			if err != nil {
				return err
			}
			r.Agent = agent
			s, err := a.settings()
			if err != nil {
				return err
			}
			files, err := candidate(s, path)
			if err != nil {
				return err
			}
			log, err := a.logPath()
			if err != nil {
				return err
			}
			// What bounds an answer here are its steps: on a busy machine the time that a
			// request is given would refuse what the proxy allows.
			if r.Engine, err = opa.Load(opa.Options{FS: files, Schema: rego.InputSchema, Timeout: time.Second}); err != nil {
				return problem.Failure(fmt.Errorf("loading policy: %w", err), "mend it and run `chaperone policy check`")
			}
			defer r.Engine.Close()
			begun := time.Now()
			report, err := r.Run(c.Context(), audit.Lines(log))
			if err != nil {
				return err
			}
			if err := a.print(report, func(w io.Writer) { describeReplay(w, report, time.Since(begun)) }); err != nil {
				return err
			}
			if report.Uncovered > 0 {
				return exitCode(problem.Refused)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "", "from `TIME` on: 7d (ago), yesterday, 2026-03-14")
	f.StringVar(&until, "until", "", "before `TIME`")
	f.StringVar(&agent, "agent", "", "of agent `NAME` only")
	f.StringVar(&path, "policy", "", "the candidate at `PATH`; without it the configuration's policy as it stands now")
	f.StringArrayVar(&allow, "allow-flips", nil, "flips that are meant: `all`, or patterns of agent=, human=, action=, from=, to= with commas between; may be repeated")
	return c
}

func newReplay(since, until string, allow []string) (*past.Replay, error) {
	r := new(past.Replay)
	for _, text := range allow {
		covered, err := past.ParseAllowed(text)
		if err != nil {
			return nil, problem.Misuse("--allow-flips: "+err.Error(), "write all, or such as agent=triage-bot,action=github:issues/*,to=deny")
		}
		r.Allowed = append(r.Allowed, covered)
	}
	var err error
	now := time.Now()
	if r.Since, err = parseTime(since, now); err != nil {
		return nil, err
	}
	r.Until, err = parseTime(until, now)
	return r, err
}

func describeReplay(w io.Writer, r *past.Report, took time.Duration) {
	row(w, "policy", r.Policy)
	row(w, "decisions", fmt.Sprintf("%d, asked again in %s", r.Decisions, took.Round(time.Millisecond)))
	row(w, "same", r.Same)
	row(w, "flip", fmt.Sprintf("%d, of which %d are not covered", r.Flipped, r.Uncovered))
	if r.Before > 0 {
		row(w, "not compared", fmt.Sprintf("%d were refused before policy was asked", r.Before))
	}
	for _, why := range slices.Sorted(maps.Keys(r.Because)) {
		row(w, "not compared", fmt.Sprintf("%d depend on what records do not hold: %s", r.Because[why], why))
	}
	if r.Unread > 0 {
		row(w, "not read", fmt.Sprintf("%d lines are no records of this program: %s", r.Unread, r.Why))
	}
	if r.Failed > 0 {
		row(w, "failed", fmt.Sprintf("%d questions could not be answered, which denies them", r.Failed))
	}
	if len(r.Flips) == 0 {
		return
	}
	fmt.Fprintln(w)
	row(w, "COUNT", "FLIP", "AGENT", "HUMAN", "ACTION", "WHY", "SUCH AS")
	for _, f := range r.Flips {
		flip := fmt.Sprintf("%s → %s", f.From, f.To)
		if f.Covered {
			flip += " (meant)"
		}
		var such []string
		for _, e := range f.Examples {
			such = append(such, strings.TrimSpace(e.ID+" "+e.Resource))
		}
		row(w, f.Count, flip, f.Agent, orDash(f.Human), f.Action, f.Reason, strings.Join(such, ", "))
	}
}
