package store

import (
	"errors"
	"fmt"
	"sync"
)

// together is how many changes of a store are under way at once when there are many. A
// file is synced once for all that come together.
const together = 256

// Together calls f, which changes a store, for all items, some at a time and in no
// order. Once the store does not answer, or refuses, no more are begun: each would wait
// as long for the same. It returns nil, or the first error and how many items share its
// fate, and calls f from several goroutines.
func Together[T any](items []T, f func(T) error) error {
	var mu sync.Mutex
	var first error
	next, done := 0, 0
	take := func() (item T, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(items) || first != nil && Away(first) {
			return item, false
		}
		next++
		return items[next-1], true
	}
	var all sync.WaitGroup
	for range min(together, len(items)) {
		all.Go(func() {
			for item, ok := take(); ok; item, ok = take() {
				err := f(item)
				mu.Lock()
				if err == nil {
					done++
				} else if first == nil || Away(err) && !Away(first) {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if more := len(items) - done - 1; first != nil && more > 0 {
		return fmt.Errorf("%w (and %d more like it)", first, more)
	}
	return first
}

// Away reports whether an error is of the store as a whole, and not of one entry.
func Away(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRefused) || errors.Is(err, ErrClosed)
}
