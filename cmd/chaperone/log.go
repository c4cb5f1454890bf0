package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/problem"
)

func (a *app) logVerbs() *cobra.Command {
	return group("log", "Read the decision log; no proxy need run", a.logTail(), a.logQuery(), a.logShow(), a.logVerify())
}

// selection is what the flags of tail and query say.
type selection struct {
	audit.Filter
	since, until string
}

func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.Agent, "agent", "", "of agent `NAME`")
	f.StringVar(&s.Instance, "instance", "", "of instance `ID`")
	f.StringVar(&s.Human, "human", "", "for `HUMAN`, by e-mail address or subject")
	f.StringVar(&s.Session, "session", "", "in session `ID`")
	f.StringVar(&s.Service, "service", "", "to `SERVICE`")
	f.StringVar(&s.Action, "action", "", "`ACTION` or a pattern such as github:issues/*")
	f.StringVar(&s.Resource, "resource", "", "`RESOURCE` or a pattern such as acme/*")
	f.StringVar(&s.Result, "result", "", "`allow|deny|ask|alarm`")
	f.StringVar(&s.since, "since", "", "from `TIME` on: 2h (ago), 2026-03-14, or 2026-03-14T09:00:00Z")
	f.StringVar(&s.until, "until", "", "before `TIME`")
}

// filter checks the flags.
func (s *selection) filter(now time.Time) (audit.Filter, error) {
	var err1, err2 error
	s.Since, err1 = parseTime(s.since, now)
	s.Until, err2 = parseTime(s.until, now)
	if s.Result != "" && !slices.Contains([]string{"allow", "deny", "ask", "alarm"}, s.Result) {
		return s.Filter, problem.Misuse(fmt.Sprintf("result %q is not known", s.Result), "use allow, deny, ask or alarm")
	}
	return s.Filter, errors.Join(err1, err2)
}

// parseTime reads a moment, a local day, or how long ago; nothing is the zero time.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d.Abs()), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, problem.Misuse(fmt.Sprintf("time %q is not understood", text), "write 2h (ago), 2026-03-14, or 2026-03-14T09:00:00Z")
}

// logPath returns where the log is; it must exist.
func (a *app) logPath() (string, error) {
	s, err := a.settings()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(s.Log.Path); errors.Is(err, fs.ErrNotExist) {
		return "", problem.Failure(fmt.Errorf("reading decision log: there is none at %s", s.Log.Path), "it is made when `chaperone serve` first runs; --config FILE names another configuration")
	}
	return s.Log.Path, nil
}

func (a *app) logTail() *cobra.Command {
	var s selection
	var follow bool
	var lines int
	c := &cobra.Command{
		Use: "tail", Short: "Print the last requests, one line each", Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := s.filter(time.Now())
			if err != nil {
				return err
			}
			path, err := a.logPath()
			if err != nil {
				return err
			}
			var last []audit.Exchange
			for x, err := range audit.Exchanges(path, f) {
				if err != nil {
					return err
				}
				if last = append(last, x); len(last) > lines {
					last = last[1:]
				}
			}
			if err := a.printExchanges(c.Context(), each(last)); err != nil || !follow {
				return err
			}
			return a.printExchanges(c.Context(), audit.Follow(c.Context(), path, f))
		},
	}
	s.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	c.Flags().IntVarP(&lines, "lines", "n", 10, "how many")
	return c
}

func each(list []audit.Exchange) iter.Seq2[audit.Exchange, error] {
	return func(yield func(audit.Exchange, error) bool) {
		for _, x := range list {
			if !yield(x, nil) {
				return
			}
		}
	}
}

// printExchanges prints a line for each, or with --json the log's own lines.
func (a *app) printExchanges(ctx context.Context, list iter.Seq2[audit.Exchange, error]) error {
	colour := false
	if f, ok := a.stdout.(*os.File); ok {
		info, err := f.Stat()
		colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if v, ok := a.variable("NO_COLOR"); ok && v != "" {
		colour = false
	}
	for x, err := range list {
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && a.json {
			err = a.printRaw(&x)
		} else if err == nil {
			_, err = fmt.Fprintln(a.stdout, x.Line(0, colour))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printRaw(x *audit.Exchange) error {
	for _, e := range []*audit.Event{x.Decision, x.Outcome} {
		if e == nil {
			continue
		}
		if _, err := fmt.Fprintf(a.stdout, "%s\n", e.Raw); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) logQuery() *cobra.Command {
	var s selection
	c := &cobra.Command{
		Use: "query", Short: "Print all requests that match, one line each", Args: noArguments,
		Example: "  chaperone log query --action 'github:issues/*' --resource acme/web --since 2026-03-14 --until 2026-03-15",
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := s.filter(time.Now())
			if err != nil {
				return err
			}
			path, err := a.logPath()
			if err != nil {
				return err
			}
			return a.printExchanges(c.Context(), audit.Exchanges(path, f))
		},
	}
	s.flags(c)
	return c
}

func (a *app) logShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show the whole record of one request", Args: arguments("ID"),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := a.logPath()
			if err != nil {
				return err
			}
			for x, err := range audit.Exchanges(path, audit.Filter{ID: args[0]}) {
				if err != nil {
					return err
				}
				return a.showExchange(&x)
			}
			return problem.Failure(fmt.Errorf("no record %s in %s", args[0], path), "the id is in the answer's Chaperone-Decision header and in `chaperone log tail --json`")
		},
	}
}

func (a *app) showExchange(x *audit.Exchange) error {
	if a.json {
		return a.printRaw(x)
	}
	fmt.Fprintln(a.stdout, x.Line(0, false))
	for _, e := range []*audit.Event{x.Decision, x.Outcome} {
		if e == nil {
			fmt.Fprintln(a.stdout, "\nno outcome yet: it goes on, or the proxy ended first")
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(e.Raw, &fields); err != nil {
			return fmt.Errorf("reading record: %w", err)
		}
		b, err := json.MarshalIndent(fields, "", "  ")
		if err != nil {
			return fmt.Errorf("printing record: %w", err)
		}
		fmt.Fprintf(a.stdout, "\n%s\n", b)
	}
	return nil
}

func (a *app) logVerify() *cobra.Command {
	var head string
	c := &cobra.Command{
		Use: "verify", Short: "Check that no line was changed, removed, inserted or moved", Args: noArguments,
		Long: `Follow the hash chain through all segments. Lines cut off at the very end are found
only against a head that was noted down elsewhere: pass it with --head.`,
		RunE: func(*cobra.Command, []string) error {
			path, err := a.logPath()
			if err != nil {
				return err
			}
			report, err := audit.Verify(path, head)
			if err != nil {
				return err
			}
			if err := a.print(report, func(w io.Writer) { describeReport(w, &report) }); err != nil {
				return err
			}
			if report.Bad != nil {
				return problem.Failure(fmt.Errorf("the log was altered: %w", report.Bad), "keep the file as it is and compare it with a copy; what stands before that line is sound")
			}
			return nil
		},
	}
	c.Flags().StringVar(&head, "head", "", "`HASH` of the last line, as an earlier verify printed it")
	return c
}

func describeReport(w io.Writer, r *audit.Report) {
	row(w, "lines", strconv.FormatUint(r.Lines, 10)+" in "+strconv.Itoa(r.Segments)+" files")
	row(w, "numbers", fmt.Sprintf("%d to %d", r.First, r.Last))
	row(w, "head", r.Head)
	if r.Torn {
		row(w, "note", "the last line is half-written, as a power cut leaves it")
	}
	row(w, "chain", strings.TrimSpace(map[bool]string{true: "holds", false: "is broken"}[r.Bad == nil]))
}
