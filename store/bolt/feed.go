package bolt

import (
	"bytes"
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

// page is how many entries are read in one transaction, for which there is room at first
// when they are of the usual length, in bytes.
const (
	page       = 1000
	usualName  = 24
	usualValue = 256
)

// Each implements [store.Feed]. While one page is looked at the next is read.
func (s *Store) Each(ctx context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		reading, stop := context.WithCancel(ctx)
		pages := make(chan []store.Entry, 1)
		var err error // of reading; set when pages is closed
		var ahead sync.WaitGroup
		ahead.Go(func() {
			defer close(pages)
			err = s.readPages(reading, prefix, pages)
		})
		defer ahead.Wait()
		defer stop()
		for entries := range pages {
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}
		if err != nil {
			yield(store.Entry{}, named(prefix, err))
		}
	}
}

// readPages reads the entries of a prefix, until the last, an error, or the end of ctx.
func (s *Store) readPages(ctx context.Context, prefix string, pages chan<- []store.Entry) error {
	for from := prefix; ; {
		entries, next, err := s.readPage(prefix, from)
		if err != nil {
			return err
		}
		select {
		case pages <- entries:
		case <-ctx.Done():
			return ctx.Err()
		}
		if next == "" {
			return nil
		}
		from = next
	}
}

// readPage reads entries of a prefix, beginning at a name, and returns the name at which
// to go on; empty: that was all. Their names are parts of one text, and their values of
// one slice, as there may be a million.
func (s *Store) readPage(prefix, from string) (out []store.Entry, next string, err error) {
	now := s.now().UnixNano()
	names, values := make([]byte, 0, page*usualName), make([]byte, 0, page*usualValue)
	var ends [][2]int
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		k, v := c.Seek([]byte(from))
		for ; bytes.HasPrefix(k, []byte(prefix)) && k != nil && len(out) < page; k, v = c.Next() {
			version, expires, value, err := parse(k, v)
			if err != nil {
				return err
			}
			if past(expires, now) {
				continue
			}
			names, values = append(names, k...), append(values, value...)
			out, ends = append(out, store.Entry{Version: version, Expires: moment(expires)}), append(ends, [2]int{len(names), len(values)})
		}
		if bytes.HasPrefix(k, []byte(prefix)) {
			next = string(k)
		}
		return nil
	})
	text, at := string(names), [2]int{}
	for i, end := range ends {
		out[i].Name, out[i].Value = text[at[0]:end[0]], values[at[1]:end[1]:end[1]]
		at = end
	}
	return out, next, err
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
