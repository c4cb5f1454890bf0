package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/peers"
	"chaperone/cmd/chaperone/problem"
)

// near is how long before and after a request its session is looked at.
const near = 10 * time.Minute

// nearby is how many requests are shown before and after one.
const nearby = 5

func (a *app) logShow() *cobra.Command {
	var r whose
	var s selection
	c := &cobra.Command{
		Use: "show ID", Short: "Show the whole story of one request", Args: cobra.ArbitraryArgs,
		Long: `Show the whole story of one request: who made it for whom, by which delegation, what
was decided by which policy and why, how it ended, and what its session did just before
and after, on whichever replica. Instead of an ID flags may select: the last request that
matches them is shown. --json prints the lines of the log.`,
		Example: `  chaperone log show 01K4…
  chaperone log show --alarm '*'          # the last alarm`,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := s.filter(time.Now())
			if err != nil {
				return err
			}
			wants := len(f.Wants()) > 0 || !f.Since.IsZero() || !f.Until.IsZero()
			if len(args) > 1 || len(args) == 1 == wants || len(args) == 1 && args[0] == "" {
				return problem.Misuse("chaperone log show wants an ID, or flags that select", "usage: "+c.UseLine())
			}
			l, err := a.logs(c.Context(), &r)
			if err != nil {
				return err
			}
			var x *audit.Exchange
			if wants {
				x, err = l.last(c.Context(), &f)
			} else {
				x, err = l.find(c.Context(), args[0])
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printRaw(x)
			}
			around, err := l.around(c.Context(), x)
			if err != nil {
				return err
			}
			return cmp.Or(a.tell(c.Context(), l, x, around), l.whole())
		},
	}
	s.flags(c)
	r.flags(c)
	return c
}

// last finds the last exchange that a filter selects.
func (l *logs) last(ctx context.Context, f *audit.Filter) (*audit.Exchange, error) {
	q := peers.Wanted(f)
	q.Ask, q.Lines = peers.Latest, 1
	var last *audit.Exchange
	for x, err := range l.exchanges(ctx, q) {
		if err != nil {
			return nil, err
		}
		last = &x
	}
	if last == nil {
		l.nothing(f)
		return nil, cmp.Or[error](l.whole(), exitCode(problem.Failed))
	}
	return last, nil
}

// holder says whose session a handle was made for, as the log has it.
func (l *logs) holder(ctx context.Context, session string) string {
	q := peers.Wanted(&audit.Filter{Session: session})
	q.Ask, q.Lines = peers.Latest, 1
	for x, err := range l.exchanges(ctx, q) {
		if err == nil {
			return join(session, "of", x.Decision.Agent.ID, "instance", x.Decision.Agent.Instance, "for", x.Decision.Human.Name())
		}
	}
	return session
}

// find finds the exchange of an id. The id says when it was: there it is looked for
// first.
func (l *logs) find(ctx context.Context, id string) (*audit.Exchange, error) {
	spans := []audit.Filter{{ID: id}}
	if at, ok := audit.Moment(id); ok {
		spans = []audit.Filter{{ID: id, Since: at.Add(-time.Second), Until: at.Add(time.Second)}, {ID: id}}
	}
	for _, f := range spans {
		q := peers.Wanted(&f)
		q.Ask = peers.List
		for x, err := range l.exchanges(ctx, q) {
			if err != nil {
				return nil, err
			}
			return &x, nil
		}
	}
	where := "the log"
	if l.s != nil {
		where = l.s.Log.Path
	}
	if len(l.list) > 1 {
		where = fmt.Sprintf("the logs of %d replicas", len(l.list))
	}
	var err error = problem.Failure(fmt.Errorf("no record %s in %s", audit.Printable(id), where), "the id is in the answer's Chaperone-Decision header and in `chaperone log tail --json`")
	return nil, cmp.Or(l.whole(), err)
}

// around returns what the session did near an exchange.
func (l *logs) around(ctx context.Context, x *audit.Exchange) ([]audit.Exchange, error) {
	d := x.Decision
	if d.Session == "" {
		return nil, nil
	}
	q := peers.Wanted(&audit.Filter{Session: d.Session, Since: d.Time.Add(-near), Until: d.Time.Add(near)})
	q.Ask = peers.List
	var list []audit.Exchange
	after := -1
	for o, err := range l.exchanges(ctx, q) {
		if err != nil {
			return nil, err
		}
		list = append(list, o)
		if after < 0 && len(list) > nearby && o.Decision.ID != d.ID {
			list = list[1:]
		}
		if o.Decision.ID == d.ID {
			after = 0
		} else if after >= 0 {
			if after++; after == nearby {
				break
			}
		}
	}
	return list, nil
}

