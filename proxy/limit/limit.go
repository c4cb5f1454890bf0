// Package limit counts what policy bounds: requests, bytes and money, over all
// replicas that share a store.
package limit

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"chaperone/store"
)

var (
	// ErrExceeded is wrapped when a limit is used up; the error is an [*Exceeded].
	ErrExceeded = errors.New("limit is used up")
	// ErrUncounted is wrapped when it could not be counted: the request is refused.
	ErrUncounted = errors.New("limit could not be counted")
)

// Exceeded says which limit is used up, and when there is some of it again.
type Exceeded struct {
	Title string
	Again time.Time // zero: never
}

// Error names the limit.
func (e *Exceeded) Error() string { return e.Title + " is used up" }

// Unwrap returns ErrExceeded.
func (e *Exceeded) Unwrap() error { return ErrExceeded }

// Claim is what one request takes of one limit.
type Claim struct {
	Key    string        // whose limit it is, and of what; two claims of one key are the same limit
	Title  string        // for people
	Max    int64         // units: requests, bytes, or millionths of the currency
	Amount int64         // units that the request takes
	Every  time.Duration // the count begins anew so often, at multiples of it since 1970; 0: never
	Until  time.Time     // when nobody needs the count any more; zero: kept for good
}

// Store is where counts are kept; every [store.Store] is one.
type Store interface {
	Load(ctx context.Context, name string) (store.Entry, error)
	Save(ctx context.Context, e store.Entry) (store.Entry, error)
}

// Bounds of a lease: at most a sixteenth of what is left, and so many units.
const (
	leaseShare = 16
	leaseMost  = 1 << 30
)

// idleAfter is how long a lease that nobody uses is kept before it is given back.
const idleAfter = 2 * time.Second

// Counter counts. A replica reserves more than one request needs, ahead and in the
// background, so that most requests wait for no store; what is reserved over all
// replicas is never more than the limit, and what is not used is given back. It is
// safe for concurrent use.
type Counter struct {
	store Store
	now   func() time.Time

	mu       sync.Mutex
	accounts map[string]*account
	closed   bool
	running  sync.WaitGroup
	stop     chan struct{}
}

// New returns a counter over a store, by a clock that all replicas share. [Counter.Close]
// gives back what it has reserved.
func New(s Store, now func() time.Time) *Counter {
	c := &Counter{store: s, now: now, accounts: map[string]*account{}, stop: make(chan struct{})}
	c.running.Go(c.sweep)
	return c
}

// account is what this replica holds of one limit in one window.
type account struct {
	name    string
	max     int64
	expires time.Time

	mu     sync.Mutex
	have   int64         // reserved and not used
	low    int64         // at which more is reserved ahead
	used   time.Time     // when it was last asked
	ahead  chan struct{} // more is being reserved, until it is closed
	filled bool          // the store has no more
}

// Hold is what was taken for one request.
type Hold struct {
	c     *Counter
	taken []taken
}

type taken struct {
	a      *account
	amount int64
}

// Take takes all claims or none. The error wraps [ErrExceeded] or [ErrUncounted].
func (c *Counter) Take(ctx context.Context, claims []Claim) (*Hold, error) {
	h := &Hold{c: c}
	for i := range claims {
		a, again := c.account(&claims[i])
		if err := c.take(ctx, a, claims[i].Amount); err != nil {
			h.GiveBack()
			if errors.Is(err, ErrExceeded) {
				return nil, &Exceeded{Title: claims[i].Title, Again: again}
			}
			return nil, fmt.Errorf("%w: %w", ErrUncounted, err)
		}
		h.taken = append(h.taken, taken{a, claims[i].Amount})
	}
	return h, nil
}

// GiveBack returns what a request took that was never sent.
func (h *Hold) GiveBack() {
	if h == nil {
		return
	}
	for _, t := range h.taken {
		t.a.mu.Lock()
		t.a.have += t.amount
		t.a.mu.Unlock()
	}
	h.taken = nil
}

// GiveBackOf returns a part of what was taken last: so many units of each claim that
// were not used.
func (h *Hold) GiveBackOf(amount int64) {
	if h == nil {
		return
	}
	for _, t := range h.taken {
		t.a.mu.Lock()
		t.a.have += min(amount, t.amount)
		t.a.mu.Unlock()
	}
	h.taken = nil
}

// account finds the account of a claim's window, and when the window ends.
func (c *Counter) account(claim *Claim) (*account, time.Time) {
	now := c.now()
	window, ends := int64(0), time.Time{}
	if claim.Every > 0 {
		begun := now.Truncate(claim.Every)
		window, ends = begun.Unix(), begun.Add(claim.Every)
	}
	key := fmt.Sprintf("%s\x00%d\x00%d", claim.Key, claim.Max, window)
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.accounts[key]
	if a == nil {
		sum := sha256.Sum256([]byte(claim.Key))
		a = &account{name: fmt.Sprintf("limit/%s/%d", base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20]), window), max: claim.Max, expires: claim.Until, used: now}
		if !ends.IsZero() {
			a.expires = ends.Add(time.Minute) // clocks of replicas differ
		}
		c.accounts[key] = a
	}
	return a, ends
}

