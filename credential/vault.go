package credential

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"chaperone/policy"
	"chaperone/store"
)

// Credential describes a secret and never holds it.
type Credential struct {
	ID      string    `json:"id"`
	Service string    `json:"service"` // or a family of them: aws-*
	Owner   string    `json:"owner"`   // human:H, agent:A or org
	Kind    string    `json:"kind"`
	Place   string    `json:"place,omitzero"` // field, parameter or cookie for the kinds that have one; any place for those that mint
	Created time.Time `json:"created"`
	// Settings are what the kind needs beside its secret.
	Settings map[string]string `json:"settings,omitzero"`
	// Source says where the secret is fetched from when it is used; empty: it is
	// sealed in the store.
	Source string `json:"source,omitzero"`
	// Cache is how long what was fetched is used; zero: DefaultCache.
	Cache   time.Duration `json:"cache,omitzero"`
	Rotated time.Time     `json:"rotated,omitzero"` // when the secret was last replaced
	// Session is the one session for which the credential is kept, until Expires: a
	// service handed it out there. Empty and zero: it is kept for all, until it is removed.
	Session string    `json:"session,omitzero"`
	Parent  string    `json:"parent,omitzero"` // the credential with which it was asked for
	Expires time.Time `json:"expires,omitzero"`
}

var (
	// ErrDuplicate is returned when a credential of that id exists.
	ErrDuplicate = errors.New("credential exists already")
	// ErrUnknown is returned when no credential has that id.
	ErrUnknown = errors.New("credential is not known")
	// ErrInvalid is wrapped when a credential or its secret is not of a usable form.
	ErrInvalid = errors.New("credential is not valid")
	// ErrUnavailable is wrapped when a secret cannot be opened.
	ErrUnavailable = errors.New("credential cannot be opened")
)

// Vault keeps sealed secrets and the handles that stand for them in a store, and
// everything but the secrets in memory, so that no request waits for the store.
// A secret that was used once is kept open in memory until it is removed: whoever
// can read this process's memory can read the key as well. It is safe for
// concurrent use.
type Vault struct {
	kv      store.Store
	key     Key
	handles mac // under which handles are stored
	tokens  mac // under which session tokens are stored
	prints  mac // fingerprints in records

	outside Outside

	mints, mintsFailed atomic.Uint64
	minting            sync.RWMutex // shared by refreshes that are under way
	closed             bool         // nothing is minted any more; minting guards it

	mu          sync.RWMutex
	credentials map[string]*kept
	byID        map[string]*Handle
	anySilent   atomic.Bool // there is a credential that no client presents
	bySession   map[string]*sessionHandles
	doomed      map[*Handle]bool // revoked, and the store still has them; whether somebody is deleting it
	round       uint32           // of telling everything anew; who was not told of is gone
}

// kept is a credential in memory.
type kept struct {
	Credential
	Sealed  []byte `json:"sealed,omitzero"` // nil: the material is at its source
	place   Place
	kind    *Kind
	public  policy.Credential     // as policy sees it
	open    atomic.Pointer[ready] // nil: not opened yet
	flight  singleflight.Group    // one fetch at a time
	failed  atomic.Pointer[failure]
	trouble atomic.Pointer[Trouble]
	echoes  atomic.Pointer[[]*echoForms] // of the secrets that were sent, the latest first
	removed atomic.Bool                  // no handle opens it any more, not even one that is being issued
	version uint64                       // Vault.mu guards it
	round   uint32                       // of the vault when it was last told of
}

// settle makes what follows from the description.
func (k *kept) settle() error {
	var err error
	if k.kind, err = kindOf(k.Kind); err != nil {
		return err
	}
	if err = k.kind.checkSettings(k.Settings); err != nil {
		return err
	}
	k.public = policy.Credential{ID: k.ID, Owner: k.Owner, Kind: k.Kind, Service: k.Service}
	k.place, err = k.kind.place(&k.Credential)
	return err
}

// Handle is what is known of one handle. Its fields are read-only; Revoked may
// become true at any time.
type Handle struct {
	ID         string
	Credential string
	Service    string
	Session    string
	Expires    time.Time
	Limit      int64 // how often it may be used, on all replicas; 0: any number
	// Of is the handle with which a service handed out what this one stands for; empty:
	// none. It is revoked with that one, and its uses are uses of that one.
	Of       string
	sum      [sha256.Size]byte
	print    atomic.Pointer[string]
	revoked  atomic.Bool
	gone     atomic.Bool // from the store as well
	version  uint64      // Vault.mu guards it
	round    uint32      // of the vault when it was last told of
	cutting  sync.Mutex
	parent   bool                   // of some that services handed out; Vault.mu guards it
	attached map[io.Closer]struct{} // what is cut when it is revoked
	uses     atomic.Int64
	cred     atomic.Pointer[kept]   // nil: it was removed
	of       atomic.Pointer[Handle] // nil: there is none, or it is gone
}

