package bolt

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"chaperone/store"
)

// kept is how many changes are remembered, at least, for those who follow.
const kept = 4096

// history is what changed since the file was opened, and not all of that: who falls
// behind reads anew.
type history struct {
	tag string // of this opening; another process may have changed the file in between

	mu    sync.Mutex
	last  uint64                  // sequence number of the newest change that is told
	ring  []store.Change          // the newest, in order
	early map[uint64]store.Change // committed before one with a lower number was told
	more  chan struct{}           // closed and replaced at each change
}

func newHistory(last uint64) *history {
	return &history{tag: rand.Text(), last: last, ring: make([]store.Change, 0, 64), early: map[uint64]store.Change{}, more: make(chan struct{})}
}

// tell adds a committed change. Those of one transaction come in any order.
func (h *history) tell(e store.Entry, seq uint64, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.early[seq] = store.Change{Mark: store.Mark{Seq: seq, Tag: h.tag}, After: h.tag, Entry: e, Gone: gone}
	for {
		c, ok := h.early[h.last+1]
		if !ok {
			break
		}
		h.last++
		delete(h.early, h.last)
		if len(h.ring) == 2*kept {
			clear(h.ring[copy(h.ring, h.ring[kept:]):])
			h.ring = h.ring[:kept]
		}
		h.ring = append(h.ring, c)
	}
	close(h.more)
	h.more = make(chan struct{})
}

// after returns the changes after a number, and what to wait for when there are none.
func (h *history) after(m store.Mark) ([]store.Change, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.last - uint64(len(h.ring)) + 1
	if m.Tag != h.tag || m.Seq > h.last || m.Seq+1 < first {
		return nil, nil, fmt.Errorf("%w: change %d", store.ErrGap, m.Seq)
	}
	return append([]store.Change(nil), h.ring[m.Seq+1-first:]...), h.more, nil
}

// Mark implements [store.Feed].
func (s *Store) Mark(ctx context.Context) (store.Mark, error) {
	if err := ctx.Err(); err != nil {
		return store.Mark{}, err
	}
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	return store.Mark{Seq: s.history.last, Tag: s.history.tag}, nil
}

// Each implements [store.Feed].
func (s *Store) Each(ctx context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return s.Scan(ctx, prefix)
}

// Changes implements [store.Feed].
func (s *Store) Changes(ctx context.Context, after store.Mark, wait time.Duration) ([]store.Change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		changes, more, err := s.history.after(after)
		if err != nil || len(changes) > 0 || wait <= 0 {
			return changes, err
		}
		select {
		case <-more:
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closed:
			return nil, store.ErrClosed
		}
	}
}

// sequence returns the number of the last change in the file.
func (s *Store) sequence() (n uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket(bucket).Sequence()
		return nil
	})
	return n, err
}
