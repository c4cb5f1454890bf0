package credential

import (
	"errors"
	"testing"
	"time"

	"chaperone/store"
)

// chain is a handle of 5 uses, one that a service handed out for it, and one that it
// handed out for that.
func (b *bench) chain(t *testing.T) [3]string {
	t.Helper()
	if err := b.Add(t.Context(), Credential{ID: "x", Kind: KindBearer, Service: "acme", Owner: "org"}, NewSecret([]byte("first-secret"))); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour)
	first, err := b.IssueLimited(t.Context(), "x", "s_1", "", end, 5)
	if err != nil {
		t.Fatal(err)
	}
	out, parent := [3]string{first}, "x"
	for i := 1; i < 3; i++ {
		of, _ := HandleID(out[i-1])
		got, err := b.Accept(t.Context(), Handout{Service: "acme", Session: "s_1", Owner: "org", Parent: parent, Of: of, Expires: end, Secret: NewSecret([]byte("another-secret"))})
		if err != nil {
			t.Fatal(err)
		}
		out[i], parent = got.Handle, got.ID
	}
	return out
}

// TestHandoutsAreBounded: a session that asks for tokens without end gets no more of them.
func TestHandoutsAreBounded(t *testing.T) {
	b := vault(t)
	before := len(b.List())
	b.bySession["s_1"] = &sessionHandles{"s_1", make([]*Handle, maxHandles)}
	for session, ok := range map[string]bool{"s_1": false, "s_2": true} {
		_, err := b.Accept(t.Context(), Handout{Service: "acme", Session: session, Owner: "org", Expires: time.Now().Add(time.Hour), Secret: NewSecret([]byte("another-secret"))})
		if (err == nil) != ok {
			t.Errorf("%s: %v", session, err)
		}
	}
	if n := len(b.List()); n != before+1 {
		t.Errorf("%d credentials are kept, and were %d", n, before)
	}
}

// TestHandedOutUsesCount shows that what a service hands out is used up with the handle
// with which it was asked for, also after a restart.
func TestHandedOutUsesCount(t *testing.T) {
	b := vault(t)
	chain := b.chain(t)
	again, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	replicas := []*bench{b, {Vault: again, kv: b.kv, key: b.key}}
	for i := range 5 {
		if _, err := replicas[i%2].authorization(t, chain[i%3], Caller{}); err != nil {
			t.Fatalf("use %d: %v", i, err)
		}
	}
	for i, h := range chain {
		if _, err := replicas[i%2].authorization(t, h, Caller{}); !errors.Is(err, ErrHandleSpent) {
			t.Errorf("handle %d: %v", i, err)
		}
	}
	for _, h := range again.Handles("s_1") {
		if h.Credential != "gh" && h.Credential != "slack" && h.Limit != 5 {
			t.Errorf("%s is shown with a limit of %d", h.Credential, h.Limit)
		}
	}
}

// TestHandedOutIsRevokedWithItsHandle shows that revoking a handle reaches all that
// services handed out for it, and nothing that was there before: here, on a replica
// that follows the store, and after a restart.
func TestHandedOutIsRevokedWithItsHandle(t *testing.T) {
	b := vault(t)
	chain := b.chain(t)
	other, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := HandleID(chain[1])
	if n, err := b.Revoke(t.Context(), func(h *Handle) bool { return h.ID == id }); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	other.loseHandle(id) // as its view tells it
	restarted, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		v    *Vault
		want error
	}{"here": {b.Vault, ErrHandleRevoked}, "replica": {other, ErrHandleRevoked}, "restarted": {restarted, ErrHandleUnknown}} {
		r := &bench{Vault: tc.v, kv: b.kv, key: b.key}
		if _, err := r.authorization(t, chain[0], Caller{}); err != nil {
			t.Errorf("%s: the first: %v", name, err)
		}
		for i := 1; i < 3; i++ {
			if _, err := r.authorization(t, chain[i], Caller{}); !errors.Is(err, tc.want) {
				t.Errorf("%s: handle %d: %v", name, i, err)
			}
		}
	}
	if _, err := b.Accept(t.Context(), Handout{Service: "acme", Session: "s_1", Owner: "org", Of: id, Expires: time.Now().Add(time.Hour), Secret: NewSecret([]byte("too late"))}); !errors.Is(err, ErrHandleRevoked) {
		t.Errorf("handed out for a handle that is revoked: %v", err)
	}
}

// TestHandedOutWithoutItsHandle shows that a handle in the store whose handle is gone
// from there opens nothing.
func TestHandedOutWithoutItsHandle(t *testing.T) {
	b := vault(t)
	chain := b.chain(t)
	id, _ := HandleID(chain[0])
	if err := b.kv.Delete(t.Context(), handlePrefix+id); err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	restarted, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	r := &bench{Vault: restarted, kv: b.kv, key: b.key}
	for i := 1; i < 3; i++ {
		if _, err := r.authorization(t, chain[i], Caller{}); !errors.Is(err, ErrHandleRevoked) {
			t.Errorf("handle %d: %v", i, err)
		}
	}
}

// cutBy is a stream that is closed at most once.
type cutBy struct{ closed bool }

func (c *cutBy) Close() error {
	c.closed = true
	return nil
}

// TestHandedOutIsCutWithItsHandle shows that streams under what was handed out are cut
// when its handle is gone from the store, whether a view tells of that or, after it was
// away, no more of the handle.
func TestHandedOutIsCutWithItsHandle(t *testing.T) {
	for name, lose := range map[string]func(*Vault, string) error{
		"told": func(v *Vault, id string) error {
			return v.Take(store.Change{Entry: store.Entry{Name: handlePrefix + id}, Gone: true})
		},
		"told no more": func(v *Vault, id string) error {
			if err := v.kv.Delete(t.Context(), handlePrefix+id); err != nil {
				return err
			}
			return store.Fill(t.Context(), v.kv, v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := vault(t)
			chain := b.chain(t)
			streams := [3]cutBy{}
			for i := range chain {
				id, _ := HandleID(chain[i])
				p := Presented{handle: b.byID[id]}
				if !p.Attach(&streams[i]) {
					t.Fatal("it is revoked already")
				}
			}
			id, _ := HandleID(chain[1])
			if err := lose(b.Vault, id); err != nil {
				t.Fatal(err)
			}
			if streams[0].closed || !streams[1].closed || !streams[2].closed {
				t.Errorf("cut: %v", streams)
			}
		})
	}
}
