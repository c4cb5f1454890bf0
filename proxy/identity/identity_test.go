package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/credential"
	"chaperone/policy"
	"chaperone/store"
	"chaperone/store/bolt"
)

type fixture struct {
	*Directory
	kv    store.Store
	key   credential.Key
	vault *credential.Vault
	now   atomic.Int64
	stale atomic.Bool
}

// tick does what is done every second.
func (d *Directory) tick(ctx context.Context) {
	d.lapse()
	d.settle(ctx)
}

func (f *fixture) suspendHuman(id string) error {
	_, err := f.SuspendHuman(ctx, id, "odd", "me")
	return err
}

func (f *fixture) advance(d time.Duration) { f.now.Add(int64(d)) }

func (f *fixture) clock() time.Time { return time.Unix(0, f.now.Load()) }

func (f *fixture) tooOld() error {
	if f.stale.Load() {
		return store.ErrStale
	}
	return nil
}

func directory(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{}
	f.now.Store(time.Now().UnixNano())
	var err error
	if f.kv, err = bolt.Open(filepath.Join(t.TempDir(), "s"), bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	if f.key, err = credential.NewKey(); err != nil {
		t.Fatal(err)
	}
	f.reopen(t)
	t.Cleanup(func() { f.Close(); f.kv.Close() })
	ctx := t.Context()
	for _, name := range []string{"bot", "helper"} {
		if _, err := f.AddAgent(ctx, name, "team:dev", map[string]string{"tier": "1"}); err != nil {
			t.Fatal(err)
		}
	}
	for id, owner := range map[string]string{"org-gh": "org", "alice-gh": "human:alice@acme.com", "bot-gh": "agent:bot"} {
		if err := f.vault.Add(ctx, credential.Credential{ID: id, Service: "github", Owner: owner, Kind: credential.KindBearer}, credential.NewSecret([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fixture) reopen(t testing.TB) {
	t.Helper()
	if f.Directory != nil {
		f.Close()
	}
	var err error
	if f.vault, err = credential.Open(t.Context(), f.kv, f.key); err != nil {
		t.Fatal(err)
	}
	f.Directory, err = Open(t.Context(), Options{Store: f.kv, Vault: f.vault, Now: f.clock, Stale: f.tooOld, Prefix: func(string) string { return "ghp_" }})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) create(t testing.TB, spec Spec) Created {
	t.Helper()
	c, err := f.CreateSession(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func basic(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

func TestIdentify(t *testing.T) {
	f := directory(t)
	s := f.create(t, Spec{Agent: "bot", Human: "https://idp.example#alice@acme.com", Purpose: "triage", Credentials: []string{"org-gh"}})
	for name, tc := range map[string]struct {
		value string
		want  error
	}{
		"basic":              {basic("bot", s.Token), nil},
		"bearer":             {"Bearer " + s.Token, nil},
		"case of the scheme": {"bearer " + s.Token, nil},
		"nothing":            {"", ErrNoCredentials},
		"another agent":      {basic("helper", s.Token), ErrBadCredentials},
		"no agent":           {basic("", s.Token), ErrBadCredentials},
		"no password":        {basic("bot", ""), ErrBadCredentials},
		"made up":            {basic("bot", credential.NewSessionToken()), ErrBadCredentials},
		"cut short":          {basic("bot", s.Token[:40]), ErrBadCredentials},
		"handle":             {basic("bot", s.Handles["org-gh"]), ErrHandleAsPassword},
		"handle as user":     {basic(s.Handles["org-gh"], s.Token), ErrHandleAsPassword},
		"digest":             {"Digest x", ErrBadCredentials},
		"rubbish":            {"Basic ???", ErrBadCredentials},
	} {
		c, err := f.Identify(tc.value)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
		if tc.want == nil && (c == nil || c.Agent.ID != "bot" || c.Agent.Owner != "team:dev" || c.Instance != s.Instance ||
			c.Human.Email != "alice@acme.com" || c.Human.Iss != "https://idp.example" || c.Session.Purpose != "triage" || len(c.Session.Chain) != 1) {
			t.Errorf("%s: caller %+v", name, c)
		}
	}
	if !strings.HasPrefix(s.Handles["org-gh"], "ghp_") || strings.Trim(s.Token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
		t.Errorf("handle %q, token of odd characters", s.Handles["org-gh"])
	}
}

func TestEndOfSessions(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(*fixture, Created) error
		want error
	}{
		"revoked by session":  {func(f *fixture, s Created) error { return f.revoke(Target{Session: s.ID}) }, ErrSessionRevoked},
		"revoked by instance": {func(f *fixture, s Created) error { return f.revoke(Target{Instance: s.Instance}) }, ErrSessionRevoked},
		"revoked by agent":    {func(f *fixture, s Created) error { return f.revoke(Target{Agent: "bot"}) }, ErrSessionRevoked},
		"revoked by human":    {func(f *fixture, s Created) error { return f.revoke(Target{Human: "alice@acme.com"}) }, ErrSessionRevoked},
		"expired":             {func(f *fixture, s Created) error { f.advance(2 * time.Hour); return nil }, ErrSessionExpired},
		"lease lost":          {func(f *fixture, s Created) error { f.advance(11 * time.Second); return nil }, ErrSessionExpired},
		"agent suspended":     {func(f *fixture, s Created) error { return f.SuspendAgent(ctx, "bot", "") }, ErrAgentSuspended},
		"human suspended": {func(f *fixture, s Created) error {
			_, err := f.SuspendHuman(ctx, "alice@acme.com", "odd", "me")
			return err
		}, ErrHumanSuspended},
		"agent retired": {func(f *fixture, s Created) error { _, err := f.RetireAgent(ctx, "bot", "", ""); return err }, ErrSessionRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			f := directory(t)
			s := f.create(t, Spec{Agent: "bot", Human: "alice@acme.com", TTL: time.Hour, Lease: 10 * time.Second, Credentials: []string{"alice-gh"}})
			other := f.create(t, Spec{Agent: "helper", TTL: 3 * time.Hour})
			c, err := f.Identify(basic("bot", s.Token))
			if err != nil || c.Live() != nil {
				t.Fatal(err)
			}
			conn := &closer{done: make(chan struct{})}
			defer c.Attach(conn)()
			if err := tc.end(f, s); err != nil {
				t.Fatal(err)
			}
			if !errors.Is(c.Live(), tc.want) {
				t.Errorf("live: got %v, want %v", c.Live(), tc.want)
			}
			if _, err := f.Identify(basic("bot", s.Token)); !errors.Is(err, tc.want) {
				t.Errorf("identify: got %v, want %v", err, tc.want)
			}
			select {
			case <-conn.done:
			case <-time.After(5 * time.Second): // expiry is swept once a second
				t.Error("its connection was not cut")
			}
			if o, err := f.Identify(basic("helper", other.Token)); err != nil || o.Live() != nil {
				t.Errorf("another session was hit: %v", err)
			}
			f.reopen(t)
			if _, err := f.Identify(basic("bot", s.Token)); err == nil && name != "lease lost" {
				t.Error("it lives again after a restart")
			}
		})
	}
}

func (f *fixture) revoke(t Target) error {
	r, err := f.Revoke(ctx, t, "test", "me")
	if err == nil && (len(r.Sessions) != 1 || r.Handles != 1) {
		err = fmt.Errorf("revoked %+v", r)
	}
	return err
}

type closer struct {
	once sync.Once
	done chan struct{}
}

func (c *closer) Close() error { c.once.Do(func() { close(c.done) }); return nil }

var _ io.Closer = (*closer)(nil)

var ctx = context.Background()

func TestSuspensionIsReversible(t *testing.T) {
	f := directory(t)
	s := f.create(t, Spec{Agent: "bot", Human: "alice@acme.com"})
	if err := errors.Join(f.SuspendAgent(ctx, "bot", "odd"), f.suspendHuman("alice@acme.com")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CreateSession(ctx, Spec{Agent: "bot"}); !errors.Is(err, ErrAgentSuspended) {
		t.Errorf("session for a suspended agent: %v", err)
	}
	f.reopen(t)
	if _, err := f.Identify(basic("bot", s.Token)); !errors.Is(err, ErrAgentSuspended) {
		t.Errorf("after a restart: %v", err)
	}
	if err := f.ResumeAgent(ctx, "bot"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Identify(basic("bot", s.Token)); !errors.Is(err, ErrHumanSuspended) {
		t.Errorf("human still suspended: %v", err)
	}
	if _, err := f.CreateSession(ctx, Spec{Agent: "bot", Human: "alice@acme.com"}); !errors.Is(err, ErrHumanSuspended) {
		t.Errorf("session for a suspended human: %v", err)
	}
	if _, err := f.ResumeHuman(ctx, "alice@acme.com", "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Identify(basic("bot", s.Token)); err != nil {
		t.Errorf("after resuming both: %v", err)
	}
	residue, err := f.RetireAgent(ctx, "bot", "done", "me")
	if err != nil || len(residue) != 1 || !strings.Contains(residue[0], "bot-gh") {
		t.Errorf("residue %v, %v", residue, err)
	}
	if err := f.ResumeAgent(ctx, "bot"); !errors.Is(err, ErrAgentRetired) {
		t.Errorf("resuming a retired agent: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	f := directory(t)
	parent := f.create(t, Spec{Agent: "bot", Human: "alice@acme.com", TTL: time.Hour, Scope: []policy.Scope{{Actions: []string{"github:issues/*"}, Resources: []string{"acme/*"}}}, Credentials: []string{"org-gh"}})
	for name, tc := range map[string]struct {
		spec Spec
		want error
	}{
		"unknown agent":             {Spec{Agent: "nobody"}, ErrUnknownAgent},
		"unknown credential":        {Spec{Agent: "bot", Credentials: []string{"none"}}, credential.ErrUnknown},
		"credential twice":          {Spec{Agent: "bot", Credentials: []string{"org-gh", "org-gh"}}, ErrInvalid},
		"another human's":           {Spec{Agent: "bot", Human: "bob@acme.com", Credentials: []string{"alice-gh"}}, ErrCredentialOwner},
		"a human's for nobody":      {Spec{Agent: "bot", Credentials: []string{"alice-gh"}}, ErrCredentialOwner},
		"another agent's":           {Spec{Agent: "helper", Credentials: []string{"bot-gh"}}, ErrCredentialOwner},
		"too short":                 {Spec{Agent: "bot", TTL: time.Millisecond}, ErrInvalid},
		"too long":                  {Spec{Agent: "bot", TTL: 31 * 24 * time.Hour}, ErrInvalid},
		"odd human":                 {Spec{Agent: "bot", Human: "a b"}, ErrInvalid},
		"odd purpose":               {Spec{Agent: "bot", Purpose: "a\nb"}, ErrInvalid},
		"unknown parent":            {Spec{Agent: "bot", Parent: "s_none"}, ErrUnknownSession},
		"child: another human":      {Spec{Agent: "helper", Parent: parent.ID, Human: "bob@acme.com"}, ErrScope},
		"child: wider actions":      {Spec{Agent: "helper", Parent: parent.ID, Scope: []policy.Scope{{Actions: []string{"github:*"}, Resources: []string{"acme/*"}}}}, ErrScope},
		"child: wider resources":    {Spec{Agent: "helper", Parent: parent.ID, Scope: []policy.Scope{{Actions: []string{"github:issues/get"}}}}, ErrScope},
		"child: another's resource": {Spec{Agent: "helper", Parent: parent.ID, Scope: []policy.Scope{{Actions: []string{"github:issues/get"}, Resources: []string{"other/web"}}}}, ErrScope},
		"child: more credentials":   {Spec{Agent: "bot", Parent: parent.ID, Credentials: []string{"bot-gh"}}, ErrScope},
	} {
		if _, err := f.CreateSession(ctx, tc.spec); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	for name, args := range map[string][2]string{"duplicate": {"bot", "x"}, "odd name": {"a b", "x"}, "no owner": {"new", ""}} {
		if _, err := f.AddAgent(ctx, args[0], args[1], nil); err == nil {
			t.Errorf("agent %s was added", name)
		}
	}
}

func TestChildren(t *testing.T) {
	f := directory(t)
	parent := f.create(t, Spec{Agent: "bot", Human: "alice@acme.com", TTL: time.Hour, Scope: []policy.Scope{{Actions: []string{"github:*"}}}, Credentials: []string{"org-gh"}})
	child := f.create(t, Spec{Agent: "helper", Parent: parent.ID, TTL: 5 * time.Hour, Credentials: []string{"org-gh"}})
	c, err := f.Identify(basic("helper", child.Token))
	if err != nil || c.Human.Email != "alice@acme.com" || len(c.Session.Chain) != 2 || c.Session.Scope == nil || child.Expires.After(parent.Expires) {
		t.Fatalf("child: %+v, %v", c, err)
	}
	if _, err := f.Revoke(ctx, Target{Session: parent.ID}, "test", "me"); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(c.Live(), ErrSessionRevoked) {
		t.Errorf("a child outlived its parent: %v", c.Live())
	}
	deep := f.create(t, Spec{Agent: "bot"})
	for range MaxDepth - 1 {
		deep = f.create(t, Spec{Agent: "bot", Parent: deep.ID})
	}
	if _, err := f.CreateSession(ctx, Spec{Agent: "bot", Parent: deep.ID}); !errors.Is(err, ErrScope) {
		t.Errorf("chain of %d: %v", MaxDepth+1, err)
	}
}

// TestWithin holds the comparison of scopes against trying every action on every
// resource of a small world.
func TestWithin(t *testing.T) {
	actions := []string{"a:x/1", "a:x/2", "a:y/1", "b:x/1"}
	resources := []string{"o/r", "o/s", "p/r"}
	patterns := []string{"*:*", "a:*", "a:x/*", "a:x/1", "b:*", "b:x/1"}
	places := []string{"*", "o/*", "o/r", "p/*"}
	rng := rand.New(rand.NewPCG(1, 2))
	scope := func() []policy.Scope {
		var out []policy.Scope
		for range 1 + rng.IntN(2) {
			s := policy.Scope{Actions: []string{patterns[rng.IntN(len(patterns))]}}
			if rng.IntN(3) > 0 {
				s.Resources = []string{places[rng.IntN(len(places))]}
			}
			out = append(out, s)
		}
		return out
	}
	allows := func(s []policy.Scope, action, resource string) bool {
		for _, x := range s {
			if coversAction(x.Actions, action) && (x.Resources == nil || coversResource(x.Resources, resource)) {
				return true
			}
		}
		return false
	}
	refused := 0
	for range 20000 {
		child, parent := scope(), scope()
		if !within(child, parent) {
			refused++
			continue
		}
		for _, a := range actions {
			for _, r := range resources {
				if allows(child, a, r) && !allows(parent, a, r) {
					t.Fatalf("child %v has %s on %s, which parent %v has not", child, a, r, parent)
				}
			}
		}
	}
	if refused == 0 || refused == 20000 {
		t.Errorf("%d of 20000 refused: the test tests nothing", refused)
	}
}

func TestConcurrentRevocation(t *testing.T) {
	f := directory(t)
	s := f.create(t, Spec{Agent: "bot", Human: "alice@acme.com"})
	var wg sync.WaitGroup
	var revoked atomic.Bool
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				was := revoked.Load()
				if c, err := f.Identify(basic("bot", s.Token)); err == nil && was {
					t.Errorf("passed after revocation: %+v", c)
					return
				}
			}
		})
	}
	wg.Go(func() {
		if _, err := f.Revoke(ctx, Target{Human: "alice@acme.com"}, "test", "me"); err != nil {
			t.Error(err)
		}
		revoked.Store(true)
	})
	wg.Wait()
}

func FuzzIdentify(f *testing.F) {
	d := directory(f)
	s := d.create(f, Spec{Agent: "bot"})
	f.Add(basic("bot", s.Token))
	f.Add("Bearer " + s.Token)
	f.Fuzz(func(t *testing.T, v string) {
		if c, err := d.Identify(v); err == nil && (c == nil || c.Session.ID != s.ID) {
			t.Fatalf("%q passed as %+v", v, c)
		}
	})
}

func BenchmarkIdentify(b *testing.B) {
	f := directory(b)
	s := f.create(b, Spec{Agent: "bot"})
	v := basic("bot", s.Token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Identify(v); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCredentialByService(t *testing.T) {
	f := directory(t)
	for id, owner := range map[string]string{"bob-gh": "human:bob@acme.com", "carol-1": "human:carol@acme.com", "carol-2": "human:carol@acme.com"} {
		if err := f.vault.Add(t.Context(), credential.Credential{ID: id, Service: "github", Owner: owner, Kind: credential.KindBearer}, credential.NewSecret([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ agent, human, want string }{
		{"bot", "alice@acme.com", "alice-gh"}, {"bot", "bob@acme.com", "bob-gh"}, {"bot", "dave@acme.com", "bot-gh"}, {"bot", "", "bot-gh"}, {"helper", "", "org-gh"}, {"helper", "alice@acme.com", "alice-gh"},
	} {
		s := f.create(t, Spec{Agent: tc.agent, Human: tc.human, Credentials: []string{"github"}})
		if s.Credentials[0] != tc.want || s.Handles[tc.want] == "" {
			t.Errorf("%s for %q got %v, want %s", tc.agent, tc.human, s.Credentials, tc.want)
		}
		if tc.want == "bot-gh" {
			continue // it is no other agent's
		}
		child := f.create(t, Spec{Agent: "helper", Parent: s.ID, Credentials: []string{"github"}})
		if child.Credentials[0] != tc.want {
			t.Errorf("a child for %q got %v, want %s", tc.human, child.Credentials, tc.want)
		}
	}
	for human, want := range map[string]error{"carol@acme.com": ErrInvalid} {
		if _, err := f.CreateSession(t.Context(), Spec{Agent: "bot", Human: human, Credentials: []string{"github"}}); !errors.Is(err, want) {
			t.Errorf("%s: %v", human, err)
		}
	}
	if _, err := f.CreateSession(t.Context(), Spec{Agent: "bot", Credentials: []string{"slack"}}); !errors.Is(err, credential.ErrUnknown) {
		t.Errorf("a service without a credential: %v", err)
	}
}
