package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

func (a *app) logVerbs() *cobra.Command {
	return group("log", "Read the decision log; no proxy need run", a.logTail(), a.logQuery(), a.logShow(), a.logVerify(), a.logIndex())
}

// selection is what the flags of tail and query say.
type selection struct {
	audit.Filter
	since, until, on string
}

// fieldHelp says of each field of the filter what to give.
var fieldHelp = map[string]string{
	"id": "of the request with this decision `ID`", "agent": "of agent `NAME`", "instance": "of instance `ID`", "owner": "of agents that `OWNER` answers for",
	"human": "for `HUMAN`, by e-mail address or subject", "session": "in session `ID`", "purpose": "delegated for `PURPOSE`",
	"action": "`ACTION` or a pattern such as github:issues/*", "service": "to `SERVICE`", "access": "`read|list|write|delete|admin|unknown`",
	"resource": "`RESOURCE` or a pattern such as acme/*", "host": "to `HOST`", "method": "with `METHOD`", "path": "`PATH` or a pattern such as /repos/*",
	"client": "from `ADDRESS`, or a pattern such as 10.1.2.3:*", "result": "`allow|deny|ask|alarm`", "policy": "decided by `REVISION`",
	"credential": "that presented credential `ID`", "handle": "that presented the handle of `FINGERPRINT`", "alarm": "that raised an alarm of `KIND`; * any",
	"status": "answered with `STATUS`, or a pattern such as 5*", "error": "that ended with `CODE`; * any", "trace": "in trace `ID`",
}

func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	for _, name := range audit.Fields() {
		f.StringVar(s.Text(name), name, "", fieldHelp[name])
	}
	f.StringVar(&s.since, "since", "", "from `TIME` on: 2h (ago), yesterday, monday, 14:30, 14 March, 2026-03-14, 2026-03-14T09:00:00Z")
	f.StringVar(&s.until, "until", "", "before `TIME`")
	f.StringVar(&s.on, "on", "", "on `DAY`: today, yesterday, monday, 14 March, 2026-03-14")
}

// filter checks the flags.
func (s *selection) filter(now time.Time) (audit.Filter, error) {
	var err1, err2, err3 error
	s.Since, err1 = parseTime(s.since, now)
	s.Until, err2 = parseTime(s.until, now)
	if s.on != "" {
		s.Since, s.Until, err3 = parseSpan(s.on, now)
		if s.since != "" || s.until != "" {
			err3 = problem.Misuse("--on excludes --since and --until", "give the one or the others")
		} else if err3 == nil && !s.Until.After(s.Since) {
			err3 = problem.Misuse(fmt.Sprintf("%q is no day", s.on), "write today, yesterday, monday, 14 March or 2026-03-14")
		}
	}
	if s.Result != "" && !slices.Contains([]string{"allow", "deny", "ask", "alarm"}, s.Result) {
		return s.Filter, problem.Misuse(fmt.Sprintf("result %q is not known", s.Result), "use allow, deny, ask or alarm")
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return s.Filter, err
	}
	if !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until) {
		return s.Filter, problem.Misuse("the time span is empty: it ends before it begins", "--until names the first moment that does not count any more")
	}
	return s.Filter, nil
}

// logSettings returns the settings of a log that exists.
func (a *app) logSettings() (*settings.Settings, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	segments, err := audit.Segments(s.Log.Path)
	if err != nil {
		return nil, fmt.Errorf("reading decision log: %w", err)
	}
	if len(segments) == 0 {
		return nil, problem.Failure(fmt.Errorf("reading decision log: there is none at %s", s.Log.Path), "it is made when `chaperone serve` first runs; --config FILE names another configuration")
	}
	a.flushLog(s)
	return s, nil
}

// flushTime is how long a running proxy is waited for that has a slow disk.
const flushTime = 5 * time.Second

// flushLog brings into the file what was decided last: by the proxy, or, where one was
// killed and none runs, by itself. What cannot be brought there is told.
func (a *app) flushLog(s *settings.Settings) {
	n, err := audit.Pending(s.Log.Path)
	if n == 0 && err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if admin.NewClient(s.Admin).Flush(ctx) == nil {
		return
	}
	if err == nil {
		err = audit.Enter(s.Log.Path)
	}
	if err != nil {
		fmt.Fprintf(a.stderr, "chaperone: note: the last decisions may be missing: %v\n", err)
	}
}

// logPath returns where the log is; it must exist.
func (a *app) logPath() (string, error) {
	s, err := a.logSettings()
	if err != nil {
		return "", err
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
