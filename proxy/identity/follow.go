package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chaperone/store"
)

// The directory follows a store: what other replicas did is taken over as they did
// it. What takes authority away is final here even where the store forgets it: a
// session that ended, an agent that was retired or suspended later than the store
// says, stay that, and are written again.

// sessionChange is a change of a session that waits for those above it.
type sessionChange struct {
	stored  *storedSession // nil: it is gone
	id      string
	version uint64
}

// Prefixes implements [store.Consumer].
func (d *Directory) Prefixes() []string { return []string{agentPrefix, humanPrefix, sessionPrefix} }

// Begin implements [store.Consumer].
func (d *Directory) Begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.round++
	d.loading, d.early = true, nil
}

// Take implements [store.Consumer].
func (d *Directory) Take(c store.Change) error {
	cut, err := d.take(c)
	for _, s := range cut {
		d.cutBelow(s)
	}
	if name, ok := strings.CutPrefix(c.Entry.Name, agentPrefix); ok {
		d.cutBarred(name)
	}
	return err
}

// take takes a change over and returns the sessions that it ends or bars.
func (d *Directory) take(c store.Change) ([]*session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := c.Entry.Name
	switch {
	case strings.HasPrefix(name, agentPrefix) && c.Gone:
		delete(d.agents, strings.TrimPrefix(name, agentPrefix))
	case strings.HasPrefix(name, agentPrefix):
		a := new(Agent)
		if err := decode(c.Entry, a); err != nil {
			return nil, err
		}
		d.takeAgent(a, c.Seq)
	case strings.HasPrefix(name, humanPrefix) && !c.Gone:
		h := new(Human)
		if err := decode(c.Entry, h); err != nil {
			return nil, err
		}
		return d.takeHuman(h, c.Seq), nil
	case strings.HasPrefix(name, sessionPrefix):
		change := sessionChange{id: strings.TrimPrefix(name, sessionPrefix), version: c.Seq}
		if !c.Gone {
			change.stored = new(storedSession)
			if err := decode(c.Entry, change.stored); err != nil {
				return nil, err
			}
		}
		if d.loading {
			d.early = append(d.early, change)
			return nil, nil
		}
		return d.apply(change), nil
	}
	return nil, nil
}

func decode(e store.Entry, into any) error {
	if err := json.Unmarshal(e.Value, into); err != nil {
		return fmt.Errorf("%s is damaged: %w", e.Name, err)
	}
	return nil
}

// takeAgent takes over what the store knows of an agent. The caller holds d.mu.
func (d *Directory) takeAgent(a *Agent, version uint64) {
	next := &knownAgent{Agent: *a, version: version, round: d.round}
	x := d.agents[a.Name]
	if x == nil || !x.known.Load().Created.Equal(a.Created) { // another one, after the store was lost
		d.agents[a.Name] = newAgent(next)
		return
	}
	for {
		old := x.known.Load()
		if old.round == d.round && old.version >= version {
			return
		}
		barred := old.State == Retired || old.State == Suspended && (old.unsaved || a.Changed.Before(old.Changed))
		if barred && next.State == Active {
			next.State, next.Reason, next.Changed, next.unsaved = old.State, old.Reason, old.Changed, true
		}
		if x.known.CompareAndSwap(old, next) {
			return
		}
	}
}

// takeHuman takes over what the store knows of a human, and returns the sessions
// that this bars. The caller holds d.mu.
func (d *Directory) takeHuman(next *Human, version uint64) []*session {
	h := d.human(next.ID)
	if h.round == d.round && h.version >= version {
		return nil
	}
	h.version, h.round = version, d.round
	if h.known.Suspended && !next.Suspended && (h.unsaved || next.Changed.Before(h.known.Changed)) {
		h.unsaved = true
		return nil
	}
	h.known, h.unsaved = *next, false
	if h.suspended.Swap(next.Suspended) || !next.Suspended {
		return nil
	}
	var barred []*session
	for _, s := range d.sessions {
		if s.person == h {
			barred = append(barred, s)
		}
	}
	return barred
}

// apply carries out a change of a session, and returns it where it ended. One that
// cannot be, because its agent is not known, stays out: it can do nothing. The caller
// holds d.mu.
func (d *Directory) apply(c sessionChange) []*session {
	if c.stored != nil {
		s, err := d.takeSession(c.stored, c.version)
		if err != nil || s.ended() == nil {
			return nil
		}
		return []*session{s}
	}
	if s := d.sessions[c.id]; s != nil {
		return []*session{d.lose(s)}
	}
	return nil
}

// lose ends a session that the store has no more, without writing it anew.
func (d *Directory) lose(s *session) *session {
	if s.ended() == nil {
		s.over.Store(new(ErrSessionRevoked))
		delete(d.sessions, s.info.ID)
		delete(d.byToken, s.sum)
	}
	return s
}

