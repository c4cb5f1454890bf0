package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/audit/index"
	"chaperone/audit/proof"
	"chaperone/cmd/chaperone/peers"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

// logKeyFile is the key that signs checkpoints and index.
func logKeyFile(s *settings.Settings) string {
	return cmp.Or(s.Log.Checkpoints.Key, filepath.Join(s.State, "log.key"))
}

// questions are the flags of query besides the selection.
type questions struct {
	group   []string
	format  string
	limit   int
	noIndex bool
}

func (a *app) logQuery() *cobra.Command {
	var s selection
	var q questions
	var r whose
	c := &cobra.Command{
		Use: "query", Short: "Find requests, or count them by what they have in common", Args: noArguments,
		Long: `Find all requests that match every flag given, or count them with --group-by. A
pattern ends in *. Segments that are rotated and packed are searched too, by their index
where they have one: an index that is not sound is left aside, which is told, and the
lines themselves are read. Where replicas share a store all of them are asked; where one
does not answer the exit code is 1.`,
		Example: `  chaperone log query --resource acme/web --on '14 March' --group-by human,agent,action
  chaperone log query --human alice@acme.com --result deny --since monday
  chaperone log query --action 'github:*' --since 2026-03-01 --until 2026-04-01 --format csv`,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := s.filter(time.Now())
			if err == nil {
				err = q.check()
			}
			if err != nil {
				return err
			}
			l, err := a.logs(c.Context(), &r)
			if err != nil {
				return err
			}
			return a.ask(c.Context(), l, &f, &q)
		},
	}
	s.flags(c)
	r.flags(c)
	flags := c.Flags()
	flags.StringSliceVar(&q.group, "group-by", nil, "count by these `FIELDS`: "+strings.Join(groupable(), ","))
	flags.StringVar(&q.format, "format", "table", "`table|json|csv`")
	flags.IntVar(&q.limit, "limit", 0, "print at most so many; 0: all")
	flags.BoolVar(&q.noIndex, "no-index", false, "read every line, whatever the index says")
	return c
}

func (q *questions) check() error {
	if !slices.Contains([]string{"table", "json", "csv"}, q.format) {
		return problem.Misuse(fmt.Sprintf("format %q is not known", q.format), "use table, json or csv")
	}
	for _, name := range q.group {
		if !slices.Contains(groupable(), name) {
			return problem.Misuse(fmt.Sprintf("there is no field %q to group by", name), "use "+strings.Join(groupable(), ", "))
		}
	}
	if q.limit < 0 {
		return problem.Misuse("a limit is not negative", "leave it out for all")
	}
	return nil
}

// groupable are the fields by which to count: those of the index, and whose log it is.
func groupable() []string { return append(index.Groupable(), "replica") }

// ask asks the logs and prints the answer, which is an error where it is not whole.
func (a *app) ask(ctx context.Context, l *logs, f *audit.Filter, q *questions) error {
	if a.json {
		q.format = "json"
	}
	question := peers.Wanted(f)
	question.Ask, question.Group, question.NoIndex = peers.List, q.group, q.noIndex
	if q.group != nil {
		question.Ask = peers.Count
		groups, err := l.count(ctx, question)
		if err != nil {
			return err
		}
		if len(groups) == 0 {
			l.nothing(f)
		}
		if q.limit > 0 && len(groups) > q.limit {
			groups = groups[:q.limit]
		}
		return cmp.Or(a.printGroups(groups, q), l.whole())
	}
	list := l.exchanges(ctx, question)
	if q.limit > 0 {
		list = first(list, q.limit)
	}
	list = l.orNothing(list, f)
	if q.format == "csv" {
		return cmp.Or(printCSV(a.stdout, list), l.whole())
	}
	a.json = q.format == "json"
	layout := a.layout(false)
	layout.Dates, layout.Replica = true, len(l.list) > 1
	return cmp.Or(a.printExchanges(ctx, list, layout), l.whole())
}

