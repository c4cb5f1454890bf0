package bolt

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"chaperone/store"
)

// TestGroup has changes come together of which some are refused, one fails and one meets
// damage: each hears of its own fate, and the others are made.
func TestGroup(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "s"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	odd := errors.New("odd")
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		s.group.write(func(*bbolt.Tx) error { // until all others have come
			close(held)
			<-hold
			return nil
		})
	})
	<-held
	const n = 40
	var errs [n]error
	for i := range n {
		all.Go(func() {
			errs[i] = s.group.write(func(tx *bbolt.Tx) error {
				switch {
				case i == 20:
					return odd
				case i == 21:
					panic("damage")
				case i%4 == 3:
					return store.ErrConflict
				}
				return tx.Bucket(bucket).Put(fmt.Append(nil, "k/", i), encode(store.Entry{Name: fmt.Sprint("k/", i), Version: 1}))
			})
		})
	}
	for waiting := 0; waiting < n; runtime.Gosched() {
		s.group.mu.Lock()
		waiting = len(s.group.waiting)
		s.group.mu.Unlock()
	}
	close(hold)
	all.Wait()
	for i, got := range errs {
		var want error
		switch {
		case i == 20:
			want = odd
		case i == 21:
			want = store.ErrDamaged
		case i%4 == 3:
			want = store.ErrConflict
		}
		_, err := s.Load(t.Context(), fmt.Sprint("k/", i))
		if !errors.Is(got, want) || (err == nil) != (want == nil) {
			t.Errorf("change %d: %v, want %v; then %v", i, got, want, err)
		}
	}
	if s.Close(); !errors.Is(s.Delete(t.Context(), "k/1"), store.ErrClosed) {
		t.Error("it writes on after it was closed")
	}
}
