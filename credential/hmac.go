package credential

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" // services that were built with it are still there
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"chaperone/credential/internal/secret"
)

// KindHMAC signs requests by a scheme that the credential's settings declare.
const KindHMAC = "hmac"

// hmacScheme is one vendor's way to sign: a text made of the request, a hash over it,
// and the fields or parameters into which both go. All of it is the operator's: an
// agent chooses none of the text but by the request that it was allowed to make.
type hmacScheme struct {
	v      *Vault
	id     string
	key    []byte
	hash   func() hash.Hash
	encode func([]byte) string
	text   string // with {…} in it
	set    map[Place]string
	body   bool   // some of it is made of the body
	format string // of {timestamp}
}

// Format keeps the key from being printed.
func (*hmacScheme) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

// parts are what a scheme may be made of.
var parts = []string{"{method}", "{host}", "{path}", "{query}", "{target}", "{body}", "{body_hash}", "{timestamp}", "{nonce}", "{key}"}

// CheckHMAC looks at settings of kind hmac as a service's description has them.
func CheckHMAC(settings map[string]string) error {
	c := Credential{Kind: KindHMAC, Settings: settings}
	kind, err := kindOf(KindHMAC)
	if err == nil {
		err = kind.checkSettings(settings)
	}
	if err == nil {
		_, err = kind.place(&c)
	}
	if err == nil {
		_, err = openHMAC(&opening{k: &kept{Credential: c}, secret: NewSecret([]byte(`{"key_id":"id","secret":"0000"}`))})
	}
	return err
}

var hmacSettings = []Setting{
	{"string", "what is signed, made of " + strings.Join(parts, " ") + "; \\n is a line break", true},
	{"set", "where it goes, such as header:X-Key={key},header:X-Time={timestamp},header:X-Sign={signature}", true},
	{"hash", "sha256, sha512 or sha1 (sha256)", false},
	{"encoding", "of the signature: hex or base64 (hex)", false},
	{"key_encoding", "of the secret: raw, hex or base64 (raw)", false},
	{"timestamp", "seconds, milliseconds or rfc3339 (seconds)", false},
	{"place", "where the client puts the handle; the place of {key} when left out", false},
}

func openHMAC(o *opening) (applier, error) {
	f, err := o.fields()
	if err != nil {
		return nil, err
	}
	key, err := want(f, "secret")
	if err != nil {
		return nil, err
	}
	h := &hmacScheme{v: o.v, id: secret.Text(f["key_id"]), text: strings.ReplaceAll(o.setting("string"), `\n`, "\n"), format: o.setting("timestamp"), set: map[Place]string{}}
	if h.key, err = decodeKey(o.setting("key_encoding"), secret.Reveal(key)); err != nil {
		return nil, err
	}
	switch o.setting("hash") {
	case "", "sha256":
		h.hash = sha256.New
	case "sha512":
		h.hash = sha512.New
	case "sha1":
		h.hash = sha1.New
	default:
		return nil, fmt.Errorf("setting hash: %q is not sha256, sha512 or sha1", o.setting("hash"))
	}
	switch o.setting("encoding") {
	case "", "hex":
		h.encode = hex.EncodeToString
	case "base64":
		h.encode = base64.StdEncoding.EncodeToString
	default:
		return nil, fmt.Errorf("setting encoding: %q is not hex or base64", o.setting("encoding"))
	}
	h.body = strings.Contains(h.text+o.setting("set"), "{body")
	return h, h.places(o.setting("set"))
}

func decodeKey(encoding string, key []byte) (out []byte, err error) {
	switch encoding {
	case "", "raw":
		return key, nil
	case "hex":
		out, err = hex.DecodeString(string(key))
	case "base64":
		out, err = base64.StdEncoding.DecodeString(string(key))
	default:
		return nil, fmt.Errorf("setting key_encoding: %q is not raw, hex or base64", encoding)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the secret is not in %s", ErrShape, encoding)
	}
	return out, nil
}

// places reads where key, times and signature go.
func (h *hmacScheme) places(text string) error {
	if err := onlyParts(h.text, parts); err != nil {
		return fmt.Errorf("setting string: %w", err)
	}
	signed := false
	for item := range strings.SplitSeq(text, ",") {
		where, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		at, err := parsePlace(where)
		if err != nil || !ok || at.kind != KindHeader && at.kind != KindQuery {
			return fmt.Errorf("setting set: %q is not header:NAME=… or query:KEY=…", item)
		}
		if err := onlyParts(value, append(parts, "{signature}")); err != nil {
			return fmt.Errorf("setting set: %w", err)
		}
		signed = signed || strings.Contains(value, "{signature}")
		h.set[at] = value
	}
	if !signed {
		return fmt.Errorf("setting set: the signature goes nowhere; write {signature}")
	}
	return nil
}

