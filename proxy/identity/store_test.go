package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/credential"
	"chaperone/policy"
	"chaperone/store"
)

// full is a store that can be read and takes no changes while it is full.
type full struct {
	store.Store
	full atomic.Bool
}

var errFull = errors.New("no space left")

func (f *full) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	if f.full.Load() {
		return store.Entry{}, errFull
	}
	return f.Store.Save(ctx, e)
}

func (f *full) Delete(ctx context.Context, name string) error {
	if f.full.Load() {
		return errFull
	}
	return f.Store.Delete(ctx, name)
}

// TestEndsThatTheStoreDidNotTake takes authority away while nothing can be written:
// it works at once, it can be repeated, and then it outlives a restart.
func TestEndsThatTheStoreDidNotTake(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(*fixture, Created) error
		want error
	}{
		"revoke": {func(f *fixture, s Created) error {
			_, err := f.Revoke(ctx, Target{Session: s.ID}, "test", "me")
			return err
		}, ErrSessionRevoked},
		"suspend": {func(f *fixture, _ Created) error { return f.SuspendAgent(ctx, "bot", "test") }, ErrAgentSuspended},
		"retire":  {func(f *fixture, _ Created) error { _, err := f.RetireAgent(ctx, "bot", "test", "me"); return err }, ErrSessionRevoked},
		"human": {func(f *fixture, _ Created) error {
			_, err := f.SuspendHuman(ctx, "alice@acme.com", "odd", "me")
			return err
		}, ErrHumanSuspended},
	} {
		t.Run(name, func(t *testing.T) {
			f := directory(t)
			kv := &full{Store: f.kv}
			f.kv = kv
			f.reopen(t)
			s := f.create(t, Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{"alice-gh"}})
			c, err := f.Identify(basic("bot", s.Token))
			if err != nil {
				t.Fatal(err)
			}
			conn := &closer{done: make(chan struct{})}
			defer c.Attach(conn)()
			kv.full.Store(true)
			if err := tc.end(f, s); !errors.Is(err, errFull) {
				t.Errorf("got %v, want %v", err, errFull)
			}
			if !errors.Is(c.Live(), tc.want) {
				t.Errorf("live: got %v, want %v", c.Live(), tc.want)
			}
			select {
			case <-conn.done:
			default:
				t.Error("its connection was not cut")
			}
			kv.full.Store(false)
			if err := tc.end(f, s); err != nil {
				t.Errorf("again: %v", err)
			}
			f.reopen(t)
			if _, err := f.Identify(basic("bot", s.Token)); err == nil {
				t.Error("it lives again after a restart")
			}
		})
	}
}

// TestEndIsWrittenLater leaves a revocation that could not be written to the watch.
func TestEndIsWrittenLater(t *testing.T) {
	f := directory(t)
	kv := &full{Store: f.kv}
	f.kv = kv
	f.reopen(t)
	s := f.create(t, Spec{Agent: "bot"})
	kv.full.Store(true)
	if _, err := f.Revoke(ctx, Target{Session: s.ID}, "odd", "me"); !errors.Is(err, errFull) {
		t.Fatalf("got %v", err)
	}
	kv.full.Store(false)
	f.tick(ctx)
	f.reopen(t)
	if got, err := f.Session(s.ID); err != nil || got.EndReason != "odd" || got.EndedBy != "me" {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
}

// held is a store whose writes wait once it is on, and then fail.
type held struct {
	store.Store
	on   atomic.Bool
	wait chan struct{}
}

func (h *held) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	if !h.on.Load() {
		return h.Store.Save(ctx, e)
	}
	<-h.wait
	return store.Entry{}, store.ErrUnavailable
}

