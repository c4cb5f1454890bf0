package identity

import (
	"context"
	"time"
)

// keepEnded is how long an ended session is shown in lists.
const keepEnded = 24 * time.Hour

// sweepHandles is how often handles are looked through, which are many.
const sweepHandles = time.Minute

// foreignGrace is added to the lease of a session whose heartbeat another replica
// hears, for as long as that replica is alive.
const foreignGrace = 15 * time.Second

// sweep ends what is over, writes what the store did not take, and forgets what
// ended long ago.
func (d *Directory) sweep(ctx context.Context) {
	now := d.o.Now()
	if d.o.Stale != nil && d.o.Stale() != nil { // nobody may act, and nothing can be written
		d.cut(func(*session) bool { return true })
		return
	}
	var over, used, old []*session
	d.mu.RLock()
	for _, s := range d.sessions {
		s.hear(d, now)
		switch {
		case s.unsaved.Load(), s.ended() == nil && s.lapsed(now) != "":
			over = append(over, s)
		case now.After(s.info.Expires.Add(keepEnded)):
			old = append(old, s)
		case s.ended() == nil && s.busy(now):
			used = append(used, s)
		}
	}
	d.mu.RUnlock()
	d.each(over, func(s *session) error { // what fails here is tried again in a second
		return d.end(ctx, s, ErrSessionExpired, s.lapsed(now), "chaperone")
	})
	d.each(used, func(s *session) error { return d.saveUse(ctx, s) })
	d.mu.Lock()
	for _, s := range old {
		delete(d.sessions, s.info.ID)
		delete(d.byToken, s.sum)
	}
	d.mu.Unlock()
	d.settle(ctx)
	d.o.Vault.Settle(ctx) // what fails is tried again in a second
	if last := d.swept.Load(); now.UnixNano()-last > int64(sweepHandles) && d.swept.CompareAndSwap(last, now.UnixNano()) {
		d.o.Vault.Sweep(now)
	}
}

// hear renews the lease of a session whose heartbeat another replica hears.
func (s *session) hear(d *Directory, now time.Time) {
	if s.info.Lease == 0 || d.o.Alive == nil {
		return
	}
	if home := s.home.Load(); home != nil && *home != d.o.Replica && d.o.Alive(*home) {
		s.renewed.Store(now.Add(foreignGrace).UnixNano())
	}
}

// lapsed is why a session is over by itself, or empty.
func (s *session) lapsed(now time.Time) string {
	switch {
	case s.expired(now):
		return "its time is over"
	case s.leaseLost(now):
		return "its program is gone (no heartbeat)"
	case s.idle(now):
		return "nothing was asked for in it for too long"
	}
	return ""
}

// busy reports whether others should be told that the session is in use. What is
// attached to it counts as use.
func (s *session) busy(now time.Time) bool {
	if s.info.Idle == 0 {
		return false
	}
	s.mu.Lock()
	if len(s.attached) > 0 {
		s.used.Store(now.UnixNano())
	}
	s.mu.Unlock()
	return s.used.Load()-s.told.Load() > int64(s.info.Idle/4)
}
