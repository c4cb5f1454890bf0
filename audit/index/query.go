package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"chaperone/audit"
)

// Query is a question about the log.
type Query struct {
	Path   string // of the log
	Filter audit.Filter
	// Group counts by these fields instead of listing, see [Groupable].
	Group []string
	// NoIndex reads all lines.
	NoIndex bool
	// Workers is on how many processors it searches; 0: on all.
	Workers int
	// Key checks the signatures of index files; without one none is used.
	Key Verifier
	// Notice is told of index files that were left aside. It may be nil, and is
	// called from one goroutine at a time.
	Notice func(message string)
}

// Group is a line of an answer that counts.
type Group struct {
	Key     []string // values of the fields in Query.Group, in that order
	Count   int
	Allowed int
	Denied  int
	Asked   int
	Alarms  int
	First   time.Time
	Last    time.Time
}

// Groupable are the fields by which to count. Besides those of the log they are day
// and hour, in local time.
func Groupable() []string {
	names := slices.DeleteFunc(slices.Clone(columnNames[:]), func(n string) bool { return n == "sub" })
	return append(names, "day", "hour")
}

// hit is a row that is selected.
type hit struct{ at, ended int64 }

// found is what one piece gave.
type found struct {
	piece   piece
	hits    []hit
	orphans []orphan
	groups  map[string]*Group
	err     error
}

// Count answers a query that groups, the largest group first.
func Count(ctx context.Context, q Query) ([]Group, error) {
	all := map[string]*Group{}
	l := lister{q: &q, yield: func(x audit.Exchange, err error) bool {
		count(all, q.Group, &x)
		return err == nil
	}}
	defer l.close()
	for f := range search(ctx, &q) {
		if f.err == nil {
			f.err = l.add(f)
		}
		if f.err != nil {
			return nil, f.err
		}
		for key, g := range f.groups {
			if old := all[key]; old != nil {
				old.add(g)
			} else {
				all[key] = g
			}
		}
	}
	l.flush()
	return sorted(all), ctx.Err()
}

func sorted(all map[string]*Group) []Group {
	list := make([]Group, 0, len(all))
	for _, g := range all {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Key, b.Key))
	})
	return list
}

// Merge makes one answer of those of several logs.
func Merge(answers ...[]Group) []Group {
	all := map[string]*Group{}
	for _, g := range slices.Concat(answers...) {
		if old := all[joined(g.Key)]; old != nil {
			old.add(&g)
		} else {
			all[joined(g.Key)] = &g
		}
	}
	return sorted(all)
}

// count adds one exchange to its group.
func count(all map[string]*Group, fields []string, x *audit.Exchange) {
	g := Group{Count: 1, First: x.Decision.Time, Last: x.Decision.Time}
	for _, name := range fields {
		g.Key = append(g.Key, Value(x, name))
	}
	switch x.Decision.Decision.Result {
	case "allow":
		g.Allowed = 1
	case "deny":
		g.Denied = 1
	case "ask":
		g.Asked = 1
	}
	if x.Decision.Alarm != "" {
		g.Alarms = 1
	}
	if old := all[joined(g.Key)]; old != nil {
		old.add(&g)
		return
	}
	all[joined(g.Key)] = &g
}

// Value is what an exchange holds in a field by which to group.
func Value(x *audit.Exchange, field string) string {
	switch field {
	case "day":
		return x.Decision.Time.Local().Format(dayForm)
	case "hour":
		return x.Decision.Time.Local().Format(hourForm)
	case "human":
		return x.Decision.Human.Name()
	case "replica":
		return x.Decision.Replica
	case "status", "error":
		if x.Outcome == nil {
			return ""
		}
		if field == "error" {
			return x.Outcome.Outcome.Error
		}
		if x.Outcome.Outcome.Status == 0 {
			return ""
		}
		return strconv.Itoa(x.Outcome.Outcome.Status)
	}
	if v := x.Decision.Values(field); len(v) > 0 {
		return v[0]
	}
	return ""
}

const (
	dayForm  = "2006-01-02"
	hourForm = "2006-01-02 15:00"
)

func (g *Group) add(o *Group) {
	g.Count += o.Count
	g.Allowed += o.Allowed
	g.Denied += o.Denied
	g.Asked += o.Asked
	g.Alarms += o.Alarms
	if o.First.Before(g.First) {
		g.First = o.First
	}
	if o.Last.After(g.Last) {
		g.Last = o.Last
	}
}

