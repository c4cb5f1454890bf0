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

	"chaperone/credential/sigv4"
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
	// ErrInstallation is wrapped when a token is asked for another installation of a
	// GitHub App than the credential's.
	ErrInstallation = errors.New("the credential is for another installation of the app")
	// ErrProxyToken is wrapped when the session token stands in a request.
	ErrProxyToken = errors.New("the session token stands in a request")
	// ErrAmbiguousCredential is wrapped when a request carries several credentials.
	ErrAmbiguousCredential = errors.New("the request carries more than one credential")
)

// Request is what Present looks at. Field names are canonical.
type Request struct {
	Method        string
	Host          string // as it goes out
	Header        http.Header
	ContentLength int64  // -1: not known
	Path          string // escaped; what HidePath took out is not in it
	RawQuery      string
	InPath        *Inside   // what HidePath took out
	InBody        []*Inside // what HideBody took out
	Session       string
	Service       string // empty for a host that no catalogue names
	Places        *Places
	Mints         bool // it asks for tokens and does nothing else, so that a handle may be traded
	Now           time.Time
	Body          Body // nil: there is none
}

// Body reads a request's whole body, for signatures over it, unless it is longer than
// max.
type Body interface {
	WholeBody(max int) ([]byte, error)
}

// Presented is the credential that a request presents, found and not opened. The
// zero Presented stands for none.
type Presented struct {
	Credential  *policy.Credential
	Fingerprint string // keyed, of the handle or of a foreign credential
	Owner       string // session that the handle was made for, where it is not this one

	use    use // of it, once it is swapped
	handle *Handle
	cred   *kept
	spot
	more   []spot   // where else the handle stands, for kinds that have several places
	beside *party   // another handle with which it belongs together
	was    []string // the field as it was, for kinds that mint tokens
	token  *token   // with which the request went out, for kinds that mint them
	signed *signed  // the agent's own signature, for kinds that sign
	sent   *written // the secrets that stand in the request; behind a pointer, which fmt does not follow
	echo   Echo     // finds them in the answer
	traded bool     // for the proxy to answer
}

