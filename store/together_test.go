package store_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"chaperone/store"
)

func TestTogether(t *testing.T) {
	items := make([]int, 10_000)
	for i := range items {
		items[i] = i
	}
	var asked atomic.Int64
	odd := errors.New("odd")
	for name, tc := range map[string]struct {
		items []int
		f     func(int) error
		least int64
		most  int64
		text  string
	}{
		"none":        {nil, func(int) error { return odd }, 0, 0, ""},
		"all":         {items, func(int) error { return nil }, 10_000, 10_000, ""},
		"one":         {items[:1], func(int) error { return odd }, 1, 1, "odd"},
		"half":        {items, func(i int) error { return []error{nil, odd}[i%2] }, 10_000, 10_000, "odd (and 4999 more like it)"},
		"away":        {items, func(int) error { return fmt.Errorf("it: %w", store.ErrUnavailable) }, 1, 256, "it: store does not answer (and 9999 more like it)"},
		"refused":     {items, func(int) error { return store.ErrRefused }, 1, 256, "store refuses (and 9999 more like it)"},
		"odd at last": {items, func(i int) error { return map[bool]error{i < 100: odd, i == 200: store.ErrClosed}[true] }, 201, 600, "store is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			err := store.Together(tc.items, func(i int) error {
				asked.Add(1)
				return tc.f(i)
			})
			if got := fmt.Sprint(err); tc.text == "" && err != nil || tc.text != "" && (len(got) < len(tc.text) || got[:len(tc.text)] != tc.text) {
				t.Errorf("%v, want %q", err, tc.text)
			}
			if n := asked.Load(); n < tc.least || n > tc.most {
				t.Errorf("%d were tried, want %d to %d", n, tc.least, tc.most)
			}
		})
	}
}
