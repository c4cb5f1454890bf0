package credential

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"chaperone/credential/internal/secret"
	"chaperone/credential/source"
	"chaperone/policy"
)

// Outgoing is the part of a request into which a credential is written.
type Outgoing struct {
	Target        policy.Target
	Header        http.Header // canonical names
	Path          string      // as it was decided about
	RawQuery      string
	HostHeader    string
	Head          []byte    // of the body: what was read of it
	Tail          io.Reader // the rest of the body; nil: there is none
	ContentLength int64     // -1: not known
	Caller        Caller

	// Rewritten is set where Tail is another reader than it was.
	Rewritten bool
	// SentPath is Path with the secret in it; empty where none stands there.
	SentPath string
	// Certificate is what the connection shows of itself; nil: nothing.
	Certificate *tls.Certificate
}

// Caller is for whom a credential is used: short-lived ones are made out to them.
type Caller struct {
	Agent    string
	Instance string
	Human    string // empty: nobody
	Session  string
	Scope    []policy.Scope
}

// Outside is what a vault reaches beyond the store.
type Outside struct {
	// HTTP reaches token endpoints and remote sources. It follows no redirect. Without
	// it the kinds that need one are refused when they are used.
	HTTP http.RoundTripper
	// Showing returns the same way with connections that show a certificate, and what
	// closes them.
	Showing func(*tls.Certificate) (http.RoundTripper, func())
	// Sources fetch secrets by the scheme of their references ("vault").
	Sources map[string]source.Fetcher
	// SourceTime bounds one fetch from a source, and TokenTime one exchange with a token
	// endpoint; DefaultSourceTime and DefaultTokenTime when zero.
	SourceTime, TokenTime time.Duration
	// Now tells the time; time.Now when nil.
	Now func() time.Time
	// Told, where there is one, is told when a credential begins to give trouble, or
	// another trouble than before, and with nil when it works again. It must not block.
	Told func(id string, t *Trouble)
}

func (o *Outside) sourceTime() time.Duration {
	if o.SourceTime > 0 {
		return o.SourceTime
	}
	return DefaultSourceTime
}

func (o *Outside) tokenTime() time.Duration {
	if o.TokenTime > 0 {
		return o.TokenTime
	}
	return DefaultTokenTime
}

// Use gives the vault what it reaches. It is called once, before the first request.
func (v *Vault) Use(o Outside) { v.outside = o }

func (v *Vault) now() time.Time {
	if v.outside.Now != nil {
		return v.outside.Now()
	}
	return time.Now()
}

var (
	// ErrSource is wrapped when a source of secrets does not answer, or not with one.
	ErrSource = errors.New("the source of the secret gives none")
	// ErrSourceTimeout is wrapped when a source of secrets hangs.
	ErrSourceTimeout = errors.New("the source of the secret does not answer in time")
)

// Bounds of fetching a secret, and of asking a token endpoint.
const (
	DefaultCache      = 5 * time.Minute
	MaxCache          = 24 * time.Hour
	DefaultSourceTime = 10 * time.Second
	DefaultTokenTime  = 20 * time.Second

	lateTime = 2 * time.Second // a source's time to end once its time is over
)

// ready is an opened credential.
type ready struct {
	how   applier
	until time.Time // zero: it stays good
}

// Swap puts the secret where its handle stands, if the permit allows this request
// with this credential. It is called after the decision is on record; on an error
// nothing may be sent of out.
func (v *Vault) Swap(ctx context.Context, permit *policy.Permit, p *Presented, out *Outgoing) error {
	if err := permit.Covers(out.Target); err != nil {
		return err
	}
	allowed := permit.Credential()
	if p.handle == nil {
		if allowed != nil {
			return policy.ErrNoPermit
		}
		return nil
	}
	if allowed == nil || allowed != p.Credential {
		return policy.ErrNoPermit
	}
	if p.handle.Revoked() {
		return ErrHandleRevoked
	}
	how, err := v.opened(ctx, p.cred)
	if err != nil {
		return v.troubled(p.cred, err)
	}
	if p.was == nil { // else it is the same use once more, with another token
		if err := v.spend(ctx, p.handle); err != nil {
			return err
		}
		p.handle.uses.Add(1)
	}
	if p.beside != nil {
		return v.applyBoth(ctx, how, p, out)
	}
	return v.troubled(p.cred, how.apply(ctx, p.in(out)))
}

// Renew gets another token for a request that its service refused as unauthorised,
// and reports whether there is one, and it is worth to send the request once more
// (RFC 6750 section 3.1). It never gives the secret away: [Vault.Swap] applies it,
// against a permit of its own.
func (v *Vault) Renew(ctx context.Context, p *Presented, out *Outgoing) (bool, error) {
	if p.token == nil || p.handle == nil {
		return false, nil
	}
	how, err := v.opened(ctx, p.cred)
	if err != nil {
		return false, v.troubled(p.cred, err)
	}
	r, ok := how.(renewer)
	if !ok {
		return false, nil
	}
	again, err := r.renew(ctx, p.in(out))
	return again, v.troubled(p.cred, err)
}

