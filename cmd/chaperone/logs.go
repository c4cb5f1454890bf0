package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/audit/index"
	"chaperone/audit/proof"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/peers"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/store/replica"
)

// whose is what the flags say about whose logs are read.
type whose struct {
	replica string
	local   bool
	files   []string
}

func (r *whose) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.replica, "replica", "", "by the replica with this `ID` or on this host, or a pattern such as eu-*")
	f.BoolVar(&r.local, "local", false, "read this replica's log only")
	f.StringArrayVar(&r.files, "log", nil, "read the log at `PATH` instead, such as a copy; may be repeated")
}

// logs are those that a verb reads: this replica's, and where several share a store
// those of the others, or the files that were named.
type logs struct {
	a       *app
	s       *settings.Settings // nil where files were named
	client  *admin.Client      // of the proxy that asks other replicas; nil: nobody is asked
	whose   *whose
	list    []*oneLog
	missing []string // why the answer is not whole
}

// oneLog is the log of one replica.
type oneLog struct {
	replica string // its id, or the path of a file that does not tell
	host    string
	remote  bool
	ask     func(context.Context, peers.Question) iter.Seq2[peers.Piece, error]
}

// logs finds them.
func (a *app) logs(ctx context.Context, r *whose) (*logs, error) {
	if r.local && (r.replica != "" || len(r.files) > 0) || r.replica != "" && len(r.files) > 0 {
		return nil, problem.Misuse("--local, --replica and --log exclude each other", "give one of them")
	}
	l := &logs{a: a, whose: r}
	if len(r.files) > 0 {
		return l, l.files()
	}
	var err error
	if l.s, err = a.logSettings(); err != nil {
		return nil, err
	}
	local, err := askedLog(l.s)
	if err != nil {
		return nil, problem.Failure(err, "it is made anew at the next start of the proxy when it is moved away")
	}
	local.Sign = func() error { return admin.NewClient(l.s.Admin).Sign(ctx) }
	host, _ := os.Hostname()                                  // to choose by only
	id, _ := os.ReadFile(filepath.Join(l.s.State, "replica")) // absent before the first start
	if one := (&oneLog{replica: string(id), host: host, ask: local.Ask}); l.chosen(one) {
		l.list = append(l.list, one)
	}
	if l.s.Store != "bolt" && !r.local {
		l.others(ctx)
	}
	if len(l.list) == 0 && len(l.missing) == 0 {
		return nil, problem.Failure(fmt.Errorf("no replica is %q", r.replica), "`chaperone replicas` lists their ids and hosts")
	}
	return l, nil
}

func (l *logs) chosen(o *oneLog) bool {
	p := l.whose.replica
	return p == "" || audit.Matches(p, o.replica) || audit.Matches(p, o.host)
}

// files are logs that were named.
func (l *logs) files() error {
	for _, path := range l.whose.files {
		segments, err := audit.Segments(path)
		if err == nil && len(segments) == 0 {
			err = fmt.Errorf("reading decision log: there is none at %s", path)
		}
		if err != nil {
			return problem.Failure(err, "name the current segment, such as copy/decisions.jsonl; those before it stand beside it")
		}
		one := peers.Log{Path: path}
		if public, err := proof.LoadPublic(filepath.Join(filepath.Dir(path), "log.pub")); err == nil {
			one.Public = public // else its index is left aside
		}
		name := path
		if last, _, err := audit.Latest(path, 1, audit.Filter{}); err == nil && len(last) > 0 && last[0].Decision.Replica != "" {
			name = last[0].Decision.Replica
		}
		l.list = append(l.list, &oneLog{replica: name, ask: one.Ask})
	}
	return nil
}

// others are the replicas that share the store, as the proxy here knows them.
func (l *logs) others(ctx context.Context) {
	l.client = admin.NewClient(l.s.Admin)
	all, err := l.client.Replicas(ctx)
	if err != nil {
		l.client = nil
		l.lacks("other replicas were not asked", err)
		return
	}
	for _, s := range all {
		l.add(s)
	}
}

// add adds another replica and returns it, nil where it is here already, was not chosen
// or cannot be asked.
func (l *logs) add(s replica.Status) *oneLog {
	o := &oneLog{replica: s.ID, host: s.Host, remote: true}
	o.ask = func(ctx context.Context, q peers.Question) iter.Seq2[peers.Piece, error] {
		return l.askOther(ctx, s.ID, q)
	}
	switch {
	case s.Self || !l.chosen(o) || slices.ContainsFunc(l.list, func(x *oneLog) bool { return x.replica == s.ID }):
		return nil
	case !s.Alive:
		l.lacks(o.name(), fmt.Errorf("silent for %v", s.Quiet.Round(1e9)))
		return nil
	case s.Log == "":
		l.lacks(o.name(), fmt.Errorf("it lets nobody read its log (log.peers in its config.yaml)"))
		return nil
	}
	l.list = append(l.list, o)
	return o
}

func (o *oneLog) name() string { return "replica " + o.replica + " on " + o.host }

