package credential

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chaperone/policy"
)

var (
	// ErrForeignCredential is wrapped when a request carries a credential that is
	// not a handle: a token that the agent found somewhere, a cookie, a key in the query.
	ErrForeignCredential = errors.New("the request carries a credential that is not a handle")
	// ErrHandleTheft is wrapped when a handle belongs to another session.
	ErrHandleTheft = errors.New("the handle belongs to another session")
	// ErrHandleUnknown is wrapped when something has the form of a handle and is none.
	ErrHandleUnknown = errors.New("the handle is not known")
	// ErrHandleRevoked is wrapped when a handle was revoked.
	ErrHandleRevoked = errors.New("the handle was revoked")
	// ErrHandleExpired is wrapped when a handle's time is over.
	ErrHandleExpired = errors.New("the handle has expired")
	// ErrHandlePlace is wrapped when a handle stands where the service takes no credentials.
	ErrHandlePlace = errors.New("a handle stands where no credential belongs")
	// ErrWrongService is wrapped when a handle is sent to another service than its own.
	ErrWrongService = errors.New("the handle is for another service")
	// ErrProxyToken is wrapped when the session token stands in a request.
	ErrProxyToken = errors.New("the session token stands in a request")
	// ErrAmbiguousCredential is wrapped when a request carries several credentials.
	ErrAmbiguousCredential = errors.New("the request carries more than one credential")
)

// Request is what Present looks at. Field names are canonical.
type Request struct {
	Header   http.Header
	Path     string // escaped
	RawQuery string
	Session  string
	Service  string // empty for a host that no catalogue names
	Places   *Places
	Now      time.Time
}

// Presented is the credential that a request presents, found and not opened. The
// zero Presented stands for none.
type Presented struct {
	Credential  *policy.Credential
	Fingerprint string // keyed, of the handle or of a foreign credential

	handle *Handle
	text   string // the handle as it stands in the request
	place  Place
	field  string // canonical field name
}

// Present finds the credential that a request presents: the one handle of its
// session in a place where its service takes credentials. Everything else that is
// or might be a credential is an error: see the errors of this package.
func (v *Vault) Present(r *Request) (Presented, error) {
	var p Presented
	var err error
	for name, values := range r.Header {
		if err = v.field(&p, r, name, values); err != nil {
			return p, err
		}
	}
	if err = v.query(&p, r); err != nil {
		return p, err
	}
	if findToken(r.Path) {
		return p, ErrProxyToken
	}
	if findEncoded(r.Path) {
		return p, fmt.Errorf("%w: the path", ErrHandlePlace)
	}
	return p, nil
}

// field looks at one header field.
func (v *Vault) field(p *Presented, r *Request, name string, values []string) error {
	declared := r.Places.has(Place{KindHeader, name})
	switch {
	case name == "Authorization" && !declared:
		return v.authorization(p, r, values)
	case name == "Cookie":
		return v.cookies(p, r, values)
	case declared || sensitiveHeaders[name]:
		if len(values) != 1 {
			return fmt.Errorf("%w: the field %s stands %d times", ErrAmbiguousCredential, name, len(values))
		}
		return v.take(p, r, Place{KindHeader, name}, name, values[0])
	}
	if strings.IndexByte(name, '_') >= 0 && v.underscored(r, name) {
		return fmt.Errorf("%w: the field %s, which some servers take for another", ErrForeignCredential, name)
	}
	for _, value := range values {
		if findToken(value) {
			return fmt.Errorf("%w: the field %s", ErrProxyToken, name)
		}
		if findEncoded(value) {
			return fmt.Errorf("%w: the field %s", ErrHandlePlace, name)
		}
	}
	return nil
}

// underscored reports whether a field is one that takes credentials once its
// underscores are hyphens, as they are to servers that pass fields on as variables.
func (v *Vault) underscored(r *Request, name string) bool {
	plain := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return plain == "Authorization" || plain == "Cookie" || sensitiveHeaders[plain] || r.Places.has(Place{KindHeader, plain})
}

