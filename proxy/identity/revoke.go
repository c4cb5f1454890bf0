package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"chaperone/credential"
	"chaperone/store"
)

// Target says what is revoked: everything that matches all fields that are set.
// With Handle or Credential, handles are revoked and their sessions go on.
type Target struct {
	Agent      string `json:"agent,omitzero"`
	Instance   string `json:"instance,omitzero"`
	Human      string `json:"human,omitzero"`
	Session    string `json:"session,omitzero"`
	Handle     string `json:"handle,omitzero"`     // its text or its id
	Credential string `json:"credential,omitzero"` // all handles for it
	All        bool   `json:"all,omitzero"`        // every session that is open
}

// Revoked is what a revocation ended.
type Revoked struct {
	Sessions []string `json:"sessions"`
	Handles  int      `json:"handles"`
}

// Revoke ends what t selects, for good. When it returns, no request of it passes
// and its streams are cut. [ErrUnsaved] means that the store does not know yet; it is
// then tried again every second, and Revoke may be called again.
func (d *Directory) Revoke(ctx context.Context, t Target, reason, by string) (Revoked, error) {
	if t == (Target{}) {
		return Revoked{}, fmt.Errorf("%w: nothing to revoke is named", ErrInvalid)
	}
	if t.Handle != "" || t.Credential != "" {
		return d.revokeHandles(ctx, t)
	}
	hit := d.match(t)
	if len(hit) == 0 && !t.All {
		return Revoked{}, d.nobody(t)
	}
	hit = slices.DeleteFunc(hit, func(s *session) bool { return s.ended() != nil && !s.unsaved.Load() })
	var out Revoked
	for _, s := range hit { // all of them here and now, before any waits for the store
		s.finish(d.o.Now(), ErrSessionRevoked, reason, by)
		s.cut()
		out.Sessions = append(out.Sessions, s.info.ID)
		for _, h := range d.o.Vault.Handles(s.info.ID) {
			if !h.Revoked() {
				out.Handles++
			}
		}
	}
	slices.Sort(out.Sessions)
	slices.SortFunc(hit, func(a, b *session) int { return strings.Compare(a.info.ID, b.info.ID) })
	// All sessions before their handles, so that others know of all of them soon.
	err := store.Together(hit, func(s *session) error { return d.endSession(ctx, s, ErrSessionRevoked, reason, by) })
	var told []string
	for _, s := range hit {
		if !s.unsaved.Load() {
			told = append(told, s.info.ID)
		}
	}
	_, herr := d.o.Vault.RevokeSessions(ctx, told...)
	return out, unsaved(errors.Join(err, herr))
}

// unsaved is err as whoever took something away is told of it.
func unsaved(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnsaved, err)
}

// nobody says which of what a target names is not known, or nil where all is and
// there is nothing left to revoke.
func (d *Directory) nobody(t Target) error {
	if t.Agent != "" {
		if _, err := d.Agent(t.Agent); err != nil {
			return err
		}
	}
	if t.Session != "" {
		if _, err := d.Session(t.Session); err != nil {
			return err
		}
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if t.Human != "" && d.humans[t.Human] == nil {
		return fmt.Errorf("%w: human %s has no session and never had one", ErrUnknownTarget, t.Human)
	}
	if t.Instance != "" {
		return fmt.Errorf("%w: instance %s", ErrUnknownTarget, t.Instance)
	}
	return nil
}

// match returns the sessions that t selects and all below them.
func (d *Directory) match(t Target) []*session {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var hit []*session
	for _, s := range d.sessions {
		for up := s; up != nil; up = up.parent {
			i := &up.info
			if (t.Agent == "" || t.Agent == i.Agent) && (t.Instance == "" || t.Instance == i.Instance) &&
				(t.Human == "" || t.Human == i.Human) && (t.Session == "" || t.Session == i.ID) {
				hit = append(hit, s)
				break
			}
		}
	}
	return hit
}

func (d *Directory) revokeHandles(ctx context.Context, t Target) (Revoked, error) {
	id := t.Handle
	if parsed, ok := credential.HandleID(t.Handle); ok {
		id = parsed
	}
	var in map[string]bool // the sessions that are meant; nil: all
	if t.Agent != "" || t.Instance != "" || t.Human != "" || t.Session != "" {
		in = map[string]bool{}
		for _, s := range d.match(t) {
			in[s.info.ID] = true
		}
	}
	if t.Credential != "" {
		if _, err := d.o.Vault.Find(t.Credential); err != nil {
			return Revoked{}, err
		}
	}
	of := d.descendants(t.Credential)
	n, err := d.o.Vault.Revoke(ctx, func(h *credential.Handle) bool {
		return (t.Handle == "" || h.ID == id) && (t.Credential == "" || of[h.Credential]) && (in == nil || in[h.Session])
	})
	if n == 0 && err == nil && t.Handle != "" {
		return Revoked{}, fmt.Errorf("%w: no such handle", ErrUnknownTarget)
	}
	return Revoked{Handles: n}, unsaved(err)
}

// descendants are a credential and what services handed out for it.
func (d *Directory) descendants(id string) map[string]bool {
	of := map[string]bool{id: true}
	if id == "" {
		return of
	}
	for before := 0; before < len(of); {
		before = len(of)
		for _, c := range d.o.Vault.List() {
			if of[c.Parent] {
				of[c.ID] = true
			}
		}
	}
	return of
}

// end ends one session: in memory, its streams, in the store, and then its handles,
// which are worth nothing without it: other replicas hear of the session first, and say
// that it was that. For one that has ended it does what is left of that, and keeps why it
// ended first.
func (d *Directory) end(ctx context.Context, s *session, why error, reason, by string) error {
	if err := d.endSession(ctx, s, why, reason, by); err != nil {
		return err
	}
	_, err := d.o.Vault.RevokeSessions(ctx, s.info.ID)
	return err
}

// endSession is end without the handles.
func (d *Directory) endSession(ctx context.Context, s *session, why error, reason, by string) error {
	s.finish(d.o.Now(), why, reason, by)
	d.cutBelow(s)
	return d.saveSession(ctx, s)
}

// finish ends a session in memory, unless it has ended.
func (s *session) finish(now time.Time, why error, reason, by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended() == nil {
		s.info.Ended, s.info.EndReason, s.info.EndedBy = now.UTC().Truncate(time.Millisecond), reason, by
		s.unsaved.Store(true)
		s.over.Store(&why)
	}
}

// cut closes the connections of the sessions that match selects.
func (d *Directory) cut(match func(*session) bool) {
	d.mu.RLock()
	var hit []*session
	for _, s := range d.sessions {
		for up := s; up != nil; up = up.parent {
			if match(up) {
				hit = append(hit, s)
				break
			}
		}
	}
	d.mu.RUnlock()
	for _, s := range hit {
		s.cut()
	}
}

// cut closes what is attached to the session.
func (s *session) cut() {
	s.mu.Lock()
	attached := s.attached
	s.attached = nil
	s.mu.Unlock()
	for c := range attached {
		c.Close()
	}
}

// attach notes c to be closed when the session ends, and returns what undoes it.
func (s *session) attach(c io.Closer, live func() error) func() {
	s.mu.Lock()
	if s.attached == nil {
		s.attached = map[io.Closer]struct{}{}
	}
	s.attached[c] = struct{}{}
	s.mu.Unlock()
	if live() != nil { // it ended before it could be cut
		c.Close()
	}
	return func() {
		s.mu.Lock()
		delete(s.attached, c)
		s.mu.Unlock()
	}
}
