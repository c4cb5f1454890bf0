// Package storetest is the contract that every [store.Store] fulfils, as a test.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/store"
)

// Clock is the time by which a store under test lets entries expire.
type Clock struct{ at atomic.Int64 }

// Now returns the clock's time.
func (c *Clock) Now() time.Time { return time.Unix(0, c.at.Load()) }

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) { c.at.Add(int64(d)) }

// Run tests the stores that open returns. Each is empty, goes by the given clock
// and is closed by Run.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) store.Store) {
	clock := &Clock{}
	clock.at.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	for name, test := range map[string]func(*testing.T, store.Store, *Clock){
		"save and load":    saveAndLoad,
		"versions":         versions,
		"one winner":       oneWinner,
		"expiry":           expiry,
		"scan":             scan,
		"names and values": namesAndValues,
		"context":          cancelled,
		"closed":           closed,
		"contention":       contention,
		"one moment":       oneMoment,
		"history":          history,
		"waiting":          waiting,
		"views":            views,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, clock.Now)
			defer s.Close()
			test(t, s, clock)
		})
	}
}

func saveAndLoad(t *testing.T, s store.Store, _ *Clock) {
	ctx := t.Context()
	if _, err := s.Load(ctx, "a/b"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("load of nothing: %v", err)
	}
	value := []byte("one")
	saved, err := s.Save(ctx, store.Entry{Name: "a/b", Value: value})
	if err != nil {
		t.Fatal(err)
	}
	value[0] = 'X' // the store has its own copy
	got, err := s.Load(ctx, "a/b")
	if err != nil || string(got.Value) != "one" || got.Version != saved.Version || got.Version == 0 {
		t.Fatalf("load: %+v, %v", got, err)
	}
	if err := s.Delete(ctx, "a/b"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "a/b"); err != nil {
		t.Fatalf("second delete: %v", err)
	}
	if _, err := s.Load(ctx, "a/b"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("load after delete: %v", err)
	}
}

func versions(t *testing.T, s store.Store, _ *Clock) {
	ctx := t.Context()
	first, err := s.Save(ctx, store.Entry{Name: "k", Value: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(ctx, store.Entry{Name: "k", Value: []byte("2")}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("create over an entry: %v", err)
	}
	second, err := s.Save(ctx, store.Entry{Name: "k", Value: []byte("2"), Version: first.Version})
	if err != nil || second.Version == first.Version {
		t.Fatalf("update: %+v, %v", second, err)
	}
	if _, err := s.Save(ctx, store.Entry{Name: "k", Value: []byte("3"), Version: first.Version}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("update of an old version: %v", err)
	}
	if err := s.Delete(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(ctx, store.Entry{Name: "k", Value: []byte("4"), Version: second.Version}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("update of a deleted entry: %v", err)
	}
	again, err := s.Save(ctx, store.Entry{Name: "k", Value: []byte("5")})
	if err != nil || again.Version == first.Version || again.Version == second.Version {
		t.Errorf("remade entry has an old version: %+v, %v", again, err)
	}
}

func oneWinner(t *testing.T, s store.Store, _ *Clock) {
	ctx := t.Context()
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			_, err := s.Save(ctx, store.Entry{Name: "prize", Value: []byte{byte(i)}})
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("save: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 16 made the same entry", won.Load())
	}
}

func expiry(t *testing.T, s store.Store, clock *Clock) {
	ctx := t.Context()
	if _, err := s.Save(ctx, store.Entry{Name: "short", Value: []byte("x"), Expires: clock.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Minute - 1)
	if _, err := s.Load(ctx, "short"); err != nil {
		t.Fatalf("before its end: %v", err)
	}
	clock.Advance(1)
	if _, err := s.Load(ctx, "short"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("at its end: %v", err)
	}
	for e := range s.Scan(ctx, "") {
		t.Errorf("scan yields the expired %q", e.Name)
	}
	if _, err := s.Save(ctx, store.Entry{Name: "short", Value: []byte("y")}); err != nil {
		t.Errorf("making it anew: %v", err)
	}
}

func scan(t *testing.T, s store.Store, _ *Clock) {
	ctx := t.Context()
	for _, name := range []string{"b/2", "a", "b/1", "b", "bb", "b/10", "c"} {
		if _, err := s.Save(ctx, store.Entry{Name: name, Value: []byte(name)}); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{"": "a b b/1 b/10 b/2 bb c", "b/": "b/1 b/10 b/2", "b": "b b/1 b/10 b/2 bb", "d": ""} {
		var got []string
		for e, err := range s.Scan(ctx, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			if string(e.Value) != e.Name {
				t.Errorf("%q holds %q", e.Name, e.Value)
			}
			got = append(got, e.Name)
			if err := s.Delete(ctx, "nothing"); err != nil { // writing while iterating
				t.Fatal(err)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("scan %q: got %q, want %q", prefix, got, want)
		}
	}
	for range s.Scan(ctx, "") {
		break
	}
}

func namesAndValues(t *testing.T, s store.Store, _ *Clock) {
	ctx := t.Context()
	for _, name := range []string{"", "/a", "a/", "a//b", "a b", "a\n", "ü", "a\x00", strings.Repeat("n", store.MaxName+1)} {
		if _, err := s.Save(ctx, store.Entry{Name: name}); !errors.Is(err, store.ErrName) {
			t.Errorf("name %.20q: %v", name, err)
		}
	}
	big := bytes.Repeat([]byte("v"), store.MaxValue)
	if _, err := s.Save(ctx, store.Entry{Name: "big", Value: big}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(ctx, "big"); err != nil || !bytes.Equal(got.Value, big) {
		t.Errorf("a value of %d bytes came back as %d, %v", len(big), len(got.Value), err)
	}
	if _, err := s.Save(ctx, store.Entry{Name: "bigger", Value: append(big, 'v')}); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("a value that is too large: %v", err)
	}
}

func cancelled(t *testing.T, s store.Store, _ *Clock) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Save(ctx, store.Entry{Name: "k"})
	_, err2 := s.Load(ctx, "k")
	if !errors.Is(err, context.Canceled) || !errors.Is(err2, context.Canceled) || !errors.Is(s.Delete(ctx, "k"), context.Canceled) {
		t.Errorf("a cancelled context was not noticed: %v, %v", err, err2)
	}
}

func closed(t *testing.T, s store.Store, _ *Clock) {
	ctx := t.Context()
	for i := range 3 {
		if _, err := s.Save(ctx, store.Entry{Name: fmt.Sprintf("k%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Load(ctx, "k0")
	if _, err2 := s.Save(ctx, store.Entry{Name: "k9"}); !errors.Is(err, store.ErrClosed) || !errors.Is(err2, store.ErrClosed) {
		t.Errorf("after Close: %v, %v", err, err2)
	}
	for _, err := range s.Scan(ctx, "") {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("scan after Close: %v", err)
		}
	}
}
