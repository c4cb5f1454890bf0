package bolt

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"chaperone/store"
	"chaperone/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		s, err := Open(filepath.Join(t.TempDir(), "s"), Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Open(path, Options{Wait: 10 * time.Millisecond}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("second open: %v", err)
	}
}

// TestSweep finds that what expired leaves the file while the store is open.
func TestSweep(t *testing.T) {
	now := time.Now()
	s, err := Open(filepath.Join(t.TempDir(), "s"), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	save := func(name string, expires time.Time) {
		if _, err := s.Save(t.Context(), store.Entry{Name: name, Expires: expires}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		save(fmt.Sprintf("dead/%d", i), now.Add(time.Minute))
	}
	now = now.Add(time.Minute)
	for i := range 2 * sweepEvery {
		save(fmt.Sprintf("k/%d", i), time.Time{})
	}
	kept := 0
	s.db.View(func(tx *bbolt.Tx) error {
		kept = tx.Bucket(bucket).Stats().KeyN
		return nil
	})
	if kept != 2*sweepEvery {
		t.Errorf("%d entries in the file, want %d", kept, 2*sweepEvery)
	}
}

func TestExpiryIsNeverLost(t *testing.T) {
	for name, at := range map[string]time.Time{"epoch": time.Unix(0, 0), "before it": time.Unix(-5, 0), "year 1000": time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC), "year 3000": time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		e, err := decode([]byte("k"), encode(store.Entry{Name: "k", Expires: at}), math.MinInt64)
		if err != nil || e.Expires.IsZero() || e.Expires.Before(time.Now()) != at.Before(time.Now()) {
			t.Errorf("%s: %v came back as %v, %v", name, at, e.Expires, err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	s := filledStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(b.Context(), "k"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSave has one writer, and 16 that come together.
func BenchmarkSave(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := filledStore(b)
			var n atomic.Int64
			b.SetParallelism(writers)
			save := func() {
				if _, err := s.Save(b.Context(), store.Entry{Name: fmt.Sprint("k/", n.Add(1))}); err != nil {
					b.Error(err)
				}
			}
			if writers == 1 {
				for b.Loop() {
					save()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					save()
				}
			})
		})
	}
}

func filledStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(filepath.Join(b.TempDir(), "s"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if _, err := s.Save(b.Context(), store.Entry{Name: "k", Value: make([]byte, 512)}); err != nil {
		b.Fatal(err)
	}
	return s
}
