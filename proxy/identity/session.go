package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/credential"
	"chaperone/policy"
)

// Limits of sessions.
const (
	DefaultTTL = 8 * time.Hour
	MinTTL     = time.Second
	MaxTTL     = 30 * 24 * time.Hour
	MaxDepth   = 4 // links of a delegation chain
)

// Spec is what a session is made of.
type Spec struct {
	Agent       string         `json:"agent"`
	Human       string         `json:"human,omitzero"` // empty: nobody; the agent's owner answers
	Purpose     string         `json:"purpose,omitzero"`
	TTL         time.Duration  `json:"ttl,omitzero"`   // DefaultTTL when zero
	Lease       time.Duration  `json:"lease,omitzero"` // ends unless renewed so often; zero: no heartbeat
	Idle        time.Duration  `json:"idle,omitzero"`  // ends when nothing is asked for so long; zero: never
	Scope       []policy.Scope `json:"scope,omitzero"`
	Credentials []string       `json:"credentials,omitzero"`
	Parent      string         `json:"parent,omitzero"`
	Uses        int64          `json:"uses,omitzero"` // of each of its handles; zero: any number
}

// Session is a delegation as one instance presents it, without its token.
type Session struct {
	ID          string         `json:"id"`
	Agent       string         `json:"agent"`
	Instance    string         `json:"instance"`
	Human       string         `json:"human,omitzero"`
	Purpose     string         `json:"purpose,omitzero"`
	Scope       []policy.Scope `json:"scope,omitzero"`
	Credentials []string       `json:"credentials,omitzero"`
	Parent      string         `json:"parent,omitzero"`
	Created     time.Time      `json:"created"`
	Expires     time.Time      `json:"expires"`
	Lease       time.Duration  `json:"lease,omitzero"`
	Idle        time.Duration  `json:"idle,omitzero"`
	Ended       time.Time      `json:"ended,omitzero"`
	EndReason   string         `json:"end_reason,omitzero"`
	EndedBy     string         `json:"ended_by,omitzero"`
}

// Created is a new session with the secrets that are told once.
type Created struct {
	Session
	Token   string
	Handles map[string]string // credential -> handle
}

// storedSession is a session in the store.
type storedSession struct {
	Session
	Chain  []policy.Link `json:"chain"`
	Sum    string        `json:"sum"`             // keyed hash of the token
	Lapsed bool          `json:"lapsed,omitzero"` // it ended by itself
	Home   string        `json:"home,omitzero"`   // the replica that hears its heartbeat
	Used   time.Time     `json:"used,omitzero"`   // of sessions that end when they are idle
}

// session is a session in memory.
type session struct {
	info    Session // fixed but for how it ended, which mu guards
	asked   *policy.Session
	human   *policy.Human
	agent   *agent
	person  *human // nil when the agent acts for nobody
	parent  *session
	sum     [sha256.Size]byte
	expires int64                  // unix nanoseconds
	renewed atomic.Int64           // unix nanoseconds, as those below
	used    atomic.Int64           // the last request; only where it ends when idle
	told    atomic.Int64           // what the store knows of that
	home    atomic.Pointer[string] // nil: this replica
	over    atomic.Pointer[error]  // why it ended; nil while it goes on
	unsaved atomic.Bool            // it ended and the store does not know yet
	below   atomic.Bool            // there are sessions below it

	mu       sync.Mutex
	version  uint64
	round    uint32 // of the directory when it was last told of
	attached map[io.Closer]struct{}
}

func (s *session) ended() error {
	if e := s.over.Load(); e != nil {
		return *e
	}
	return nil
}

func (s *session) expired(now time.Time) bool { return now.UnixNano() >= s.expires }

func (s *session) leaseLost(now time.Time) bool {
	return s.info.Lease > 0 && now.UnixNano()-s.renewed.Load() > int64(s.info.Lease)
}

func (s *session) idle(now time.Time) bool {
	return s.info.Idle > 0 && now.UnixNano()-s.used.Load() > int64(s.info.Idle)
}

