package store_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"chaperone/store"
)

// model is a feed whose whole history is known, that tells changes as Redis does, by their
// numbers alone, and that misbehaves on demand.
type model struct {
	store.Store
	mu     sync.Mutex
	rng    *rand.Rand
	start  uint64 // changes up to this number are forgotten
	past   []store.Change
	when   []time.Time // of each change
	lost   time.Time   // when changes were last taken back
	run    int         // the server that answers; another one has another number
	moved  chan struct{}
	steps  int
	did    []string
	fault  func([]store.Change) []store.Change // what the next changes become on their way
	slow   time.Duration                       // what the next answer takes on its way
	fails  int                                 // how many answers fail
	dead   bool                                // all fail
	during int                                 // what happens while entries are read
}

func newModel(seed uint64) *model {
	return &model{rng: rand.New(rand.NewPCG(seed, 7)), moved: make(chan struct{})}
}

// disturb does one of the things that happen. The caller holds m.mu.
func (m *model) disturb() {
	did := ""
	switch m.rng.IntN(20) {
	case 0:
		did = "lose"
		m.lose(1 + m.rng.IntN(3))
	case 1:
		did = "flush"
		m.lose(len(m.past))
	case 2, 3:
		did = "forget"
		m.start = uint64(len(m.past))
	case 4, 5, 6:
		did = slices.Sorted(maps.Keys(faults))[m.rng.IntN(len(faults))]
		m.fault = faults[did]
	case 7:
		did = "slow"
		m.slow = time.Duration(m.rng.IntN(2000)) * time.Millisecond
	case 8:
		did = "reconnect"
		m.fails = 1 + m.rng.IntN(3)
	case 9, 10:
		did = "during"
		m.during += 2
	case 11, 12:
		did = "delete"
		m.add(fmt.Sprint("a", m.rng.IntN(6)), "")
	default:
		did = "save"
		m.add(fmt.Sprintf("%c%d", "abcd"[m.rng.IntN(4)], m.rng.IntN(6)), fmt.Sprint(m.rng.Uint32()))
	}
	m.did = append(m.did, did)
}

// change appends to the history; an empty value deletes.
func (m *model) change(name, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(name, value)
}

func (m *model) add(name, value string) {
	m.steps++
	last := m.head()
	c := store.Change{Mark: store.Mark{Seq: last.Seq + 1, Tag: fmt.Sprint("t", m.steps)}, After: last.Tag, Gone: value == ""}
	c.Entry = store.Entry{Name: name, Value: []byte(value), Version: c.Seq}
	m.past, m.when = append(m.past, c), append(m.when, time.Now())
	close(m.moved)
	m.moved = make(chan struct{})
}

func (m *model) head() store.Mark {
	if len(m.past) == 0 {
		return store.Mark{}
	}
	return m.past[len(m.past)-1].Mark
}

// lose takes the last changes back: another server took over that had not heard of them.
func (m *model) lose(n int) {
	n = max(0, len(m.past)-n)
	m.past, m.when, m.start = m.past[:n:n], m.when[:n:n], min(m.start, uint64(n))
	m.lost = time.Now()
	m.run++
}

// knows reports whether a mark is one of the history.
func (m *model) knows(at store.Mark) bool {
	return at == store.Mark{} || at.Seq > 0 && at.Seq <= uint64(len(m.past)) && m.past[at.Seq-1].Mark == at
}

// state is what the first n changes lead to.
func (m *model) state(n uint64) map[string]string {
	out := map[string]string{}
	for _, c := range m.past[:n] {
		if c.Gone {
			delete(out, c.Entry.Name)
		} else {
			out[c.Entry.Name] = string(c.Entry.Value)
		}
	}
	return out
}

var errModel = errors.New("connection lost")

// failed reports whether what is asked now fails. The caller holds m.mu.
func (m *model) failed() bool {
	if m.fails == 0 || m.rng.IntN(2) == 0 {
		return m.dead
	}
	m.fails--
	return true
}

func (m *model) Mark(context.Context) (store.Mark, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed() {
		return store.Mark{}, errModel
	}
	return m.head(), nil
}

