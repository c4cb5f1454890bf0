package source

import "sync"

// leases are those that a server has given out and that may be renewed, by path.
type leases struct {
	mu   sync.Mutex
	held map[string]*vaultAnswer
}

func (l *leases) of(path string) *vaultAnswer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.held[path]; a != nil {
		return new(*a)
	}
	return nil
}

func (l *leases) keep(path string, a *vaultAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]*vaultAnswer{}
	}
	l.held[path] = a
}