// authorization looks at Authorization: a scheme with a handle behind it, or
// Basic with a handle in either half.
func (v *Vault) authorization(p *Presented, r *Request, values []string) error {
	if len(values) != 1 {
		return fmt.Errorf("%w: the field Authorization stands %d times", ErrAmbiguousCredential, len(values))
	}
	scheme, value, _ := strings.Cut(values[0], " ")
	value = strings.TrimLeft(value, " ")
	switch {
	case value == "": // one word is the credential, whatever it looks like
		return v.take(p, r, Place{kind: KindBearer}, "Authorization", scheme)
	case findToken(scheme):
		return fmt.Errorf("%w: the scheme of Authorization", ErrProxyToken)
	case findEncoded(scheme):
		return fmt.Errorf("%w: the scheme of Authorization", ErrHandlePlace)
	case !strings.EqualFold(scheme, "basic"):
		return v.take(p, r, Place{kind: KindBearer}, "Authorization", value)
	}
	user, pass, err := basicHalves(value)
	if err != nil {
		return fmt.Errorf("%w: Basic credentials that cannot be read", ErrForeignCredential)
	}
	half := pass
	if pass == "" { // the key stands alone, as Stripe has it
		half = user
	}
	switch {
	case IsHandle(user) && IsHandle(pass):
		return fmt.Errorf("%w: both halves of Basic", ErrAmbiguousCredential)
	case IsHandle(user):
		half = user
		if findEncoded(pass) || findToken(pass) {
			return fmt.Errorf("%w: both halves of Basic", ErrAmbiguousCredential)
		}
	case findEncoded(user) || findToken(user):
		return fmt.Errorf("%w: the user name of Basic", ErrHandlePlace)
	}
	return v.take(p, r, Place{kind: KindBasic}, "Authorization", half)
}

// basicHalves decodes Basic credentials, RFC 7617.
func basicHalves(encoded string) (user, pass string, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", "", err
	}
	user, pass, ok := strings.Cut(string(b), ":")
	if !ok {
		return "", "", errors.New("no colon")
	}
	return user, pass, nil
}

// cookies lets only those pass that name no user.
func (v *Vault) cookies(p *Presented, r *Request, values []string) error {
	for _, value := range values {
		if findToken(value) {
			return fmt.Errorf("%w: a cookie", ErrProxyToken)
		}
		if findEncoded(value) {
			return fmt.Errorf("%w: a cookie", ErrHandlePlace)
		}
		if r.Places.Cookies || r.Places.Foreign {
			continue
		}
		for pair := range strings.SplitSeq(value, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if name != "" && !infrastructureCookies[name] {
				p.Fingerprint = v.prints.fingerprint(value)
				return fmt.Errorf("%w: a cookie", ErrForeignCredential)
			}
		}
	}
	return nil
}

// query looks at the query's parameters.
func (v *Vault) query(p *Presented, r *Request) error {
	if r.RawQuery == "" {
		return nil
	}
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err != nil {
			name = key
		}
		place := Place{KindQuery, name}
		if r.Places.has(place) || sensitiveQuery[strings.ToLower(name)] {
			plain, err := url.QueryUnescape(value)
			if err != nil {
				return fmt.Errorf("%w: a query parameter that cannot be read", ErrForeignCredential)
			}
			if err := v.take(p, r, place, "", plain); err != nil {
				return err
			}
			continue
		}
		if findToken(pair) {
			return fmt.Errorf("%w: the query", ErrProxyToken)
		}
		if findEncoded(pair) {
			return fmt.Errorf("%w: the query", ErrHandlePlace)
		}
	}
	return nil
}

