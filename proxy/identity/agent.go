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

// agent is an agent in memory. Its info is replaced whole.
type agent struct {
	info    atomic.Pointer[Agent]
	asked   policy.Agent // as policy sees it; shared by all requests
	version uint64
	unsaved bool // its state is not in the store yet; Directory.change guards it
}

func newAgent(a Agent, version uint64) *agent {
	x := &agent{asked: policy.Agent{ID: a.Name, Owner: a.Owner, Labels: a.Labels}, version: version}
	x.info.Store(&a)
	return x
}

// barred returns why the agent may not act, or nil.
func (a *agent) barred() error {
	switch a.info.Load().State {
	case Active:
		return nil
	case Suspended:
		return ErrAgentSuspended
	}
	return ErrAgentRetired
}

// human is a human in memory, by the name that sessions give.
type human struct {
	suspended atomic.Bool
	version   uint64
}

type storedHuman struct {
	ID        string `json:"id"`
	Suspended bool   `json:"suspended"`
}

// human returns the human of that name, noting it at first sight. The caller
// holds d.mu, or is the only user still.
func (d *Directory) human(id string) *human {
	h := d.humans[id]
	if h == nil {
		h = &human{}
		d.humans[id] = h
	}
	return h
}

// AddAgent registers an agent.
func (d *Directory) AddAgent(ctx context.Context, name, owner string, labels map[string]string) (Agent, error) {
	if !credential.IsName(name) {
		return Agent{}, fmt.Errorf("%w: agent name %q (letters, digits, - _ . and at most 64 of them)", ErrInvalid, name)
	}
	if owner == "" {
		return Agent{}, fmt.Errorf("%w: an agent needs an owner who answers for it", ErrInvalid)
	}
	d.change.Lock()
	defer d.change.Unlock()
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
	d.agents[name] = newAgent(a, version)
	d.mu.Unlock()
	return a, nil
}

// Agents returns all agents by name.
func (d *Directory) Agents() []Agent {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []Agent
	for _, name := range slices.Sorted(maps.Keys(d.agents)) {
		out = append(out, *d.agents[name].info.Load())
	}
	return out
}

// Agent returns the agent of that name or [ErrUnknownAgent].
func (d *Directory) Agent(name string) (Agent, error) {
	a, err := d.agent(name)
	if err != nil {
		return Agent{}, err
	}
	return *a.info.Load(), nil
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
	err := d.setState(ctx, name, Suspended, reason)
	if a, _ := d.agent(name); a != nil && a.barred() != nil {
		d.cut(func(s *session) bool { return s.agent == a })
	}
	return err
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
// given. The caller holds d.change.
func (d *Directory) noteGiven(ctx context.Context, s *session) error {
	next := *s.agent.info.Load()
	given := slices.Concat(next.Credentials, s.info.Credentials)
	slices.Sort(given)
	if given = slices.Compact(given); len(given) == len(next.Credentials) {
		return nil
	}
	next.Credentials = given
	return d.saveAgent(ctx, s.agent, &next)
}

// setState changes an agent's state, in memory before the store when that takes
// authority away.
func (d *Directory) setState(ctx context.Context, name, state, reason string) error {
	d.change.Lock()
	defer d.change.Unlock()
	a, err := d.agent(name)
	if err != nil {
		return err
	}
	old := a.info.Load()
	if old.State == Retired {
		switch {
		case state != Retired:
			return fmt.Errorf("%w: %s", ErrAgentRetired, name)
		case !a.unsaved:
			return nil
		}
		return d.saveAgent(ctx, a, old)
	}
	next := *old
	next.State, next.Reason, next.Changed = state, reason, d.o.Now().UTC().Truncate(time.Second)
	if state != Active {
		a.unsaved = true
		a.info.Store(&next)
	}
	return d.saveAgent(ctx, a, &next)
}

// saveAgent writes what is next known of an agent, and then has it in memory. The
// caller holds d.change.
func (d *Directory) saveAgent(ctx context.Context, a *agent, next *Agent) error {
	version, err := d.save(ctx, agentPrefix+next.Name, a.version, next, time.Time{})
	if err != nil {
		return fmt.Errorf("keeping agent %s: %w", next.Name, err)
	}
	a.version, a.unsaved = version, false
	a.info.Store(next)
	return nil
}

// SuspendHuman bars all that acts for a human, named as in their sessions, or
// lifts it.
func (d *Directory) SuspendHuman(ctx context.Context, id string, suspended bool) error {
	if _, _, _, err := ParseHuman(id); err != nil {
		return err
	}
	d.change.Lock()
	defer d.change.Unlock()
	d.mu.Lock()
	h := d.human(id)
	d.mu.Unlock()
	if suspended {
		h.suspended.Store(true)
		d.cut(func(s *session) bool { return s.info.Human == id })
	}
	version, err := d.save(ctx, humanPrefix+escape(id), h.version, storedHuman{id, suspended}, time.Time{})
	if err != nil {
		return fmt.Errorf("keeping human: %w", err)
	}
	h.version = version
	h.suspended.Store(suspended)
	return nil
}

// escape makes a human's name fit into a name of the store.
func escape(id string) string { return fmt.Sprintf("%x", id) }