// TestNothingWaitsForTheStore has a store that answers no write: what is revoked, what
// expires and what may go on no longer is cut all the same, and few tries are enough to
// say of many that the store does not answer.
func TestNothingWaitsForTheStore(t *testing.T) {
	f := directory(t)
	h := &held{Store: f.kv, wait: make(chan struct{})}
	f.kv = h
	f.reopen(t)
	conns := map[string]*closer{}
	open := func(name string, spec Spec) Created {
		s := f.create(t, spec)
		c, err := f.Identify(basic("bot", s.Token))
		if err != nil {
			t.Fatal(err)
		}
		conns[name] = &closer{done: make(chan struct{})}
		t.Cleanup(c.Attach(conns[name]))
		return s
	}
	revoked := open("revoked", Spec{Agent: "bot"})
	open("short", Spec{Agent: "bot", TTL: time.Hour})
	open("long", Spec{Agent: "bot"})
	for range 100 {
		f.create(t, Spec{Agent: "helper"})
	}
	h.on.Store(true)
	done := make(chan error, 2)
	for _, target := range []Target{{Session: revoked.ID}, {Agent: "helper"}} {
		go func() {
			_, err := f.Revoke(ctx, target, "test", "me")
			done <- err
		}()
	}
	ended := func(name string) {
		t.Helper()
		select {
		case <-conns[name].done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s was not cut while the store is held", name)
		}
	}
	ended("revoked")
	f.advance(2 * time.Hour)
	ended("short")
	f.stale.Store(true)
	ended("long")
	close(h.wait)
	err := errors.Join(<-done, <-done)
	if !errors.Is(err, ErrUnsaved) || !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "(and 99 more like it)") {
		t.Errorf("revoke: %v", err)
	}
}

func TestChildrenOutliveARestart(t *testing.T) {
	f := directory(t)
	s := f.create(t, Spec{Agent: "bot", Credentials: []string{"org-gh"}})
	all := []Created{s}
	for range 8 { // their ids are random, and so is the order in which they are read
		for parent, depth := s, 1; depth < MaxDepth; depth++ {
			parent = f.create(t, Spec{Agent: "bot", Parent: parent.ID, Credentials: []string{"org-gh"}})
			all = append(all, parent)
		}
	}
	f.reopen(t)
	for _, c := range all {
		if _, err := f.Identify(basic("bot", c.Token)); err != nil {
			t.Fatalf("after a restart: %v", err)
		}
	}
	if r, err := f.Revoke(ctx, Target{Session: s.ID}, "test", "me"); err != nil || len(r.Sessions) != len(all) || r.Handles != len(all) {
		t.Errorf("revoked %+v, %v", r, err)
	}
}

// TestResidueIsRemembered asks for the residue long after the sessions are forgotten.
func TestResidueIsRemembered(t *testing.T) {
	f := directory(t)
	f.create(t, Spec{Agent: "bot", Human: "alice@acme.com", TTL: time.Hour, Credentials: []string{"alice-gh", "org-gh"}})
	f.create(t, Spec{Agent: "bot", TTL: time.Hour, Credentials: []string{"org-gh"}})
	f.create(t, Spec{Agent: "helper", TTL: time.Hour, Credentials: []string{"org-gh"}})
	f.advance(90 * 24 * time.Hour)
	f.tick(ctx) // ends them
	f.tick(ctx) // forgets them
	if n := len(f.Sessions()); n != 0 {
		t.Fatalf("%d sessions are kept", n)
	}
	f.reopen(t)
	if err := f.vault.Remove(ctx, "alice-gh"); err != nil {
		t.Fatal(err)
	}
	a, err := f.Agent("bot")
	if err != nil || !slices.Equal(a.Credentials, []string{"alice-gh", "org-gh"}) {
		t.Errorf("agent %+v, %v", a, err)
	}
	for range 2 { // whoever lost the list may ask again
		residue, err := f.RetireAgent(ctx, "bot", "done", "me")
		if all := strings.Join(residue, "\n"); err != nil || len(residue) != 3 || !strings.Contains(all, "bot-gh") || !strings.Contains(all, "org-gh") || !strings.Contains(all, "alice-gh") {
			t.Errorf("residue %q, %v", residue, err)
		}
	}
}

