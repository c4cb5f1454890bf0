// Package identity establishes who is calling: which agent, as which instance,
// for which human, within which session.
package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/credential"
	"chaperone/store"
)

var (
	// ErrNoCredentials is returned when a request carries no proxy credentials.
	ErrNoCredentials = errors.New("no proxy credentials")
	// ErrBadCredentials is returned when proxy credentials name no session, or
	// another agent than the session's.
	ErrBadCredentials = errors.New("proxy credentials are wrong")
	// ErrHandleAsPassword is returned when a handle is sent as the proxy password.
	ErrHandleAsPassword = errors.New("a handle was sent as the proxy password")
	// ErrSessionExpired is returned when a session's time or lease is over.
	ErrSessionExpired = errors.New("the session has expired")
	// ErrSessionRevoked is returned when a session was revoked.
	ErrSessionRevoked = errors.New("the session was revoked")
	// ErrAgentSuspended is returned while an agent is suspended.
	ErrAgentSuspended = errors.New("the agent is suspended")
	// ErrAgentRetired is returned for an agent that was retired.
	ErrAgentRetired = errors.New("the agent is retired")
	// ErrHumanSuspended is returned while a human's delegations are suspended.
	ErrHumanSuspended = errors.New("the human's delegations are suspended")

	// ErrUnknownAgent is wrapped when no agent has that name.
	ErrUnknownAgent = errors.New("agent is not known")
	// ErrUnknownSession is wrapped when no session has that id.
	ErrUnknownSession = errors.New("session is not known")
	// ErrUnknownTarget is wrapped when there is nothing of the name that is to be revoked.
	ErrUnknownTarget = errors.New("there is nothing to revoke")
	// ErrUnsaved is wrapped when what was taken away is taken away here, and not in the
	// store yet: it is tried again every second.
	ErrUnsaved = errors.New("in force on this replica alone until the store takes it, which is tried every second")
	// ErrDuplicate is wrapped when an agent of that name exists.
	ErrDuplicate = errors.New("agent exists already")
	// ErrInvalid is wrapped when what is asked for is not of a usable form.
	ErrInvalid = errors.New("not valid")
	// ErrScope is wrapped when a child session asks for more than its parent has.
	ErrScope = errors.New("more than the parent session has")
	// ErrCredentialOwner is wrapped when a credential belongs to somebody else.
	ErrCredentialOwner = errors.New("credential belongs to somebody else")
)

// Options of a [Directory].
type Options struct {
	Store store.Store
	Vault *credential.Vault
	// Prefix tells the shape of handles for a service's credentials ("ghp_"); nil
	// gives all the generic one.
	Prefix func(service string) string
	// Now tells the time; time.Now when nil. Replicas should have the same.
	Now func() time.Time
	// Followed says that a view loads the directory and keeps it current. Else it is
	// read once, and is the only writer of what it keeps.
	Followed bool
	// Replica is this program among those that share the store; empty when it is alone.
	Replica string
	// Alive reports whether a replica is known to run; nil: none but this one does.
	Alive func(replica string) bool
	// Stale returns why nobody may act now, because too little is known of what was
	// revoked; nil: never. It is called for every request.
	Stale func() error
	// CatchUp brings the directory to what the store holds now, or returns early; nil:
	// there is nothing to catch up with. It is called when a token is not known.
	CatchUp func()
}

// Directory knows agents, humans and sessions. It keeps them in a store and in
// memory; requests are answered from memory. A change is in the store before its
// caller hears that it is done; what takes authority away works in memory first.
// It is a [store.Consumer], and safe for concurrent use.
type Directory struct {
	o Options

	mu       sync.RWMutex
	agents   map[string]*agent
	humans   map[string]*human
	sessions map[string]*session
	byToken  map[[sha256.Size]byte]*session
	round    uint32          // of telling everything anew; who was not told of is gone
	early    []sessionChange // sessions of this round, until their parents are known
	loading  bool
	swept    atomic.Int64 // when handles were looked through, in unix nanoseconds

	stop context.CancelFunc
	all  sync.WaitGroup // of its goroutines
	owed chan struct{}  // there may be something that the store does not have
}

// Names in the store.
const (
	agentPrefix   = "agent/"
	humanPrefix   = "human/"
	sessionPrefix = "session/"
)

// Open loads what the store holds and begins to watch for what expires.
func Open(ctx context.Context, o Options) (*Directory, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Prefix == nil {
		o.Prefix = func(string) string { return "" }
	}
	d := &Directory{
		o: o, agents: map[string]*agent{}, humans: map[string]*human{},
		sessions: map[string]*session{}, byToken: map[[sha256.Size]byte]*session{}, owed: make(chan struct{}, 1),
	}
	if !o.Followed {
		if err := store.Fill(ctx, o.Store, d); err != nil {
			return nil, fmt.Errorf("opening directory: %w", err)
		}
	}
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.all.Go(func() { d.watch(watch) })
	d.all.Go(func() { d.pay(watch) })
	return d, nil
}

// Close stops watching. Sessions stay as they are.
func (d *Directory) Close() {
	d.stop()
	d.all.Wait()
}

func (d *Directory) save(ctx context.Context, name string, version uint64, v any, expires time.Time) (uint64, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	e, err := d.o.Store.Save(ctx, store.Entry{Name: name, Value: b, Version: version, Expires: expires, Must: takesAway(v)})
	return e.Version, err
}

// takesAway reports whether what is kept takes authority away.
func takesAway(v any) bool {
	switch v := v.(type) {
	case *storedSession:
		return !v.Ended.IsZero()
	case Agent:
		return v.State != Active
	case Human:
		return v.Suspended
	}
	return false
}

// sweepEvery is how often expired sessions are looked for; requests find out by
// themselves and at once.
const sweepEvery = time.Second

// watch ends what expires, so that streams are cut when a session's time is over, and
// not only when its next request comes. It never waits for the store.
func (d *Directory) watch(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.lapse()
			select {
			case d.owed <- struct{}{}:
			default: // it is still busy with what was owed before
			}
		}
	}
}

// pay writes what the store does not have, when there may be something.
func (d *Directory) pay(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.owed:
			d.settle(ctx)
		}
	}
}

// maxHuman is the longest name of a human in bytes; twice that fits into a name of
// the store.
const maxHuman = 250

// ParseHuman reads a human as people write it: an e-mail address or subject, with
// the issuer in front and a # between them where it matters.
func ParseHuman(s string) (iss, sub, email string, err error) {
	iss, sub, ok := strings.Cut(s, "#")
	if !ok {
		iss, sub = "", s
	}
	if sub == "" || len(s) > maxHuman || strings.ContainsAny(s, " \t\r\n\x00\"<>") {
		return "", "", "", fmt.Errorf("%w: human %q (an e-mail address, or issuer#subject)", ErrInvalid, s)
	}
	if strings.IndexByte(sub, '@') > 0 {
		email = sub
	}
	return iss, sub, email, nil
}
