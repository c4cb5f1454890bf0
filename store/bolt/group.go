package bolt

import (
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"chaperone/store"
)

// group makes the changes that come while a transaction is under way in the next one,
// together: whoever comes alone waits for nobody, and many wait for few.
type group struct {
	db *bbolt.DB

	mu      sync.Mutex
	waiting []*pending
	busy    bool // a transaction is under way, whose writer says who is next
}

// pending is a change that is to be written.
type pending struct {
	change func(*bbolt.Tx) error
	err    error
	turn   chan bool // false: it is done; true: it is its turn to write what waits
}

// most is how many changes one transaction makes at most.
const most = 1000

// write makes a change, and returns when it is synced, or why it was not made. One that
// is refused ([store.ErrConflict], [store.ErrNotFound]) must have changed nothing.
func (g *group) write(change func(*bbolt.Tx) error) error {
	p := &pending{change: change, turn: make(chan bool, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	if !g.busy {
		g.busy = true
		p.turn <- true
	}
	g.mu.Unlock()
	if !<-p.turn {
		return p.err
	}
	batch := g.next()
	g.commit(batch)
	g.release(batch)
	<-p.turn
	return p.err
}

// next takes what waits, in the order in which it came.
func (g *group) next() []*pending {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), most)
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return batch
}

// release tells those whose change was made, and has the first of the others write.
func (g *group) release(batch []*pending) {
	for _, p := range batch {
		p.turn <- false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy = len(g.waiting) > 0; g.busy {
		g.waiting[0].turn <- true
	}
}

// commit makes changes in one transaction. Where one of them fails, each is made in one
// of its own.
func (g *group) commit(batch []*pending) {
	failed, err := g.update(batch)
	if !failed || len(batch) == 1 {
		for _, p := range batch {
			if p.err == nil {
				p.err = err
			}
		}
		return
	}
	for _, p := range batch {
		p.err = nil
		if _, err := g.update([]*pending{p}); p.err == nil {
			p.err = err
		}
	}
}

// update makes changes in one transaction, and says whether it was one of them that
// failed. Those that are refused leave the others alone.
func (g *group) update(batch []*pending) (failed bool, err error) {
	defer func() {
		if p := recover(); p != nil { // bbolt does that where the file is damaged
			failed, err = true, fmt.Errorf("%w (%v)", store.ErrDamaged, p)
		}
	}()
	err = g.db.Update(func(tx *bbolt.Tx) error {
		refused := 0
		for _, p := range batch {
			switch p.err = p.change(tx); {
			case errors.Is(p.err, store.ErrConflict), errors.Is(p.err, store.ErrNotFound):
				refused++
			case p.err != nil:
				failed = true
				return p.err
			}
		}
		if refused == len(batch) {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return failed, err
}

// errNothing ends a transaction in which nothing was changed.
var errNothing = errors.New("nothing was changed")
