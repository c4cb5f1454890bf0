package credential

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" // RFC 5849 section 3.4.2: most services that are left speak no other
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"chaperone/credential/internal/secret"
)

// oauth1 signs requests as RFC 5849 describes. The agent's own signature is made with
// stand-ins and is thrown away; its handle stands where the consumer key or the token
// does, and is what counts.
type oauth1 struct {
	v                                  *Vault
	key, keySecret, token, tokenSecret string
	method                             string
	hash                               func() hash.Hash
}

// Format keeps the secrets from being printed.
func (*oauth1) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

func openOAuth1(o *opening) (applier, error) {
	f, err := o.fields()
	if err != nil {
		return nil, err
	}
	key, err := want(f, "consumer_key")
	if err != nil {
		return nil, err
	}
	keySecret, err := want(f, "consumer_secret")
	if err != nil {
		return nil, err
	}
	a := &oauth1{v: o.v, key: secret.Text(key), keySecret: secret.Text(keySecret), token: secret.Text(f["token"]), tokenSecret: secret.Text(f["token_secret"])}
	switch a.method = o.setting("signature_method"); a.method {
	case "", "HMAC-SHA1":
		a.method, a.hash = "HMAC-SHA1", sha1.New
	case "HMAC-SHA256":
		a.hash = sha256.New
	default:
		return nil, fmt.Errorf("setting signature_method: %q is not HMAC-SHA1 or HMAC-SHA256", a.method)
	}
	return a, nil
}

// oauth1Params reads the parameters of Authorization: OAuth (RFC 5849 section 3.5.1).
func oauth1Params(value string) (map[string]string, error) {
	out := map[string]string{}
	for part := range strings.SplitSeq(value, ",") {
		name, quoted, ok := strings.Cut(strings.TrimSpace(part), "=")
		text, err := url.PathUnescape(strings.Trim(quoted, `"`))
		if _, twice := out[name]; !ok || err != nil || twice {
			return nil, fmt.Errorf("%w: the parameters of OAuth cannot be read", ErrForeignCredential)
		}
		out[name] = text
	}
	return out, nil
}

// oauth1Signed looks at a request that is signed by OAuth 1.0a.
func (v *Vault) oauth1Signed(p *Presented, r *Request, value string) error {
	params, err := oauth1Params(value)
	if err != nil {
		return err
	}
	key, token := params["oauth_consumer_key"], params["oauth_token"]
	handle := key
	if !IsHandle(key) && IsHandle(token) {
		handle = token
	}
	if err := v.take(p, r, spot{place: Place{kind: KindOAuth1}, field: "Authorization", text: handle}); err != nil || p.handle == nil {
		return err
	}
	for name, text := range params {
		if text != handle && (findToken(text) || findEncoded(text)) {
			return fmt.Errorf("%w: %s", ErrHandlePlace, name)
		}
	}
	p.signed = &signed{oauth1: params}
	if bodyForm(r.Header) == "form" && r.Body != nil {
		body, err := r.Body.WholeBody(maxSigned)
		if err != nil {
			return err
		}
		p.signed.form = string(body)
	}
	return nil
}

// carriedOver are the parameters of the agent's that are signed again: they belong to
// steps of the protocol, and are no secrets.
var carriedOver = [...]string{"oauth_callback", "oauth_verifier", "realm"}

func (a *oauth1) apply(_ context.Context, u *use) error {
	if u.p.signed == nil || u.p.signed.oauth1 == nil {
		return ErrHandlePlace
	}
	now := a.v.now()
	params := map[string]string{
		"oauth_consumer_key": a.key, "oauth_nonce": random(22), "oauth_signature_method": a.method,
		"oauth_timestamp": strconv.FormatInt(now.Unix(), 10), "oauth_version": "1.0",
	}
	if a.token != "" {
		params["oauth_token"] = a.token
	}
	for _, name := range carriedOver {
		if text, ok := u.p.signed.oauth1[name]; ok {
			params[name] = text
		}
	}
	signature, err := a.sign(u, params)
	if err != nil {
		return err
	}
	params["oauth_signature"] = signature
	list := make([]string, 0, len(params))
	for name, text := range params {
		list = append(list, name+`="`+rfc3986(text)+`"`)
	}
	slices.Sort(list)
	u.setField("Authorization", "OAuth "+strings.Join(list, ", "))
	return nil
}

// sign makes the signature over method, address and all parameters (RFC 5849 section
// 3.4.1).
func (a *oauth1) sign(u *use, params map[string]string) (string, error) {
	var all []string
	add := func(name, text string) { all = append(all, rfc3986(name)+"="+rfc3986(text)) }
	for name, text := range params {
		if name != "realm" {
			add(name, text)
		}
	}
	for _, raw := range []string{u.out.RawQuery, u.p.signed.form} {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return "", fmt.Errorf("%w: its parameters cannot be read", ErrSignature)
		}
		for name, values := range q {
			for _, text := range values {
				add(name, text)
			}
		}
	}
	slices.Sort(all)
	t := u.out.Target
	base := t.Method + "&" + rfc3986(t.Scheme+"://"+strings.ToLower(u.out.HostHeader)+u.out.Path) + "&" + rfc3986(strings.Join(all, "&"))
	h := hmac.New(a.hash, []byte(rfc3986(a.keySecret)+"&"+rfc3986(a.tokenSecret)))
	h.Write([]byte(base))
	return base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

// rfc3986 percent-encodes all but unreserved characters (RFC 5849 section 3.6).
func rfc3986(s string) string {
	n := 0
	for i := range len(s) {
		if !unreserved(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unreserved(c) {
			out = append(out, c)
		} else {
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(out)
}

func unreserved(c byte) bool {
	return alphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~'
}
