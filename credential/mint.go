package credential

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
	"chaperone/store"
)

// A minter gets short-lived tokens for a long-lived secret.
type minter interface {
	// mint gets a token made out to the caller. Refresh is the newest refresh token
	// there is, for grants that have one. What comes with an error may have a newer one.
	mint(ctx context.Context, c *Caller, refresh secret.Secret) (grant.Token, error)
	// audience tells callers apart whose tokens differ; empty: all have the same.
	audience(c *Caller) string
}

// A stater is a minter whose service takes its statements as credentials too. Where the
// client states by itself who it is, that is what it gets in return.
type stater interface {
	statement() (secret.Secret, error)
}

// Times of tokens.
const (
	lockTime  = 25 * time.Second // beyond an exchange with the token endpoint: longer than whoever holds a lock can take
	saveTime  = 5 * time.Second  // for what the store does before and after an exchange
	lockPause = 50 * time.Millisecond
	early     = time.Minute      // a token is renewed so long before it ends, or in the last tenth of its life
	tooYoung  = 15 * time.Second // a token of this age that is refused is not stale: something else is wrong
	noExpiry  = time.Hour        // how long a token is used whose endpoint does not say
)

// token is a minted token in memory.
type token struct {
	text    string
	refresh string
	made    time.Time
	expires time.Time
	fresh   time.Time // until when it is used without asking for another
}

// Format keeps the token from being printed.
func (*token) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

