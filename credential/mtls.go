package credential

import (
	"context"
	"crypto/tls"
	"fmt"

	"chaperone/credential/internal/secret"
)

// KindMTLS shows a client certificate to the service.
const KindMTLS = "mtls"

// certificate is shown when the connection to the service is made (RFC 8446 section
// 4.4.2). Clients send nothing for it: it goes along with all requests of the session
// to its service. A handle that a request carries all the same is left out.
type certificate struct{ pair *tls.Certificate }

// Format keeps the key from being printed.
func (*certificate) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

func openMTLS(o *opening) (applier, error) {
	pem := secret.Reveal(o.secret)
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a certificate and its private key in PEM", ErrShape) // the parser's words may repeat bytes of it
	}
	return &certificate{&pair}, nil
}

func (c *certificate) apply(_ context.Context, u *use) error {
	if len(u.p.more) > 0 {
		return ErrHandlePlace
	}
	if u.p.field != "" {
		delete(u.out.Header, u.p.field)
	}
	u.out.Certificate = c.pair
	return nil
}

// unspoken finds the credential that goes along with every request of a session to its
// service, though no client can present a handle for it.
func (v *Vault) unspoken(p *Presented, r *Request) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, h := range v.ofSession(r.Session) {
		if k := h.cred.Load(); k != nil && k.Kind == KindMTLS && Covers(h.Service, r.Service) && !h.Revoked() && r.Now.Before(h.Expires) {
			if p.handle == h {
				return nil
			}
			if p.handle != nil {
				return ErrAmbiguousCredential
			}
			p.handle, p.cred, p.Credential = h, k, &k.public
			p.Fingerprint = v.prints.fingerprint(h.ID)
		}
	}
	return nil
}
