package credential

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"chaperone/store"
)

// The vault follows a store: what other replicas did is taken over as they did it. A
// handle that was revoked stays revoked here even where the store forgets that.

// Prefixes implements [store.Consumer].
func (v *Vault) Prefixes() []string { return []string{credentialPrefix, handlePrefix} }

// Begin implements [store.Consumer].
func (v *Vault) Begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.round++
}

// Take implements [store.Consumer].
func (v *Vault) Take(c store.Change) error {
	if id, ok := strings.CutPrefix(c.Entry.Name, handlePrefix); ok {
		if c.Gone {
			v.loseHandle(id)
			return nil
		}
		t, err := parseHandle(c.Entry.Value)
		if err != nil {
			return fmt.Errorf("handle: %w", err)
		}
		v.takeHandle(id, &t, c.Seq)
		return nil
	}
	id := strings.TrimPrefix(c.Entry.Name, credentialPrefix)
	if c.Gone {
		v.loseCredential(id, c.Seq)
		return nil
	}
	k := new(kept)
	err := json.Unmarshal(c.Entry.Value, k)
	if err == nil {
		err = k.settle()
	}
	if err != nil {
		return fmt.Errorf("credential %q: %w", id, err)
	}
	v.takeCredential(k, c.Seq)
	return nil
}

// takeHandle takes over a handle that the store has.
func (v *Vault) takeHandle(id string, t *toldHandle, version uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.credentials[string(t.credential)] // nil, and the handle revoked, if it was removed
	if h := v.byID[id]; h != nil {
		if h.revoked.Load() && (version > h.version || h.round != v.round) { // it lives again by a store that forgot
			h.gone.Store(false)
			v.doomed[h] = false
		}
		h.round = v.round
		if h.cred.Load() == nil {
			h.cred.Store(k)
		}
		return
	}
	h := &Handle{ID: id, Expires: t.expires, Limit: t.limit, Of: string(t.of), sum: t.sum, version: version, round: v.round}
	if k != nil { // the same text once, whatever the number of handles
		h.Credential, h.Service = k.ID, k.Service
	} else {
		h.Credential, h.Service = string(t.credential), string(t.service)
	}
	h.cred.Store(k)
	v.link(h)
	v.byID[id] = h
	of := v.bySession[string(t.session)]
	if of == nil {
		of = &sessionHandles{id: string(t.session)}
		v.bySession[of.id] = of
	}
	h.Session, of.all = of.id, append(of.all, h)
}

// sessionHandles are the handles of one session.
type sessionHandles struct {
	id  string
	all []*Handle
}

// ofSession are the handles of a session. The caller holds v.mu.
func (v *Vault) ofSession(id string) []*Handle {
	if of := v.bySession[id]; of != nil {
		return of.all
	}
	return nil
}

// loseHandle revokes a handle that the store has no more. It is kept in memory until
// it expires, so that it is known for what it is.
func (v *Vault) loseHandle(id string) {
	v.mu.Lock()
	h := v.byID[id]
	var hit []*Handle
	if h != nil {
		h.revoked.Store(true)
		h.gone.Store(true)
		delete(v.doomed, h)
		hit = v.withBelow([]*Handle{h})
	}
	v.mu.Unlock()
	for _, h := range hit {
		h.cut()
	}
}

// link finds the handle with which a service handed out what h stands for. The caller
// holds v.mu.
func (v *Vault) link(h *Handle) {
	if h.Of == "" {
		return
	}
	if of := v.byID[h.Of]; of != nil {
		of.parent = true
		h.of.Store(of)
	}
}

// withBelow are handles with those of what services handed out for them, in no order.
// An agent may have had very many handed out. The caller holds v.mu.
func (v *Vault) withBelow(hit []*Handle) []*Handle {
	if !slices.ContainsFunc(hit, func(h *Handle) bool { return h.parent }) {
		return hit
	}
	found, sessions := make(map[*Handle]bool, len(hit)), map[string]bool{}
	for _, h := range hit {
		found[h] = true
		sessions[h.Session] = sessions[h.Session] || h.parent // what is handed out stays in its session
	}
	for id, parents := range sessions {
		if !parents {
			continue
		}
		for _, h := range v.ofSession(id) {
			above := h.of.Load()
			for above != nil && !found[above] {
				above = above.of.Load()
			}
			if above != nil && !found[h] {
				found[h] = true
				hit = append(hit, h)
			}
		}
	}
	return hit
}

// takeCredential takes over a credential that the store has.
func (v *Vault) takeCredential(k *kept, version uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.credentials[k.ID]
	if old != nil && old.round == v.round && old.version >= version {
		return
	}
	k.version, k.round = version, v.round
	if k.Kind == KindMTLS {
		v.anySilent.Store(true)
	}
	switch {
	case old == nil:
		v.credentials[k.ID] = k
		return
	case old.version == version && string(old.Sealed) == string(k.Sealed): // told again, and nothing is new
		old.round = v.round
		return
	case !old.Created.Equal(k.Created): // removed, and another made under its name
		old.removed.Store(true)
		v.credentials[k.ID] = k
		return
	}
	v.credentials[k.ID] = k
	for _, h := range v.byID {
		if h.cred.Load() == old {
			h.cred.Store(k)
		}
	}
	old.open.Store(nil)
}

// loseCredential closes a credential that another replica removed.
func (v *Vault) loseCredential(id string, version uint64) {
	var lost []*Handle
	v.mu.Lock()
	if k := v.credentials[id]; k != nil && k.version < version {
		k.removed.Store(true)
		k.open.Store(nil)
		delete(v.credentials, id)
		for _, h := range v.byID {
			if h.cred.Load() == k {
				lost = append(lost, h)
			}
		}
	}
	v.mu.Unlock()
	for _, h := range lost {
		h.cut()
	}
}

// Loaded implements [store.Consumer].
func (v *Vault) Loaded() {
	for _, h := range v.loaded() {
		h.cut()
	}
}

// loaded drops what the store has no more, and returns the handles that this revokes.
func (v *Vault) loaded() (lost []*Handle) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, k := range v.credentials {
		if k.round != v.round {
			k.removed.Store(true)
			k.open.Store(nil)
			delete(v.credentials, id)
		}
	}
	for _, h := range v.byID {
		switch {
		case h.round == v.round:
			if h.of.Load() == nil { // it was told of before that one
				v.link(h)
			}
			if h.cred.Load() == nil {
				h.cred.Store(v.credentials[h.Credential])
			}
		case h.revoked.Load(): // kept, so that it does not live again when the store remembers it
		default:
			h.revoked.Store(true)
			v.drop(h)
			lost = append(lost, h)
		}
	}
	return v.withBelow(lost)
}
