// Package httpsig signs HTTP requests as RFC 9421 describes.
package httpsig

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// Options declare how a service has requests signed: all of it is the service's, and
// nothing the signed request's.
type Options struct {
	Components string // what is covered, with spaces between: @method @target-uri content-digest
	Optional   string // what is covered besides where a request has it
	Algorithm  string // of the registry of section 6.2
	Label      string // sig1 when empty
	Params     string // of section 2.3, in this order; "created keyid" when empty
	Tag        string // where Params has it
	Lifetime   time.Duration
	Digest     string // of Content-Digest (RFC 9530): sha-256 or sha-512; sha-256 when empty
}

// DefaultLifetime is for how long a signature is good where Params has expires.
const DefaultLifetime = 5 * time.Minute

// Scheme is a service's way to have requests signed. It is safe for concurrent use.
type Scheme struct {
	Algorithm string
	covered   []component
	label     string
	params    []string
	tag       string // as a structured field
	lifetime  time.Duration
	digest    string
}

// params are those of section 2.3.
var params = []string{"created", "expires", "nonce", "alg", "keyid", "tag"}

// New reads a declaration.
func New(o Options) (*Scheme, error) {
	s := &Scheme{Algorithm: o.Algorithm, label: o.Label, lifetime: o.Lifetime, digest: o.Digest, params: strings.Fields(o.Params)}
	if !slices.Contains(Algorithms, o.Algorithm) {
		return nil, fmt.Errorf("algorithm %q is not known; the algorithms are %s", o.Algorithm, strings.Join(Algorithms, ", "))
	}
	if s.label == "" {
		s.label = "sig1"
	}
	if _, err := httpsfv.UnmarshalDictionary([]string{s.label + "=()"}); err != nil {
		return nil, fmt.Errorf("label %q is not of lower-case letters, digits and _-.*, with a letter first", s.label)
	}
	if len(s.params) == 0 {
		s.params = []string{"created", "keyid"}
	}
	for i, p := range s.params {
		if !slices.Contains(params, p) || slices.Contains(s.params[:i], p) {
			return nil, fmt.Errorf("parameter %q is not one of %s, each once", p, strings.Join(params, ", "))
		}
	}
	if slices.Contains(s.params, "tag") != (o.Tag != "") {
		return nil, errors.New("the tag, and tag among the parameters, go together")
	}
	var err error
	if s.tag, err = quoted(o.Tag); err != nil {
		return nil, fmt.Errorf("tag: %w", err)
	}
	switch {
	case s.lifetime == 0:
		s.lifetime = DefaultLifetime
	case s.lifetime < time.Second || s.lifetime > time.Hour:
		return nil, fmt.Errorf("a lifetime of %v is not between 1s and 1h", s.lifetime)
	}
	if s.digest == "" {
		s.digest = "sha-256"
	}
	if s.digest != "sha-256" && s.digest != "sha-512" {
		return nil, fmt.Errorf("digest %q is not sha-256 or sha-512", s.digest)
	}
	return s, s.cover(o)
}

// cover reads which components are covered.
func (s *Scheme) cover(o Options) error {
	always, err := parseComponents(o.Components)
	if err != nil {
		return err
	}
	perhaps, err := parseComponents(o.Optional)
	if err != nil {
		return err
	}
	for i := range perhaps {
		perhaps[i].optional = true
	}
	s.covered = append(always, perhaps...)
	for i := range s.covered {
		if slices.ContainsFunc(s.covered[:i], func(c component) bool { return c.id == s.covered[i].id }) {
			return fmt.Errorf("component %s stands twice", s.covered[i].id)
		}
	}
	return nil
}

// Covers reports whether the signature covers a field, always or where a request has
// it.
func (s *Scheme) Covers(field string) (always, perhaps bool) {
	for i := range s.covered {
		if c := &s.covered[i]; c.name == field {
			always, perhaps = always || !c.optional, perhaps || c.optional
		}
	}
	return always, perhaps
}