// spot is one place in which a handle stands.
type spot struct {
	place  Place
	field  string  // canonical field name
	text   string  // the handle as it stands there
	stated string  // the handle, where text is a signed statement that names it
	inside *Inside // in the path or the body
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
	if err = v.inside(&p, r); err != nil {
		return p, err
	}
	if findToken(r.Path) {
		return p, ErrProxyToken
	}
	if findEncoded(r.Path) {
		return p, fmt.Errorf("%w: the path", ErrHandlePlace)
	}
	if v.anySilent.Load() {
		return p, v.unspoken(&p, r)
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
	case name == "Signature-Input":
		return v.selfSigned(p, r, values)
	case declared || sensitiveHeaders[name]:
		if len(values) != 1 {
			return fmt.Errorf("%w: the field %s stands %d times", ErrAmbiguousCredential, name, len(values))
		}
		return v.take(p, r, spot{place: Place{KindHeader, name}, field: name, text: values[0]})
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

// TakesField reports whether the service, or some other, takes a credential in a field of
// that name, which is canonical, or may be another with hyphens for underscores.
func (p *Places) TakesField(name string) bool {
	plain := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return sensitiveHeaders[plain] || plain == "Cookie" || plain == "Signature" || p.has(Place{KindHeader, name}) || p.has(Place{KindHeader, plain})
}

// CheckTrailer refuses a field behind a body that holds a handle or a session token: no
// service takes credentials there.
func CheckTrailer(name string, values []string) error {
	for _, value := range values {
		if findToken(value) {
			return fmt.Errorf("%w: the trailer %s", ErrProxyToken, name)
		}
		if findEncoded(value) {
			return fmt.Errorf("%w: the trailer %s", ErrHandlePlace, name)
		}
	}
	return nil
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
		return v.take(p, r, spot{place: Place{kind: KindBearer}, field: "Authorization", text: scheme})
	case findToken(scheme):
		return fmt.Errorf("%w: the scheme of Authorization", ErrProxyToken)
	case findEncoded(scheme):
		return fmt.Errorf("%w: the scheme of Authorization", ErrHandlePlace)
	case scheme == sigv4.Scheme && r.Places.takes(KindAWS):
		return v.awsSigned(p, r, sigv4.Parse)
	case strings.EqualFold(scheme, "oauth") && r.Places.takes(KindOAuth1):
		return v.oauth1Signed(p, r, value)
	case !strings.EqualFold(scheme, "basic"):
		return v.take(p, r, spot{place: Place{kind: KindBearer}, field: "Authorization", text: value})
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
	return v.take(p, r, spot{place: Place{kind: KindBasic}, field: "Authorization", text: half})
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

// cookies takes a handle where the service or its credential has a cookie, and lets
// of the others only those pass that name no user.
func (v *Vault) cookies(p *Presented, r *Request, values []string) error {
	for _, value := range values {
		if findToken(value) {
			return fmt.Errorf("%w: a cookie", ErrProxyToken)
		}
		for pair := range strings.SplitSeq(value, ";") {
			if err := v.cookie(p, r, strings.TrimSpace(pair)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *Vault) cookie(p *Presented, r *Request, pair string) error {
	name, text, _ := strings.Cut(pair, "=")
	at := Place{KindCookie, name}
	switch {
	case name == "":
		return nil
	case r.Places.has(at) || IsHandle(text) && r.Places.takes(KindCookie):
		return v.take(p, r, spot{place: at, text: text})
	case IsHandle(text) && v.keepsIn(text, at):
		return v.take(p, r, spot{place: at, text: text})
	case findEncoded(pair):
		return fmt.Errorf("%w: a cookie", ErrHandlePlace)
	case r.Places.Cookies || r.Places.Foreign || infrastructureCookies[name]:
		return nil
	}
	p.Fingerprint = v.prints.fingerprint(pair)
	return fmt.Errorf("%w: a cookie", ErrForeignCredential)
}

// keepsIn reports whether the credential of a handle has its place there.
func (v *Vault) keepsIn(text string, at Place) bool {
	body, _ := payload(text)
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.byID[body[len(mark):len(mark)+idLen]]
	if h == nil {
		return false
	}
	k := h.cred.Load()
	return k != nil && k.place == at
}

// inside looks at what was taken out of the path and the body.
func (v *Vault) inside(p *Presented, r *Request) error {
	if r.InPath != nil {
		if err := v.take(p, r, spot{place: r.InPath.place, text: r.InPath.text, inside: r.InPath}); err != nil {
			return err
		}
	}
	for _, in := range r.InBody {
		if err := v.take(p, r, spot{place: in.place, text: in.text, inside: in}); err != nil {
			return err
		}
	}
	return nil
}

// query looks at the query's parameters.
func (v *Vault) query(p *Presented, r *Request) error {
	if r.RawQuery == "" {
		return nil
	}
	presigned := r.Places.takes(KindAWS) && strings.Contains(r.RawQuery, "X-Amz-Signature=")
	if presigned {
		if err := v.awsSigned(p, r, sigv4.ParseQuery); err != nil {
			return err
		}
	}
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err != nil {
			name = key
		}
		if presigned && (name == "X-Amz-Signature" || name == "X-Amz-Credential") {
			continue
		}
		place := Place{KindQuery, name}
		if r.Places.has(place) || sensitiveQuery[strings.ToLower(name)] {
			plain, err := url.QueryUnescape(value)
			if err != nil {
				return fmt.Errorf("%w: a query parameter that cannot be read", ErrForeignCredential)
			}
			if err := v.take(p, r, spot{place: place, text: plain}); err != nil {
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
func (v *Vault) take(p *Presented, r *Request, s spot) error {
	body, ok := payload(s.text)
	if !ok {
		if s.stated, ok = statedIn(s.text); !ok {
			return v.foreign(p, r, s.text)
		}
		body, _ = payload(s.stated)
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
	return v.accept(p, r, h, body, s)
}

// accept judges whether a handle that is one may stand where it does.
func (v *Vault) accept(p *Presented, r *Request, h *Handle, body string, s spot) error {
	k := h.cred.Load()
	traded := r.trades(h, k)
	joins := p.handle != nil && p.handle != h && k != nil && !traded && p.joins(r, h)
	if p.handle != nil && !joins && (p.handle != h || k == nil || k.Kind != KindSeveral && k.Kind != KindHTTPSignature && !traded) {
		return ErrAmbiguousCredential
	}
	first, public := p.Fingerprint, p.Credential
	p.Fingerprint = v.printOf(h, body)
	if k != nil {
		p.Credential = &k.public
	}
	switch {
	case h.Session != r.Session:
		p.Owner = h.Session
		return ErrHandleTheft
	case !Covers(h.Service, r.Service) && !traded && !r.takesBack(h, k):
		return ErrWrongService
	case h.Revoked():
		return ErrHandleRevoked
	case !r.Now.Before(h.Expires):
		return ErrHandleExpired
	case traded && k.Kind == KindGitHubApp && r.asksInstallation() != k.Settings["installation_id"]:
		return ErrInstallation
	case traded && s.asksIdentity() && k.Settings[targetAudience] == "":
		return ErrNoIDToken
	case !r.Places.has(s.place) && k.place != s.place && (s.place.kind != KindHTTPSignature || k.Kind != KindHTTPSignature):
		return fmt.Errorf("%w: %s", ErrHandlePlace, s.place.kind)
	}
	switch {
	case joins:
		second := p.Fingerprint
		p.Fingerprint, p.Credential = first, public
		p.join(h, k, s, second)
		return nil
	case p.handle != nil:
		p.more = append(p.more, s)
		return nil
	}
	p.handle, p.cred, p.spot, p.traded = h, k, s, traded
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
