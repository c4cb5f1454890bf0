package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"chaperone/store"
)

// Human is a person for whom agents act, by the name that sessions give.
type Human struct {
	ID        string    `json:"id"`
	Suspended bool      `json:"suspended"`
	Reason    string    `json:"reason,omitzero"` // of the last change
	By        string    `json:"by,omitzero"`     // who asked for it
	Changed   time.Time `json:"changed,omitzero"`
}

// human is a human in memory. known is replaced whole; mu of the directory guards
// all but suspended.
type human struct {
	suspended atomic.Bool
	known     Human
	version   uint64
	round     uint32
	unsaved   bool // it is suspended and the store does not know yet
}

// human returns the human of that name, noting it at first sight. The caller
// holds d.mu for writing.
func (d *Directory) human(id string) *human {
	h := d.humans[id]
	if h == nil {
		h = &human{known: Human{ID: id}, round: d.round}
		d.humans[id] = h
	}
	return h
}

func (d *Directory) suspendedHuman(id string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	h := d.humans[id]
	return h != nil && h.suspended.Load()
}

// Humans returns all humans that are known, by name.
func (d *Directory) Humans() []Human {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := make([]Human, 0, len(d.humans))
	for h := range maps.Values(d.humans) {
		out = append(out, h.known)
	}
	slices.SortFunc(out, func(a, b Human) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// SuspendHuman bars all that acts for a human, named as in their sessions, until it
// is lifted. After an error of the store they are barred all the same, and it is
// tried again.
func (d *Directory) SuspendHuman(ctx context.Context, id, reason, by string) (Human, error) {
	return d.setHuman(ctx, Human{ID: id, Suspended: true, Reason: reason, By: by})
}

// ResumeHuman lifts a suspension.
func (d *Directory) ResumeHuman(ctx context.Context, id, by string) (Human, error) {
	return d.setHuman(ctx, Human{ID: id, By: by})
}

func (d *Directory) setHuman(ctx context.Context, next Human) (Human, error) {
	if _, _, _, err := ParseHuman(next.ID); err != nil {
		return Human{}, err
	}
	next.Changed = d.o.Now().UTC().Truncate(time.Millisecond)
	if next.Suspended {
		d.mu.Lock()
		h := d.human(next.ID)
		h.suspended.Store(true)
		h.known, h.unsaved = next, true
		d.mu.Unlock()
		d.cut(func(s *session) bool { return s.info.Human == next.ID })
	}
	err := d.saveHuman(ctx, next)
	if next.Suspended {
		err = unsaved(err)
	}
	return next, err
}

// saveHuman writes a human's state, over whatever state the store has.
func (d *Directory) saveHuman(ctx context.Context, next Human) error {
	name := humanPrefix + escape(next.ID)
	for range attempts {
		d.mu.RLock()
		version := uint64(0)
		if h := d.humans[next.ID]; h != nil {
			version = h.version
		}
		d.mu.RUnlock()
		version, err := d.save(ctx, name, version, next, time.Time{})
		if errors.Is(err, store.ErrConflict) {
			if err := d.fetch(ctx, name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("keeping human: %w", err)
		}
		d.mu.Lock()
		if h := d.human(next.ID); h.version < version {
			h.known, h.version, h.unsaved, h.round = next, version, false, d.round
			h.suspended.Store(next.Suspended)
		}
		d.mu.Unlock()
		return nil
	}
	return fmt.Errorf("keeping human: %w", store.ErrConflict)
}

// escape makes a human's name fit into a name of the store.
func escape(id string) string { return fmt.Sprintf("%x", id) }