// counted is a group as it is printed in JSON.
type counted struct {
	Group   map[string]string `json:"group"`
	Count   int               `json:"count"`
	Allowed int               `json:"allowed"`
	Denied  int               `json:"denied"`
	Asked   int               `json:"asked"`
	Alarms  int               `json:"alarms"`
	First   time.Time         `json:"first"`
	Last    time.Time         `json:"last"`
}

func (a *app) printGroups(groups []index.Group, q *questions) error {
	switch q.format {
	case "json":
		list := []counted{}
		for _, g := range groups {
			c := counted{map[string]string{}, g.Count, g.Allowed, g.Denied, g.Asked, g.Alarms, g.First.UTC(), g.Last.UTC()}
			for i, name := range q.group {
				c.Group[name] = g.Key[i]
			}
			list = append(list, c)
		}
		a.json = true
		return a.print(list, nil)
	case "csv":
		w := csv.NewWriter(a.stdout)
		w.Write(append(slices.Clone(q.group), "count", "allowed", "denied", "asked", "alarms", "first", "last"))
		for _, g := range groups {
			w.Write(append(cells(g.Key), strconv.Itoa(g.Count), strconv.Itoa(g.Allowed), strconv.Itoa(g.Denied), strconv.Itoa(g.Asked), strconv.Itoa(g.Alarms),
				g.First.UTC().Format(time.RFC3339Nano), g.Last.UTC().Format(time.RFC3339Nano)))
		}
		w.Flush()
		return w.Error()
	}
	return a.print(nil, func(w io.Writer) {
		var top []any
		for _, name := range q.group {
			top = append(top, strings.ToUpper(name))
		}
		row(w, append(top, "COUNT", "ALLOWED", "DENIED", "ASKED", "ALARMS", "FIRST", "LAST")...)
		for _, g := range groups {
			var line []any
			for _, k := range g.Key {
				line = append(line, orDash(audit.Printable(k)))
			}
			row(w, append(line, g.Count, g.Allowed, g.Denied, g.Asked, g.Alarms, stamp(g.First), stamp(g.Last))...)
		}
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// stamp is a moment as people read it.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// cells keeps texts from being formulas where a spreadsheet opens them.
func cells(texts []string) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		if t != "" && strings.ContainsRune("=+-@\t\r", rune(t[0])) {
			t = "'" + t
		}
		out[i] = t
	}
	return out
}

// csvFields are the columns of a list of requests.
var csvFields = [...]string{"agent", "instance", "human", "session", "action", "access", "resource", "method", "host", "path", "result", "alarm", "status", "error", "credential", "policy", "replica"}

func printCSV(to io.Writer, list func(func(audit.Exchange, error) bool)) error {
	w := csv.NewWriter(to)
	w.Write(append([]string{"time", "id"}, csvFields[:]...))
	for x, err := range list {
		if err != nil {
			w.Flush()
			return err
		}
		line := []string{x.Decision.Time.UTC().Format(time.RFC3339Nano), x.Decision.ID}
		for _, name := range csvFields {
			line = append(line, index.Value(&x, name))
		}
		if err := w.Write(cells(line)); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// first ends a sequence after n.
func first(list func(func(audit.Exchange, error) bool), n int) func(func(audit.Exchange, error) bool) {
	return func(yield func(audit.Exchange, error) bool) {
		left := n
		for x, err := range list {
			if left--; !yield(x, err) || left == 0 {
				return
			}
		}
	}
}

func (a *app) logIndex() *cobra.Command {
	return &cobra.Command{
		Use: "index", Short: "Make what is missing of the log's index", Args: noArguments,
		Long: `Make what is missing of the log's index, and make anew what is damaged. A running
proxy does so by itself; this is for a log that was copied here or whose index was lost.`,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.logSettings()
			if err != nil {
				return err
			}
			key, err := proof.OpenKey(logKeyFile(s))
			if err != nil {
				return problem.Failure(err, "run it as the user whose proxy writes the log")
			}
			n, err := index.NewMaker(s.Log.Path, key).Update()
			if err != nil {
				return err
			}
			return a.print(map[string]int{"written": n}, func(w io.Writer) { row(w, "written", strconv.Itoa(n)+" files in "+index.Dir(s.Log.Path)) })
		},
	}
}