func TestRevokeHandlesOfSome(t *testing.T) {
	f := directory(t)
	mine := f.create(t, Spec{Agent: "bot", Credentials: []string{"org-gh"}})
	theirs := f.create(t, Spec{Agent: "helper", Credentials: []string{"org-gh"}})
	if r, err := f.Revoke(ctx, Target{Agent: "bot", Credential: "org-gh"}, "test", "me"); err != nil || r.Handles != 1 || len(r.Sessions) != 0 {
		t.Fatalf("revoked %+v, %v", r, err)
	}
	for id, want := range map[string]bool{mine.ID: true, theirs.ID: false} {
		if h := f.vault.Handles(id); len(h) != 1 || h[0].Revoked() != want {
			t.Errorf("session %s: revoked is not %v", id, want)
		}
	}
	if _, err := f.Revoke(ctx, Target{Agent: "bot", Handle: theirs.Handles["org-gh"]}, "test", "me"); !errors.Is(err, ErrUnknownTarget) {
		t.Errorf("a handle of another agent: %v", err)
	}
	if _, err := f.Revoke(ctx, Target{Handle: theirs.Handles["org-gh"]}, "test", "me"); err != nil {
		t.Errorf("a handle by its text: %v", err)
	}
}

// TestPatternsEndWhereKeysDo: a pattern reaches actions and resources through their
// keys, so one that ends elsewhere reaches nothing, and gives nothing to a child.
func TestPatternsEndWhereKeysDo(t *testing.T) {
	one := func(action, resource string) []policy.Scope {
		return []policy.Scope{{Actions: []string{action}, Resources: []string{resource}}}
	}
	for name, tc := range map[string]struct {
		child, parent []policy.Scope
		want          bool
	}{
		"same":                 {one("s:a/b", "o/r"), one("s:a/b", "o/r"), true},
		"by slash":             {one("s:a/b", "o/r"), one("s:a/*", "o/*"), true},
		"by dot":               {one("s:a.b", "*"), one("s:a.*", "*"), true},
		"by service":           {one("s:a/*", "o/*"), one("s:*", "*"), true},
		"everything":           {one("s:a/*", "o/*"), one("*:*", "*"), true},
		"half a word":          {one("s:ab/c", "o/r"), one("s:a*", "o/r"), false},
		"half a resource":      {one("s:a/b", "other/r"), one("s:a/b", "o*"), false},
		"a star is no action":  {one("s:a/b", "o/r"), one("*", "o/r"), false},
		"no resource":          {one("s:a/b", "*"), one("s:a/b", "*:*"), false},
		"resources, unlimited": {[]policy.Scope{{Actions: []string{"s:a/b"}}}, one("s:a/b", "o/*"), false},
	} {
		if got := within(tc.child, tc.parent); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// TestHandedOutIsOfItsSessionAlone: what a service handed out in one session is no
// other's, neither by name nor by service, and goes with the credential that got it.
func TestHandedOutIsOfItsSessionAlone(t *testing.T) {
	f := directory(t)
	mine := f.create(t, Spec{Agent: "bot", Credentials: []string{"org-gh"}})
	give := func(parent, owner string) credential.Received {
		t.Helper()
		got, err := f.vault.Accept(ctx, credential.Handout{Service: "github", Session: mine.ID, Owner: owner, Parent: parent, Prefix: "ghp_", Expires: time.Now().Add(time.Hour), Secret: credential.NewSecret([]byte("ghs_given-to-one-session"))})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := give("org-gh", "")
	second := give(first.ID, "")
	other := give("", "agent:helper")
	if s := f.create(t, Spec{Agent: "helper", Credentials: []string{"github"}}); s.Credentials[0] != "org-gh" {
		t.Errorf("another session got %v", s.Credentials)
	}
	for _, id := range []string{first.ID, other.ID} {
		if _, err := f.CreateSession(ctx, Spec{Agent: "helper", Credentials: []string{id}}); !errors.Is(err, ErrCredentialOwner) {
			t.Errorf("%s in another session: %v", id, err)
		}
		if _, err := f.vault.Issue(ctx, id, "s_other", "ghp_", time.Now().Add(time.Hour)); !errors.Is(err, credential.ErrUnknown) {
			t.Errorf("a handle for %s in another session: %v", id, err)
		}
	}
	if _, err := f.Revoke(ctx, Target{Credential: "org-gh"}, "leaked", "me"); err != nil {
		t.Fatal(err)
	}
	for _, h := range f.vault.Handles(mine.ID) {
		if got, want := h.Revoked(), h.Credential != other.ID; got != want {
			t.Errorf("%s: revoked %v, want %v (%s)", h.Credential, got, want, second.ID)
		}
	}
}