// Revoked reports whether the handle was revoked.
func (h *Handle) Revoked() bool {
	if h.revoked.Load() {
		return true
	}
	if h.Of != "" {
		if of := h.of.Load(); of == nil || of.Revoked() {
			return true
		}
	}
	k := h.cred.Load()
	return k == nil || k.removed.Load()
}

// first is the handle with which everything began that h is of.
func (h *Handle) first() *Handle {
	for {
		of := h.of.Load()
		if of == nil {
			return h
		}
		h = of
	}
}

// Uses returns how many requests the handle was swapped in since the program started.
func (h *Handle) Uses() int64 { return h.uses.Load() }

const (
	credentialPrefix = "credential/"
	handlePrefix     = "handle/"
)

// Open loads what the store holds, once.
func Open(ctx context.Context, kv store.Store, key Key) (*Vault, error) {
	v, err := Prepare(ctx, kv, key)
	if err == nil {
		err = store.Fill(ctx, kv, v)
	}
	if err != nil {
		return nil, fmt.Errorf("opening vault: %w", err)
	}
	return v, nil
}

// Prepare is Open without loading, which is left to a view that keeps the vault
// current.
func Prepare(ctx context.Context, kv store.Store, key Key) (*Vault, error) {
	v := &Vault{kv: kv, key: key, credentials: map[string]*kept{}, byID: map[string]*Handle{}, bySession: map[string]*sessionHandles{}, doomed: map[*Handle]bool{}}
	var err, err2, err3 error
	v.handles, err = key.mac("handle")
	v.tokens, err2 = key.mac("session token")
	v.prints, err3 = key.mac("fingerprint")
	if err := errors.Join(err, err2, err3, v.check(ctx)); err != nil {
		return nil, fmt.Errorf("opening vault: %w", err)
	}
	return v, nil
}

// check refuses a key that is not the one with which this store was begun.
func (v *Vault) check(ctx context.Context) error {
	const name = "installation/key"
	e, err := v.kv.Load(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		sealed, sealErr := v.key.seal(NewSecret([]byte("chaperone")), name)
		if sealErr != nil {
			return sealErr
		}
		_, err = v.kv.Save(ctx, store.Entry{Name: name, Value: sealed})
		if !errors.Is(err, store.ErrConflict) { // else another replica was faster, and its key counts
			return err
		}
		e, err = v.kv.Load(ctx, name)
	}
	if err != nil {
		return err
	}
	_, err = v.key.open(e.Value, name)
	return err
}

// Add keeps c with its secret sealed, or without one where c has a source. The
// secret is looked at first: one that its kind cannot use is refused.
func (v *Vault) Add(ctx context.Context, c Credential, s Secret) error {
	if err := checkCredential(&c); err != nil {
		return err
	}
	k := &kept{Credential: c}
	if err := k.settle(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := v.seal(k, s); err != nil {
		return err
	}
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	e, err := v.kv.Save(ctx, store.Entry{Name: credentialPrefix + c.ID, Value: b, Expires: c.Expires})
	if errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%w: %s", ErrDuplicate, c.ID)
	}
	if err != nil {
		return fmt.Errorf("keeping credential: %w", err)
	}
	v.takeCredential(k, e.Version)
	return nil
}

// seal checks a secret and seals it into k.
func (v *Vault) seal(k *kept, s Secret) error {
	if k.Source != "" {
		if !s.Empty() {
			return fmt.Errorf("%w: it has a source and a secret", ErrInvalid)
		}
		return v.outside.checkSource(k.Source)
	}
	if s.Empty() {
		return fmt.Errorf("%w: the secret is empty", ErrInvalid)
	}
	if _, err := k.kind.open(&opening{v, k, s}); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var err error
	if k.Sealed, err = v.key.seal(s, belongs(&k.Credential)); err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	return nil
}

