package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"chaperone/audit"
	"chaperone/cmd/chaperone/peers"
)

// Times of following several logs: how long a replica is waited for before what others
// have is printed, and how often replicas are looked for that are new or back.
const (
	patience = 3 * time.Second
	lookFor  = 5 * time.Second
)

// slackTime is how far this machine's clock may be ahead of the one that dates records.
const slackTime = 10 * time.Second

// again is how many exchanges of a replica that is back are looked through for those
// that ended while it could not be asked.
const again = 1000

// follower prints what all logs say as it comes.
type follower struct {
	l     *logs
	q     peers.Question
	lines int
	print func([]audit.Exchange) error

	all     chan arrival
	group   sync.WaitGroup
	running map[string]bool   // by replica
	told    map[string]uint64 // the last line that was printed of each
	base    map[string]uint64 // the same when it was asked last
	waiting map[string]bool   // replicas of which what was is not known yet
	first   []audit.Exchange  // what was, until it is printed
	settled bool              // it is
	began   time.Time
}

// follow prints the last lines and then what comes, until ctx is done.
func (l *logs) follow(ctx context.Context, q peers.Question, print func([]audit.Exchange) error) error {
	q.Ask = peers.Follow
	f := &follower{l: l, q: q, lines: q.Lines, print: print, all: make(chan arrival, ahead), began: time.Now(),
		running: map[string]bool{}, told: map[string]uint64{}, base: map[string]uint64{}, waiting: map[string]bool{}}
	ctx, cancel := context.WithCancel(ctx)
	defer f.group.Wait()
	defer cancel()
	for _, o := range l.list {
		f.waiting[o.replica] = true
		f.start(ctx, o, q)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	tick := time.NewTicker(lookFor)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case x := <-f.all:
			err = f.take(&x)
		case <-late.C:
			err = f.settle()
		case <-tick.C:
			f.look(ctx)
		}
		if err != nil {
			return err
		}
	}
}

func (f *follower) start(ctx context.Context, o *oneLog, q peers.Question) {
	f.running[o.replica], f.base[o.replica] = true, f.told[o.replica]
	o.start(ctx, q, &f.group, f.all, func() {})
}

// take takes one piece.
func (f *follower) take(x *arrival) error {
	id := x.from.replica
	switch e := x.piece.Exchange; {
	case x.err != nil:
		if !x.from.remote {
			return x.err
		}
		f.running[id] = false
		f.l.note(x.from.name() + ": " + x.err.Error() + "; it is asked again")
		return f.caught(id)
	case x.piece.Note != "":
		f.l.note(x.piece.Note)
	case x.piece.Caught:
		return f.caught(id)
	case e.Decision != nil:
		end := e.Decision
		if e.Outcome != nil {
			end = e.Outcome
		}
		if end.Seq <= f.base[id] {
			return nil // told before it was asked again
		}
		f.told[id] = max(f.told[id], end.Seq)
		if !f.settled {
			f.first = append(f.first, e)
			return nil
		}
		return f.print([]audit.Exchange{e})
	}
	return nil
}

// caught notes that what was is known of a replica.
func (f *follower) caught(id string) error {
	if delete(f.waiting, id); len(f.waiting) > 0 {
		return nil
	}
	return f.settle()
}

// settle prints what was, of those that have told.
func (f *follower) settle() error {
	if f.settled {
		return nil
	}
	f.settled = true
	slices.SortStableFunc(f.first, func(a, b audit.Exchange) int { return a.Decision.Time.Compare(b.Decision.Time) })
	return f.print(f.first[max(len(f.first)-f.lines, 0):])
}

// look asks replicas that are new, and those again whose answer broke off.
func (f *follower) look(ctx context.Context) {
	if f.l.client == nil {
		return
	}
	all, err := f.l.client.Replicas(ctx)
	if err != nil {
		return // the proxy here restarts, or ends; its log is followed on
	}
	fresh := f.q
	fresh.Lines = again
	if since := f.began.Add(-slackTime); fresh.Since.Before(since) {
		fresh.Since = since
	}
	for _, s := range all {
		for _, o := range f.l.list {
			if !o.remote || o.replica != s.ID || !s.Alive || f.running[s.ID] {
				continue
			}
			q := fresh
			if f.told[s.ID] > 0 {
				q.Since = f.q.Since // what was told is passed over by its number
			}
			f.start(ctx, o, q)
		}
		if s.Alive && s.Log != "" {
			if o := f.l.add(s); o != nil {
				f.start(ctx, o, fresh)
			}
		}
	}
}
