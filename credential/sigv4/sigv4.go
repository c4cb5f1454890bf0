// Package sigv4 verifies and makes AWS Signature Version 4 signatures
// (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"chaperone/credential/internal/secret"
)

// Scheme is the scheme of Authorization.
const Scheme = "AWS4-HMAC-SHA256"

// Payloads that are not the hash of a body.
const (
	Unsigned        = "UNSIGNED-PAYLOAD"
	UnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	Chunks          = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	ChunksTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
)

var (
	// ErrForm is wrapped when a request carries no signature that can be read.
	ErrForm = errors.New("the signature cannot be read")
	// ErrMismatch is returned when a signature is not the one that the key makes.
	ErrMismatch = errors.New("the signature is not the key's")
)

// Keys sign.
type Keys struct {
	ID     string
	Secret secret.Secret
	Token  secret.Secret // of temporary keys
}

// Request is what is signed. Header names are canonical.
type Request struct {
	Method        string
	Host          string // as it goes out
	Path          string // escaped, as it goes out
	RawQuery      string
	Header        http.Header
	ContentLength int64
}

// Signature is one that a request carries.
type Signature struct {
	KeyID     string
	Time      time.Time
	Region    string
	Service   string
	Signed    []string // names of the fields, in lower case and in order
	Value     string   // hex
	Presigned bool     // in the query
	Lifetime  time.Duration
	Payload   string // as the request says; empty: it does not say

	stamp string // the time as it is written
	date  string
	again bool // the path is escaped again, whatever the service
}

const stampForm = "20060102T150405Z"

// Parse reads the signature in Authorization.
func Parse(r *Request) (*Signature, error) {
	scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if scheme != Scheme {
		return nil, fmt.Errorf("%w: the scheme is not %s", ErrForm, Scheme)
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := parts[name]; twice {
			return nil, fmt.Errorf("%w: %s stands twice", ErrForm, name)
		}
		parts[name] = value
	}
	s := &Signature{Value: parts["Signature"], Payload: r.Header.Get("X-Amz-Content-Sha256"), stamp: r.Header.Get("X-Amz-Date")}
	return s, s.read(parts["Credential"], parts["SignedHeaders"])
}

// ParseQuery reads the signature in the query of a presigned URL.
func ParseQuery(r *Request) (*Signature, error) {
	q, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: the query cannot be read", ErrForm)
	}
	for name, values := range q {
		if len(values) > 1 && strings.HasPrefix(name, "X-Amz-") {
			return nil, fmt.Errorf("%w: %s stands twice", ErrForm, name)
		}
	}
	seconds, err := strconv.Atoi(q.Get("X-Amz-Expires"))
	if err != nil || seconds < 1 || seconds > 7*24*3600 || q.Get("X-Amz-Algorithm") != Scheme {
		return nil, fmt.Errorf("%w: X-Amz-Expires or X-Amz-Algorithm", ErrForm)
	}
	s := &Signature{Value: q.Get("X-Amz-Signature"), Presigned: true, Payload: r.Header.Get("X-Amz-Content-Sha256"), stamp: q.Get("X-Amz-Date"), Lifetime: time.Duration(seconds) * time.Second}
	return s, s.read(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"))
}

func (s *Signature) read(credential, signed string) error {
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[4] != "aws4_request" || slices.Contains(scope, "") {
		return fmt.Errorf("%w: its scope", ErrForm)
	}
	var err error
	if s.Time, err = time.Parse(stampForm, s.stamp); err != nil {
		return fmt.Errorf("%w: X-Amz-Date", ErrForm)
	}
	s.KeyID, s.date, s.Region, s.Service = scope[0], scope[1], scope[2], scope[3]
	if s.date != s.stamp[:8] {
		return fmt.Errorf("%w: its dates differ", ErrForm)
	}
	s.Signed = strings.Split(signed, ";")
	if !slices.Contains(s.Signed, "host") || !slices.IsSorted(s.Signed) || slices.ContainsFunc(s.Signed, notAField) {
		return fmt.Errorf("%w: its list of fields", ErrForm)
	}
	if b, err := hex.DecodeString(s.Value); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("%w: it is not a SHA-256 in hexadecimal digits", ErrForm)
	}
	return nil
}

// notAField reports whether a name cannot be that of a field, in lower case: one with
// a line break in it would part the text that is signed elsewhere.
func notAField(name string) bool {
	return name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") != ""
}

// Verify returns [ErrMismatch] unless the key made the signature over r with this
// payload. It remembers in which of the two ways the path was escaped.
func (s *Signature) Verify(r *Request, key secret.Secret, payload string) error {
	for _, again := range []bool{false, true} {
		s.again = again
		if subtle.ConstantTimeCompare([]byte(s.over(r, key, payload)), []byte(s.Value)) == 1 {
			return nil
		}
	}
	return ErrMismatch
}

