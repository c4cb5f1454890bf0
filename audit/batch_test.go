package audit

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// together has n records committed with one write, and returns what each was told.
func together(t *testing.T, l *Log, n int) []error {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	l.writing.Lock()
	for i := range n {
		wg.Go(func() { errs[i] = full(l).Commit() })
	}
	for {
		l.mu.Lock()
		queued := 0
		for _, line := range l.queue.lines {
			if line.waited {
				queued++
			}
		}
		l.mu.Unlock()
		if queued == n {
			break
		}
		<-time.After(time.Millisecond)
	}
	l.writing.Unlock()
	wg.Wait()
	return errs
}

// TestSharedWrite shows that decisions which wait for one write share its fate: all of
// them are in the log, or none and every request hears of it. An outcome that was
// queued with them is not lost.
func TestSharedWrite(t *testing.T) {
	const n = 20
	var told notices
	l := open(t, Options{Sync: -1, Notice: told.add}) // where each decision waits for its write
	before := full(l)
	if err := before.Commit(); err != nil {
		t.Fatal(err)
	}
	for i, err := range together(t, l, n) {
		if err != nil {
			t.Errorf("decision %d: %v", i, err)
		}
	}
	if err := before.Close(); err != nil { // its outcome waits for company
		t.Fatal(err)
	}
	l.writing.Lock()
	if err := l.file.Close(); err != nil {
		t.Fatal(err)
	}
	l.writing.Unlock()
	for i, err := range together(t, l, n) {
		if !errors.Is(err, ErrLog) {
			t.Errorf("decision %d without a disk: %v", i, err)
		}
	}
	if !told.has("cannot be written") { // Failed may be over again: the log mends itself
		t.Error("the log does not say that it failed")
	}
	l.writing.Lock()
	f, err := openSegment(l.o.Path)
	l.file = f
	l.writing.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(append(together(t, l, n), l.Close())...); err != nil {
		t.Fatal(err)
	}
	if rep, err := Verify(l.o.Path, ""); err != nil || rep.Bad != nil || rep.Lines != 2+2*n {
		t.Errorf("%+v, %v; want the first record whole, and %d decisions", rep, err, 2*n)
	}
}

// notices collects what a log tells its operator.
type notices struct {
	mu   sync.Mutex
	list []string
}

func (n *notices) add(m string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, m)
}

func (n *notices) has(part string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.list, func(m string) bool { return strings.Contains(m, part) })
}
