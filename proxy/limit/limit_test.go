package limit

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/store"
	"chaperone/store/bolt"
)

func open(t testing.TB) store.Store {
	t.Helper()
	s, err := bolt.Open(filepath.Join(t.TempDir(), "s"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func claims(most int64) []Claim {
	return []Claim{{Key: "requests agent a", Title: "the budget", Max: most, Amount: 1}}
}

// TestNeverOneOver lets a thousand requests at a time ask three replicas for what
// there is not enough of.
func TestNeverOneOver(t *testing.T) {
	const most, requests = 700, 1000
	s := open(t)
	var replicas []*Counter
	for range 3 {
		c := New(s, time.Now)
		defer c.Close()
		replicas = append(replicas, c)
	}
	var allowed, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			_, err := replicas[i%3].Take(t.Context(), claims(most))
			switch {
			case err == nil:
				allowed.Add(1)
			case errors.Is(err, ErrExceeded):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if allowed.Load() > most || allowed.Load()+refused.Load() != requests || allowed.Load() < most/2 {
		t.Errorf("%d of %d were allowed", allowed.Load(), most)
	}
	// What replicas have reserved and not used is given back, and can be used.
	for _, c := range replicas[1:] {
		c.Close()
	}
	for {
		if _, err := replicas[0].Take(t.Context(), claims(most)); err != nil {
			break
		}
		allowed.Add(1)
	}
	if allowed.Load() != most {
		t.Errorf("%d of %d in the end", allowed.Load(), most)
	}
}

func TestAllOrNone(t *testing.T) {
	c := New(open(t), time.Now)
	defer c.Close()
	two := []Claim{{Key: "a", Max: 10, Amount: 4}, {Key: "b", Title: "b", Max: 5, Amount: 3}}
	if _, err := c.Take(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	_, err := c.Take(t.Context(), two)
	if x, ok := errors.AsType[*Exceeded](err); !ok || x.Title != "b" || !x.Again.IsZero() {
		t.Errorf("%v", err)
	}
	if _, err := c.Take(t.Context(), []Claim{{Key: "a", Max: 10, Amount: 6}}); err != nil {
		t.Errorf("a refusal took of the other limit: %v", err)
	}
	if _, err := c.Take(t.Context(), []Claim{{Key: "c", Max: 10, Amount: 11}}); !errors.Is(err, ErrExceeded) {
		t.Errorf("more than there ever is: %v", err)
	}
	h, err := c.Take(t.Context(), []Claim{{Key: "d", Max: 1, Amount: 1}})
	if err != nil {
		t.Fatal(err)
	}
	h.GiveBack()
	h.GiveBack()
	if _, err := c.Take(t.Context(), []Claim{{Key: "d", Max: 1, Amount: 1}}); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
	if _, err := c.Take(t.Context(), []Claim{{Key: "d", Max: 1, Amount: 1}}); err == nil {
		t.Error("given back twice")
	}
}

func TestWindows(t *testing.T) {
	now := time.Now().Truncate(time.Minute).Add(30 * time.Second) // the store has a clock of its own
	c := New(open(t), func() time.Time { return now })
	defer c.Close()
	claim := []Claim{{Key: "a", Title: "a", Max: 1, Amount: 1, Every: time.Minute}}
	if _, err := c.Take(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	_, err := c.Take(t.Context(), claim)
	if x, ok := errors.AsType[*Exceeded](err); !ok || !x.Again.Equal(now.Add(30*time.Second)) {
		t.Errorf("%v", err)
	}
	now = now.Add(30 * time.Second)
	if _, err := c.Take(t.Context(), claim); err != nil {
		t.Errorf("in the next minute: %v", err)
	}
}

// TestRestart counts on after the process was killed, and after it was stopped.
func TestRestart(t *testing.T) {
	s := open(t)
	killed := New(s, time.Now)
	if _, err := killed.Take(t.Context(), claims(3)); err != nil {
		t.Fatal(err)
	}
	next := New(s, time.Now)
	for range 2 {
		if _, err := next.Take(t.Context(), claims(3)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := next.Take(t.Context(), claims(3)); !errors.Is(err, ErrExceeded) {
		t.Errorf("the fourth of three: %v", err)
	}
	next.Close()
	killed.Close()
}

func TestUncounted(t *testing.T) {
	s := open(t)
	c := New(s, time.Now)
	defer c.Close()
	s.Close()
	if _, err := c.Take(t.Context(), claims(3)); !errors.Is(err, ErrUncounted) {
		t.Errorf("with a closed store: %v", err)
	}
}

// BenchmarkTake is the common request: what it takes is reserved already.
func BenchmarkTake(b *testing.B) {
	c := New(open(b), time.Now)
	defer c.Close()
	claim := claims(1 << 40)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Take(b.Context(), claim); err != nil {
			b.Fatal(err)
		}
	}
}