// search looks through all pieces on all processors, and yields what they gave in
// the log's order.
func search(ctx context.Context, q *Query) func(yield func(*found) bool) {
	return func(yield func(*found) bool) {
		if q.Notice == nil {
			q.Notice = func(string) {}
		}
		if q.NoIndex {
			q.Key = nil
		}
		pieces, err := cover(q.Path, &checker{key: q.Key, notice: q.Notice})
		if err != nil {
			yield(&found{err: fmt.Errorf("searching %s: %w", q.Path, err)})
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		w := searcher{q: q, wants: q.Filter.Wants()}
		slots := make([]chan *found, len(pieces))
		for i := range slots {
			slots[i] = make(chan *found, 1)
		}
		var workers sync.WaitGroup
		defer workers.Wait()
		defer cancel()
		next := make(chan int)
		for range cmp.Or(q.Workers, runtime.GOMAXPROCS(0)) {
			workers.Go(func() {
				for i := range next {
					slots[i] <- w.look(pieces[i])
				}
			})
		}
		workers.Go(func() {
			defer close(next)
			for i := range pieces {
				select {
				case next <- i:
				case <-ctx.Done():
					return
				}
			}
		})
		for i := range slots {
			select {
			case f := <-slots[i]:
				if !yield(f) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

type searcher struct {
	q      *Query
	wants  []audit.Want
	notice sync.Mutex
}

// look searches one piece.
func (w *searcher) look(p piece) *found {
	f := &found{piece: p}
	if p.file != "" {
		err := w.lookFile(f)
		if err == nil || !errors.Is(err, ErrUnsound) && !errors.Is(err, fs.ErrNotExist) {
			f.err = err
			return f
		}
		w.notice.Lock()
		w.q.Notice(err.Error() + "; its lines were read instead")
		w.notice.Unlock()
		*f = found{piece: p}
	}
	s, err := open(w.q.Path, p.segment)
	if err != nil {
		f.err = err
		return f
	}
	defer s.Close()
	part, err := Build(s, p.segment, p.from, p.to-p.from)
	if err != nil || part == nil {
		f.err = err
		return f
	}
	f.err = w.sift(f, part, s)
	f.orphans = part.orphans
	return f
}

// lookFile searches one piece by its index.
func (w *searcher) lookFile(f *found) error {
	x, err := openFile(f.piece.file, w.q.Key)
	if err != nil {
		return err
	}
	defer x.Close()
	p := x.part
	if p.Segment != f.piece.segment || p.From != f.piece.from || p.To != f.piece.to {
		return fmt.Errorf("%w: %s is of another stretch", ErrUnsound, f.piece.file)
	}
	s, err := open(w.q.Path, p.Segment)
	if err != nil {
		return err
	}
	defer s.Close()
	if !p.fits(s) {
		return fmt.Errorf("%w: %s is not of these lines", ErrUnsound, f.piece.file)
	}
	if err := w.load(x); err != nil {
		return err
	}
	if err := w.sift(f, p, s); err != nil {
		return err
	}
	if w.q.Group == nil || w.ofOutcome() {
		if err := x.loadOrphans(); err != nil {
			return err
		}
	}
	f.orphans = p.orphans
	return nil
}

// load loads the columns that the query looks at.
func (w *searcher) load(f *file) error {
	var need []int
	for _, want := range w.wants {
		need = append(need, columnsOf(want)...)
	}
	if w.q.Group != nil {
		need = append(need, resultColumn, alarmColumn)
		for _, name := range w.q.Group {
			if i := slices.Index(columnNames[:], name); i >= 0 {
				need = append(need, i)
			}
		}
	}
	for _, i := range need {
		if err := f.column(i); err != nil {
			return err
		}
	}
	if err := f.loadTimes(); err != nil {
		return err
	}
	loose := func(want audit.Want) bool { return isLoose(columnsOf(want)) }
	if w.q.Group != nil && !w.raw() && !w.ofOutcome() && !(f.part.Several && slices.ContainsFunc(w.wants, loose)) {
		return nil // no line is read
	}
	return f.loadPlaces()
}

// isLoose reports whether these columns hold one of what may be several.
func isLoose(columns []int) bool {
	return slices.ContainsFunc(columns, func(i int) bool {
		return i == actionColumn || i == serviceColumn || i == accessColumn || i == resourceColumn || i == credentialColumn
	})
}

// columnsOf are the columns in which the value of a field may stand; none where the
// index does not have it.
func columnsOf(w audit.Want) []int {
	switch {
	case w.Field == "human":
		return []int{humanColumn, subColumn}
	case w.Field == "result" && w.Pattern == "alarm":
		return []int{alarmColumn}
	}
	if i := slices.Index(columnNames[:], w.Field); i >= 0 {
		return []int{i}
	}
	return nil
}

// raw reports whether the query looks at what only the lines hold.
func (w *searcher) raw() bool {
	return slices.ContainsFunc(w.wants, func(want audit.Want) bool { return columnsOf(want) == nil })
}
