package credential

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// signingKey is a private key in PEM, and what its signatures are verified with.
func signingKey(t testing.TB) (string, ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), public
}

// holds reports whether the one signature of a request is over these lines.
func holds(t *testing.T, h http.Header, public ed25519.PublicKey, lines string) bool {
	t.Helper()
	input, ok := strings.CutPrefix(h.Get("Signature-Input"), "sig1=")
	signature, err := base64.StdEncoding.DecodeString(strings.Trim(strings.TrimPrefix(h.Get("Signature"), "sig1=:"), ":"))
	return ok && err == nil && len(h["Signature"]) == 1 && len(h["Signature-Input"]) == 1 &&
		ed25519.Verify(public, []byte(lines+`"@signature-params": `+input), signature)
}

// signs are settings of a scheme that covers the body.
var signs = map[string]string{"components": "@method @target-uri", "optional": "content-digest", "algorithm": "ed25519", "key_id": "acme-1"}

func sha(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// TestHTTPSignature has a handle presented in each way that clients have, and the request
// signed in its place.
func TestHTTPSignature(t *testing.T) {
	b := vault(t)
	key, public := signingKey(t)
	h := b.with(t, Credential{ID: "sig", Kind: KindHTTPSignature, Settings: signs}, key)
	const body = `{"hello": "world"}`
	lines := "\"@method\": POST\n\"@target-uri\": https://api.acme.dev/repos/acme/web?a=1\n\"content-digest\": " + sha(body) + "\n"
	self := func(keyid string) []string { return []string{`me=("@method");created=1;keyid="` + keyid + `"`} }
	for name, header := range map[string]http.Header{
		"of a client that does not sign":         {"Authorization": {"Bearer " + h}},
		"the keyid of its own signature":         {"Signature-Input": self(h), "Signature": {"me=:AAAA:"}},
		"both":                                   {"Signature-Input": self(h), "Signature": {"me=:AAAA:"}, "Authorization": {"Bearer " + h}},
		"two signatures":                         {"Signature-Input": {self(h)[0], `b=();keyid="` + h + `"`}, "Signature": {"me=:AAAA:, b=:AAAA:"}},
		"a signature without what it is of":      {"Authorization": {"Bearer " + h}, "Signature": {"sig1=:AAAA:"}},
		"a digest of the agent's that is untrue": {"Authorization": {"Bearer " + h}, "Content-Digest": {"sha-256=:AAAA:, md5=:AAAA:"}},
	} {
		r := b.acme(t)
		r.Header, r.RawQuery = header, "a=1"
		out, err := b.post(t, r, body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !holds(t, out.Header, public, lines) || out.Header.Get("Content-Digest") != sha(body) || string(out.Head) != body || out.Header["Authorization"] != nil {
			t.Errorf("%s: sent %v", name, out.Header)
		}
		if s := fmt.Sprint(out.Header); !strings.Contains(s, `keyid="acme-1"`) || strings.Contains(s, h) || strings.Contains(s, "AAAA") {
			t.Errorf("%s: sent %s", name, s)
		}
	}
	theirs := b.handle["theirs"]
	for name, tc := range map[string]struct {
		header http.Header
		want   error
	}{
		"a key that the agent found":          {http.Header{"Signature-Input": self("acme-1"), "Signature": {"me=:AAAA:"}}, ErrForeignCredential},
		"that key beside the handle":          {http.Header{"Signature-Input": self("acme-1"), "Authorization": {"Bearer " + h}}, ErrForeignCredential},
		"a signature that names no key":       {http.Header{"Signature-Input": {`me=();created=1`}}, ErrForeignCredential},
		"one of two":                          {http.Header{"Signature-Input": {self(h)[0] + `, b=();keyid="x"`}}, ErrHandlePlace},
		"what cannot be read":                 {http.Header{"Signature-Input": {`me=(`}}, ErrForeignCredential},
		"a handle in its nonce":               {http.Header{"Signature-Input": {self(h)[0] + `;nonce="` + h + `x` + theirs + `"`}}, ErrHandlePlace},
		"another session's":                   {http.Header{"Signature-Input": self(theirs)}, ErrHandleTheft},
		"a handle of another kind":            {http.Header{"Signature-Input": self(b.with(t, Credential{ID: "b", Kind: KindBearer}, "s"))}, ErrHandlePlace},
		"the session token":                   {http.Header{"Signature-Input": {self(h)[0] + `;tag="` + NewSessionToken() + `"`}}, ErrProxyToken},
		"spelled as some servers take it too": {http.Header{"Signature_input": self("acme-1")}, ErrForeignCredential},
	} {
		r := b.acme(t)
		r.Header = tc.header
		if _, err := b.post(t, r, ""); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	for _, name := range []string{"Signature", "Signature-Input", "Signature_input"} {
		if !(&Places{}).TakesField(name) {
			t.Errorf("%s passes behind a body", name)
		}
	}
}

// TestHTTPSignatureParts: a token goes along, a date is made, and what is missing is
// named.
func TestHTTPSignatureParts(t *testing.T) {
	b := vault(t)
	key, public := signingKey(t)
	material := `{"key_id":"k","token":"hush-hush","private_key":"` + strings.ReplaceAll(key, "\n", `\n`) + `"}`
	h := b.with(t, Credential{ID: "sig", Kind: KindHTTPSignature, Settings: map[string]string{"components": "date x-idempotency-key authorization", "algorithm": "ed25519", "place": "header:X-Key", "params": "keyid"}}, material)
	r := b.acme(t, "header:X-Key")
	r.Header = http.Header{"X-Key": {h}, "X-Idempotency-Key": {"1"}}
	if _, err := b.post(t, r, ""); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), `"authorization"`) {
		t.Errorf("without Authorization: %v", err)
	}
	h = b.with(t, Credential{ID: "sig2", Kind: KindHTTPSignature, Settings: map[string]string{"components": "date x-idempotency-key authorization", "algorithm": "ed25519", "params": "keyid"}}, material)
	r = b.acme(t)
	r.Header = http.Header{"Authorization": {"Bearer " + h}, "X-Idempotency-Key": {"1"}}
	out, err := b.post(t, r, "")
	if err != nil {
		t.Fatal(err)
	}
	if lines := "\"date\": " + out.Header.Get("Date") + "\n\"x-idempotency-key\": 1\n\"authorization\": Bearer hush-hush\n"; !holds(t, out.Header, public, lines) {
		t.Errorf("sent %v", out.Header)
	}
	h = b.with(t, Credential{ID: "sig3", Kind: KindHTTPSignature, Settings: map[string]string{"components": "@query", "algorithm": "hmac-sha256", "place": "query:key", "key_encoding": "base64"}}, `{"key_id":"k","secret":"`+base64.StdEncoding.EncodeToString([]byte("0123456789abcdef"))+`"}`)
	r = b.acme(t, "query:key")
	r.RawQuery = "a=1&key=" + h + "&b=2"
	if out, err = b.post(t, r, ""); err != nil || out.RawQuery != "a=1&b=2" || out.Header.Get("Signature") == "" {
		t.Errorf("in the query: %v, %s", err, out.RawQuery)
	}
}

// endless gives as many bytes as are asked for.
type endless struct{}

func (endless) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestHTTPSignatureOfLongBodies: one that is too long to be read first passes with the
// digest that its client made, and fails where that is another body's.
func TestHTTPSignatureOfLongBodies(t *testing.T) {
	b := vault(t)
	key, _ := signingKey(t)
	h := b.with(t, Credential{ID: "sig", Kind: KindHTTPSignature, Settings: signs}, key)
	long := bytes.Repeat([]byte{0}, maxSigned+10)
	for name, tc := range map[string]struct {
		length int64
		digest string
		sent   error // at the end of the body
		want   error
	}{
		"announced, without a digest": {int64(len(long)), "", nil, ErrBodyLong},
		"chunked, without a digest":   {-1, "", nil, ErrBodyLong},
		"announced, with its digest":  {int64(len(long)), sha(string(long)), nil, nil},
		"chunked, with its digest":    {-1, sha(string(long)), nil, nil},
		"with another's":              {-1, sha("x"), ErrBody, nil},
	} {
		r := b.acme(t)
		r.Header = http.Header{"Authorization": {"Bearer " + h}}
		if tc.digest != "" {
			r.Header["Content-Digest"] = []string{tc.digest}
		}
		out, err := b.send(t, r, &Outgoing{Head: long[:5], Tail: io.LimitReader(endless{}, int64(len(long)-5)), ContentLength: tc.length})
		if !errors.Is(err, tc.want) || err == nil && tc.want != nil {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if tc.want != nil {
			continue
		}
		n, err := io.Copy(io.Discard, out.Tail)
		if !errors.Is(err, tc.sent) || int(n)+len(out.Head) != len(long) || out.Header.Get("Content-Digest") != tc.digest {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// TestHTTPSignatureOfWholeBodies: the digest of a body that is at hand is made, also where
// its length was not announced and its client gave another's.
func TestHTTPSignatureOfWholeBodies(t *testing.T) {
	b := vault(t)
	key, _ := signingKey(t)
	h := b.with(t, Credential{ID: "sig", Kind: KindHTTPSignature, Settings: signs}, key)
	r := b.acme(t)
	r.Header = http.Header{"Authorization": {"Bearer " + h}, "Content-Digest": {sha("another")}}
	out, err := b.send(t, r, &Outgoing{Head: []byte("the body"), ContentLength: -1})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Header.Get("Content-Digest"); got != sha("the body") {
		t.Errorf("sent with the digest %s", got)
	}
}

// TestHTTPSignatureRefuses what is no scheme, or no key of it.
func TestHTTPSignatureRefuses(t *testing.T) {
	b := vault(t)
	key, _ := signingKey(t)
	with := func(name, value string) map[string]string {
		m := map[string]string{name: value}
		for k, v := range signs {
			if _, given := m[k]; !given {
				m[k] = v
			}
		}
		return m
	}
	for want, tc := range map[string]struct {
		settings map[string]string
		secret   string
	}{
		"wants the setting components":  {map[string]string{"algorithm": "ed25519"}, key},
		"wants the setting algorithm":   {map[string]string{"components": "@method"}, key},
		"has no setting hash":           {with("hash", "sha1"), key},
		`component "@status"`:           {with("components", "@status"), key},
		"setting lifetime":              {with("lifetime", "soon"), key},
		"setting place: \"path:/x*\"":   {with("place", "path:/x*"), key},
		"setting place: place \"nose\"": {with("place", "nose"), key},
		"the key's id is missing":       {with("key_id", ""), key},
		"no private key in PEM":         {signs, "canary"},
		"the field private_key":         {signs, `{"key_id":"x"}`},
		"no key for rsa-pss-sha512":     {with("algorithm", "rsa-pss-sha512"), key},
		"less than 16 bytes":            {with("algorithm", "hmac-sha256"), `{"secret":"canary"}`},
		"the secret is not in hex":      {map[string]string{"components": "@method", "algorithm": "hmac-sha256", "key_encoding": "hex", "key_id": "x"}, `{"secret":"canary-canary-canary"}`},
	} {
		err := b.Add(t.Context(), Credential{ID: "bad", Service: "acme", Owner: "org", Kind: KindHTTPSignature, Settings: tc.settings}, NewSecret([]byte(tc.secret)))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := CheckHTTPSignature(signs); err != nil {
		t.Error(err)
	}
	if err := CheckHTTPSignature(map[string]string{"components": "@method", "algorithm": "none"}); err == nil {
		t.Error("an algorithm that is none")
	}
}