func (c *Counter) take(ctx context.Context, a *account, amount int64) error {
	if amount > a.max {
		return ErrExceeded
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used = c.now()
	for a.have < amount {
		// Others that need more than there is wait here for the one that asks the store.
		err := c.reserve(ctx, a, amount-a.have)
		if errors.Is(err, ErrExceeded) && a.ahead != nil {
			c.await(a) // the last of it is on its way
			continue
		}
		if err != nil {
			return err
		}
	}
	a.have -= amount
	if a.have < a.low && a.ahead == nil && !a.filled {
		c.reserveAhead(a)
	}
	return nil
}

// await waits for what is being reserved ahead; a.mu is held before and after.
func (c *Counter) await(a *account) {
	arrives := a.ahead
	a.mu.Unlock()
	<-arrives
	a.mu.Lock()
}

// reserve adds at least need to what a holds; a.mu is held.
func (c *Counter) reserve(ctx context.Context, a *account, need int64) error {
	got, lease, err := c.lease(ctx, a, need)
	a.have += got
	a.low = lease / 2
	a.filled = err == nil && got <= need
	return err
}

// reserveAhead reserves in the background; a.mu is held.
func (c *Counter) reserveAhead(a *account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	arrived := make(chan struct{})
	a.ahead = arrived
	c.running.Go(func() {
		defer close(arrived)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		got, lease, err := c.lease(ctx, a, 0)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ahead = nil
		a.have += got
		a.low = lease / 2
		a.filled = err == nil && got == 0
	})
}

// lease moves need units, and a share of what is left beyond, from the store's count
// to this replica. It is a compare-and-set: of two replicas one tries again.
func (c *Counter) lease(ctx context.Context, a *account, need int64) (got, share int64, err error) {
	for {
		e, err := c.load(ctx, a)
		if err != nil {
			return 0, 0, err
		}
		reserved := decode(e.Value)
		left := a.max - reserved
		if left < need {
			return 0, 0, ErrExceeded
		}
		share = min((left-need)/leaseShare, leaseMost)
		got = need + share
		if got == 0 {
			return 0, 0, nil
		}
		if done, err := c.save(ctx, e, reserved+got); done || err != nil {
			return got, share, err
		}
	}
}

func (c *Counter) load(ctx context.Context, a *account) (store.Entry, error) {
	e, err := c.store.Load(ctx, a.name)
	if errors.Is(err, store.ErrNotFound) {
		return store.Entry{Name: a.name, Expires: a.expires}, nil
	}
	return e, err
}

// save writes a count, and reports whether it was the last that anybody wrote.
func (c *Counter) save(ctx context.Context, e store.Entry, count int64) (bool, error) {
	e.Value = binary.AppendVarint(nil, count)
	_, err := c.store.Save(ctx, e)
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}

func decode(b []byte) int64 {
	n, size := binary.Varint(b)
	if size <= 0 {
		return 0
	}
	return n
}

// sweep gives back leases that nobody uses, so that other replicas have them.
func (c *Counter) sweep() {
	tick := time.NewTicker(idleAfter)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
			c.giveBack(c.now().Add(-idleAfter))
		}
	}
}

// giveBack returns what accounts hold that were not used since.
func (c *Counter) giveBack(since time.Time) {
	c.mu.Lock()
	idle := map[string]*account{}
	maps.Copy(idle, c.accounts)
	c.mu.Unlock()
	for key, a := range idle {
		a.mu.Lock()
		if !a.used.After(since) && a.ahead == nil {
			c.restore(a)
			c.mu.Lock()
			if a.have == 0 && c.accounts[key] == a {
				delete(c.accounts, key)
			}
			c.mu.Unlock()
		}
		a.mu.Unlock()
	}
}

// restore takes what a holds off the store's count; a.mu is held. Where that fails it
// stays with a, and is tried again.
func (c *Counter) restore(a *account) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for a.have > 0 {
		e, err := c.load(ctx, a)
		if err != nil {
			return
		}
		if e.Version == 0 {
			a.have = 0 // the window is over, and the count gone with it
			return
		}
		done, err := c.save(ctx, e, max(0, decode(e.Value)-a.have))
		if err != nil {
			return
		}
		if done {
			a.have, a.filled = 0, false
		}
	}
}

// Close gives back what is reserved and not used, and waits for what runs.
func (c *Counter) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.mu.Unlock()
	close(c.stop)
	c.running.Wait()
	c.giveBack(c.now())
}
