package credential

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"

	"chaperone/credential/httpsig"
	"chaperone/credential/internal/secret"
)

// KindHTTPSignature signs requests as RFC 9421 describes.
const KindHTTPSignature = "http-signature"

// ErrMissing is wrapped when a request lacks what its service's signature covers.
var ErrMissing = httpsig.ErrMissing

var httpSignatureSettings = []Setting{
	{"components", `what is covered, such as @method @target-uri content-digest @query-param;name="id"`, true},
	{"algorithm", strings.Join(httpsig.Algorithms, ", "), true},
	{"optional", "what is covered besides where a request has it; content-digest where it has a body", false},
	{"params", "of created, expires, nonce, alg, keyid and tag those that the signature has, in this order (created keyid)", false},
	{"tag", "the text of tag", false},
	{"lifetime", "until expires, such as 60s (5m)", false},
	{"label", "of the signature (sig1)", false},
	{"digest", "of content-digest: sha-256 or sha-512 (sha-256)", false},
	{"key_id", "the key's id, where the secret is the private key in PEM and nothing else", false},
	{"key_encoding", "of a shared secret: raw, hex or base64 (raw)", false},
	{"place", "where a client that does not sign puts the handle: bearer, basic, header:NAME or query:KEY (bearer)", false},
}

// httpSignature is how one service has requests signed. The client's own signature, if
// it makes one, is replaced: all that counts of it is the handle in its keyid.
type httpSignature struct {
	v      *Vault
	scheme *httpsig.Scheme
	key    *httpsig.Key
	token  string // what stands where the handle stood; empty: nothing
}

// Format keeps the key from being printed.
func (*httpSignature) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

// CheckHTTPSignature looks at settings of kind http-signature as a service's description
// has them.
func CheckHTTPSignature(settings map[string]string) error {
	kind, err := kindOf(KindHTTPSignature)
	if err == nil {
		err = kind.checkSettings(settings)
	}
	if err == nil {
		_, err = kind.place(&Credential{Kind: KindHTTPSignature, Settings: settings})
	}
	return err
}

// httpSignatureScheme reads the settings.
func httpSignatureScheme(settings map[string]string) (*httpsig.Scheme, error) {
	o := httpsig.Options{
		Components: settings["components"], Optional: settings["optional"], Algorithm: settings["algorithm"], Label: settings["label"],
		Params: settings["params"], Tag: settings["tag"], Digest: settings["digest"],
	}
	if text := settings["lifetime"]; text != "" {
		var err error
		if o.Lifetime, err = time.ParseDuration(text); err != nil {
			return nil, fmt.Errorf("setting lifetime: %q is not a time such as 60s", text)
		}
	}
	s, err := httpsig.New(o)
	if err != nil {
		return nil, fmt.Errorf("the signature: %w", err)
	}
	return s, nil
}

// httpSignaturePlace is where the handle of a client stands that does not sign. The
// scheme is looked at too: the secret may be elsewhere, and is looked at when it is used.
func httpSignaturePlace(c *Credential) (Place, error) {
	if _, err := httpSignatureScheme(c.Settings); err != nil {
		return Place{}, err
	}
	text := c.Settings["place"]
	if text == "" {
		text = KindBearer
	}
	at, err := parsePlace(text)
	if err != nil {
		return Place{}, fmt.Errorf("setting place: %w", err)
	}
	switch at.kind {
	case KindBearer, KindBasic, KindHeader, KindQuery:
		return at, nil
	}
	return Place{}, fmt.Errorf("setting place: %q is not bearer, basic, header:NAME or query:KEY", text)
}

func openHTTPSignature(o *opening) (applier, error) {
	scheme, err := httpSignatureScheme(o.k.Settings)
	if err != nil {
		return nil, err
	}
	h := &httpSignature{v: o.v, scheme: scheme}
	id, material := o.setting("key_id"), o.secret
	if bytes.HasPrefix(bytes.TrimSpace(secret.Reveal(o.secret)), []byte("{")) {
		f, err := o.fields()
		if err != nil {
			return nil, err
		}
		if material, err = want(f, "private_key", "secret"); err != nil {
			return nil, err
		}
		if s := f["key_id"]; !s.Empty() {
			id = secret.Text(s)
		}
		if h.token = secret.Text(f["token"]); h.token != "" {
			if h.token, err = plainText(o.k.Service, f["token"]); err != nil {
				return nil, err
			}
		}
	}
	if id == "" && scheme.NamesKey() {
		return nil, fmt.Errorf("%w: the key's id is missing; say it with the setting key_id", ErrShape)
	}
	if scheme.Algorithm == httpsig.HMAC {
		key, err := decodeKey(o.setting("key_encoding"), secret.Reveal(material))
		if err != nil {
			return nil, err
		}
		material = secret.New(key)
	}
	if h.key, err = httpsig.NewKey(scheme.Algorithm, id, material); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShape, err)
	}
	return h, nil
}