// NamesKey reports whether the signature says whose key it is of.
func (s *Scheme) NamesKey() bool { return slices.Contains(s.params, "keyid") }

// NewDigest is a hash as the scheme has it in Content-Digest.
func (s *Scheme) NewDigest() hash.Hash {
	if s.digest == "sha-512" {
		return sha512.New()
	}
	return sha256.New()
}

// ContentDigest is a digest as the field Content-Digest has it (RFC 9530 section 2).
func (s *Scheme) ContentDigest(sum []byte) string {
	return s.digest + "=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

// GivenDigest returns the digest that a request has in its Content-Digest, if it has one
// of the scheme's.
func (s *Scheme) GivenDigest(values []string) ([]byte, bool) {
	d, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return nil, false
	}
	m, ok := d.Get(s.digest)
	if !ok {
		return nil, false
	}
	item, ok := m.(httpsfv.Item)
	if !ok {
		return nil, false
	}
	sum, ok := item.Value.([]byte)
	return sum, ok && len(sum) == s.NewDigest().Size()
}

// Request is what of a request can be signed. Field names are canonical.
type Request struct {
	Method, Scheme, Host, Path, RawQuery string
	Header                               http.Header
	ContentLength                        int64 // -1: not known
}

// ErrMissing is wrapped when a request lacks what its signature covers.
var ErrMissing = errors.New("the request lacks what its signature covers")

// Sign returns the values of the fields Signature-Input and Signature.
func (s *Scheme) Sign(r *Request, k *Key, now time.Time) (input, signature string, err error) {
	base, list, err := s.base(r, k, now)
	if err != nil {
		return "", "", err
	}
	sum, err := k.sign(base)
	if err != nil {
		return "", "", errors.New("signing a request: the key does not sign")
	}
	return s.label + "=" + string(list), s.label + "=:" + base64.StdEncoding.EncodeToString(sum) + ":", nil
}

// base is what is signed, and the last of its lines alone (section 2.5).
func (s *Scheme) base(r *Request, k *Key, now time.Time) (base, list []byte, err error) {
	base, list = make([]byte, 0, 1024), append(make([]byte, 0, 512), '(')
	for i := range s.covered {
		c := &s.covered[i]
		value, ok, err := c.value(r)
		switch {
		case err != nil:
			return nil, nil, err
		case !ok && c.optional:
			continue
		case !ok:
			return nil, nil, fmt.Errorf("%w: %s", ErrMissing, c.id)
		}
		if len(list) > 1 {
			list = append(list, ' ')
		}
		list = append(list, c.id...)
		base = append(append(append(append(base, c.id...), ": "...), value...), '\n')
	}
	list = s.appendParams(append(list, ')'), k, now)
	return append(append(base, `"@signature-params": `...), list...), list, nil
}

func (s *Scheme) appendParams(b []byte, k *Key, now time.Time) []byte {
	for _, p := range s.params {
		b = append(append(append(b, ';'), p...), '=')
		switch p {
		case "created":
			b = strconv.AppendInt(b, now.Unix(), 10)
		case "expires":
			b = strconv.AppendInt(b, now.Add(s.lifetime).Unix(), 10)
		case "nonce":
			b = append(append(append(b, '"'), rand.Text()...), '"')
		case "alg":
			b = append(append(append(b, '"'), s.Algorithm...), '"')
		case "keyid":
			b = append(b, k.id...)
		case "tag":
			b = append(b, s.tag...)
		}
	}
	return b
}

// quoted is a text as a string of structured fields (RFC 9651 section 4.1.6).
func quoted(text string) (string, error) {
	out, err := httpsfv.Marshal(httpsfv.NewItem(text))
	if err != nil {
		return "", fmt.Errorf("%q has other characters than those of ASCII that print", text)
	}
	return out, nil
}