// takeSession takes over what the store knows of a session. The caller holds d.mu.
func (d *Directory) takeSession(st *storedSession, version uint64) (*session, error) {
	s := d.sessions[st.ID]
	if s == nil {
		s, err := d.revive(st)
		if err != nil {
			return nil, err
		}
		s.version, s.round = version, d.round
		d.sessions[st.ID], d.byToken[s.sum] = s, s
		return s, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.round == d.round && s.version >= version {
		return s, nil
	}
	s.version, s.round = version, d.round
	s.note(st)
	switch {
	case st.Ended.IsZero() && s.ended() != nil: // the store has forgotten that it ended
		s.unsaved.Store(true)
	case !st.Ended.IsZero() && s.ended() == nil:
		s.info.Ended, s.info.EndReason, s.info.EndedBy = st.Ended, st.EndReason, st.EndedBy
		s.over.Store(new(st.why()))
	case !st.Ended.IsZero():
		s.unsaved.Store(false)
	}
	return s, nil
}

// Loaded implements [store.Consumer].
func (d *Directory) Loaded() {
	for _, s := range d.loaded() {
		d.cutBelow(s)
	}
	for _, a := range d.Agents() {
		d.cutBarred(a.Name)
	}
}

// loaded takes over the sessions of this round, parents before their children, and
// drops what the store has no more. It returns the sessions that ended.
func (d *Directory) loaded() []*session {
	d.mu.Lock()
	defer d.mu.Unlock()
	links := func(c sessionChange) int {
		if c.stored == nil {
			return MaxDepth + 1 // after all others
		}
		return len(c.stored.Chain)
	}
	slices.SortStableFunc(d.early, func(a, b sessionChange) int {
		return cmp.Or(cmp.Compare(links(a), links(b)), cmp.Compare(a.version, b.version))
	})
	var ended []*session
	for _, c := range d.early {
		ended = append(ended, d.apply(c)...)
	}
	d.loading, d.early = false, nil
	for name, a := range d.agents {
		if a.known.Load().round != d.round {
			delete(d.agents, name)
		}
	}
	for _, s := range d.sessions {
		if s.round != d.round {
			ended = append(ended, d.lose(s))
		}
	}
	return ended
}

// cutBelow cuts a session and those below it.
func (d *Directory) cutBelow(top *session) {
	top.cut()
	if top.below.Load() {
		d.cut(func(s *session) bool { return s == top })
	}
}

// fetch takes over what the store has under a name now.
func (d *Directory) fetch(ctx context.Context, name string) error {
	e, err := d.o.Store.Load(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		d.forgetVersion(name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what another replica wrote: %w", err)
	}
	return d.Take(store.Change{Mark: store.Mark{Seq: e.Version}, Entry: e})
}

// forgetVersion makes the next save of an entry that the store has lost a first one.
func (d *Directory) forgetVersion(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.agents[strings.TrimPrefix(name, agentPrefix)]; a != nil && strings.HasPrefix(name, agentPrefix) {
		k := *a.known.Load()
		k.version = 0
		a.known.Store(&k)
	}
	if s := d.sessions[strings.TrimPrefix(name, sessionPrefix)]; s != nil && strings.HasPrefix(name, sessionPrefix) {
		s.mu.Lock()
		s.version = 0
		s.mu.Unlock()
	}
	for _, h := range d.humans {
		if humanPrefix+escape(h.known.ID) == name {
			h.version = 0
		}
	}
}

// saveSession writes a session as it is now, unless the store has its end already.
func (d *Directory) saveSession(ctx context.Context, s *session) error {
	name := sessionPrefix + s.info.ID
	for range attempts {
		stored := s.stored()
		ended := !stored.Ended.IsZero()
		if ended && !s.unsaved.Load() {
			return nil
		}
		s.mu.Lock()
		version := s.version
		s.mu.Unlock()
		version, err := d.save(ctx, name, version, stored, stored.Expires.Add(keepEnded))
		if errors.Is(err, store.ErrConflict) {
			if err := d.fetch(ctx, name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("keeping session %s: %w", s.info.ID, err)
		}
		s.mu.Lock()
		s.version = max(s.version, version)
		s.mu.Unlock()
		if ended {
			s.unsaved.Store(false)
		}
		return nil
	}
	return fmt.Errorf("keeping session %s: %w", s.info.ID, store.ErrConflict)
}

// stored is a session as the store keeps it.
func (s *session) stored() *storedSession {
	st := &storedSession{Session: s.snapshot(), Chain: s.asked.Chain, Sum: fmt.Sprintf("%x", s.sum), Lapsed: errors.Is(s.ended(), ErrSessionExpired)}
	if home := s.home.Load(); home != nil {
		st.Home = *home
	}
	if used := s.used.Load(); s.info.Idle > 0 {
		st.Used = time.Unix(0, used).UTC()
	}
	return st
}

// saveUse tells the other replicas that a session is in use.
func (d *Directory) saveUse(ctx context.Context, s *session) error {
	used := s.used.Load()
	if err := d.saveSession(ctx, s); err != nil {
		return err
	}
	s.told.Store(used)
	return nil
}

// settleBars writes the suspensions that the store does not have.
func (d *Directory) settleBars(ctx context.Context) {
	var agents []*knownAgent
	var humans []Human
	d.mu.RLock()
	for _, a := range d.agents {
		if k := a.known.Load(); k.unsaved {
			agents = append(agents, k)
		}
	}
	for _, h := range d.humans {
		if h.unsaved {
			humans = append(humans, h.known)
		}
	}
	d.mu.RUnlock()
	for _, k := range agents { // what fails is tried again in a second
		d.saveAgent(ctx, k)
	}
	for _, h := range humans {
		d.saveHuman(ctx, h)
	}
}
