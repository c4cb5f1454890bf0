package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"chaperone/audit"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/peers"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

func (a *app) logVerbs() *cobra.Command {
	return group("log", "Read the decision log; no proxy need run", a.logTail(), a.logQuery(), a.logShow(), a.logVerify(), a.logProve(), a.logKey(), a.logIndex())
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
	s.Method = strings.ToUpper(s.Method)
	if s.Access != "" && !slices.Contains([]string{"read", "list", "write", "delete", "admin", "unknown", "*"}, s.Access) {
		return s.Filter, problem.Misuse(fmt.Sprintf("access %q is not known", s.Access), "use read, list, write, delete, admin or unknown")
	}
	if digits := strings.TrimSuffix(s.Status, "*"); strings.Trim(digits, "0123456789") != "" || len(digits) > 3 {
		return s.Filter, problem.Misuse(fmt.Sprintf("status %q is none", s.Status), "use a number such as 404, or 4*")
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
	var r whose
	var follow, wide, ids bool
	var lines int
	c := &cobra.Command{
		Use: "tail", Short: "Print the last requests, one line each", Args: noArguments,
		Long: `Print the last requests, one line each, and with -f those that come, as they end: of all
replicas that share the store. Lines are cut to the terminal unless --wide is given or
they go elsewhere; NO_COLOR leaves colours out. --json prints the log's own lines.`,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := s.filter(time.Now())
			if err != nil {
				return err
			}
			if lines < 0 || lines > peers.MaxLines {
				return problem.Misuse(fmt.Sprintf("-n %d is not between 0 and %d", lines, peers.MaxLines), "-n 0 prints only what comes; `chaperone log query` prints all")
			}
			l, err := a.logs(c.Context(), &r)
			if err != nil {
				return err
			}
			q := peers.Wanted(&f)
			q.Lines = lines
			layout := a.layout(wide)
			layout.IDs = ids
			return a.tail(c.Context(), l, q, follow, layout)
		},
	}
	s.flags(c)
	r.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	c.Flags().IntVarP(&lines, "lines", "n", 10, "how many")
	c.Flags().BoolVar(&wide, "wide", false, "cut no line")
	c.Flags().BoolVar(&ids, "ids", false, "with the id of each, for log show")
	return c
}

func (a *app) tail(ctx context.Context, l *logs, q peers.Question, follow bool, layout audit.Layout) error {
	begun := false
	print := func(list []audit.Exchange) error {
		if !begun && len(list) > 0 {
			layout.Dates = !sameDay(list[0].Decision.Time, time.Now())
		}
		begun = true
		layout.Replica = len(l.list) > 1
		return a.printExchanges(ctx, each(list), layout)
	}
	if follow {
		return l.follow(ctx, q, print)
	}
	q.Ask = peers.Latest
	var all []audit.Exchange
	for x, err := range l.exchanges(ctx, q) {
		if err != nil {
			return err
		}
		all = append(all, x)
	}
	if err := print(all[max(len(all)-q.Lines, 0):]); err != nil {
		return err
	}
	return l.whole()
}

func sameDay(a, b time.Time) bool {
	y, m, d := a.Local().Date()
	y2, m2, d2 := b.Local().Date()
	return y == y2 && m == m2 && d == d2
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

// layout is that of the terminal to which the output goes, if it goes to one.
func (a *app) layout(wide bool) audit.Layout {
	f, ok := a.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return audit.Layout{}
	}
	var l audit.Layout
	l.Colour = true
	if v, ok := a.variable("NO_COLOR"); ok && v != "" {
		l.Colour = false
	}
	if v, _ := a.variable("TERM"); v == "dumb" {
		l.Colour = false
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && !wide {
		l.Width = width
	}
	return l
}

// printExchanges prints a line for each, or with --json the log's own lines.
func (a *app) printExchanges(ctx context.Context, list iter.Seq2[audit.Exchange, error], l audit.Layout) error {
	for x, err := range list {
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && a.json {
			err = a.printRaw(&x)
		} else if err == nil {
			_, err = fmt.Fprintln(a.stdout, x.Line(l))
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
