package credential

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chaperone/store"
)

// Issue makes a handle of the given prefix for a credential in a session. The
// handle is returned once and kept as a keyed hash only.
func (v *Vault) Issue(ctx context.Context, credential, session, prefix string, expires time.Time) (string, error) {
	return v.IssueLimited(ctx, credential, session, prefix, expires, 0)
}

// IssueLimited is Issue for a handle that may be used so often; 0: any number.
func (v *Vault) IssueLimited(ctx context.Context, credential, session, prefix string, expires time.Time, limit int64) (string, error) {
	return v.issue(ctx, storedHandle{Credential: credential, Session: session, Expires: expires, Limit: limit}, prefix)
}

// issue makes a handle of what is to be kept of it.
func (v *Vault) issue(ctx context.Context, stored storedHandle, prefix string) (string, error) {
	credential, session := stored.Credential, stored.Session
	v.mu.RLock()
	k := v.credentials[credential]
	v.mu.RUnlock()
	if k == nil || k.removed.Load() || k.Session != "" && k.Session != session {
		return "", fmt.Errorf("%w: %s", ErrUnknown, credential)
	}
	text, id := newHandle(prefix)
	p, _ := payload(text)
	if k.place.kind == KindAWS {
		text, id = newAWSHandle()
		p = text
	}
	sum := v.handles.sum(p)
	stored.Service, stored.Sum = k.Service, hex.EncodeToString(sum[:])
	b, err := json.Marshal(stored)
	if err != nil {
		return "", err
	}
	e, err := v.kv.Save(ctx, store.Entry{Name: handlePrefix + id, Value: b, Expires: stored.Expires})
	if err != nil {
		return "", fmt.Errorf("keeping handle: %w", err)
	}
	t := stored.told()
	t.sum = sum
	v.takeHandle(id, &t, e.Version)
	return text, nil
}

// Handles returns the handles of a session, by credential.
func (v *Vault) Handles(session string) []*Handle {
	v.mu.RLock()
	out := slices.Clone(v.ofSession(session))
	v.mu.RUnlock()
	slices.SortFunc(out, func(a, b *Handle) int { return strings.Compare(a.Credential, b.Credential) })
	return out
}

// Revoke revokes the handles that match selects, at once, with those of what services
// handed out for them, and returns how many.
// After an error the store still has some of them; Settle tries those again, and
// Revoke may be called again.
func (v *Vault) Revoke(ctx context.Context, match func(*Handle) bool) (int, error) {
	var hit []*Handle
	v.mu.RLock()
	for _, h := range v.byID {
		if match(h) {
			hit = append(hit, h)
		}
	}
	hit = v.withBelow(hit)
	v.mu.RUnlock()
	return v.revoke(ctx, hit)
}

// RevokeSessions revokes the handles of sessions, as Revoke does.
func (v *Vault) RevokeSessions(ctx context.Context, sessions ...string) (int, error) {
	var hit []*Handle
	for _, id := range sessions {
		hit = append(hit, v.Handles(id)...)
	}
	n, err := v.revoke(ctx, hit)
	for _, id := range sessions {
		err = errors.Join(err, v.removeGiven(ctx, id))
	}
	return n, err
}

func (v *Vault) revoke(ctx context.Context, hit []*Handle) (int, error) {
	hit = slices.DeleteFunc(hit, func(h *Handle) bool { return h.gone.Load() })
	v.mu.Lock()
	for _, h := range hit {
		h.revoked.Store(true)
		v.doomed[h] = true
	}
	v.mu.Unlock()
	for _, h := range hit {
		h.cut()
	}
	return len(hit), v.forgetAll(ctx, hit)
}

// forgetAll deletes handles from the store, in the order of their names, in which those
// that lie together in a file are written together.
func (v *Vault) forgetAll(ctx context.Context, hit []*Handle) error {
	slices.SortFunc(hit, func(a, b *Handle) int { return strings.Compare(a.ID, b.ID) })
	err := store.Together(hit, func(h *Handle) error { return v.forget(ctx, h) })
	if err == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range hit {
		if _, left := v.doomed[h]; left {
			v.doomed[h] = false
		}
	}
	return fmt.Errorf("forgetting handles: %w", err)
}

// forget deletes a handle from the store: it is not known after a restart, and so
// refused then as well.
func (v *Vault) forget(ctx context.Context, h *Handle) error {
	if err := v.kv.Delete(ctx, handlePrefix+h.ID); err != nil {
		return err
	}
	v.mu.Lock()
	delete(v.doomed, h)
	v.mu.Unlock()
	h.gone.Store(true)
	return nil
}

// Settle tries again to delete the revoked handles that the store still has.
func (v *Vault) Settle(ctx context.Context) error {
	v.mu.Lock()
	var left []*Handle
	for h, busy := range v.doomed {
		if !busy {
			v.doomed[h] = true
			left = append(left, h)
		}
	}
	v.mu.Unlock()
	return v.forgetAll(ctx, left)
}

// Sweep forgets handles that expired an hour before now.
func (v *Vault) Sweep(now time.Time) {
	v.sweepGiven(now)
	var old []*Handle
	v.mu.RLock()
	for _, h := range v.byID {
		if now.Sub(h.Expires) > time.Hour {
			old = append(old, h)
		}
	}
	v.mu.RUnlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range old {
		v.drop(h)
	}
}

// drop forgets a handle here. The caller holds v.mu.
func (v *Vault) drop(h *Handle) {
	delete(v.byID, h.ID)
	delete(v.doomed, h)
	if of := v.bySession[h.Session]; of != nil {
		if of.all = slices.DeleteFunc(of.all, func(x *Handle) bool { return x == h }); len(of.all) == 0 {
			delete(v.bySession, h.Session)
		}
	}
}
