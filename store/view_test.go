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
	"testing"
	"testing/synctest"
	"time"

	"chaperone/store"
)

// model is a feed whose whole history is known, and that misbehaves on demand.
type model struct {
	store.Store
	mu    sync.Mutex
	start uint64 // changes up to this number are forgotten
	past  []store.Change
	fault func([]store.Change) ([]store.Change, error) // of the next answer
	moved chan struct{}
	steps int
}

func newModel() *model { return &model{moved: make(chan struct{})} }

// change appends to the history; an empty value deletes.
func (m *model) change(name, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps++
	last := m.head()
	c := store.Change{Mark: store.Mark{Seq: last.Seq + 1, Tag: fmt.Sprint("t", m.steps)}, After: last.Tag, Gone: value == ""}
	c.Entry = store.Entry{Name: name, Value: []byte(value), Version: c.Seq}
	m.past = append(m.past, c)
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
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past = m.past[:max(0, len(m.past)-n)]
	m.start = min(m.start, uint64(len(m.past)))
}

// forget drops the older changes.
func (m *model) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.start = uint64(len(m.past))
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

func (m *model) Mark(context.Context) (store.Mark, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.head(), nil
}

// Each yields the entries as they are when each one's turn comes, some twice.
func (m *model) Each(_ context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		m.mu.Lock()
		names := slices.Collect(maps.Keys(m.state(uint64(len(m.past)))))
		m.mu.Unlock()
		for _, name := range append(names, names[:len(names)/2]...) {
			m.mu.Lock()
			e, ok := store.Entry{}, false
			for _, c := range m.past {
				if c.Entry.Name == name {
					e, ok = c.Entry, !c.Gone && strings.HasPrefix(name, prefix)
				}
			}
			m.mu.Unlock()
			if ok && !yield(e, nil) {
				return
			}
		}
	}
}

func (m *model) Changes(ctx context.Context, after store.Mark, wait time.Duration) ([]store.Change, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		m.mu.Lock()
		head, moved := m.head(), m.moved
		known := after.Seq <= head.Seq && (after.Seq == 0 && after.Tag == "" || after.Seq > 0 && m.past[after.Seq-1].Tag == after.Tag)
		var out []store.Change
		if known && after.Seq >= m.start {
			out = slices.Clone(m.past[after.Seq:])
		}
		gap := !known || after.Seq < m.start && after.Seq < head.Seq
		fault := m.fault
		if !gap && (len(out) > 0 || fault != nil) {
			m.fault = nil
		}
		m.mu.Unlock()
		if gap {
			return nil, fmt.Errorf("%w: test", store.ErrGap)
		}
		if fault != nil {
			return fault(out)
		}
		if len(out) > 0 || wait <= 0 {
			return out, nil
		}
		select {
		case <-moved:
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// kept is a consumer.
type kept struct {
	mu      sync.Mutex
	entries map[string]store.Entry
	seen    map[string]bool
	loading bool
}

func (k *kept) Prefixes() []string { return []string{"a", "b"} }

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

var errModel = errors.New("connection lost")

// faults are what a feed may do to its answer.
var faults = map[string]func([]store.Change) ([]store.Change, error){
	"gap": func(c []store.Change) ([]store.Change, error) {
		if len(c) > 1 {
			c = append(c[:0], c[1:]...)
		}
		return c, nil
	},
	"hole": func(c []store.Change) ([]store.Change, error) {
		if len(c) > 2 {
			c = append(c[:1], c[2:]...)
		}
		return c, nil
	},
	"duplicate": func(c []store.Change) ([]store.Change, error) { return append(c, c...), nil },
	"reorder":   func(c []store.Change) ([]store.Change, error) { slices.Reverse(c); return c, nil },
	"reconnect": func([]store.Change) ([]store.Change, error) { return nil, errModel },
	"cut short": func(c []store.Change) ([]store.Change, error) { return c[:len(c)/2], nil },
	"forged": func(c []store.Change) ([]store.Change, error) {
		if len(c) > 0 {
			c[0].After = "another history"
		}
		return c, nil
	},
}

// TestViewIsTheModel does at random what can happen to a store and to the way to it.
// Whenever the view says that it is current, it holds what the model holds.
func TestViewIsTheModel(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			m, k := newModel(), &kept{entries: map[string]store.Entry{}}
			for i := range rng.IntN(5) {
				m.change(fmt.Sprint("a", i), "before")
			}
			v, err := store.OpenView(t.Context(), store.ViewOptions{Feed: m, Consumers: []store.Consumer{k}})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			var did []string
			for range 40 {
				did = append(did, disturb(m, rng))
				if rng.IntN(3) > 0 {
					continue
				}
				time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
				synctest.Wait()
				compare(t, v, m, k, did)
			}
			time.Sleep(10 * time.Second) // longer than all pauses
			synctest.Wait()
			if end, _ := m.Mark(t.Context()); v.Mark() != end || v.Age() > time.Second || v.Lost() != nil {
				t.Fatalf("seed %d: it stands at %+v, %v old, lost %v; want %+v after %q", seed, v.Mark(), v.Age(), v.Lost(), end, did)
			}
			compare(t, v, m, k, did)
		})
	}
}

