package replica

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/store"
	"chaperone/store/bolt"
)

// member is a replica with its view.
type member struct {
	*Registry
	view *store.View
	held atomic.Bool // its view does not move
}

// holding is the store as one member sees it.
type holding struct {
	store.Feed
	m *member
}

func (h *holding) Changes(ctx context.Context, after store.Mark, wait time.Duration) ([]store.Change, error) {
	changes, err := h.Feed.Changes(ctx, after, wait)
	if h.m.held.Load() {
		return nil, store.ErrUnavailable
	}
	return changes, err
}

func opened(t *testing.T) *bolt.Store {
	t.Helper()
	kv, err := bolt.Open(filepath.Join(t.TempDir(), "s"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	return kv
}

func join(t *testing.T, kv store.Feed, id string, ahead time.Duration) *member {
	t.Helper()
	m := &member{}
	var view atomic.Pointer[store.View]
	started := time.Now()
	m.Registry = New(Options{
		Store: kv, Now: func() time.Time { return time.Now().Add(ahead) }, Told: func(err error) { t.Log(err) },
		Self: func() Status {
			s := Status{ID: id, Host: "host-" + id, Version: "1", Started: started}
			if v := view.Load(); v != nil {
				s.Applied = v.Mark().Seq
			}
			return s
		},
	})
	v, err := store.OpenView(t.Context(), store.ViewOptions{Feed: &holding{kv, m}, Consumers: []store.Consumer{m.Registry}, Wait: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	view.Store(v)
	m.view = v
	t.Cleanup(v.Close)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestConfirm asks replicas whose clocks differ by seconds, of which one hangs.
func TestConfirm(t *testing.T) {
	kv := opened(t)
	a, b, c := join(t, kv, "a", 0), join(t, kv, "b", 2*time.Second), join(t, kv, "c", -2*time.Second)
	for _, m := range []*member{a, b, c} {
		defer m.Close(context.WithoutCancel(t.Context()))
	}
	ask := func(limit time.Duration) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		acks, err := a.Confirm(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, k := range acks {
			out = append(out, fmt.Sprintf("%s:%v%s", k.ID, k.Done, k.Why))
		}
		return strings.Join(out, " ")
	}
	mark, err := kv.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.view.Reach(t.Context(), mark.Seq); err != nil {
		t.Fatal(err)
	}
	if got := ask(10 * time.Second); got != "a:true b:true c:true" {
		t.Errorf("got %q", got)
	}
	c.held.Store(true)
	if got := ask(300 * time.Millisecond); got != "a:true b:true c:falseit has not answered" {
		t.Errorf("with one that hangs: %q", got)
	}
	c.held.Store(false)
	if got := ask(10 * time.Second); got != "a:true b:true c:true" {
		t.Errorf("when it is back: %q", got)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(10 * time.Second); got != "a:true c:true" {
		t.Errorf("after one left: %q", got)
	}
}

// TestTwin starts a replica on a copy of another's state directory.
func TestTwin(t *testing.T) {
	kv := opened(t)
	a := join(t, kv, "a", 0)
	defer a.Close(context.WithoutCancel(t.Context()))
	twin := New(Options{Store: kv, Now: time.Now, Told: func(error) {}, Self: func() Status { return Status{ID: "a", Host: "elsewhere", Started: time.Now()} }})
	if err := twin.Start(t.Context()); !errors.Is(err, ErrTwin) {
		t.Errorf("got %v", err)
	}
	again := New(Options{Store: kv, Now: func() time.Time { return time.Now().Add(time.Minute) }, Told: func(error) {}, Self: func() Status { return Status{ID: "a", Host: "host-a", Started: time.Now()} }})
	if err := again.tell(t.Context()); err != nil {
		t.Errorf("the same one, started again: %v", err)
	}
}

// refusing is a store that takes nothing, or nothing new.
type refusing struct {
	store.Feed
	err atomic.Pointer[error]
}

func (r *refusing) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	if err := r.err.Load(); err != nil && !(e.Must && errors.Is(*err, store.ErrFull)) {
		return store.Entry{}, *err
	}
	return r.Feed.Save(ctx, e)
}

// TestSilent has a store refuse what a replica tells of itself: it knows for how long,
// unless the store takes what must be.
func TestSilent(t *testing.T) {
	kv := &refusing{Feed: opened(t)}
	m := join(t, kv, "a", 0)
	defer m.Close(t.Context())
	told := func(err error) {
		t.Helper()
		kv.err.Store(&err)
		if err == nil {
			kv.err.Store(nil)
		}
		if got := m.tell(t.Context()); !errors.Is(got, err) {
			t.Errorf("told %v, want %v", got, err)
		}
	}
	for _, err := range []error{nil, store.ErrTooLarge, store.ErrFull} {
		if told(err); m.Silent() != 0 {
			t.Errorf("after %v it is silent for %v", err, m.Silent())
		}
	}
	for _, err := range []error{store.ErrRefused, store.ErrUnavailable} {
		if told(err); m.Silent() <= 0 {
			t.Errorf("after %v it is not silent", err)
		}
	}
	before := m.Silent()
	if told(store.ErrRefused); m.Silent() <= before {
		t.Error("silence does not grow")
	}
	if told(nil); m.Silent() != 0 {
		t.Errorf("taken again it is silent for %v", m.Silent())
	}
}
