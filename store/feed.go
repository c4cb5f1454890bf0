package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

var (
	// ErrGap is wrapped when the history that follows a mark is not all there: it was
	// forgotten, or the store has another history by now. What was read is read anew.
	ErrGap = errors.New("the store's history has a gap")
	// ErrUnavailable is wrapped when the store does not answer. What was asked for may
	// have been done all the same.
	ErrUnavailable = errors.New("store does not answer")
	// ErrRefused is wrapped when the store answers and takes no changes: it is full, a
	// read-only copy, or does not let this program in.
	ErrRefused = errors.New("store refuses")
	// ErrFull is wrapped when the store has no room for what is new. What was there can be
	// read, deletions are taken, and changes that Must be.
	ErrFull = fmt.Errorf("%w what is new", ErrRefused)
	// ErrKey is wrapped when a store was begun with another key than the one at hand.
	ErrKey = errors.New("the store was begun with another installation key")
	// ErrStale is returned while a view is older than it may be.
	ErrStale = errors.New("the view of the store is too old")
)

// Mark is a place in a store's history. Two histories that lead to the same mark
// are the same: the tag is drawn at random with each change.
type Mark struct {
	Seq uint64
	Tag string
}

// Change is one change of a store: the mark to which it leads, and the tag from
// which. Its sequence number is one more than that of the change before.
type Change struct {
	Mark
	After string
	Entry Entry // as it is from here on; of one that is gone the name alone
	Gone  bool
	More  bool // it is the last one told, and there may be more after it
}

// Feed is a store that tells what changes in it, each change once and in order. An
// entry that expires is no change: whoever keeps it knows when that is. The version
// of an entry is the sequence number of the change that made it.
type Feed interface {
	Store
	// Mark returns where the history is now.
	Mark(ctx context.Context) (Mark, error)
	// Each yields the entries whose names begin with prefix, in no order and possibly
	// twice: all that were there during the whole of it, each as it was at some
	// moment of it. The changes after a mark that was read before bring them to one
	// moment. An error ends the sequence.
	Each(ctx context.Context, prefix string) iter.Seq2[Entry, error]
	// Changes returns some of the changes after a mark, in order. It waits for the
	// first as long as wait, and returns none when the history still ends at the mark.
	// The last one says where there may be more. ErrGap is wrapped when what follows the
	// mark cannot be told.
	Changes(ctx context.Context, after Mark, wait time.Duration) ([]Change, error)
}

// Follow returns ErrGap unless changes continue the history from a mark without a
// gap, a repetition or one out of its place.
func (m Mark) Follow(changes []Change) error {
	for i := range changes {
		c := &changes[i]
		if c.Seq != m.Seq+1 || c.After != m.Tag {
			return ErrGap
		}
		m = c.Mark
	}
	return nil
}
