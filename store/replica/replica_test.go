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
		Store: kv, Now: func() time.Time { return time.Now().Add(ahead) }, Failed: func(err error) { t.Log(err) },
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
	twin := New(Options{Store: kv, Now: time.Now, Failed: func(error) {}, Self: func() Status { return Status{ID: "a", Host: "elsewhere", Started: time.Now()} }})
	if err := twin.Start(t.Context()); !errors.Is(err, ErrTwin) {
		t.Errorf("got %v", err)
	}
	again := New(Options{Store: kv, Now: func() time.Time { return time.Now().Add(time.Minute) }, Failed: func(error) {}, Self: func() Status { return Status{ID: "a", Host: "host-a", Started: time.Now()} }})
	if err := again.tell(t.Context()); err != nil {
		t.Errorf("the same one, started again: %v", err)
	}
}