// in is the one use of p, which is kept with it.
func (p *Presented) in(out *Outgoing) *use {
	p.use = use{p, out}
	return &p.use
}

// HandleID is the id of the handle that the request presents; empty: it presents none.
func (p *Presented) HandleID() string {
	if p.handle == nil {
		return ""
	}
	return p.handle.ID
}

// Renewable reports whether the request went out with a token that may be stale.
func (p *Presented) Renewable() bool { return p.token != nil }

// Restore puts the handle back where the secret was written into a field, so that
// [Vault.Swap] finds it there. However the field is spelled now, it is that one.
func (p *Presented) Restore(out *Outgoing) {
	if p.was == nil {
		return
	}
	for name := range out.Header {
		if strings.EqualFold(name, p.field) {
			delete(out.Header, name)
		}
	}
	out.Header[p.field] = p.was
}

// opened returns the credential as its kind applies it, opened before or now.
func (v *Vault) opened(ctx context.Context, k *kept) (applier, error) {
	if r := k.open.Load(); r != nil && (r.until.IsZero() || v.now().Before(r.until)) {
		return r.how, nil
	}
	if f := k.failed.Load(); f.lately(v.now()) {
		return nil, f.err
	}
	// The flight goes on when who began it is gone: others wait for it.
	flight := k.flight.DoChan("", func() (any, error) {
		return v.openNow(context.WithoutCancel(ctx), k)
	})
	late := time.NewTimer(v.outside.sourceTime() + lateTime)
	defer late.Stop()
	select {
	case got := <-flight:
		if got.Err != nil {
			return nil, got.Err
		}
		return got.Val.(*ready).how, nil
	case <-late.C: // a disk that hangs hears of no end of time; those who come later wait for the same look
		return nil, fmt.Errorf("%w: %s", ErrSourceTimeout, source.Scheme(k.Source))
	}
}

func (v *Vault) openNow(ctx context.Context, k *kept) (*ready, error) {
	old := k.open.Load()
	if old != nil && (old.until.IsZero() || v.now().Before(old.until)) {
		return old, nil // another flight has just landed
	}
	how, until, err := v.applied(ctx, k)
	if err != nil {
		k.failed.Store(&failure{err, v.now().Add(failedPause)})
		return nil, err
	}
	if m, ok := how.(*minted); ok && old != nil { // its tokens outlive the look at the source
		m.adopt(old.how)
	}
	r := &ready{how, until}
	k.open.Store(r)
	return r, nil
}

// applied fetches the secret and has its kind read it.
func (v *Vault) applied(ctx context.Context, k *kept) (applier, time.Time, error) {
	s, until, err := v.material(ctx, k)
	if err != nil {
		return nil, until, err
	}
	how, err := k.kind.open(&opening{v, k, s})
	if err != nil {
		return nil, until, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return how, until, nil
}

// failedPause is how long what failed is not tried again: an agent that repeats its request
// without pause does not have a source or a provider asked as often.
const failedPause = time.Second

// failure is how a try ended.
type failure struct {
	err   error
	until time.Time
}

// lately reports whether f, which may be nil, was too short a while ago to try again.
func (f *failure) lately(now time.Time) bool {
	return f != nil && now.Before(f.until) && f.until.Sub(now) <= failedPause
}

// material fetches the secret and tells how long it is good.
func (v *Vault) material(ctx context.Context, k *kept) (secret.Secret, time.Time, error) {
	if k.Source == "" {
		s, err := v.key.open(k.Sealed, belongs(&k.Credential))
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return s, time.Time{}, err
	}
	fetch, ref, err := v.outside.fetcher(k.Source)
	if err != nil {
		return secret.Secret{}, time.Time{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, v.outside.sourceTime())
	defer cancel()
	got, err := fetch.Fetch(ctx, ref)
	switch {
	case err != nil && ctx.Err() != nil:
		return secret.Secret{}, time.Time{}, fmt.Errorf("%w: %s, %v", ErrSourceTimeout, source.Scheme(k.Source), v.outside.sourceTime())
	case err != nil:
		return secret.Secret{}, time.Time{}, fmt.Errorf("%w: %s: %w", ErrSource, source.Scheme(k.Source), err)
	case got.Secret.Empty():
		return secret.Secret{}, time.Time{}, fmt.Errorf("%w: %s: it is empty", ErrSource, source.Scheme(k.Source))
	}
	cache := DefaultCache
	if k.Cache > 0 {
		cache = k.Cache
	}
	if got.Valid > 0 {
		cache = min(cache, got.Valid)
	}
	return got.Secret, v.now().Add(cache), nil
}

func (o *Outside) fetcher(reference string) (source.Fetcher, string, error) {
	scheme, ref := source.Split(reference)
	f := o.Sources[scheme]
	if f == nil {
		return nil, "", fmt.Errorf("%w: there is no source %q", ErrSource, scheme)
	}
	return f, ref, nil
}

// checkSource refuses a reference that no source can read.
func (o *Outside) checkSource(reference string) error {
	f, ref, err := o.fetcher(reference)
	if err == nil {
		err = f.Check(ref)
	}
	if err != nil {
		return fmt.Errorf("%w: source %q: %w", ErrInvalid, reference, err)
	}
	return nil
}