func disturb(m *model, rng *rand.Rand) string {
	switch n := rng.IntN(12); n {
	case 0:
		m.lose(1 + rng.IntN(3))
		return "lose"
	case 1:
		m.forget()
		return "forget"
	case 2, 3:
		name := slices.Sorted(maps.Keys(faults))[rng.IntN(len(faults))]
		m.mu.Lock()
		m.fault = faults[name]
		m.mu.Unlock()
		return name
	case 4:
		m.change(fmt.Sprint("a", rng.IntN(6)), "")
		return "delete"
	}
	m.change(fmt.Sprintf("%c%d", "abc"[rng.IntN(3)], rng.IntN(6)), fmt.Sprint(rng.Uint32()))
	return "save"
}

// compare holds the view against the history as it was at the view's mark.
func compare(t *testing.T, v *store.View, m *model, k *kept, did []string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	at := v.Mark()
	got, loading := k.state()
	if loading || at.Seq > uint64(len(m.past)) || at.Seq > 0 && m.past[at.Seq-1].Tag != at.Tag {
		return // it has not noticed yet, and grows older
	}
	want := m.state(at.Seq)
	maps.DeleteFunc(want, func(name, _ string) bool { return name[0] == 'c' })
	if !maps.Equal(got, want) {
		t.Fatalf("at %+v the view holds %v and the model %v, after %q", at, got, want, did)
	}
}

// TestViewGrowsOld has the feed fail: the view says since when, and that it is back.
func TestViewGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, k := newModel(), &kept{entries: map[string]store.Entry{}}
		var told []string
		v, err := store.OpenView(t.Context(), store.ViewOptions{Feed: m, Consumers: []store.Consumer{k}, Lost: func(err error) { told = append(told, fmt.Sprint(err)) }})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		time.Sleep(time.Minute)
		if v.Age() > time.Second {
			t.Errorf("it is %v old and nothing is wrong", v.Age())
		}
		lost := true
		var fail func([]store.Change) ([]store.Change, error)
		fail = func([]store.Change) ([]store.Change, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if lost {
				m.fault = fail
			}
			return nil, errModel
		}
		m.mu.Lock()
		m.fault = fail
		m.mu.Unlock()
		m.change("a1", "meanwhile")
		time.Sleep(20 * time.Second)
		if age := v.Age(); age < 20*time.Second || age > 22*time.Second || !errors.Is(v.Lost(), errModel) {
			t.Errorf("after 20 s it is %v old, lost: %v", age, v.Lost())
		}
		m.mu.Lock()
		lost = false
		m.mu.Unlock()
		time.Sleep(3 * time.Second)
		if got, _ := k.state(); got["a1"] != "meanwhile" || v.Age() > time.Second || v.Lost() != nil {
			t.Errorf("back again it holds %v, is %v old, lost: %v", got, v.Age(), v.Lost())
		}
		if len(told) != 2 || told[0] != errModel.Error() || told[1] != "<nil>" {
			t.Errorf("its owner was told %q", told)
		}
	})
}
