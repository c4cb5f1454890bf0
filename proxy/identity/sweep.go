package identity

import (
	"context"
	"time"

	"chaperone/store"
)

// keepEnded is how long an ended session is shown in lists.
const keepEnded = 24 * time.Hour

// sweepHandles is how often handles are looked through, which are many.
const sweepHandles = time.Minute

// foreignGrace is added to the lease of a session whose heartbeat another replica
// hears, for as long as that replica is alive.
const foreignGrace = 15 * time.Second

// lapse ends in memory what is over, cuts its streams, and forgets what ended long ago.
func (d *Directory) lapse() {
	if d.stale() { // nobody may act
		d.cut(func(*session) bool { return true })
		return
	}
	now := d.o.Now()
	var over, old []*session
	d.mu.RLock()
	for _, s := range d.sessions {
		s.hear(d, now)
		s.touch(now)
		switch {
		case s.ended() == nil && s.lapsed(now) != "":
			over = append(over, s)
		case now.After(s.info.Expires.Add(keepEnded)) && !s.unsaved.Load():
			old = append(old, s)
		}
	}
	d.mu.RUnlock()
	for _, s := range over {
		s.finish(now, ErrSessionExpired, s.lapsed(now), "chaperone")
		d.cutBelow(s)
	}
	d.mu.Lock()
	for _, s := range old {
		delete(d.sessions, s.info.ID)
		delete(d.byToken, s.sum)
	}
	d.mu.Unlock()
	if last := d.swept.Load(); now.UnixNano()-last > int64(sweepHandles) && d.swept.CompareAndSwap(last, now.UnixNano()) {
		d.o.Vault.Sweep(now)
	}
}

func (d *Directory) stale() bool { return d.o.Stale != nil && d.o.Stale() != nil }

// settle writes what the store does not have: ends, uses, suspensions, and handles that
// are no more. What fails is tried again in a second.
func (d *Directory) settle(ctx context.Context) {
	var ended, used []*session
	d.mu.RLock()
	for _, s := range d.sessions {
		switch {
		case s.unsaved.Load():
			ended = append(ended, s)
		case s.ended() == nil && s.busy():
			used = append(used, s)
		}
	}
	d.mu.RUnlock()
	if store.Away(store.Together(ended, func(s *session) error { return d.end(ctx, s, s.ended(), "", "") })) ||
		store.Away(store.Together(used, func(s *session) error { return d.saveUse(ctx, s) })) {
		return
	}
	d.settleBars(ctx)
	d.o.Vault.Settle(ctx)
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

// attachment is what is attached and does not keep the session from being idle while
// nothing goes on in it.
type attachment interface{ InUse() bool }

// touch counts as use what is attached to the session, while something goes on in it, and
// that it is suspended: nothing can be asked for then, and it is there when that is lifted.
func (s *session) touch(now time.Time) {
	if s.info.Idle == 0 {
		return
	}
	if s.suspended() {
		s.used.Store(now.UnixNano())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.attached {
		if a, ok := c.(attachment); !ok || a.InUse() {
			s.used.Store(now.UnixNano())
			return
		}
	}
}

// busy reports whether others should be told that the session is in use.
func (s *session) busy() bool {
	return s.info.Idle > 0 && s.used.Load()-s.told.Load() > int64(s.info.Idle/4)
}