// live returns why the session may not act now, or nil: itself, its agent, its
// human, and everything above it.
func (s *session) live(now time.Time) error {
	for ; s != nil; s = s.parent {
		if err := s.ended(); err != nil {
			return err
		}
		if s.expired(now) || s.leaseLost(now) || s.idle(now) {
			return ErrSessionExpired
		}
		if err := s.agent.barred(); err != nil {
			return err
		}
		if s.person != nil && s.person.suspended.Load() {
			return ErrHumanSuspended
		}
	}
	return nil
}

// suspended reports whether somebody may lift what bars the session, or one above it.
func (s *session) suspended() bool {
	for ; s != nil; s = s.parent {
		if errors.Is(s.agent.barred(), ErrAgentSuspended) || s.person != nil && s.person.suspended.Load() {
			return true
		}
	}
	return false
}

// CreateSession makes an instance and its session, with a handle for each of the
// credentials it names.
func (d *Directory) CreateSession(ctx context.Context, spec Spec) (Created, error) {
	now := d.o.Now()
	stored, err := d.plan(spec, now)
	if err != nil {
		return Created{}, err
	}
	token := credential.NewSessionToken()
	sum := d.o.Vault.TokenSum(token)
	stored.Sum = hex.EncodeToString(sum[:])
	d.mu.Lock()
	s, err := d.revive(stored)
	d.mu.Unlock()
	if err != nil {
		return Created{}, err
	}
	if err := d.noteGiven(ctx, s); err != nil {
		return Created{}, err
	}
	handles, err := d.issue(ctx, s, spec.Uses)
	if err == nil {
		err = d.keep(ctx, stored)
	}
	if err != nil {
		_, rerr := d.o.Vault.RevokeSessions(ctx, s.info.ID)
		return Created{}, errors.Join(err, rerr)
	}
	return Created{Session: stored.Session, Token: token, Handles: handles}, nil
}