// selfSigned looks at a request that is signed already (RFC 9421 section 4.1): each
// signature names the handle as its key, and is made anew; else it is a credential that
// somebody found.
func (v *Vault) selfSigned(p *Presented, r *Request, values []string) error {
	whole := strings.Join(values, ", ")
	ids, err := httpsig.KeyIDs(values)
	if err != nil || len(ids) == 0 {
		return v.foreign(p, r, whole)
	}
	rest := whole
	for _, id := range ids {
		if !IsHandle(id) {
			return v.foreign(p, r, whole)
		}
		rest = strings.ReplaceAll(rest, id, "")
	}
	if findToken(rest) {
		return fmt.Errorf("%w: the field Signature-Input", ErrProxyToken)
	}
	if findEncoded(rest) {
		return fmt.Errorf("%w: the field Signature-Input", ErrHandlePlace)
	}
	for _, id := range ids {
		if err := v.take(p, r, spot{place: Place{kind: KindHTTPSignature}, field: "Signature-Input", text: id}); err != nil {
			return err
		}
	}
	return nil
}

func (h *httpSignature) apply(_ context.Context, u *use) error {
	for i := range 1 + len(u.p.more) {
		at := &u.p.spot
		if i > 0 {
			at = &u.p.more[i-1]
		}
		if err := h.unhand(u, at); err != nil {
			return err
		}
	}
	delete(u.out.Header, "Signature")
	delete(u.out.Header, "Signature-Input")
	if err := h.digest(u); err != nil {
		return err
	}
	now := h.v.now()
	if always, _ := h.scheme.Covers("date"); always && len(u.out.Header["Date"]) == 0 {
		u.setField("Date", now.UTC().Format(http.TimeFormat))
	}
	input, signature, err := h.scheme.Sign(&httpsig.Request{
		Method: u.out.Target.Method, Scheme: u.out.Target.Scheme, Host: u.out.HostHeader, Path: u.out.Path, RawQuery: u.out.RawQuery, Header: u.out.Header, ContentLength: u.out.ContentLength,
	}, h.key, now)
	if err != nil {
		return err
	}
	u.setField("Signature-Input", input)
	u.setField("Signature", signature)
	return nil
}

// unhand takes the handle out of one place, or puts the token there that goes along
// with the signature.
func (h *httpSignature) unhand(u *use, at *spot) error {
	switch {
	case at.place.kind == KindHTTPSignature:
	case h.token != "":
		return u.writeAt(at, h.token)
	case at.place.kind == KindQuery:
		u.out.RawQuery = setQuery(u.out.RawQuery, at.place.name, "", true)
	case at.field == "":
		return ErrHandlePlace
	default:
		delete(u.out.Header, at.field)
	}
	return nil
}

// digest writes Content-Digest (RFC 9530) where the signature covers it. A body that is
// too long to be read before it is sent passes where the client gave its digest: it is
// held against what is sent.
func (h *httpSignature) digest(u *use) error {
	always, perhaps := h.scheme.Covers("content-digest")
	lengthAlways, lengthPerhaps := h.scheme.Covers("content-length")
	some := len(u.out.Head) > 0 || u.out.Tail != nil
	if !always && !(perhaps && some) {
		if some && u.out.ContentLength < 0 && (lengthAlways || lengthPerhaps) {
			return u.readWhole()
		}
		if perhaps {
			delete(u.out.Header, "Content-Digest")
		}
		return nil
	}
	given, told := h.scheme.GivenDigest(u.out.Header["Content-Digest"])
	sum := h.scheme.NewDigest()
	if told && u.out.Tail != nil && (u.out.ContentLength > maxSigned || u.out.ContentLength < 0 && !lengthAlways) {
		sum.Write(u.out.Head)
		u.out.Tail, u.out.Rewritten = &digested{u.out.Tail, sum, given}, true
		u.setField("Content-Digest", h.scheme.ContentDigest(given))
		return nil
	}
	if err := u.readWhole(); err != nil {
		return err
	}
	sum.Write(u.out.Head)
	u.setField("Content-Digest", h.scheme.ContentDigest(sum.Sum(nil)))
	return nil
}

// digested is the rest of a body, which fails at its end where it is another than its
// digest says.
type digested struct {
	io.Reader
	sum  hash.Hash
	want []byte
}

var errDigest = errors.New("its Content-Digest is another body's")

func (d *digested) Read(b []byte) (int, error) {
	n, err := d.Reader.Read(b)
	d.sum.Write(b[:n])
	if err == io.EOF && subtle.ConstantTimeCompare(d.sum.Sum(nil), d.want) != 1 {
		return n, fmt.Errorf("%w: %w", ErrBody, errDigest)
	}
	return n, err
}
