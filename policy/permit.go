package policy

import (
	"context"
	"fmt"
	"sync/atomic"
)

// Target is what a permit is bound to: the request line and authority as they
// will go out.
type Target struct {
	Method string
	Scheme string
	Host   string // lower-case A-label, no port
	Port   int
	Path   string // escaped
}

// Target returns the request's own target.
func (r *Request) Target() Target {
	return Target{Method: r.Method, Scheme: r.Scheme, Host: r.Host, Port: r.Port, Path: r.Path}
}

// Permit proves that policy allowed exactly one request. Only [Gate.Decide]
// makes a permit that is worth anything: the zero Permit and the nil *Permit
// cover nothing.
type Permit struct {
	gate   *Gate
	engine Engine
	q      *Question
	target Target
	digest [32]byte
	duties map[string]any // obligations of the allow
	spent  atomic.Bool
}

// Covers returns [ErrNoPermit] unless p allows a request to t.
func (p *Permit) Covers(t Target) error {
	if p == nil || p.gate == nil || p.target != t || p.spent.Load() {
		return ErrNoPermit
	}
	return nil
}

// Credential returns the credential that the allowed request named, or nil.
func (p *Permit) Credential() *Credential {
	if p == nil || p.gate == nil {
		return nil
	}
	return p.q.Credential
}

// BodyDigest returns the SHA-256 of the body that policy read, and whether it
// read one; whoever forwards must send exactly that body.
func (p *Permit) BodyDigest() (sum [32]byte, bound bool) {
	if p == nil || p.gate == nil {
		return sum, false
	}
	return p.digest, p.digest != [32]byte{}
}

// Redeem spends p on a request to t, once. If another policy was loaded since
// p was given out, that policy is asked, and its refusal is returned; so is an allow
// that obliges to something else.
func (p *Permit) Redeem(ctx context.Context, t Target) error {
	if err := p.Covers(t); err != nil {
		return err
	}
	if !p.spent.CompareAndSwap(false, true) {
		return ErrNoPermit
	}
	now, err := p.gate.current()
	if err != nil {
		return err
	}
	if now == p.engine {
		return nil
	}
	a, err := p.gate.ask(ctx, now, p.q)
	if err == nil && !sameDuties(a.Obligations, p.duties) {
		return fmt.Errorf("%w: the policy was changed meanwhile, and obliges to something else", ErrDenied)
	}
	return err
}