// take judges what stands in a place for credentials.
func (v *Vault) take(p *Presented, r *Request, at Place, field, text string) error {
	body, ok := payload(text)
	if !ok {
		return v.foreign(p, r, text)
	}
	if p.handle != nil {
		return ErrAmbiguousCredential
	}
	v.mu.RLock()
	h := v.byID[body[len(mark):len(mark)+idLen]]
	v.mu.RUnlock()
	if h == nil {
		p.Fingerprint = v.prints.fingerprint(body)
		return ErrHandleUnknown
	}
	if sum := v.handles.sum(body); subtle.ConstantTimeCompare(sum[:], h.sum[:]) != 1 {
		p.Fingerprint = v.prints.fingerprint(body)
		return ErrHandleUnknown
	}
	p.Fingerprint = v.printOf(h, body)
	if h.cred != nil {
		p.Credential = &h.cred.public
	}
	switch {
	case h.Session != r.Session:
		return ErrHandleTheft
	case h.Service != r.Service:
		return ErrWrongService
	case h.Revoked():
		return ErrHandleRevoked
	case !r.Now.Before(h.Expires):
		return ErrHandleExpired
	case !r.Places.has(at) && h.cred.place != at:
		return fmt.Errorf("%w: %s", ErrHandlePlace, at.kind)
	}
	p.handle, p.text, p.place, p.field = h, text, at, field
	return nil
}

// printOf returns the fingerprint of a handle, made once.
func (v *Vault) printOf(h *Handle, body string) string {
	if s := h.print.Load(); s != nil {
		return *s
	}
	s := v.prints.fingerprint(body)
	h.print.Store(&s)
	return s
}

// foreign refuses a credential that is no handle, unless the service may have it.
func (v *Vault) foreign(p *Presented, r *Request, text string) error {
	if findToken(text) {
		return ErrProxyToken
	}
	if findEncoded(text) {
		return fmt.Errorf("%w: a handle with something around it", ErrHandlePlace)
	}
	if text == "" || r.Places.Foreign {
		return nil
	}
	p.Fingerprint = v.prints.fingerprint(text)
	return ErrForeignCredential
}

// Outgoing is the part of a request into which a secret is written.
type Outgoing struct {
	Target   policy.Target
	Header   http.Header // canonical names
	RawQuery string
}

// Swap puts the secret where its handle stands, if the permit allows this request
// with this credential. It is called after the decision is on record; on an error
// nothing has been written.
func (v *Vault) Swap(permit *policy.Permit, p *Presented, out *Outgoing) error {
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
	s, err := v.secret(p.handle.cred)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.handle.uses.Add(1)
	return p.write(string(*s.b), out)
}

// secret opens a credential, or returns it as it was opened before.
func (v *Vault) secret(k *kept) (Secret, error) {
	if s := k.open.Load(); s != nil {
		return *s, nil
	}
	s, err := v.key.open(k.Sealed, belongs(&k.Credential))
	if err != nil {
		return Secret{}, err
	}
	k.open.Store(&s)
	return s, nil
}

// write replaces the handle's text by the secret.
func (p *Presented) write(secret string, out *Outgoing) error {
	switch p.place.kind {
	case KindBearer, KindHeader:
		old := out.Header[p.field]
		if len(old) != 1 || !strings.HasSuffix(old[0], p.text) {
			return ErrHandlePlace
		}
		out.Header[p.field] = []string{old[0][:len(old[0])-len(p.text)] + secret}
	case KindBasic:
		scheme, value, _ := strings.Cut(out.Header.Get("Authorization"), " ")
		user, pass, err := basicHalves(strings.TrimLeft(value, " "))
		if err != nil {
			return ErrHandlePlace
		}
		if user == p.text {
			if strings.IndexByte(secret, ':') >= 0 {
				return fmt.Errorf("%w: a colon cannot stand in the user name of Basic", ErrUnavailable)
			}
			user = secret
		} else {
			pass = secret
		}
		out.Header["Authorization"] = []string{scheme + " " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))}
	case KindQuery:
		raw, ok := p.replaceInQuery(out.RawQuery, url.QueryEscape(secret))
		if !ok {
			return ErrHandlePlace
		}
		out.RawQuery = raw
	default:
		return ErrHandlePlace
	}
	return nil
}

// replaceInQuery changes the value that is the handle and no other byte.
func (p *Presented) replaceInQuery(raw, secret string) (string, bool) {
	pairs := strings.Split(raw, "&")
	for i, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		text, verr := url.QueryUnescape(value)
		if err == nil && verr == nil && name == p.place.name && text == p.text {
			pairs[i] = key + "=" + secret
			return strings.Join(pairs, "&"), true
		}
	}
	return raw, false
}
