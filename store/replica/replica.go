// Package replica knows which programs share a store, and asks all of them whether
// they have seen a change.
package replica

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/store"
)

// Status is what a replica tells of itself.
type Status struct {
	ID      string `json:"id"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Listen  string `json:"listen"`
	Log     string `json:"log,omitzero"` // where it answers other replicas' questions about its log
	Version string `json:"version"`
	Policy  string `json:"policy"` // revision in force
	Config  string `json:"config"` // digest of what should be the same everywhere
	// Parts are digests of what Config is of, by the names of settings; nil: of a version
	// that does not tell.
	Parts    map[string]string `json:"parts,omitzero"`
	CA       string            `json:"ca"` // digest of the certificate that agents trust
	Started  time.Time         `json:"started"`
	Sessions int               `json:"sessions"`      // open ones that it knows
	Applied  uint64            `json:"applied"`       // the last change that it has taken over
	Age      time.Duration     `json:"age"`           // of its view of the store
	Reloads  int64             `json:"reloads"`       // how often it had to read everything anew
	Skew     time.Duration     `json:"skew,omitzero"` // of the store's clock against its own
	Draining bool              `json:"draining,omitzero"`
	Trouble  string            `json:"trouble,omitzero"` // what is wrong between it and the store; empty: nothing
	Full     bool              `json:"full,omitzero"`    // what is wrong is that the store takes nothing new
	Stale    bool              `json:"stale,omitzero"`   // the view is too old, and everything is refused
	Seen     time.Time         `json:"seen"`             // when it told this

	// Set for whoever asks, not kept.
	Alive bool          `json:"alive"`
	Self  bool          `json:"self,omitzero"`
	Lag   uint64        `json:"lag"` // changes that it had not taken over when it told this
	Quiet time.Duration `json:"quiet,omitzero"`
}

// Ack is whether a replica has taken over everything up to a moment.
type Ack struct {
	ID   string        `json:"id"`
	Host string        `json:"host"`
	Done bool          `json:"done"`
	Took time.Duration `json:"took,omitzero"`
	Why  string        `json:"why,omitzero"` // it is not done
}

// ErrTwin is returned when another program runs under the same id.
var ErrTwin = errors.New("another replica has the same id")

// Times of the registry. A replica that was not heard of for Lost is not waited for.
const (
	Beat = time.Second
	Lost = 5 * time.Second
	kept = time.Minute
)

// Options of a [Registry]; all must be set.
type Options struct {
	Store store.Store
	Now   func() time.Time // the same clock for all replicas
	Self  func() Status    // without Seen; Applied is the view's
	// Told is told each time how it went to make this replica known: of nil, of what is
	// wrong with the store as a whole ([store.Away]), or of what is wrong with this replica.
	// What wraps [store.ErrFull] was taken all the same.
	Told func(error)
}

// Registry keeps what replicas tell. It is a [store.Consumer], and safe for
// concurrent use.
type Registry struct {
	o    Options
	id   string
	born time.Time
	poke chan struct{}
	stop context.CancelFunc

	told   atomic.Int64 // since born: when what it wrote last was on its way
	silent atomic.Bool  // the store has taken nothing since

	done chan struct{}

	mu      sync.Mutex
	others  map[string]Status
	version uint64 // of its own entry
	asked   uint64 // the last question that was taken over, after all that came before it
	loading bool
	moved   chan struct{}
}

// Names in the store.
const (
	statusPrefix = "replica/"
	askPrefix    = "ask/"
)

// New returns a registry that knows nobody yet.
func New(o Options) *Registry {
	return &Registry{o: o, id: o.Self().ID, born: time.Now(), poke: make(chan struct{}, 1), done: make(chan struct{}), others: map[string]Status{}, moved: make(chan struct{})}
}

// Start makes this replica known and keeps doing so until Close.
func (r *Registry) Start(ctx context.Context) error {
	if err := r.tell(ctx); err != nil && !errors.Is(err, store.ErrFull) {
		return fmt.Errorf("joining the replicas: %w", err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	go r.run(run)
	return nil
}

// Close takes this replica off the list, where the store lets it.
func (r *Registry) Close(ctx context.Context) error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	<-r.done
	return r.o.Store.Delete(ctx, statusPrefix+r.id)
}

func (r *Registry) run(ctx context.Context) {
	defer close(r.done)
	tick := time.NewTicker(Beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.poke:
		}
		if err := r.tell(ctx); ctx.Err() == nil {
			r.o.Told(err)
		}
	}
}

// Silent is for how long the store has taken nothing of this replica; 0 while it does.
// A store that takes nothing is told of no revocation either.
func (r *Registry) Silent() time.Duration {
	if !r.silent.Load() {
		return 0
	}
	return time.Since(r.born) - time.Duration(r.told.Load())
}

// tell makes this replica known, and notes whether the store took it.
func (r *Registry) tell(ctx context.Context) error {
	began := time.Since(r.born)
	err := r.write(ctx, false)
	if errors.Is(err, store.ErrFull) {
		if again := r.write(ctx, true); again != nil {
			err = again
		}
	}
	switch {
	case ctx.Err() != nil: // it stops
	case err != nil && store.Away(err) && !errors.Is(err, store.ErrFull):
		r.silent.Store(true)
	default:
		r.told.Store(int64(began))
		r.silent.Store(false)
	}
	return err
}

// write writes this replica's entry.
func (r *Registry) write(ctx context.Context, must bool) error {
	s := r.self()
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	r.mu.Lock()
	version := r.version
	r.mu.Unlock()
	e := store.Entry{Name: statusPrefix + s.ID, Value: b, Version: version, Expires: s.Seen.Add(kept), Must: must}
	e, err = r.o.Store.Save(ctx, e)
	if errors.Is(err, store.ErrConflict) {
		return r.meet(ctx, s, must)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.version = e.Version
	r.mu.Unlock()
	return nil
}

// meet looks at who wrote this replica's entry: an earlier run of this one, or
// another that has its id.
func (r *Registry) meet(ctx context.Context, s Status, must bool) error {
	e, err := r.o.Store.Load(ctx, statusPrefix+s.ID)
	if errors.Is(err, store.ErrNotFound) {
		r.mu.Lock()
		r.version = 0
		r.mu.Unlock()
		return nil // next time
	}
	var other Status
	if err == nil {
		err = json.Unmarshal(e.Value, &other)
	}
	if err != nil {
		return err
	}
	same := other.Started.Equal(s.Started) && other.PID == s.PID && other.Host == s.Host
	if !same && r.o.Now().Sub(other.Seen) < Lost && (other.Host != s.Host || other.Started.After(s.Started)) {
		return fmt.Errorf("%w: %s on %s (give each replica a state directory of its own)", ErrTwin, other.ID, other.Host)
	}
	r.mu.Lock()
	r.version = e.Version
	r.mu.Unlock()
	return r.write(ctx, must)
}

func (r *Registry) self() Status {
	s := r.o.Self()
	s.Seen = r.o.Now().UTC()
	r.mu.Lock()
	s.Applied = max(s.Applied, r.asked)
	r.mu.Unlock()
	return s
}

// Alive reports whether a replica was heard of a moment ago.
func (r *Registry) Alive(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.others[id]
	return ok && r.o.Now().Sub(s.Seen) < Lost
}

// List returns all replicas by id, with this one as it is now.
func (r *Registry) List() []Status {
	self := r.self()
	self.Alive, self.Self = true, true
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	out := []Status{self}
	for s := range maps.Values(r.others) {
		if s.ID == self.ID || now.Sub(s.Seen) > kept {
			continue
		}
		s.Quiet = now.Sub(s.Seen)
		s.Alive = s.Quiet < Lost
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Confirm asks all replicas whether they have taken over everything that the store
// holds now, and waits for their answers until ctx is done.
func (r *Registry) Confirm(ctx context.Context) ([]Ack, error) {
	name := fmt.Sprintf("%s%s-%d", askPrefix, r.id, time.Now().UnixNano())
	e, err := r.o.Store.Save(ctx, store.Entry{Name: name, Expires: r.o.Now().Add(kept), Must: true})
	if err != nil {
		return nil, fmt.Errorf("asking the replicas: %w", err)
	}
	return r.Await(ctx, func(s *Status) string {
		if s.Applied >= e.Version {
			return ""
		}
		return "it has not answered"
	}), nil
}

// Tell has this replica make itself known now, and not at the next beat.
func (r *Registry) Tell() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Await waits until all replicas are as wanted, or ctx is done. lacks says what keeps
// one from it, and is empty for one that is as wanted.
func (r *Registry) Await(ctx context.Context, lacks func(*Status) string) []Ack {
	began := time.Now()
	took := map[string]time.Duration{}
	for {
		r.mu.Lock()
		moved := r.moved
		r.mu.Unlock()
		acks, all := r.acks(lacks, took, time.Since(began))
		if all {
			return acks
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return acks
		}
	}
}

// acks says which replicas are as wanted, noting when that was first seen, and whether
// nobody is waited for any more.
func (r *Registry) acks(lacks func(*Status) string, took map[string]time.Duration, now time.Duration) ([]Ack, bool) {
	var out []Ack
	all := true
	for _, s := range r.List() {
		why := lacks(&s)
		a := Ack{ID: s.ID, Host: s.Host, Done: why == ""}
		switch _, known := took[s.ID]; {
		case a.Done && !known:
			took[s.ID] = now
		case !a.Done && s.Alive:
			a.Why, all = why, false
		case !a.Done:
			a.Why = fmt.Sprintf("not heard of for %v", s.Quiet.Round(time.Second))
		}
		a.Took = took[s.ID]
		out = append(out, a)
	}
	return out, all
}

// Prefixes implements [store.Consumer].
func (r *Registry) Prefixes() []string { return []string{statusPrefix, askPrefix} }

// Begin implements [store.Consumer].
func (r *Registry) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.others)
	r.asked, r.loading = 0, true
}

// Take implements [store.Consumer].
func (r *Registry) Take(c store.Change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, status := strings.CutPrefix(c.Entry.Name, statusPrefix)
	switch {
	case !status && r.loading: // of long ago
	case !status: // a question: whoever asks wants to hear now
		r.asked = max(r.asked, c.Seq)
		r.Tell()
	case c.Gone:
		delete(r.others, id)
	default:
		var s Status
		if err := json.Unmarshal(c.Entry.Value, &s); err != nil {
			return nil // of another version: it is not known, and keeps nobody waiting
		}
		s.Alive, s.Self = false, false
		s.Lag = c.Seq - min(c.Seq, s.Applied+1)
		r.others[id] = s
	}
	close(r.moved)
	r.moved = make(chan struct{})
	return nil
}

// Loaded implements [store.Consumer].
func (r *Registry) Loaded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loading = false
}