// keep writes a new session and then has it in memory, unless it came back by way
// of the store already.
func (d *Directory) keep(ctx context.Context, stored *storedSession) error {
	version, err := d.save(ctx, sessionPrefix+stored.ID, 0, stored, stored.Expires.Add(keepEnded))
	if err != nil {
		return fmt.Errorf("keeping session: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err = d.takeSession(stored, version)
	return err
}

// plan checks a spec against the agent, the human, the parent and the credentials.
func (d *Directory) plan(spec Spec, now time.Time) (*storedSession, error) {
	a, err := d.agent(spec.Agent)
	if err != nil {
		return nil, err
	}
	if err := a.barred(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, spec.Agent)
	}
	if spec.TTL == 0 {
		spec.TTL = DefaultTTL
	}
	if spec.TTL < MinTTL || spec.TTL > MaxTTL {
		return nil, fmt.Errorf("%w: ttl %v (from %v to %v)", ErrInvalid, spec.TTL, MinTTL, MaxTTL)
	}
	if spec.Lease != 0 && spec.Lease < time.Second {
		return nil, fmt.Errorf("%w: lease %v (at least 1s)", ErrInvalid, spec.Lease)
	}
	if spec.Idle != 0 && spec.Idle < time.Second {
		return nil, fmt.Errorf("%w: idle %v (at least 1s)", ErrInvalid, spec.Idle)
	}
	if spec.Uses < 0 {
		return nil, fmt.Errorf("%w: uses %d", ErrInvalid, spec.Uses)
	}
	if len(spec.Purpose) > 500 || strings.ContainsAny(spec.Purpose, "\r\n\x00") {
		return nil, fmt.Errorf("%w: purpose (one line of at most 500 bytes)", ErrInvalid)
	}
	s := &storedSession{Session: Session{
		ID: credential.NewID("s_", 12), Agent: spec.Agent, Instance: credential.NewID("i_", 8), Human: spec.Human, Purpose: spec.Purpose,
		Scope: spec.Scope, Credentials: spec.Credentials, Parent: spec.Parent, Created: now.UTC(), Expires: now.Add(spec.TTL).UTC(), Lease: spec.Lease, Idle: spec.Idle,
	}}
	if spec.Lease > 0 {
		s.Home = d.o.Replica
	}
	if spec.Idle > 0 {
		s.Used = s.Created
	}
	if err := d.bind(s); err != nil {
		return nil, err
	}
	if err := d.inherit(s, now); err != nil {
		return nil, err
	}
	if s.Human != "" {
		if _, _, _, err := ParseHuman(s.Human); err != nil {
			return nil, err
		}
		if d.suspendedHuman(s.Human) {
			return nil, fmt.Errorf("%w: %s", ErrHumanSuspended, s.Human)
		}
	}
	s.Chain = append(s.Chain, policy.Link{Session: s.ID, Agent: s.Agent, Instance: s.Instance})
	return s, d.mayHold(s)
}

// inherit narrows a child by its parent: the same human, no later end, a scope
// within the parent's, and only credentials that the parent has.
func (d *Directory) inherit(s *storedSession, now time.Time) error {
	if s.Parent == "" {
		return nil
	}
	d.mu.RLock()
	p := d.sessions[s.Parent]
	d.mu.RUnlock()
	if p == nil {
		return fmt.Errorf("%w: %s", ErrUnknownSession, s.Parent)
	}
	if err := p.live(now); err != nil {
		return fmt.Errorf("parent session: %w", err)
	}
	switch {
	case len(p.asked.Chain) >= MaxDepth:
		return fmt.Errorf("%w: the chain has %d links, which is the most", ErrScope, MaxDepth)
	case s.Human != "" && s.Human != p.info.Human:
		return fmt.Errorf("%w: it acts for another human", ErrScope)
	case !within(s.Scope, p.info.Scope):
		return fmt.Errorf("%w: the scope", ErrScope)
	}
	for _, c := range s.Credentials {
		if !slices.Contains(p.info.Credentials, c) {
			return fmt.Errorf("%w: credential %s", ErrScope, c)
		}
	}
	s.Human = p.info.Human
	if s.Scope == nil {
		s.Scope = p.info.Scope
	}
	if s.Expires.After(p.info.Expires) {
		s.Expires = p.info.Expires
	}
	s.Chain = slices.Clone(p.asked.Chain)
	return nil
}

// bind puts the credential that this session gets in the place of each service that
// is named where a credential could be: the human's own, else the agent's, else org's.
// Of a child's it is one that its parent has.
func (d *Directory) bind(s *storedSession) error {
	human, among := s.Human, []string(nil)
	d.mu.RLock()
	if p := d.sessions[s.Parent]; p != nil {
		human, among = p.info.Human, p.info.Credentials
	}
	d.mu.RUnlock()
	bound := slices.Clone(s.Credentials)
	for i, name := range bound {
		if _, err := d.o.Vault.Find(name); err == nil {
			continue
		}
		var best []string
		for _, owner := range []string{"human:" + human, "agent:" + s.Agent, "org"} {
			if best = d.owned(name, owner, among); len(best) > 0 {
				break
			}
		}
		switch len(best) {
		case 0:
			return fmt.Errorf("%w: %s is neither a credential nor a service for which there is one that this session may have", credential.ErrUnknown, name)
		case 1:
			bound[i] = best[0]
		default:
			return fmt.Errorf("%w: service %s has several that this session may have: %s; name one", ErrInvalid, name, strings.Join(best, ", "))
		}
	}
	s.Credentials = bound
	return nil
}

// owned lists an owner's credentials for a service.
func (d *Directory) owned(service, owner string, among []string) []string {
	var ids []string
	for _, c := range d.o.Vault.List() {
		if c.Session == "" && c.Owner == owner && owner != "human:" && credential.Covers(c.Service, service) && (among == nil || slices.Contains(among, c.ID)) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// mayHold checks that each credential exists and may go into this session.
func (d *Directory) mayHold(s *storedSession) error {
	for i, id := range s.Credentials {
		c, err := d.o.Vault.Find(id)
		if err != nil {
			return err
		}
		if slices.Contains(s.Credentials[:i], id) {
			return fmt.Errorf("%w: credential %s is named twice", ErrInvalid, id)
		}
		if c.Session != "" {
			return fmt.Errorf("%w: %s was handed out to one session and is kept for it alone", ErrCredentialOwner, id)
		}
		if c.Owner != "org" && c.Owner != "agent:"+s.Agent && (s.Human == "" || c.Owner != "human:"+s.Human) {
			return fmt.Errorf("%w: %s is %s's", ErrCredentialOwner, id, c.Owner)
		}
	}
	return nil
}

func (d *Directory) issue(ctx context.Context, s *session, uses int64) (map[string]string, error) {
	handles := map[string]string{}
	for _, id := range s.info.Credentials {
		c, err := d.o.Vault.Find(id)
		if err != nil {
			return nil, err
		}
		if handles[id], err = d.o.Vault.IssueLimited(ctx, id, s.info.ID, d.o.Prefix(c.Service), s.info.Expires, uses); err != nil {
			return nil, err
		}
	}
	return handles, nil
}

// revive makes a session in memory of one from the store. The caller holds d.mu,
// or is the only user still. A program that was restarted gives a lease a new start.
func (d *Directory) revive(st *storedSession) (*session, error) {
	a := d.agents[st.Agent]
	if a == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownAgent, st.Agent)
	}
	s := &session{info: st.Session, agent: a, parent: d.sessions[st.Parent], expires: st.Expires.UnixNano()}
	if _, err := hex.Decode(s.sum[:], []byte(st.Sum)); err != nil {
		return nil, err
	}
	if st.Parent != "" && s.parent == nil || !st.Ended.IsZero() {
		s.over.Store(new(st.why()))
	}
	if s.parent != nil {
		s.parent.below.Store(true)
	}
	s.note(st)
	if st.Human != "" {
		iss, sub, email, err := ParseHuman(st.Human)
		if err != nil {
			return nil, err
		}
		s.human = &policy.Human{Sub: sub, Iss: iss, Email: email}
		s.person = d.human(st.Human)
	}
	s.renewed.Store(d.o.Now().UnixNano())
	s.asked = &policy.Session{
		ID: st.ID, Purpose: st.Purpose, Scope: st.Scope, Created: st.Created.Unix(), Expires: st.Expires.Unix(), Parent: st.Parent, Chain: st.Chain,
	}
	return s, nil
}

// Sessions returns all sessions that are kept, newest first.
func (d *Directory) Sessions() []Session {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := make([]Session, 0, len(d.sessions))
	for _, s := range d.sessions {
		out = append(out, s.snapshot())
	}
	slices.SortFunc(out, func(a, b Session) int { return b.Created.Compare(a.Created) })
	return out
}

// Open is how many sessions have not ended.
func (d *Directory) Open() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for _, s := range d.sessions {
		if s.ended() == nil {
			n++
		}
	}
	return n
}

