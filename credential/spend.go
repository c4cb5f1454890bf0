package credential

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"chaperone/store"
)

var (
	// ErrHandleSpent is returned when a handle was used as often as it may be.
	ErrHandleSpent = errors.New("the handle was used as often as it may be")
	// ErrUncounted is wrapped when a use could not be counted: the request is refused.
	ErrUncounted = errors.New("a use of the handle could not be counted")
)

const spentPrefix = "spent/"

// spend takes one use of a handle that has only so many. They are counted in the store,
// for all replicas, before the secret moves: a use of which the request then fails is
// spent all the same.
// Uses of what a service handed out are uses of the handle with which it was asked for.
func (v *Vault) spend(ctx context.Context, h *Handle) error {
	h = h.first()
	if h.Limit == 0 {
		return nil
	}
	for {
		e, err := v.kv.Load(ctx, spentPrefix+h.ID)
		if errors.Is(err, store.ErrNotFound) {
			e, err = store.Entry{Name: spentPrefix + h.ID, Value: make([]byte, 8), Expires: h.Expires}, nil
		}
		if err == nil && len(e.Value) != 8 {
			err = errors.New("its count is damaged")
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUncounted, err)
		}
		n := binary.BigEndian.Uint64(e.Value)
		if n >= uint64(h.Limit) {
			return ErrHandleSpent
		}
		binary.BigEndian.PutUint64(e.Value, n+1)
		_, err = v.kv.Save(ctx, e)
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("%w: %w", ErrUncounted, err)
		}
	}
}
