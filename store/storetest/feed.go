package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/store"
)

// contention has writers add to one number, each starting over when another was
// faster. None of their steps is lost.
func contention(t *testing.T, s store.Store, _ *Clock) {
	const writers, steps = 6, 8
	ctx := t.Context()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < steps; {
				e, err := s.Load(ctx, "count")
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("load: %v", err)
					return
				}
				n := uint64(0)
				if len(e.Value) == 8 {
					n = binary.BigEndian.Uint64(e.Value)
				}
				e.Name, e.Value = "count", binary.BigEndian.AppendUint64(nil, n+1)
				_, err = s.Save(ctx, e)
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("save: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	e, err := s.Load(ctx, "count")
	if err != nil || binary.BigEndian.Uint64(e.Value) != writers*steps {
		t.Errorf("counted %v, %v; want %d", e.Value, err, writers*steps)
	}
}

// oneMoment moves an entry along while others scan: at every moment one exists, and
// for the time of the step two.
func oneMoment(t *testing.T, s store.Store, _ *Clock) {
	ctx := t.Context()
	name := func(i int) string { return fmt.Sprintf("walk/%03d", i%50) }
	if _, err := s.Save(ctx, store.Entry{Name: name(0)}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := range 40 {
			if _, err := s.Save(ctx, store.Entry{Name: name(i + 1)}); err != nil {
				t.Errorf("save: %v", err)
				return
			}
			if err := s.Delete(ctx, name(i)); err != nil {
				t.Errorf("delete: %v", err)
				return
			}
		}
	}()
	for scanning := true; scanning; {
		select {
		case <-ended:
			scanning = false
		default:
		}
		var seen []string
		for e, err := range s.Scan(ctx, "walk/") {
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, e.Name)
		}
		if len(seen) < 1 || len(seen) > 2 {
			t.Fatalf("a scan saw %q", seen)
		}
	}
	<-ended
}

// feedOf returns s as a feed, or skips.
func feedOf(t *testing.T, s store.Store) store.Feed {
	t.Helper()
	f, ok := s.(store.Feed)
	if !ok {
		t.Skip("it is no feed")
	}
	return f
}

func history(t *testing.T, s store.Store, clock *Clock) {
	f, ctx := feedOf(t, s), t.Context()
	start, err := f.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a := must(s.Save(ctx, store.Entry{Name: "x/a", Value: []byte("1")}))
	b := must(s.Save(ctx, store.Entry{Name: "x/b", Value: []byte("2"), Expires: clock.Now().Add(time.Hour)}))
	s.Save(ctx, store.Entry{Name: "x/a", Value: []byte("lost")}) // a conflict is no change
	a = must(s.Save(ctx, store.Entry{Name: "x/a", Value: []byte("3"), Version: a.Version}))
	for _, name := range []string{"x/a", "x/a", "never"} { // one of them is a change
		if err := s.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	changes := follow(t, f, start, 4)
	var got []string
	for _, c := range changes {
		got = append(got, fmt.Sprintf("%s=%s/%v", c.Entry.Name, c.Entry.Value, c.Gone))
	}
	if want := "x/a=1/false x/b=2/false x/a=3/false x/a=/true"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if changes[2].Seq != a.Version || changes[1].Entry.Version != b.Version || !changes[1].Entry.Expires.Equal(b.Expires) {
		t.Errorf("versions or ends are others: %+v", changes)
	}
	end, err := f.Mark(ctx)
	if err != nil || end != changes[3].Mark {
		t.Errorf("the history ends at %+v, %v; want %+v", end, err, changes[3].Mark)
	}
	if late, err := f.Changes(ctx, end, time.Millisecond); err != nil || len(late) > 0 {
		t.Errorf("after its end: %+v, %v", late, err)
	}
	for name, m := range map[string]store.Mark{"another history": {Seq: end.Seq, Tag: "other"}, "the future": {Seq: end.Seq + 7, Tag: end.Tag}} {
		c, err := f.Changes(ctx, m, time.Millisecond)
		if err == nil {
			err = m.Follow(c)
		}
		if !errors.Is(err, store.ErrGap) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// follow reads n changes after a mark and checks that they continue it.
func follow(t *testing.T, f store.Feed, at store.Mark, n int) []store.Change {
	t.Helper()
	var all []store.Change
	for m := at; len(all) < n; {
		c, err := f.Changes(t.Context(), m, 5*time.Second)
		if err == nil {
			err = m.Follow(c)
		}
		if err != nil || len(c) == 0 {
			t.Fatalf("after %d of %d changes: %v", len(all), n, err)
		}
		all = append(all, c...)
		m = c[len(c)-1].Mark
	}
	return all
}

// waiting is woken by a change, and not by time.
func waiting(t *testing.T, s store.Store, _ *Clock) {
	f, ctx := feedOf(t, s), t.Context()
	at, err := f.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan error, 1)
	go func() {
		c, err := f.Changes(ctx, at, time.Minute/2)
		if err == nil && len(c) != 1 {
			err = fmt.Errorf("%d changes", len(c))
		}
		woken <- err
	}()
	must(s.Save(ctx, store.Entry{Name: "k"}))
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	select {
	case err := <-woken:
		if err != nil {
			t.Error(err)
		}
	case <-late.C:
		t.Error("it sleeps on")
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.Changes(ctx, at, time.Minute); err == nil {
		t.Error("a cancelled context was not noticed")
	}
}

// mirror is a consumer that keeps all.
type mirror struct {
	mu      sync.Mutex
	entries map[string]store.Entry
	seen    map[string]bool
}

func (m *mirror) Prefixes() []string { return []string{""} }

func (m *mirror) Begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = map[string]bool{}
}

func (m *mirror) Take(c store.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := c.Entry.Name
	if known, ok := m.entries[name]; ok && m.seen[name] && known.Version >= c.Seq {
		return nil
	}
	m.seen[name] = true
	if c.Gone {
		delete(m.entries, name)
	} else {
		m.entries[name] = c.Entry
	}
	return nil
}

func (m *mirror) Loaded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.entries, func(name string, _ store.Entry) bool { return !m.seen[name] })
}

// views has views follow writers, and each ends with what a scan shows.
func views(t *testing.T, s store.Store, _ *Clock) {
	f, ctx := feedOf(t, s), t.Context()
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 25 {
				name := fmt.Sprintf("v%d/%d", w%2, i%7)
				e, err := s.Load(ctx, name)
				if err == nil && i%3 == 0 {
					err = s.Delete(ctx, name)
				} else if err == nil || errors.Is(err, store.ErrNotFound) {
					e.Name, e.Value = name, fmt.Append(nil, w, i)
					_, err = s.Save(ctx, e)
				}
				if err != nil && !errors.Is(err, store.ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	m := &mirror{entries: map[string]store.Entry{}}
	v, err := store.OpenView(ctx, store.ViewOptions{Feed: f, Consumers: []store.Consumer{m}, Wait: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	writers.Wait()
	end, err := f.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Reach(ctx, end.Seq); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for e, err := range s.Scan(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if got := m.entries[e.Name]; string(got.Value) != string(e.Value) || got.Version != e.Version {
			t.Errorf("%s: the view has %q, the store %q", e.Name, got.Value, e.Value)
		}
	}
	if n != len(m.entries) {
		t.Errorf("the view has %d entries, the store %d", len(m.entries), n)
	}
}

func must(e store.Entry, err error) store.Entry {
	if err != nil {
		panic(err)
	}
	return e
}
