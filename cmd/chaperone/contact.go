package main

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"chaperone/store"
	"chaperone/store/replica"
)

// contact is how this replica stands with a store that others share: whether it can
// follow it, and whether the store takes what it writes. Operators are told once when
// that goes wrong, once when it has for so long that everything is refused, and once
// when it is over. It is safe for concurrent use.
type contact struct {
	logger *slog.Logger
	sh     *shared
	limit  time.Duration // store_stale

	mu          sync.Mutex
	read, wrote error     // what is wrong; nil: nothing
	since       time.Time // of the trouble; zero: there is none
	proved      bool      // something was written since
	refusing    bool      // operators know that everything is refused
	odd         bool      // and that this replica has a fault of its own
	watch       *time.Timer
}

// pauseRefusing is how long after everything should be refused operators hear of it.
const pauseRefusing = 100 * time.Millisecond

// followed is told when the view is lost, and with nil when it is current again.
func (c *contact) followed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = err
	if err == nil {
		c.sh.registry.Tell() // soon, to know whether the store takes it
	}
	c.weigh()
}

// told is told how it went to make this replica known to the others.
func (c *contact) told(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if own := err != nil && !store.Away(err); own != c.odd {
		if c.odd = own; own {
			c.logger.Warn("this replica cannot make itself known to the others", "error", err.Error())
		}
	}
	c.wrote = nil
	if store.Away(err) {
		c.wrote = err
	}
	c.proved = c.proved || !store.Away(err)
	c.weigh()
}

// weigh tells operators of what is new.
func (c *contact) weigh() {
	err := c.wrong()
	full := errors.Is(err, store.ErrFull)
	switch {
	case err == nil && !c.since.IsZero() && c.proved:
		about := []any{"after", time.Since(c.since).Round(time.Millisecond).String()}
		if c.sh.stale(c.limit) != nil {
			about = append(about, "requests_go_on_in", backPause.String())
		}
		c.logger.Info("the store answers and takes changes again", about...)
		c.since, c.refusing = time.Time{}, false
		c.unwatch()
	case err == nil || !c.since.IsZero() && (full || c.watch != nil):
	case full:
		c.since, c.proved = time.Now(), false
		c.logger.Warn("the store is full: requests go on, and nothing new can be made", "error", plain(err))
	default:
		c.since, c.proved = time.Now(), false
		c.logger.Warn("trouble with the store: requests go on with what is known, and nothing new can be made", "error", plain(err), "all_refused_after", c.limit.String())
		c.watch = time.AfterFunc(c.limit-c.sh.age()+pauseRefusing, c.look)
	}
}

// look tells operators when everything is refused.
func (c *contact) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() || c.refusing || c.watch == nil {
		return
	}
	if c.sh.stale(c.limit) == nil { // what is wrong is not the same all the time
		c.watch = time.AfterFunc(pauseRefusing, c.look)
		return
	}
	c.refusing = true
	text := "the store has just come back"
	if err := c.wrong(); err != nil {
		text = plain(err)
	}
	c.logger.Error("everything is refused: too little is known of what was revoked", "error", text, "store_stale", c.limit.String())
}

func (c *contact) unwatch() {
	if c.watch != nil {
		c.watch.Stop()
		c.watch = nil
	}
}

// close ends what would tell more.
func (c *contact) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unwatch()
}

// wrong is what is wrong, or nil. That nothing can be read goes before that nothing
// can be written.
func (c *contact) wrong() error {
	if c.read != nil {
		return c.read
	}
	return c.wrote
}

// show adds what is wrong to what this replica tells of itself.
func (c *contact) show(s *replica.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.wrong(); err != nil {
		s.Trouble, s.Full = plain(err), errors.Is(err, store.ErrFull)
	}
}

// plain is an error of the store without which entry it is about, which is this
// replica's own.
func plain(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, `": `); ok && strings.HasPrefix(text, `"`) {
		return rest
	}
	return text
}

// age is how old what is known of the store is. One that takes nothing is told of no
// revocation, and what it says is as old as what it took last.
func (sh *shared) age() time.Duration {
	v := sh.view.Load()
	if v == nil {
		return 0
	}
	return max(v.Age(), sh.registry.Silent())
}

// deaf reports whether others cannot be heard: the view is lost, or they cannot tell.
func (sh *shared) deaf() bool {
	v := sh.view.Load()
	return v == nil || v.Lost() != nil || sh.registry.Silent() > 0
}