// Session returns the session of that id or [ErrUnknownSession].
func (d *Directory) Session(id string) (Session, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s := d.sessions[id]; s != nil {
		return s.snapshot(), nil
	}
	return Session{}, fmt.Errorf("%w: %s", ErrUnknownSession, id)
}

func (s *session) snapshot() Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// why is the error that tells of an ended session.
func (st *storedSession) why() error {
	if st.Lapsed {
		return ErrSessionExpired
	}
	return ErrSessionRevoked
}

// note takes over what changes in a session that goes on.
func (s *session) note(st *storedSession) {
	s.home.Store(&st.Home)
	if used := st.Used.UnixNano(); !st.Used.IsZero() {
		s.told.Store(max(used, s.told.Load()))
		s.used.Store(max(used, s.used.Load()))
	}
}

// Renew is the heartbeat of a session with a lease. The replica that hears it is the
// session's home from then on. A session that is suspended is renewed, and the error says
// that it is: its program is there, and goes on when that is lifted.
func (d *Directory) Renew(ctx context.Context, id string) error {
	d.mu.RLock()
	s := d.sessions[id]
	d.mu.RUnlock()
	if s == nil {
		return fmt.Errorf("%w: %s", ErrUnknownSession, id)
	}
	barred := s.live(d.o.Now())
	if barred != nil && !errors.Is(barred, ErrAgentSuspended) && !errors.Is(barred, ErrHumanSuspended) {
		return barred
	}
	s.renewed.Store(d.o.Now().UnixNano())
	if home := s.home.Load(); s.info.Lease > 0 && home != nil && *home != d.o.Replica {
		s.home.Store(&d.o.Replica)
		return errors.Join(barred, d.saveSession(ctx, s))
	}
	return barred
}
