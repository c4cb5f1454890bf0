package credential

import (
	"context"
	"fmt"
)

// party is a handle that a request presents beside its own, and where it stands.
type party struct {
	handle *Handle
	cred   *kept
	spot   spot
	print  string // fingerprint of the handle
}

// Beside returns the credential of a second handle that belongs to the first, and the
// handle's keyed fingerprint; both are empty where there is none.
func (p *Presented) Beside() (credential, fingerprint string) {
	if p.beside == nil {
		return "", ""
	}
	return p.beside.handle.Credential, p.beside.print
}

// joins reports whether a second handle may stand in a request that asks for tokens: of
// the two, a service handed out one when it was asked with the other. So does a client
// show who it is beside the refresh token that it got (RFC 6749 section 6).
func (p *Presented) joins(r *Request, h *Handle) bool {
	return r.Mints && p.beside == nil && !p.traded && len(p.more) == 0 && (h.Of == p.handle.ID || p.handle.Of == h.ID)
}

// join puts a second handle beside the first, of which Fingerprint and Credential are. The
// request is with the one that was handed out: what comes of it ends with either.
func (p *Presented) join(h *Handle, k *kept, s spot, print string) {
	p.beside = &party{h, k, s, print}
	if h.Of == p.handle.ID {
		p.beside = &party{p.handle, p.cred, p.spot, p.Fingerprint}
		p.handle, p.cred, p.spot, p.Fingerprint, p.Credential = h, k, s, print, &k.public
	}
}

// behind reports whether a spot is behind another in the body: what is written there
// first leaves the other where it is.
func (s *spot) behind(other *spot) bool {
	return s.inside != nil && other.inside != nil && s.inside.begin > other.inside.begin
}

// applyBoth writes both secrets.
func (v *Vault) applyBoth(ctx context.Context, how applier, p *Presented, out *Outgoing) error {
	if p.beside.handle.Revoked() {
		return ErrHandleRevoked
	}
	other, err := v.opened(ctx, p.beside.cred)
	if err != nil {
		return v.troubled(p.beside.cred, err)
	}
	one, ok := other.(*static)
	if !ok {
		return fmt.Errorf("%w: kind %s stands alone", ErrAmbiguousCredential, p.beside.cred.Kind)
	}
	u := p.in(out)
	first := func() error { return v.troubled(p.cred, how.apply(ctx, u)) }
	second := func() error { return v.troubled(p.beside.cred, u.writeAt(&p.beside.spot, one.text)) }
	if p.beside.spot.behind(&p.spot) {
		first, second = second, first
	}
	if err := first(); err != nil {
		return err
	}
	return second()
}