// tell prints the story.
func (a *app) tell(ctx context.Context, l *logs, x *audit.Exchange, around []audit.Exchange) error {
	d := x.Decision
	layout := a.layout(false)
	head := layout
	head.Dates, head.Width = true, 0
	fmt.Fprintln(a.stdout, x.Line(head))
	fmt.Fprintln(a.stdout)
	owner := d.Credential.Session
	if owner != "" {
		owner = l.holder(ctx, owner)
	}
	if err := a.print(nil, func(w io.Writer) {
		field(w, "id", d.ID)
		field(w, "time", d.Time.Local().Format("Monday 2 January 2006, 15:04:05.000 MST"))
		field(w, "replica", d.Replica)
		field(w, "agent", join(d.Agent.ID, "instance", d.Agent.Instance, "answered for by", d.Agent.Owner))
		field(w, "human", join(d.Human.Name(), "subject", d.Human.Sub, "of", d.Human.Iss))
		field(w, "session", join(d.Session, "delegated for", d.Purpose))
		for i, link := range d.Chain {
			field(w, "delegation "+fmt.Sprint(i+1), join(link.Agent, "instance", link.Instance, "session", link.Session))
		}
		field(w, "action", join(d.Action.ID, "access", d.Action.Access, "not known:", d.Action.Unknown))
		field(w, "resource", resource(d.Resource))
		for _, one := range d.Acts() {
			field(w, "also", one)
		}
		field(w, "request", strings.TrimSpace(d.Request.Method+" "+d.Request.Host+d.Request.Path))
		field(w, "query", strings.Join(d.Request.Query, ", "))
		field(w, "from", join(d.Request.Client, "by", d.Request.Protocol))
		field(w, "credential", join(d.Credential.ID, "handle", d.Credential.Handle))
		field(w, "beside it", join(d.Credential.Beside.ID, "handle", d.Credential.Beside.Handle))
		field(w, "handle of", owner)
		field(w, "trace", d.Traceparent)
		field(w, "alarm", join(d.Alarm, "", d.What))
		field(w, "decision", join(d.Decision.Result, "by policy", d.Decision.Policy))
		for _, reason := range d.Decision.Reasons {
			field(w, "reason", reason)
		}
		if len(d.Decision.Obligations) > 0 {
			b, _ := json.Marshal(d.Decision.Obligations) // it came out of JSON
			field(w, "obligations", string(b))
		}
		ending(w, x)
		if d.Alarm != "" && d.Session != "" {
			field(w, "to end it", "chaperone revoke --session "+d.Session+"    or  --agent "+d.Agent.ID)
		}
	}); err != nil || len(around) < 2 {
		return err
	}
	fmt.Fprintf(a.stdout, "\nwhat session %s did around it\n", audit.Printable(d.Session))
	layout.Replica, layout.Dates = len(l.list) > 1, !sameDay(around[0].Decision.Time, around[len(around)-1].Decision.Time)
	if layout.Width > 0 {
		layout.Width = max(layout.Width-2, 1)
	}
	for _, o := range around {
		mark := "  "
		if o.Decision.ID == d.ID {
			mark = "> "
		}
		if _, err := fmt.Fprintln(a.stdout, mark+o.Line(layout)); err != nil {
			return err
		}
	}
	return nil
}

// ending prints how an exchange ended.
func ending(w io.Writer, x *audit.Exchange) {
	if x.Decision.IsAlarm() {
		return
	}
	if x.Outcome == nil {
		field(w, "outcome", "none yet: it goes on, or the proxy ended first")
		return
	}
	o := x.Outcome.Outcome
	status := ""
	if o.Status != 0 {
		status = fmt.Sprint(o.Status)
	}
	field(w, "outcome", join(orDash(status), "error", o.Error))
	field(w, "took", fmt.Sprintf("%v, of which %v were added here", time.Duration(o.TotalUS)*time.Microsecond, time.Duration(o.AddedUS)*time.Microsecond))
	field(w, "bytes", fmt.Sprintf("%d sent, %d received", o.BytesIn, o.BytesOut))
	if o.Scrubbed > 0 {
		field(w, "scrubbed", fmt.Sprintf("%d secrets were swapped back in the answer", o.Scrubbed))
	}
	if o.Renewed {
		field(w, "renewed", "the service answered 401 and was sent the request once more, with a fresh token")
	}
	if o.Indeterminate {
		field(w, "note", "INDETERMINATE: the write may have happened although it failed here")
	}
}

// field prints a line where there is something to print.
func field(w io.Writer, name, value string) {
	if value != "" {
		row(w, name, audit.Printable(value))
	}
}

// join makes one text of a value and what is said about it, in pairs of words and value.
func join(value string, pairs ...string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" && pairs[i+1] != value {
			value = strings.TrimSpace(value + "  " + pairs[i] + " " + pairs[i+1])
		}
	}
	return value
}

func resource(r map[string]any) string {
	id, _ := r["id"].(string)
	kind, _ := r["type"].(string)
	return strings.TrimSpace(kind + " " + id)
}