// storedToken is a token in the store, sealed, where all replicas find it.
type storedToken struct {
	Access  string    `json:"access"`
	Refresh string    `json:"refresh,omitzero"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	Of      string    `json:"of"` // the secret that it was made of
}

const (
	mintedPrefix = "token/"
	mintPrefix   = "minting/"
)

// minted applies tokens that by mints.
type minted struct {
	v      *Vault
	k      *kept
	by     minter
	secret string // fingerprint of what the source held, where tokens of another are worth nothing
	*purse
}

func newMinted(o *opening, by minter) *minted {
	m := &minted{v: o.v, k: o.k, by: by, purse: newPurse()}
	if r, ok := by.(*refreshing); ok && o.k.Source != "" {
		m.secret = o.v.prints.fingerprint(secret.Text(r.first))
	}
	return m
}

// adopt takes over what is minted of the same secret, also by flights that are under way,
// when that was looked at again. It is called before anybody else has m.
func (m *minted) adopt(from applier) {
	if old, ok := from.(*minted); ok && old.secret == m.secret && old.k == m.k {
		m.purse = old.purse
	}
}

func (m *minted) apply(ctx context.Context, u *use) error {
	if by, ok := m.by.(stater); ok && u.p.stated != "" {
		s, err := by.statement()
		if err != nil {
			return err
		}
		return u.write(secret.Text(s))
	}
	t, err := m.current(ctx, &u.out.Caller, nil)
	if err != nil {
		return err
	}
	u.p.token, u.p.was = t, u.out.Header[u.p.field]
	return u.write(t.text)
}

// renew implements [renewer].
func (m *minted) renew(ctx context.Context, u *use) (bool, error) {
	if m.v.now().Sub(u.p.token.made) < tooYoung {
		return false, nil
	}
	t, err := m.current(ctx, &u.out.Caller, u.p.token)
	return err == nil && t.text != u.p.token.text, err
}

// current returns the token in memory while it is good, and else another one. A
// token that was refused is not good.
func (m *minted) current(ctx context.Context, c *Caller, refused *token) (*token, error) {
	key := m.by.audience(c)
	t := m.held(key)
	if m.good(t, refused) {
		return t, nil
	}
	if f := m.failure(key); f.lately(m.v.now()) {
		return nil, f.err
	}
	got, err, _ := m.flights.Do(key, func() (any, error) {
		// Who began it may go away, and so may everybody: a refresh that has begun is carried through.
		m.v.minting.RLock()
		defer m.v.minting.RUnlock()
		if m.v.closed {
			return nil, fmt.Errorf("%w: the proxy ends", ErrUnavailable)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.v.outside.tokenTime()+saveTime)
		defer cancel()
		return m.another(ctx, c, key, refused)
	})
	if err != nil {
		return nil, err
	}
	return got.(*token), nil
}

func (m *minted) good(t, refused *token) bool {
	return t != nil && t.text != "" && m.v.now().Before(t.fresh) && (refused == nil || t.text != refused.text)
}

// another gets a token from the store, where another replica has put it, or mints it
// under a lock that the replicas share: the provider is asked once for all.
func (m *minted) another(ctx context.Context, c *Caller, key string, refused *token) (*token, error) {
	for {
		t, _, err := m.load(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if m.good(t, refused) {
			return m.keep(key, t), nil
		}
		_, err = m.v.kv.Save(ctx, store.Entry{Name: m.name(mintPrefix, key), Value: []byte(m.k.ID), Expires: m.v.now().Add(m.v.outside.tokenTime() + lockTime)})
		if err == nil {
			return m.underLock(ctx, c, key, refused)
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("%w: locking: %w", ErrUnavailable, err)
		}
		if err := pause(ctx, lockPause); err != nil {
			return nil, fmt.Errorf("%w: another replica is at it", grant.ErrTimeout)
		}
	}
}

// underLock mints, unless somebody did so before the lock was taken.
func (m *minted) underLock(ctx context.Context, c *Caller, key string, refused *token) (*token, error) {
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
		defer cancel()
		m.v.kv.Delete(ctx, m.name(mintPrefix, key)) // else it ends by itself
	}()
	have, version, err := m.load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if m.good(have, refused) {
		return m.keep(key, have), nil
	}
	if t := m.waiting(key); t != nil { // newer than what the store has
		have = t
		if m.good(t, refused) {
			return m.saved(ctx, key, t, version)
		}
	}
	var refresh secret.Secret
	if have != nil && have.refresh != "" {
		refresh = secret.New(have.refresh)
	}
	began := m.v.now()
	asking, done := context.WithTimeout(ctx, m.v.outside.tokenTime())
	got, err := m.by.mint(asking, c, refresh)
	done()
	m.v.noteMint(err)
	if err != nil {
		m.fail(key, &failure{err, m.v.now().Add(failedPause)})
		if newer := secret.Text(got.Refresh); newer != "" { // without a token that can be used: the next try begins with it
			m.saved(ctx, key, &token{refresh: newer, made: began, expires: began}, version)
		}
		return nil, err
	}
	t := m.made(got, began)
	if t.refresh == "" && have != nil {
		t.refresh = have.refresh
	}
	return m.saved(ctx, key, t, version)
}

func (v *Vault) noteMint(err error) {
	if err != nil {
		v.mintsFailed.Add(1)
		return
	}
	v.mints.Add(1)
}

// Mints tells how many short-lived tokens were got or refreshed, and how often that
// failed, since the vault was opened.
func (v *Vault) Mints() (got, failed uint64) { return v.mints.Load(), v.mintsFailed.Load() }

// made is a token as it is used: until a minute before its end, or until the last
// tenth of a short life.
func (m *minted) made(g grant.Token, began time.Time) *token {
	t := &token{text: secret.Text(g.Access), refresh: secret.Text(g.Refresh), made: began, expires: g.Expires}
	switch {
	case g.Lives > 0:
		t.expires = began.Add(g.Lives)
	case t.expires.IsZero():
		t.expires = began.Add(noExpiry)
	}
	m.freshen(t)
	return t
}

func (m *minted) freshen(t *token) {
	t.fresh = t.expires.Add(-min(early, t.expires.Sub(t.made)/10))
}

// saved puts a token into the store before anybody uses it: where the provider rotates
// refresh tokens, the one that it replaces is worth nothing any more. What the store
// does not take stays in memory for the next try.
func (m *minted) saved(ctx context.Context, key string, t *token, version uint64) (*token, error) {
	m.wait(key, t)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	for {
		err := m.save(ctx, key, t, version)
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("%w: keeping the token: %w", ErrUnavailable, err)
		}
		if _, version, err = m.load(ctx, key); err != nil {
			return nil, fmt.Errorf("%w: keeping the token: %w", ErrUnavailable, err)
		}
	}
	m.settled(key, t)
	return m.keep(key, t), nil
}

// name is that of a token in the store.
func (m *minted) name(prefix, key string) string {
	if key == "" {
		return prefix + m.k.ID
	}
	sum := sha256.Sum256([]byte(key))
	return prefix + m.k.ID + "/" + hex.EncodeToString(sum[:16])
}

func (m *minted) belongs(key string) string { return belongs(&m.k.Credential) + "\ntoken\n" + key }

// of says of which secret tokens are made: they go with it when it is replaced.
func (m *minted) of() string {
	at := m.k.Rotated
	if at.IsZero() {
		at = m.k.Created
	}
	return at.UTC().Format(time.RFC3339Nano) + " " + m.secret
}

// load returns the token in the store; nil where there is none of this secret.
func (m *minted) load(ctx context.Context, key string) (*token, uint64, error) {
	e, err := m.v.kv.Load(ctx, m.name(mintedPrefix, key))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	s, err := m.v.key.open(e.Value, m.belongs(key))
	if err != nil {
		return nil, 0, err
	}
	var st storedToken
	if err := json.NewDecoder(bytes.NewReader(secret.Reveal(s))).Decode(&st); err != nil {
		return nil, 0, errors.New("the token in the store cannot be read")
	}
	if st.Of != m.of() {
		return nil, e.Version, nil // of a secret that was replaced
	}
	t := &token{text: st.Access, refresh: st.Refresh, made: st.Made, expires: st.Expires}
	m.freshen(t)
	return t, e.Version, nil
}

func (m *minted) save(ctx context.Context, key string, t *token, version uint64) error {
	b, err := json.Marshal(storedToken{t.text, t.refresh, t.made, t.expires, m.of()})
	if err != nil {
		return err
	}
	sealed, err := m.v.key.seal(secret.New(b), m.belongs(key))
	if err != nil {
		return err
	}
	e := store.Entry{Name: m.name(mintedPrefix, key), Value: sealed, Version: version}
	if t.refresh == "" {
		e.Expires = t.expires
	}
	_, err = m.v.kv.Save(ctx, e)
	return err
}

// forgetTokens removes what was minted of a credential.
func (v *Vault) forgetTokens(ctx context.Context, id string) error {
	names := []string{mintedPrefix + id}
	for e, err := range v.kv.Scan(ctx, mintedPrefix+id+"/") {
		if err != nil {
			return err
		}
		names = append(names, e.Name)
	}
	var errs error
	for _, name := range names {
		errs = errors.Join(errs, v.kv.Delete(ctx, name))
	}
	return errs
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// scopes reads a list with spaces or commas between.
func scopes(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' })
}
