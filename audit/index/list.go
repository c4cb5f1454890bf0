package index

import (
	"context"
	"iter"

	"chaperone/audit"
)

// List answers a query that does not group: the exchanges that match, oldest first.
func List(ctx context.Context, q Query) iter.Seq2[audit.Exchange, error] {
	return func(yield func(audit.Exchange, error) bool) {
		l := lister{q: &q, yield: yield}
		defer l.close()
		for f := range search(ctx, &q) {
			if f.err == nil {
				f.err = l.add(f)
			}
			if f.err != nil {
				l.flush()
				l.give(audit.Exchange{}, f.err)
			}
			if l.stopped {
				return
			}
		}
		l.flush()
	}
}

// maxWaiting bounds the exchanges that wait for an outcome of a later part.
const maxWaiting = 10000

// lister reads the lines of what was found. An exchange whose outcome is in a later
// part waits for it, and those behind it with it.
type lister struct {
	q       *Query
	yield   func(audit.Exchange, error) bool
	segment *audit.Segment
	number  uint64
	waiting []*audit.Exchange
	byID    map[string]*audit.Exchange
	stopped bool
}

func (l *lister) add(f *found) error {
	for _, o := range f.orphans {
		x := l.byID[o.ID]
		if x == nil {
			continue
		}
		delete(l.byID, o.ID)
		if outcome, err := l.read(f.piece.segment, o.At, -1); err == nil {
			x.Outcome = outcome.Decision
		}
	}
	l.release(false)
	for _, h := range f.hits {
		if l.stopped {
			return nil
		}
		x, err := l.read(f.piece.segment, h.at, h.ended)
		if err != nil {
			return err
		}
		if x.Outcome == nil && !x.Decision.IsAlarm() {
			if l.byID == nil {
				l.byID = map[string]*audit.Exchange{}
			}
			l.byID[x.Decision.ID] = &x
		}
		l.waiting = append(l.waiting, &x)
		l.release(len(l.waiting) > maxWaiting)
	}
	return nil
}

// release gives from the front what is complete, or the first in any case.
func (l *lister) release(force bool) {
	for len(l.waiting) > 0 && !l.stopped {
		x := l.waiting[0]
		if !force && l.byID[x.Decision.ID] != nil {
			return
		}
		force = false
		delete(l.byID, x.Decision.ID)
		l.waiting = l.waiting[1:]
		if l.q.Filter.MatchOutcome(x.Outcome) {
			l.give(*x, nil)
		}
	}
}

func (l *lister) flush() {
	for len(l.waiting) > 0 && !l.stopped {
		l.release(true)
	}
}

func (l *lister) give(x audit.Exchange, err error) {
	if !l.stopped {
		l.stopped = !l.yield(x, err) || err != nil
	}
}

func (l *lister) read(segment uint64, at, ended int64) (audit.Exchange, error) {
	if l.segment == nil || l.number != segment {
		s, err := open(l.q.Path, segment)
		if err != nil {
			return audit.Exchange{}, err
		}
		l.close()
		l.segment, l.number = s, segment
	}
	return read(l.segment, at, ended)
}

func (l *lister) close() {
	if l.segment != nil {
		l.segment.Close()
	}
}