// Resign puts another key's signature in the place of the one that was verified, over
// the same fields, and returns it.
func (s *Signature) Resign(r *Request, k Keys, payload string) string {
	own := *s
	own.KeyID = k.ID
	own.Signed = slices.Clone(s.Signed)
	if s.Presigned {
		r.RawQuery = own.presign(r, k)
		own.Value = own.over(r, k.Secret, payload)
		r.RawQuery += "&X-Amz-Signature=" + own.Value
		return own.Value
	}
	if !k.Token.Empty() {
		r.Header["X-Amz-Security-Token"] = []string{secret.Text(k.Token)}
		if i, found := slices.BinarySearch(own.Signed, "x-amz-security-token"); !found {
			own.Signed = slices.Insert(own.Signed, i, "x-amz-security-token")
		}
	}
	own.Value = own.over(r, k.Secret, payload)
	r.Header["Authorization"] = []string{Scheme + " Credential=" + k.ID + "/" + own.scope() + ", SignedHeaders=" + strings.Join(own.Signed, ";") + ", Signature=" + own.Value}
	return own.Value
}

// presign is the query with another key in it and without a signature.
func (s *Signature) presign(r *Request, k Keys) string {
	var kept []string
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		switch name, _, _ := strings.Cut(pair, "="); name {
		case "X-Amz-Signature", "X-Amz-Security-Token":
		case "X-Amz-Credential":
			kept = append(kept, name+"="+url.QueryEscape(k.ID+"/"+s.scope()))
		case "X-Amz-Expires":
			kept = append(kept, name+"="+strconv.Itoa(int(s.Lifetime/time.Second)))
		default:
			kept = append(kept, pair)
		}
	}
	if !k.Token.Empty() {
		kept = append(kept, "X-Amz-Security-Token="+url.QueryEscape(secret.Text(k.Token)))
	}
	return strings.Join(kept, "&")
}

// New signs a request that carries no signature yet: its host, and the fields that
// begin with X-Amz- or are Content-Type.
func New(r *Request, k Keys, region, service string, body []byte, now time.Time) {
	stamp := now.UTC().Format(stampForm)
	r.Header["X-Amz-Date"] = []string{stamp}
	s := &Signature{Region: region, Service: service, stamp: stamp, date: stamp[:8], Signed: []string{"host"}}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") || name == "Content-Type" {
			s.Signed = append(s.Signed, strings.ToLower(name))
		}
	}
	slices.Sort(s.Signed)
	s.Resign(r, k, Hash(body))
}

// Hash is a body's hash as signatures have it.
func Hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (s *Signature) scope() string {
	return s.date + "/" + s.Region + "/" + s.Service + "/aws4_request"
}

// over is the signature that a key makes.
func (s *Signature) over(r *Request, key secret.Secret, payload string) string {
	text := Scheme + "\n" + s.stamp + "\n" + s.scope() + "\n" + Hash([]byte(s.canonical(r, payload)))
	return hex.EncodeToString(sum(s.signingKey(key), text))
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// signingKey is the key of one day, region and service.
func (s *Signature) signingKey(key secret.Secret) []byte {
	k := sum(append([]byte("AWS4"), secret.Reveal(key)...), s.date)
	return sum(sum(sum(k, s.Region), s.Service), "aws4_request")
}

// canonical is the request as it is signed.
func (s *Signature) canonical(r *Request, payload string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + s.path(r.Path) + "\n" + canonicalQuery(r.RawQuery) + "\n")
	for _, name := range s.Signed {
		b.WriteString(name + ":" + r.value(name) + "\n")
	}
	b.WriteString("\n" + strings.Join(s.Signed, ";") + "\n" + payload)
	return b.String()
}

// path is the path as it is signed: as it goes out for S3, and escaped once more for
// all other services. Where a client escaped less than it signed, as it ought to be.
func (s *Signature) path(p string) string {
	if s.Service == "s3" || strings.HasPrefix(s.Service, "s3-") || s.Service == "s3express" {
		if !s.again {
			return p
		}
		if plain, err := url.PathUnescape(p); err == nil {
			return escape(plain, true)
		}
		return p
	}
	if s.again {
		return p
	}
	return escape(p, true)
}

// value is a field as it is signed: its values with commas between, and no more than
// one space in a row.
func (r *Request) value(name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		if r.ContentLength >= 0 {
			return strconv.FormatInt(r.ContentLength, 10)
		}
	}
	values := r.Header[http.CanonicalHeaderKey(name)]
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' }), " ")
	}
	return strings.Join(out, ",")
}

// canonicalQuery sorts parameters and escapes them in the one way that is signed. The
// signature itself is left out.
func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	type pair struct{ name, value string }
	var pairs []pair
	for text := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(text, "=")
		if text == "" || name == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, pair{reescape(name), reescape(value)})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = p.name + "=" + p.value
	}
	return strings.Join(out, "&")
}

func reescape(s string) string {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return escape(plain, false)
}

// escape percent-encodes all but RFC 3986's unreserved characters, and slashes where
// they part segments.
func escape(s string, slashes bool) string {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/' && slashes:
			out = append(out, c)
		default:
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(out)
}