func onlyParts(text string, known []string) error {
	for _, p := range known {
		text = strings.ReplaceAll(text, p, "")
	}
	if strings.ContainsAny(text, "{}") {
		return fmt.Errorf("%q has a part that is not known", text)
	}
	return nil
}

// hmacPlace is where the handle stands: where the key's id goes.
func hmacPlace(c *Credential) (Place, error) {
	if text := c.Settings["place"]; text != "" {
		return parsePlace(text)
	}
	for item := range strings.SplitSeq(c.Settings["set"], ",") {
		if where, value, _ := strings.Cut(strings.TrimSpace(item), "="); strings.Contains(value, "{key}") {
			return parsePlace(where)
		}
	}
	return Place{}, fmt.Errorf("setting set: {key} goes nowhere, so there is no place for a handle; say it with the setting place")
}

func (h *hmacScheme) apply(_ context.Context, u *use) error {
	values, err := h.values(u)
	if err != nil {
		return err
	}
	if err := u.write(h.id); err != nil { // the handle goes, whatever comes in its place
		return err
	}
	if k := u.p.place; h.set[k] == "" {
		u.remove(k)
	}
	query := u.out.RawQuery
	for at, value := range h.set {
		if at.kind == KindQuery {
			query = setQuery(query, at.name, "", true)
		} else {
			u.setField(at.name, fill(value, values))
		}
	}
	values["{query}"] = query
	values["{target}"] = u.out.Path
	if query != "" {
		values["{target}"] += "?" + query
	}
	mac := hmac.New(h.hash, h.key)
	mac.Write([]byte(fill(h.text, values)))
	values["{signature}"] = h.encode(mac.Sum(nil))
	for at, value := range h.set {
		text := fill(value, values)
		if at.kind == KindQuery {
			query = setQuery(query, at.name, text, false)
		} else {
			u.setField(http.CanonicalHeaderKey(at.name), text)
		}
	}
	u.out.RawQuery = query
	return nil
}

// values are the parts of this request. The body is looked at only where the scheme has
// it.
func (h *hmacScheme) values(u *use) (map[string]string, error) {
	now := h.v.now()
	stamp := strconv.FormatInt(now.Unix(), 10)
	switch h.format {
	case "milliseconds":
		stamp = strconv.FormatInt(now.UnixMilli(), 10)
	case "rfc3339":
		stamp = now.UTC().Format(time.RFC3339)
	}
	v := map[string]string{
		"{method}": u.out.Target.Method, "{host}": u.out.HostHeader, "{path}": u.out.Path, "{timestamp}": stamp, "{nonce}": random(22), "{key}": h.id,
	}
	if h.body {
		if err := u.readWhole(); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(u.out.Head)
		v["{body}"], v["{body_hash}"] = string(u.out.Head), hex.EncodeToString(sum[:])
	}
	return v, nil
}

// readWhole reads the rest of the body, so that it can be signed.
func (u *use) readWhole() error {
	if u.out.Tail == nil {
		return nil
	}
	if u.out.ContentLength > maxSigned {
		return errLong
	}
	rest, err := io.ReadAll(io.LimitReader(u.out.Tail, maxSigned+1))
	if err != nil {
		return fmt.Errorf("%w: the body ends early", ErrBody)
	}
	if len(u.out.Head)+len(rest) > maxSigned {
		return errLong
	}
	u.out.Head, u.out.Tail, u.out.Rewritten = append(slices.Clone(u.out.Head), rest...), nil, true
	u.out.ContentLength = int64(len(u.out.Head))
	return nil
}

// remove takes what stands in a place away.
func (u *use) remove(at Place) {
	switch at.kind {
	case KindQuery:
		u.out.RawQuery = setQuery(u.out.RawQuery, at.name, "", true)
	case KindHeader, KindBearer, KindBasic:
		delete(u.out.Header, u.p.field)
	}
}

var (
	// ErrBody is wrapped when a body cannot be read that is signed.
	ErrBody = errors.New("the body cannot be signed")
	// ErrBodyLong is wrapped when a body is too long to be read before it is sent.
	ErrBodyLong = errors.New("the body is too long to be signed")
	errLong     = fmt.Errorf("%w: it is longer than %d bytes", ErrBodyLong, maxSigned)
)

func fill(text string, values map[string]string) string {
	var b strings.Builder
	for text != "" {
		i := strings.IndexByte(text, '{')
		if i < 0 {
			break
		}
		end := strings.IndexByte(text[i:], '}')
		b.WriteString(text[:i])
		b.WriteString(values[text[i:i+end+1]])
		text = text[i+end+1:]
	}
	return b.String() + text
}

// setQuery puts a parameter at the end of a query, in the place of one of that name.
func setQuery(raw, name, value string, away bool) string {
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(key); pair != "" && (err != nil || plain != name) {
			kept = append(kept, pair)
		}
	}
	if !away {
		kept = append(kept, url.QueryEscape(name)+"="+url.QueryEscape(value))
	}
	return strings.Join(kept, "&")
}
