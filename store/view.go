package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Consumer keeps in memory what a store holds. Its methods are called by one
// goroutine at a time.
type Consumer interface {
	// Prefixes are those of the names that it keeps, in the order in which they are loaded.
	Prefixes() []string
	// Begin says that everything is told anew, up to Loaded.
	Begin()
	// Take tells one change. One that is not newer than what is known, by the entry's
	// version, changes nothing.
	Take(c Change) error
	// Loaded says that what was not taken since Begin is there no more.
	Loaded()
}

// ViewOptions of a [View]. Feed and Consumers must be set.
type ViewOptions struct {
	Feed      Feed
	Consumers []Consumer // in the order in which they are told of changes, and that all is loaded
	// Wait is how long to wait for a change before asking whether there is none; 500 ms
	// when zero. It bounds how old a view is that nothing changes.
	Wait time.Duration
	// Notice is told what happens to the view, for operators; nil: nobody.
	Notice func(what string, err error)
	// Lost is told when the view can no longer be kept current, and why, and with nil when
	// it is current again; nil: nobody.
	Lost func(error)
}

// View keeps consumers as current as a feed allows. Everything that a request needs
// is answered from them, and no request waits for the store. It is safe for
// concurrent use.
type View struct {
	o    ViewOptions
	born time.Time

	fresh  atomic.Int64 // since born: at that moment the view was current
	losses atomic.Int64 // how often the view was loaded anew

	mu      sync.Mutex
	at      Mark
	moved   chan struct{} // closed and replaced when at moves
	lost    error         // why the feed does not go on; nil while it does
	stop    context.CancelFunc
	stopped chan struct{}
}

// OpenView loads the consumers and begins to keep them current, until Close.
func OpenView(ctx context.Context, o ViewOptions) (*View, error) {
	if o.Wait == 0 {
		o.Wait = 500 * time.Millisecond
	}
	if o.Notice == nil {
		o.Notice = func(string, error) {}
	}
	if o.Lost == nil {
		o.Lost = func(error) {}
	}
	v := &View{o: o, born: time.Now(), moved: make(chan struct{}), stopped: make(chan struct{})}
	if err := v.load(ctx); err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	v.stop = stop
	go v.run(run)
	return v, nil
}

// Close ends it. The consumers stay as they are, and grow old.
func (v *View) Close() {
	v.stop()
	<-v.stopped
}

// Age is how long ago the view is known to have been current.
func (v *View) Age() time.Duration { return time.Since(v.born) - time.Duration(v.fresh.Load()) }

// Reloads is how often everything was read anew because the history had a gap.
func (v *View) Reloads() int64 { return v.losses.Load() }

// Mark returns the place in history that all consumers have reached.
func (v *View) Mark() Mark {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at
}

// Lost is why the view is not being kept current, or nil.
func (v *View) Lost() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lost
}

// Reach waits until the view has reached a sequence number.
func (v *View) Reach(ctx context.Context, seq uint64) error {
	for {
		v.mu.Lock()
		at, moved := v.at.Seq, v.moved
		v.mu.Unlock()
		if at >= seq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-v.stopped:
			return ErrClosed
		}
	}
}

// Pauses between attempts to go on with a feed that fails.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
)

func (v *View) run(ctx context.Context) {
	defer close(v.stopped)
	pause := firstPause
	whole := true
	for {
		err := v.step(ctx, &whole)
		if ctx.Err() != nil {
			return
		}
		v.note(err)
		if err == nil {
			pause = firstPause
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// step brings the consumers one answer of the feed further. whole is false from a
// gap until everything has been read anew.
func (v *View) step(ctx context.Context, whole *bool) error {
	if !*whole {
		if err := v.load(ctx); err != nil {
			return err
		}
		v.losses.Add(1)
		*whole = true
		v.o.Notice("the store was read anew", nil)
		return nil
	}
	asked := time.Since(v.born)
	at := v.Mark()
	changes, err := v.o.Feed.Changes(ctx, at, v.o.Wait)
	if err == nil {
		err = at.Follow(changes)
	}
	if errors.Is(err, ErrGap) {
		*whole = false
		v.o.Notice("the store's history has a gap; reading it anew", err)
		return nil
	}
	if err != nil {
		return err
	}
	for i := range changes {
		if err := v.take(changes[i]); err != nil {
			*whole = false
			return err
		}
	}
	if n := len(changes); n > 0 {
		v.reach(changes[n-1].Mark)
		if changes[n-1].More { // it is no younger before it has those as well
			return nil
		}
	}
	v.fresh.Store(int64(asked))
	return nil
}

// load reads everything anew, as it was at a mark or a little later.
func (v *View) load(ctx context.Context) error {
	asked := time.Since(v.born)
	at, err := v.o.Feed.Mark(ctx)
	if err != nil {
		return err
	}
	if err := v.readAll(ctx); err != nil {
		return err
	}
	// What changed meanwhile is taken before anything is taken for gone: it was made
	// after the reading had passed its place.
	for changes := []Change(nil); ; {
		if changes, err = v.o.Feed.Changes(ctx, at, 0); err != nil {
			return err
		}
		if err := at.Follow(changes); err != nil {
			return err
		}
		if len(changes) == 0 {
			break
		}
		for i := range changes {
			if err := v.take(changes[i]); err != nil {
				return err
			}
		}
		at = changes[len(changes)-1].Mark
	}
	for _, c := range v.o.Consumers {
		c.Loaded()
	}
	v.reach(at)
	v.fresh.Store(int64(asked))
	return nil
}

// readAll tells each consumer all that the store holds for it, all of them at once: what
// they need of each other they look for in Loaded.
func (v *View) readAll(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(v.o.Consumers))
	var all sync.WaitGroup
	for i, c := range v.o.Consumers {
		c.Begin()
		all.Go(func() {
			for _, prefix := range c.Prefixes() {
				if errs[i] = v.read(ctx, c, prefix); errs[i] != nil {
					cancel()
					return
				}
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

func (v *View) read(ctx context.Context, c Consumer, prefix string) error {
	for e, err := range v.o.Feed.Each(ctx, prefix) {
		if err != nil {
			return err
		}
		if err := c.Take(Change{Mark: Mark{Seq: e.Version}, Entry: e}); err != nil {
			return err
		}
	}
	return nil
}

// take gives one change to the consumers that keep its name.
func (v *View) take(c Change) error {
	for _, consumer := range v.o.Consumers {
		if !keeps(consumer, c.Entry.Name) {
			continue
		}
		if err := consumer.Take(c); err != nil {
			return fmt.Errorf("taking change %d: %w", c.Seq, err)
		}
	}
	return nil
}

func keeps(c Consumer, name string) bool {
	return slices.ContainsFunc(c.Prefixes(), func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

func (v *View) reach(m Mark) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.at = m
	close(v.moved)
	v.moved = make(chan struct{})
}

// note tells when the feed is lost and when it is back, once each.
func (v *View) note(err error) {
	v.mu.Lock()
	was := v.lost
	v.lost = err
	v.mu.Unlock()
	if (err == nil) != (was == nil) {
		v.o.Lost(err)
	}
}

// Fill reads a store into a consumer once, as a view does at its beginning.
func Fill(ctx context.Context, kv Store, c Consumer) error {
	c.Begin()
	for _, prefix := range c.Prefixes() {
		for e, err := range kv.Scan(ctx, prefix) {
			if err != nil {
				return err
			}
			if err := c.Take(Change{Mark: Mark{Seq: e.Version}, Entry: e}); err != nil {
				return err
			}
		}
	}
	c.Loaded()
	return nil
}
