package http1

import (
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long an exchange may last before somebody looks whether the
// agent is still there. It is noticed to be gone after twice that at the latest.
const patience = 50 * time.Millisecond

// watchman looks after all connections of a server in rounds, so that they need no
// timers of their own: those in use every [patience], those that rest rarely, and
// while there are none he sleeps.
type watchman struct {
	o Options

	mu      sync.Mutex
	hot     []*conn
	resting []*conn
	walking bool // a round over the hot ones is due
	calling bool // one over the resting ones is
}

// round is what the watchman knows of a connection.
type round struct {
	cold   atomic.Bool // it rests; whoever clears this moves it
	at     int         // its place among the hot or resting ones
	rests  bool        // among which
	gone   bool
	seen   uint64 // its state when he came by last
	seenAt time.Time
}

// meet takes in a connection.
func (m *watchman) meet(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.seen, c.seenAt = c.state.Load(), time.Now()
	m.heat(c)
}

// part lets go of one.
func (m *watchman) part(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !c.gone {
		m.remove(c)
		c.gone = true
	}
}

// warm is told of a connection that was cold and is in use again.
func (m *watchman) warm(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !c.gone {
		m.remove(c)
		m.heat(c)
	}
}

func (m *watchman) heat(c *conn) {
	c.at, c.rests = len(m.hot), false
	m.hot = append(m.hot, c)
	if !m.walking {
		m.walking = true
		time.AfterFunc(patience, m.walk)
	}
}

func (m *watchman) cool(c *conn) {
	m.remove(c)
	c.at, c.rests = len(m.resting), true
	m.resting = append(m.resting, c)
	if !m.calling {
		m.calling = true
		time.AfterFunc(m.pause(), m.call)
	}
}

// remove takes a connection out of its list. The last one takes its place.
func (m *watchman) remove(c *conn) {
	list := &m.hot
	if c.rests {
		list = &m.resting
	}
	end := len(*list) - 1
	last := (*list)[end]
	(*list)[c.at], last.at = last, c.at
	(*list)[end] = nil
	*list = (*list)[:end]
}

// pause is the time between two rounds over the resting ones.
func (m *watchman) pause() time.Duration { return max(m.o.IdleTimeout/16, patience) }

// walk is a round over the hot ones.
func (m *watchman) walk() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for i := len(m.hot) - 1; i >= 0; i-- { // backwards, as the last takes the place of one that goes
		m.look(m.hot[i], now)
	}
	if m.walking = len(m.hot) > 0; m.walking {
		time.AfterFunc(patience, m.walk)
	}
}

// call is a round over the resting ones.
func (m *watchman) call() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for i := len(m.resting) - 1; i >= 0; i-- {
		if c := m.resting[i]; c.state.Load() == c.seen && now.Sub(c.seenAt) >= m.o.IdleTimeout {
			c.endIdle()
		}
	}
	if m.calling = len(m.resting) > 0; m.calling {
		time.AfterFunc(m.pause(), m.call)
	}
}

// look looks how long a connection has been in its phase.
func (m *watchman) look(c *conn, now time.Time) {
	s := c.state.Load()
	if s != c.seen {
		c.seen, c.seenAt = s, now
		return
	}
	switch s & phases {
	case opening, reading:
		if now.Sub(c.seenAt) >= m.o.HeadTimeout {
			go c.Conn.Close() // TLS may wait in it
		}
	case idle:
		c.cold.Store(true)
		if c.state.Load() == s || !c.cold.CompareAndSwap(true, false) {
			m.cool(c) // a request that comes meanwhile finds it cold, and warms it
		}
	case busy:
		if c.bodyDone.Load() && c.state.CompareAndSwap(s, s&^phases|watched) {
			go c.watch()
		}
	}
}