// Each yields the entries as they are when each one's turn comes, some twice, and other
// things happen in between. It may end early, and says so where another server took over.
func (m *model) Each(_ context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		m.mu.Lock()
		run, names := m.run, slices.Sorted(maps.Keys(m.state(uint64(len(m.past)))))
		m.mu.Unlock()
		for _, name := range append(names, names[:len(names)/2]...) {
			m.mu.Lock()
			failed := m.failed()
			for m.during > 0 && m.rng.IntN(3) > 0 {
				m.during--
				m.disturb()
			}
			_, ok := m.state(uint64(len(m.past)))[name]
			e := store.Entry{}
			for _, c := range m.past {
				if c.Entry.Name == name {
					e = c.Entry
				}
			}
			m.mu.Unlock()
			if failed {
				yield(store.Entry{}, errModel)
				return
			}
			if ok && strings.HasPrefix(name, prefix) && !yield(e, nil) {
				return
			}
		}
		m.mu.Lock()
		other := m.run != run
		m.mu.Unlock()
		if other {
			yield(store.Entry{}, errModel)
		}
	}
}

// Changes tells what the stream still has after a number; where it has nothing, whether
// the mark is where history ends.
func (m *model) Changes(ctx context.Context, after store.Mark, wait time.Duration) ([]store.Change, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		m.mu.Lock()
		head, moved := m.head(), m.moved
		var out []store.Change
		if from := max(after.Seq, m.start); from < head.Seq {
			out = slices.Clone(m.past[from:])
		}
		slow, failed := m.slow, m.failed()
		if len(out) > 0 && m.fault != nil {
			out, m.fault = m.fault(out), nil
		}
		if len(out) > 0 {
			m.slow = 0
		}
		m.mu.Unlock()
		switch {
		case failed:
			return nil, errModel
		case len(out) > 0:
		case head != after:
			return nil, fmt.Errorf("%w: test", store.ErrGap)
		case wait > 0:
			select {
			case <-moved:
				continue
			case <-timer.C:
				return nil, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
		return out, nil
	}
}

// faults are what a feed may do to its answer.
var faults = map[string]func([]store.Change) []store.Change{
	"gap": func(c []store.Change) []store.Change {
		if len(c) > 1 {
			c = append(c[:0], c[1:]...)
		}
		return c
	},
	"hole": func(c []store.Change) []store.Change {
		if len(c) > 2 {
			c = append(c[:1], c[2:]...)
		}
		return c
	},
	"duplicate": func(c []store.Change) []store.Change { return append(c, c...) },
	"reorder":   func(c []store.Change) []store.Change { slices.Reverse(c); return c },
	"some": func(c []store.Change) []store.Change {
		if c = c[:(len(c)+1)/2]; len(c) > 0 {
			c[len(c)-1].More = true
		}
		return c
	},
}

// kept is a consumer.
type kept struct {
	prefixes []string
	mu       sync.Mutex
	entries  map[string]store.Entry
	seen     map[string]bool
	loading  bool
}

func newKept(prefixes ...string) *kept {
	return &kept{prefixes: prefixes, entries: map[string]store.Entry{}}
}

func (k *kept) Prefixes() []string { return k.prefixes }

func (k *kept) Begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen, k.loading = map[string]bool{}, true
}

func (k *kept) Take(c store.Change) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := c.Entry.Name
	if e, ok := k.entries[name]; ok && k.seen[name] && e.Version >= c.Seq {
		return nil
	}
	k.seen[name] = true
	k.entries[name] = c.Entry
	if c.Gone {
		k.entries[name] = store.Entry{Version: c.Seq}
	}
	return nil
}

func (k *kept) Loaded() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loading = false
	maps.DeleteFunc(k.entries, func(name string, _ store.Entry) bool { return !k.seen[name] })
}

func (k *kept) state() (map[string]string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]string{}
	for name, e := range k.entries {
		if e.Name != "" {
			out[name] = string(e.Value)
		}
	}
	return out, k.loading
}
