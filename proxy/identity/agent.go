package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"chaperone/credential"
	"chaperone/policy"
	"chaperone/store"
)

// States of an agent.
const (
	Active    = "active"
	Suspended = "suspended"
	Retired   = "retired"
)

// Agent is a registered software principal.
type Agent struct {
	Name    string            `json:"name"`
	Owner   string            `json:"owner"`
	Labels  map[string]string `json:"labels,omitzero"`
	State   string            `json:"state"`
	Created time.Time         `json:"created"`
	Changed time.Time         `json:"changed"`
	Reason  string            `json:"reason,omitzero"` // of the last change of state
	// Credentials are all that any of its sessions was ever given a handle for, in
	// order; they are remembered for its residue after the sessions are forgotten.
	Credentials []string `json:"credentials,omitzero"`
}

// agent is an agent in memory. What is known of it is replaced whole.
type agent struct {
	known atomic.Pointer[knownAgent]
	asked policy.Agent // as policy sees it; shared by all requests
}

// knownAgent is an agent at one version.
type knownAgent struct {
	Agent
	version uint64
	round   uint32 // of the directory when it was last told of
	unsaved bool   // its state is not in the store yet
}

func newAgent(k *knownAgent) *agent {
	x := &agent{asked: policy.Agent{ID: k.Name, Owner: k.Owner, Labels: k.Labels}}
	x.known.Store(k)
	return x
}

// barred returns why the agent may not act, or nil.
func (a *agent) barred() error {
	switch a.known.Load().State {
	case Active:
		return nil
	case Suspended:
		return ErrAgentSuspended
	}
	return ErrAgentRetired
}

// AddAgent registers an agent.
func (d *Directory) AddAgent(ctx context.Context, name, owner string, labels map[string]string) (Agent, error) {
	if !credential.IsName(name) {
		return Agent{}, fmt.Errorf("%w: agent name %q (letters, digits, - _ . and at most 64 of them)", ErrInvalid, name)
	}
	if owner == "" {
		return Agent{}, fmt.Errorf("%w: an agent needs an owner who answers for it", ErrInvalid)
	}
	now := d.o.Now().UTC().Truncate(time.Second)
	a := Agent{Name: name, Owner: owner, Labels: labels, State: Active, Created: now, Changed: now}
	version, err := d.save(ctx, agentPrefix+name, 0, a, time.Time{})
	if errors.Is(err, store.ErrConflict) {
		return Agent{}, fmt.Errorf("%w: %s", ErrDuplicate, name)
	}
	if err != nil {
		return Agent{}, fmt.Errorf("keeping agent: %w", err)
	}
	d.mu.Lock()
	d.takeAgent(&a, version)
	d.mu.Unlock()
	return a, nil
}

// Agents returns all agents by name.
func (d *Directory) Agents() []Agent {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []Agent
	for _, name := range slices.Sorted(maps.Keys(d.agents)) {
		out = append(out, d.agents[name].known.Load().Agent)
	}
	return out
}

// Agent returns the agent of that name or [ErrUnknownAgent].
func (d *Directory) Agent(name string) (Agent, error) {
	a, err := d.agent(name)
	if err != nil {
		return Agent{}, err
	}
	return a.known.Load().Agent, nil
}

func (d *Directory) agent(name string) (*agent, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if a := d.agents[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownAgent, name)
}

// SuspendAgent bars all that the agent does, at once; ResumeAgent lifts it. After
// an error of the store the agent is barred all the same, until a restart.
func (d *Directory) SuspendAgent(ctx context.Context, name, reason string) error {
	if _, err := d.agent(name); err != nil {
		return err
	}
	err := d.setState(ctx, name, Suspended, reason)
	d.cutBarred(name)
	if store.Away(err) {
		err = unsaved(err)
	}
	return err
}

// cutBarred cuts what an agent does that may not act.
func (d *Directory) cutBarred(name string) {
	if a, _ := d.agent(name); a != nil && a.barred() != nil {
		d.cut(func(s *session) bool { return s.agent == a })
	}
}

// ResumeAgent lets a suspended agent act again, in the sessions that it still has.
func (d *Directory) ResumeAgent(ctx context.Context, name string) error {
	return d.setState(ctx, name, Active, "")
}