// Replace puts another secret, or another source, behind a credential. Its handles
// stay what they are, and the next request that presents one uses it.
func (v *Vault) Replace(ctx context.Context, id, source string, s Secret) error {
	v.mu.RLock()
	old := v.credentials[id]
	v.mu.RUnlock()
	if old == nil {
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	k := &kept{Credential: old.Credential}
	k.Source, k.Rotated = source, v.now().UTC()
	if err := k.settle(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := v.seal(k, s); err != nil {
		return err
	}
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	e, err := v.kv.Load(ctx, credentialPrefix+id)
	if err == nil {
		e.Value = b
		e, err = v.kv.Save(ctx, e)
	}
	if err != nil {
		return fmt.Errorf("keeping credential: %w", err)
	}
	v.forgetTokens(ctx, id)
	v.takeCredential(k, e.Version)
	return nil
}

// belongs is all of a credential to which its secret is bound: with another service,
// place or setting beside it, it does not open.
func belongs(c *Credential) string {
	var text strings.Builder
	text.WriteString(c.ID + "\n" + c.Service + "\n" + c.Kind + "\n" + c.Place)
	for _, name := range slices.Sorted(maps.Keys(c.Settings)) {
		text.WriteString("\n" + name + "=" + c.Settings[name])
	}
	return text.String()
}

func checkCredential(c *Credential) error {
	switch {
	case !IsName(c.ID):
		return fmt.Errorf("%w: id %q (letters, digits, - _ . and at most 64 of them)", ErrInvalid, c.ID)
	case c.Service == "":
		return fmt.Errorf("%w: the service is missing", ErrInvalid)
	case strings.Contains(strings.TrimSuffix(c.Service, "-*"), "*"):
		return fmt.Errorf("%w: service %q (a name, or a family such as aws-*)", ErrInvalid, c.Service)
	case c.Owner != "org" && !strings.HasPrefix(c.Owner, "human:") && !strings.HasPrefix(c.Owner, "agent:"):
		return fmt.Errorf("%w: owner %q (human:H, agent:A or org)", ErrInvalid, c.Owner)
	case c.Cache < 0 || c.Cache > MaxCache:
		return fmt.Errorf("%w: cache %v (at most %v)", ErrInvalid, c.Cache, MaxCache)
	}
	if c.Created.IsZero() {
		c.Created = time.Now().UTC().Truncate(time.Second)
	}
	return nil
}

// Covers reports whether a credential for a service, or for a family of services such
// as aws-*, is for that one.
func Covers(of, service string) bool {
	if family, ok := strings.CutSuffix(of, "*"); ok {
		return len(service) > len(family) && strings.HasPrefix(service, family)
	}
	return of == service
}

// IsName reports whether s may be the id of an agent or a credential.
func IsName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !alphanumeric(s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.' {
			return false
		}
	}
	return true
}

// Remove forgets a credential and revokes its handles. After an error the handles
// are revoked all the same, and Remove may be called again.
func (v *Vault) Remove(ctx context.Context, id string) error {
	v.mu.RLock()
	k := v.credentials[id]
	v.mu.RUnlock()
	if k == nil {
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	k.removed.Store(true)
	_, err := v.Revoke(ctx, func(h *Handle) bool { return h.Credential == id })
	if err = errors.Join(err, v.forgetTokens(ctx, id), v.kv.Delete(ctx, credentialPrefix+id)); err != nil {
		return fmt.Errorf("removing credential %s: %w", id, err)
	}
	v.mu.Lock()
	if v.credentials[id] == k {
		delete(v.credentials, id)
	}
	v.mu.Unlock()
	k.open.Store(nil)
	return nil
}

// List returns all credentials by id.
func (v *Vault) List() []Credential {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]Credential, 0, len(v.credentials))
	for _, id := range slices.Sorted(maps.Keys(v.credentials)) {
		out = append(out, v.credentials[id].Credential)
	}
	return out
}

// Find returns the credential of that id or [ErrUnknown].
func (v *Vault) Find(id string) (Credential, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if k := v.credentials[id]; k != nil {
		return k.Credential, nil
	}
	return Credential{}, fmt.Errorf("%w: %s", ErrUnknown, id)
}

// TokenSum returns the keyed hash under which a session token is kept.
func (v *Vault) TokenSum(token string) [sha256.Size]byte { return v.tokens.sum(token) }

// HandleID returns the id of a handle's text, for revoking it, and whether it is one.
func HandleID(text string) (string, bool) {
	if id, ok := awsID(text); ok {
		return id, true
	}
	p, ok := payload(text)
	if !ok {
		return "", false
	}
	return p[len(mark) : len(mark)+idLen], true
}
