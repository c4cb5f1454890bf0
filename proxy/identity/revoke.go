package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"chaperone/credential"
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
}

// Revoked is what a revocation ended.
type Revoked struct {
	Sessions []string `json:"sessions"`
	Handles  int      `json:"handles"`
}

// Revoke ends what t selects, for good. When it returns, no request of it passes
// and its streams are cut. An error means that the store does not know yet; sessions
// are then tried again every second, and Revoke may be called again.
func (d *Directory) Revoke(ctx context.Context, t Target, reason, by string) (Revoked, error) {
	if t == (Target{}) {
		return Revoked{}, fmt.Errorf("%w: nothing to revoke is named", ErrInvalid)
	}
	if t.Handle != "" || t.Credential != "" {
		return d.revokeHandles(ctx, t)
	}
	var out Revoked
	var errs error
	for _, s := range d.match(t) {
		if s.ended() != nil && !s.unsaved.Load() {
			continue
		}
		n, err := d.end(ctx, s, ErrSessionRevoked, reason, by)
		errs = errors.Join(errs, err)
		out.Handles += n
		out.Sessions = append(out.Sessions, s.info.ID)
	}
	slices.Sort(out.Sessions)
	if len(out.Sessions) == 0 && t.Session != "" {
		if _, err := d.Session(t.Session); err != nil {
			return out, err
		}
	}
	return out, errs
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
	n, err := d.o.Vault.Revoke(ctx, func(h *credential.Handle) bool {
		return (t.Handle == "" || h.ID == id) && (t.Credential == "" || h.Credential == t.Credential) && (in == nil || in[h.Session])
	})
	if n == 0 && err == nil && t.Handle != "" {
		return Revoked{}, fmt.Errorf("%w: no such handle", ErrInvalid)
	}
	return Revoked{Handles: n}, err
}

// end ends one session: in memory, its streams, its handles, then in the store. For
// one that has ended it does what is left of that, and keeps why it ended first.
func (d *Directory) end(ctx context.Context, s *session, why error, reason, by string) (int, error) {
	s.mu.Lock()
	if s.ended() == nil {
		s.info.Ended, s.info.EndReason, s.info.EndedBy = d.o.Now().UTC().Truncate(time.Millisecond), reason, by
		s.unsaved.Store(true)
		s.over.Store(&why)
	}
	s.mu.Unlock()
	s.cut()
	n, err := d.o.Vault.Revoke(ctx, func(h *credential.Handle) bool { return h.Session == s.info.ID })
	return n, errors.Join(err, d.saveEnd(ctx, s))
}

// saveEnd writes how a session ended, unless that is written already.
func (d *Directory) saveEnd(ctx context.Context, s *session) error {
	d.change.Lock()
	defer d.change.Unlock()
	if !s.unsaved.Load() {
		return nil
	}
	stored := &storedSession{Session: s.snapshot(), Chain: s.asked.Chain, Sum: fmt.Sprintf("%x", s.sum)}
	version, err := d.save(ctx, sessionPrefix+stored.ID, s.version, stored, stored.Expires.Add(keepEnded))
	if err != nil {
		return fmt.Errorf("keeping the end of session %s: %w", stored.ID, err)
	}
	s.version = version
	s.unsaved.Store(false)
	return nil
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
func (s *session) attach(c io.Closer, now time.Time) func() {
	s.mu.Lock()
	if s.attached == nil {
		s.attached = map[io.Closer]struct{}{}
	}
	s.attached[c] = struct{}{}
	s.mu.Unlock()
	if s.live(now) != nil { // it ended before it could be cut
		c.Close()
	}
	return func() {
		s.mu.Lock()
		delete(s.attached, c)
		s.mu.Unlock()
	}
}