// RetireAgent ends an agent for good: its sessions and their handles are revoked.
// What is left of it, by what chaperone knows, is returned as its residue. It may be
// called again, after an error or for the residue alone.
func (d *Directory) RetireAgent(ctx context.Context, name, reason, by string) ([]string, error) {
	if _, err := d.agent(name); err != nil {
		return nil, err
	}
	err := d.setState(ctx, name, Retired, reason)
	d.cutBarred(name)
	if store.Away(err) { // the sessions would not be written either, and can do nothing
		return nil, unsaved(err)
	}
	_, rerr := d.Revoke(ctx, Target{Agent: name}, reason, by)
	if err := errors.Join(err, rerr); err != nil {
		return nil, err
	}
	return d.residue(name)
}

// residue lists the credentials that are the agent's or were given to it.
func (d *Directory) residue(name string) ([]string, error) {
	a, err := d.Agent(name)
	if err != nil {
		return nil, err
	}
	var residue []string
	kept := map[string]bool{}
	for _, c := range d.o.Vault.List() {
		kept[c.ID] = true
		switch {
		case c.Owner == "agent:"+name:
			residue = append(residue, fmt.Sprintf("credential %s at %s belongs to the agent: revoke it there, then `chaperone credential remove %s`", c.ID, c.Service, c.ID))
		case slices.Contains(a.Credentials, c.ID):
			residue = append(residue, fmt.Sprintf("credential %s at %s was used by the agent (owner %s): look there for what it made", c.ID, c.Service, c.Owner))
		}
	}
	for _, id := range a.Credentials {
		if !kept[id] {
			residue = append(residue, fmt.Sprintf("credential %s was used by the agent and is no longer kept here: see that its service revoked it, and look there for what it made", id))
		}
	}
	return residue, nil
}

// noteGiven remembers with the agent which credentials its session is about to be
// given.
func (d *Directory) noteGiven(ctx context.Context, s *session) error {
	return d.changeAgent(ctx, s.info.Agent, func(a *Agent) error {
		given := slices.Concat(a.Credentials, s.info.Credentials)
		slices.Sort(given)
		if given = slices.Compact(given); len(given) == len(a.Credentials) {
			return errNothing
		}
		a.Credentials = given
		return nil
	})
}

// setState changes an agent's state, in memory before the store when that takes
// authority away.
func (d *Directory) setState(ctx context.Context, name, state, reason string) error {
	return d.changeAgent(ctx, name, func(a *Agent) error {
		if a.State == Retired {
			if state != Retired {
				return fmt.Errorf("%w: %s", ErrAgentRetired, name)
			}
			return errNothing
		}
		a.State, a.Reason, a.Changed = state, reason, d.o.Now().UTC().Truncate(time.Second)
		return nil
	})
}

// errNothing says that there is nothing to change.
var errNothing = errors.New("nothing to change")

// attempts is how often a change is tried anew because another replica was faster.
const attempts = 10

// changeAgent applies a change to the newest that is known of an agent, and again
// when the store has something newer.
func (d *Directory) changeAgent(ctx context.Context, name string, change func(*Agent) error) error {
	for range attempts {
		a, err := d.agent(name)
		if err != nil {
			return err
		}
		old := a.known.Load()
		next := &knownAgent{Agent: old.Agent, version: old.version, round: old.round, unsaved: old.unsaved}
		if err := change(&next.Agent); errors.Is(err, errNothing) && old.unsaved {
			next.Agent = old.Agent
		} else if errors.Is(err, errNothing) {
			return nil
		} else if err != nil {
			return err
		}
		if next.State != Active {
			next.unsaved = true
			if !a.known.CompareAndSwap(old, next) {
				continue
			}
		}
		err = d.saveAgent(ctx, next)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("keeping agent %s: %w", name, store.ErrConflict)
}

// saveAgent writes what is next known of an agent, and then has it in memory. On a
// conflict it has what the store has.
func (d *Directory) saveAgent(ctx context.Context, next *knownAgent) error {
	name := agentPrefix + next.Name
	version, err := d.save(ctx, name, next.version, next.Agent, time.Time{})
	if errors.Is(err, store.ErrConflict) {
		return errors.Join(err, d.fetch(ctx, name))
	}
	if err != nil {
		return fmt.Errorf("keeping agent %s: %w", next.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.agents[next.Name]; a != nil && a.known.Load().version <= next.version {
		a.known.Store(&knownAgent{Agent: next.Agent, version: version, round: d.round})
	}
	return nil
}
