package identity

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/credential"
	"chaperone/store"
	"chaperone/store/bolt"
)

// replica is a directory and a vault that follow a store which others write to.
type replica struct {
	*Directory
	vault *credential.Vault
	view  *store.View
	ahead atomic.Int64 // of the clock, in nanoseconds
	alive atomic.Bool  // what it takes all others for
}

func (r *replica) clock() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

type cluster struct {
	kv  store.Feed
	key credential.Key
	all []*replica
}

// join opens n replicas on one store, with an agent and a credential in it.
func join(t *testing.T, n int) *cluster {
	t.Helper()
	kv, err := bolt.Open(filepath.Join(t.TempDir(), "s"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	c := &cluster{kv: kv}
	if c.key, err = credential.NewKey(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		c.all = append(c.all, c.open(t, string(rune('a'+i))))
	}
	if _, err := c.all[0].AddAgent(ctx, "bot", "team:dev", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.all[0].vault.Add(ctx, credential.Credential{ID: "gh", Service: "github", Owner: "org", Kind: credential.KindBearer}, credential.NewSecret([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	return c
}

func (c *cluster) open(t *testing.T, name string) *replica {
	t.Helper()
	r := &replica{}
	var err error
	if r.vault, err = credential.Prepare(ctx, c.kv, c.key); err != nil {
		t.Fatal(err)
	}
	if r.Directory, err = Open(ctx, Options{Store: c.kv, Vault: r.vault, Followed: true, Replica: name, Now: r.clock, Alive: func(string) bool { return r.alive.Load() }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if r.view, err = store.OpenView(ctx, store.ViewOptions{Feed: c.kv, Consumers: []store.Consumer{r.vault, r.Directory}, Wait: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.view.Close)
	return r
}

// settle waits until all replicas have seen all.
func (c *cluster) settle(t *testing.T) {
	t.Helper()
	m, err := c.kv.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, r := range c.all {
		if err := r.view.Reach(limit, m.Seq); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *cluster) create(t *testing.T, spec Spec) Created {
	t.Helper()
	s, err := c.all[0].CreateSession(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	return s
}

// TestOneTruth ends on the second replica what was begun on the first: the third
// refuses it and cuts its streams.
func TestOneTruth(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(*replica, Created) error
		want error
	}{
		"session": {func(r *replica, s Created) error { _, err := r.Revoke(ctx, Target{Session: s.ID}, "", ""); return err }, ErrSessionRevoked},
		"instance": {func(r *replica, s Created) error {
			_, err := r.Revoke(ctx, Target{Instance: s.Instance}, "", "")
			return err
		}, ErrSessionRevoked},
		"human":           {func(r *replica, s Created) error { _, err := r.Revoke(ctx, Target{Human: s.Human}, "", ""); return err }, ErrSessionRevoked},
		"all":             {func(r *replica, s Created) error { _, err := r.Revoke(ctx, Target{All: true}, "", ""); return err }, ErrSessionRevoked},
		"suspended agent": {func(r *replica, s Created) error { return r.SuspendAgent(ctx, s.Agent, "") }, ErrAgentSuspended},
		"retired agent":   {func(r *replica, s Created) error { _, err := r.RetireAgent(ctx, s.Agent, "", ""); return err }, nil},
		"suspended human": {func(r *replica, s Created) error { _, err := r.SuspendHuman(ctx, s.Human, "", ""); return err }, ErrHumanSuspended},
	} {
		t.Run(name, func(t *testing.T) {
			c := join(t, 3)
			parent := c.create(t, Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{"gh"}})
			s := c.create(t, Spec{Agent: "bot", Parent: parent.ID})
			caller, err := c.all[2].Identify(basic("bot", s.Token))
			if err != nil {
				t.Fatal(err)
			}
			conn := &closer{done: make(chan struct{})}
			defer caller.Attach(conn)()
			if err := tc.end(c.all[1], parent); err != nil {
				t.Fatal(err)
			}
			c.settle(t)
			for i, r := range c.all {
				if _, err := r.Identify(basic("bot", s.Token)); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("replica %d: %v", i, err)
				}
			}
			select {
			case <-conn.done:
			case <-time.After(5 * time.Second):
				t.Error("its stream goes on")
			}
			if caller.Live() == nil {
				t.Error("its caller lives")
			}
		})
	}
}

func TestHandlesEverywhere(t *testing.T) {
	c := join(t, 2)
	s := c.create(t, Spec{Agent: "bot", Credentials: []string{"gh"}})
	h := c.all[1].vault.Handles(s.ID)
	if len(h) != 1 || h[0].Revoked() {
		t.Fatalf("the other replica has %d handles", len(h))
	}
	if _, err := c.all[0].Revoke(ctx, Target{Credential: "gh"}, "", ""); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	if !h[0].Revoked() {
		t.Error("revoked on one, it lives on the other")
	}
	s = c.create(t, Spec{Agent: "bot", Credentials: []string{"gh"}})
	h = c.all[1].vault.Handles(s.ID)
	if err := c.all[0].vault.Remove(ctx, "gh"); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	if _, err := c.all[1].vault.Find("gh"); err == nil || !h[0].Revoked() {
		t.Errorf("a credential that was removed on one: %v", err)
	}
}

// TestWritersMeet has replicas change one agent at once: no change is lost.
func TestWritersMeet(t *testing.T) {
	c := join(t, 3)
	for _, id := range []string{"x1", "x2", "x3"} {
		if err := c.all[0].vault.Add(ctx, credential.Credential{ID: id, Service: "github", Owner: "org", Kind: credential.KindBearer}, credential.NewSecret([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	c.settle(t)
	var all sync.WaitGroup
	for i, id := range []string{"x1", "x2", "x3"} {
		all.Go(func() {
			if _, err := c.all[i].CreateSession(ctx, Spec{Agent: "bot", Credentials: []string{id}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := c.all[1].SuspendAgent(ctx, "bot", "odd"); err != nil {
		t.Error(err)
	}
	c.settle(t)
	for i, r := range c.all {
		if a, err := r.Agent("bot"); err != nil || len(a.Credentials) != 3 || a.State != Suspended {
			t.Errorf("replica %d: %+v, %v", i, a, err)
		}
	}
}

// TestNothingLivesAgain gives the store back as it was before a revocation, as when
// a copy takes over that had not heard of it: the session stays dead on the replica
// that has heard, which writes it down again, for all others to come.
func TestNothingLivesAgain(t *testing.T) {
	c := join(t, 1)
	r := c.all[0]
	s := c.create(t, Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{"gh"}})
	other := c.create(t, Spec{Agent: "bot"})
	was := map[string]store.Entry{}
	for e, err := range c.kv.Scan(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		was[e.Name] = e
	}
	if _, err := r.Revoke(ctx, Target{Session: s.ID}, "odd", "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SuspendHuman(ctx, "alice@acme.com", "odd", "me"); err != nil {
		t.Fatal(err)
	}
	for e := range c.kv.Scan(ctx, "") {
		if old, ok := was[e.Name]; ok && string(old.Value) != string(e.Value) {
			e.Value = old.Value
			if _, err := c.kv.Save(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		delete(was, e.Name)
	}
	for _, e := range was { // handles
		e.Version = 0
		if _, err := c.kv.Save(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	c.settle(t)
	if _, err := r.Identify(basic("bot", s.Token)); !errors.Is(err, ErrSessionRevoked) {
		t.Errorf("it lives again: %v", err)
	}
	r.tick(ctx)
	late := c.open(t, "late")
	if _, err := late.Identify(basic("bot", s.Token)); !errors.Is(err, ErrSessionRevoked) {
		t.Errorf("on a replica that starts later: %v", err)
	}
	if h := late.vault.Handles(s.ID); len(h) != 0 {
		t.Errorf("%d handles live again", len(h))
	}
	if _, err := late.Identify(basic("bot", other.Token)); err != nil {
		t.Errorf("another session: %v", err)
	}
}

// TestStale refuses everything while too little is known, and cuts what goes on.
func TestStale(t *testing.T) {
	f := directory(t)
	s := f.create(t, Spec{Agent: "bot"})
	c, err := f.Identify(basic("bot", s.Token))
	if err != nil {
		t.Fatal(err)
	}
	conn := &closer{done: make(chan struct{})}
	defer c.Attach(conn)()
	f.stale.Store(true)
	f.tick(ctx)
	if _, err := f.Identify(basic("bot", s.Token)); !errors.Is(err, store.ErrStale) || !errors.Is(c.Live(), store.ErrStale) {
		t.Errorf("identify: %v, live: %v", err, c.Live())
	}
	select {
	case <-conn.done:
	default:
		t.Error("its stream goes on")
	}
	f.stale.Store(false)
	if _, err := f.Identify(basic("bot", s.Token)); err != nil {
		t.Errorf("current again: %v", err)
	}
}

// TestLeaseElsewhere: the replica that hears the heartbeat answers for the lease.
func TestLeaseElsewhere(t *testing.T) {
	c := join(t, 2)
	s := c.create(t, Spec{Agent: "bot", Lease: time.Second})
	b := c.all[1]
	later := func(d time.Duration) { b.ahead.Store(int64(d)) }
	b.alive.Store(true)
	later(10 * time.Second)
	b.tick(ctx)
	if _, err := b.Identify(basic("bot", s.Token)); err != nil {
		t.Errorf("while its home is alive: %v", err)
	}
	b.alive.Store(false)
	later(30 * time.Second)
	if _, err := b.Identify(basic("bot", s.Token)); !errors.Is(err, ErrSessionExpired) {
		t.Errorf("after its home has gone: %v", err)
	}
	later(0)
	s = c.create(t, Spec{Agent: "bot", Lease: time.Minute})
	if err := b.Renew(ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	if home := c.all[0].sessions[s.ID].home.Load(); home == nil || *home != "b" {
		t.Error("the heartbeat that came elsewhere moved no home")
	}
}

// TestIdle ends a session in which nothing is asked for, and none that another
// replica serves.
func TestIdle(t *testing.T) {
	c := join(t, 2)
	s := c.create(t, Spec{Agent: "bot", Idle: time.Minute})
	at := func(d time.Duration) {
		for _, r := range c.all {
			r.ahead.Store(int64(d))
		}
	}
	for _, d := range []time.Duration{40 * time.Second, 80 * time.Second, 120 * time.Second} {
		at(d)
		if _, err := c.all[0].Identify(basic("bot", s.Token)); err != nil {
			t.Fatalf("after %v: %v", d, err)
		}
		c.all[0].tick(ctx)
		c.settle(t)
		c.all[1].tick(ctx)
	}
	at(150 * time.Second)
	if err := c.all[1].sessions[s.ID].live(c.all[1].o.Now()); err != nil {
		t.Errorf("the replica that did not serve it: %v", err)
	}
	at(200 * time.Second)
	for i, r := range c.all {
		if _, err := r.Identify(basic("bot", s.Token)); !errors.Is(err, ErrSessionExpired) {
			t.Errorf("replica %d, idle: %v", i, err)
		}
	}
}

func TestUnknownTargets(t *testing.T) {
	f := directory(t)
	for name, tc := range map[string]struct {
		t    Target
		want error
	}{
		"agent":      {Target{Agent: "nobody"}, ErrUnknownAgent},
		"session":    {Target{Session: "s_none"}, ErrUnknownSession},
		"instance":   {Target{Instance: "i_none"}, ErrUnknownTarget},
		"human":      {Target{Human: "nobody@acme.com"}, ErrUnknownTarget},
		"handle":     {Target{Handle: "none"}, ErrUnknownTarget},
		"credential": {Target{Credential: "none"}, credential.ErrUnknown},
		"nothing":    {Target{}, ErrInvalid},
	} {
		if _, err := f.Revoke(ctx, tc.t, "", ""); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if out, err := f.Revoke(ctx, Target{All: true}, "", ""); err != nil || len(out.Sessions) != 0 {
		t.Errorf("all of nothing: %+v, %v", out, err)
	}
	if out, err := f.Revoke(ctx, Target{Agent: "bot"}, "", ""); err != nil || len(out.Sessions) != 0 {
		t.Errorf("an agent without sessions: %+v, %v", out, err)
	}
}