// askOther asks another replica by way of the proxy here.
func (l *logs) askOther(ctx context.Context, id string, q peers.Question) iter.Seq2[peers.Piece, error] {
	return func(yield func(peers.Piece, error) bool) {
		question, err := json.Marshal(q)
		if err != nil {
			yield(peers.Piece{}, err)
			return
		}
		body, err := l.client.AskLog(ctx, id, question)
		if err != nil {
			yield(peers.Piece{}, err)
			return
		}
		peers.Read(id, body)(yield)
	}
}

// lacks notes, and tells at once, whose part of the answer is missing.
func (l *logs) lacks(who string, err error) {
	l.missing = append(l.missing, who)
	l.note(fmt.Sprintf("%s: %v", who, err))
}

func (l *logs) note(text string) {
	fmt.Fprintf(l.a.stderr, "chaperone: note: %s\n", audit.Printable(text))
}

// nothing tells that nothing was found, and when it was looked for.
func (l *logs) nothing(f *audit.Filter) {
	text := "nothing matches"
	if !f.Since.IsZero() {
		text += " from " + stamp(f.Since)
	}
	if !f.Until.IsZero() {
		text += " to " + stamp(f.Until)
	}
	l.note(text)
}

// orNothing is a list, of which it is told when nothing is in it.
func (l *logs) orNothing(list iter.Seq2[audit.Exchange, error], f *audit.Filter) iter.Seq2[audit.Exchange, error] {
	return func(yield func(audit.Exchange, error) bool) {
		some := false
		for x, err := range list {
			some = true
			if !yield(x, err) {
				return
			}
		}
		if !some {
			l.nothing(f)
		}
	}
}

// whole is an error where the answer is not.
func (l *logs) whole() error {
	if len(l.missing) == 0 {
		return nil
	}
	return problem.Failure(fmt.Errorf("this is not the whole answer; missing: %s", strings.Join(l.missing, ", ")),
		"read those logs where they are, or a copy with --log; --local leaves them out")
}

// arrival is a piece of one log's answer, or how it ended.
type arrival struct {
	from  *oneLog
	piece peers.Piece
	err   error
}

// ahead is how many pieces of an answer are read ahead.
const ahead = 256

// start asks one log and hands on what it answers, until ctx is done.
func (o *oneLog) start(ctx context.Context, q peers.Question, group *sync.WaitGroup, to chan<- arrival, after func()) {
	group.Go(func() {
		defer after()
		for p, err := range o.ask(ctx, q) {
			if d := p.Exchange.Decision; d != nil && d.Replica == "" {
				d.Replica = o.replica
			}
			select {
			case to <- arrival{o, p, err}:
			case <-ctx.Done():
				return
			}
		}
	})
}

// failed tells of an answer that broke off. It is the whole verb's error where it is of
// a log that is here.
func (l *logs) failed(x *arrival) error {
	if !x.from.remote {
		return x.err
	}
	l.lacks(x.from.name(), x.err)
	return nil
}

// exchanges gives what all logs answer to a question that lists, oldest first.
func (l *logs) exchanges(ctx context.Context, q peers.Question) iter.Seq2[audit.Exchange, error] {
	return func(yield func(audit.Exchange, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var group sync.WaitGroup
		defer group.Wait()
		defer cancel()
		var open []*flow
		for _, o := range l.list {
			c := make(chan arrival, ahead)
			o.start(ctx, q, &group, c, func() { close(c) })
			open = append(open, &flow{c: c})
		}
		for {
			var first *flow
			for _, s := range open {
				if err := l.fill(s); err != nil {
					yield(audit.Exchange{}, err)
					return
				}
				if s.head.Decision != nil && (first == nil || s.head.Decision.Time.Before(first.head.Decision.Time)) {
					first = s
				}
			}
			if first == nil || !yield(first.head, nil) {
				return
			}
			first.head = audit.Exchange{}
		}
	}
}

// flow is one log's answer while several are merged.
type flow struct {
	c    <-chan arrival
	head audit.Exchange // next of it
}

// fill gets the next exchange of a flow, none at its end.
func (l *logs) fill(s *flow) error {
	for s.head.Decision == nil {
		x, ok := <-s.c
		if !ok {
			return nil
		}
		if x.err != nil {
			return l.failed(&x)
		}
		if x.piece.Note != "" {
			l.note(x.piece.Note)
		}
		s.head = x.piece.Exchange
	}
	return nil
}

// count counts over all logs. A field replica is filled in by whose log it is.
func (l *logs) count(ctx context.Context, q peers.Question) ([]index.Group, error) {
	at := slices.Index(q.Group, "replica")
	if at >= 0 {
		q.Group = slices.Delete(slices.Clone(q.Group), at, at+1)
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	all := make(chan arrival, ahead)
	for _, o := range l.list {
		o.start(ctx, q, &group, all, func() {})
	}
	go func() {
		group.Wait()
		close(all)
	}()
	var groups []index.Group
	for x := range all {
		switch p := x.piece; {
		case x.err != nil:
			if err := l.failed(&x); err != nil {
				return nil, err
			}
		case p.Note != "":
			l.note(p.Note)
		case p.Group != nil:
			if at >= 0 {
				p.Group.Key = slices.Insert(p.Group.Key, at, x.from.replica)
			}
			groups = append(groups, *p.Group)
		}
	}
	return index.Merge(groups), ctx.Err()
}
