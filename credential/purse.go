package credential

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"golang.org/x/sync/singleflight"
)

// purse has the tokens in memory that are minted of one secret.
type purse struct {
	flights singleflight.Group
	mu      sync.RWMutex
	tokens  map[string]*token // by audience
	unsaved map[string]*token // minted, and not in the store yet
	failed  map[string]*failure
}

// maxAudiences bounds how many tokens of one credential are in memory.
const maxAudiences = 4096

func newPurse() *purse {
	return &purse{tokens: map[string]*token{}, unsaved: map[string]*token{}, failed: map[string]*failure{}}
}

func (p *purse) held(key string) *token {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.tokens[key]
}

func (p *purse) keep(key string, t *token) *token {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tokens) >= maxAudiences {
		clear(p.tokens) // the store has them
	}
	p.tokens[key] = t
	return t
}

// fail keeps in mind how a provider refused.
func (p *purse) fail(key string, f *failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.failed) >= maxAudiences {
		clear(p.failed)
	}
	p.failed[key] = f
}

func (p *purse) failure(key string) *failure {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.failed[key]
}

// wait keeps a token until the store has it.
func (p *purse) wait(key string, t *token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsaved[key] = t
}

func (p *purse) waiting(key string) *token {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.unsaved[key]
}

// settled forgets that a token waits, which the store now has.
func (p *purse) settled(key string, t *token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unsaved[key] == t {
		delete(p.unsaved, key)
	}
}

// Close waits for refreshes that are under way, which take no longer than an exchange with
// a token endpoint and a write, and saves what the store did not take before: the next
// start finds the newest refresh tokens. Nothing is minted afterwards.
func (v *Vault) Close(ctx context.Context) error {
	v.minting.Lock()
	v.closed = true
	v.minting.Unlock()
	v.mu.RLock()
	all := make([]*kept, 0, len(v.credentials))
	for _, k := range v.credentials {
		all = append(all, k)
	}
	v.mu.RUnlock()
	var errs error
	for _, k := range all {
		r := k.open.Load()
		if r == nil {
			continue
		}
		m, ok := r.how.(*minted)
		if !ok {
			continue
		}
		m.mu.RLock()
		unsaved := maps.Clone(m.unsaved)
		m.mu.RUnlock()
		for key, t := range unsaved {
			_, version, err := m.load(ctx, key)
			if err == nil {
				_, err = m.saved(ctx, key, t, version)
			}
			if err != nil {
				errs = errors.Join(errs, fmt.Errorf("credential %s: its newest token is lost: %w", k.ID, err))
			}
		}
	}
	return errs
}

// Unlock ends the locks of refreshes that a program which was killed has left behind. It
// is called before the first request, and only where no other replica has the store.
func (v *Vault) Unlock(ctx context.Context) error {
	var names []string
	for e, err := range v.kv.Scan(ctx, mintPrefix) {
		if err != nil {
			return fmt.Errorf("looking for locks: %w", err)
		}
		names = append(names, e.Name)
	}
	for _, name := range names {
		if err := v.kv.Delete(ctx, name); err != nil {
			return fmt.Errorf("ending a lock: %w", err)
		}
	}
	return nil
}
