package httpsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/credential/internal/secret"
)

// testRequest is the one of RFC 9421 appendix B.2.
func testRequest() *Request {
	return &Request{Method: "POST", Scheme: "https", Host: "example.com", Path: "/foo", RawQuery: "param=Value&Pet=dog", ContentLength: 18, Header: http.Header{
		"Date": {"Tue, 20 Apr 2021 02:07:55 GMT"}, "Content-Type": {"application/json"},
		"Content-Digest": {"sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"},
	}}
}

var created = time.Unix(1618884473, 0)

const sharedSecret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="

// keyOf is a key of appendix B.1, which are published for tests.
func keyOf(t testing.TB, algorithm, name string) *Key {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".key"))
	if name == "test-shared-secret" {
		text, err = base64.StdEncoding.DecodeString(sharedSecret)
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey(algorithm, name, secret.New(text))
	if err != nil {
		t.Fatalf("%s for %s: %v", name, algorithm, err)
	}
	return k
}

func schemeOf(t testing.TB, o Options) *Scheme {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatalf("%+v: %v", o, err)
	}
	return s
}

// TestVectors are those of appendix B.2 that are of requests. What signs the same way
// each time is equal; of RSA-PSS the RFC's signature is over our base.
func TestVectors(t *testing.T) {
	for _, tc := range []struct{ key, input, signature string }{
		{"test-key-rsa-pss", `sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`,
			"LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw=="},
		{"test-key-rsa-pss", `sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`,
			"bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA=="},
		{"test-shared-secret", `sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`, "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="},
		{"test-key-ed25519", `sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`, "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="},
	} {
		label, rest, _ := strings.Cut(tc.input, "=")
		list, after, _ := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		o := Options{Components: list, Label: label, Digest: "sha-512", Algorithm: map[string]string{"test-key-rsa-pss": "rsa-pss-sha512", "test-shared-secret": HMAC, "test-key-ed25519": "ed25519"}[tc.key]}
		if strings.Contains(after, "tag=") {
			o.Params, o.Tag = "created keyid tag", "header-example"
		}
		s, k := schemeOf(t, o), keyOf(t, o.Algorithm, tc.key)
		input, signature, err := s.Sign(testRequest(), k, created)
		if err != nil || input != tc.input {
			t.Errorf("%s: %v\ngot  %s\nwant %s", label, err, input, tc.input)
		}
		if o.Algorithm != "rsa-pss-sha512" {
			if want := label + "=:" + tc.signature + ":"; signature != want {
				t.Errorf("%s: got %s, want %s", label, signature, want)
			}
			continue
		}
		base, _, err := s.base(testRequest(), k, created)
		if err != nil {
			t.Fatal(err)
		}
		for what, encoded := range map[string]string{"the RFC's": tc.signature, "ours": strings.Trim(strings.TrimPrefix(signature, label+"="), ":")} {
			sum, sig := sha512.Sum512(base), decode(t, encoded)
			if err := rsa.VerifyPSS(&private(t, tc.key).(*rsa.PrivateKey).PublicKey, crypto.SHA512, sum[:], sig, &rsa.PSSOptions{SaltLength: 64}); err != nil {
				t.Errorf("%s: %s: %v", label, what, err)
			}
		}
	}
}

func decode(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func private(t testing.TB, name string) any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	k, err := parse(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestAlgorithms has each algorithm's signature verified by the standard library.
func TestAlgorithms(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	large, err := NewKey("ecdsa-p384-sha384", "x", secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	base := []byte("base")
	sum256, sum384 := sha256.Sum256(base), sha512.Sum384(base)
	halves := func(b []byte) (r, s *big.Int) {
		return new(big.Int).SetBytes(b[:len(b)/2]), new(big.Int).SetBytes(b[len(b)/2:])
	}
	mac := hmac.New(sha256.New, decode(t, sharedSecret))
	mac.Write(base)
	for _, tc := range []struct {
		algorithm string
		key       *Key
		size      int
		holds     func(sig []byte) bool
	}{
		{"ed25519", keyOf(t, "ed25519", "test-key-ed25519"), 64, func(b []byte) bool {
			return ed25519.Verify(private(t, "test-key-ed25519").(ed25519.PrivateKey).Public().(ed25519.PublicKey), base, b)
		}},
		{"ecdsa-p256-sha256", keyOf(t, "ecdsa-p256-sha256", "test-key-ecc-p256"), 64, func(b []byte) bool {
			r, s := halves(b)
			return ecdsa.Verify(&private(t, "test-key-ecc-p256").(*ecdsa.PrivateKey).PublicKey, sum256[:], r, s)
		}},
		{"ecdsa-p384-sha384", large, 96, func(b []byte) bool { r, s := halves(b); return ecdsa.Verify(&p384.PublicKey, sum384[:], r, s) }},
		{"rsa-v1_5-sha256", keyOf(t, "rsa-v1_5-sha256", "test-key-rsa"), 256, func(b []byte) bool {
			return rsa.VerifyPKCS1v15(&private(t, "test-key-rsa").(*rsa.PrivateKey).PublicKey, crypto.SHA256, sum256[:], b) == nil
		}},
		{HMAC, keyOf(t, HMAC, "test-shared-secret"), 32, func(b []byte) bool { return hmac.Equal(b, mac.Sum(nil)) }},
	} {
		for range 50 { // halves of ECDSA begin with zeros now and then
			got, err := tc.key.sign(base)
			if err != nil || len(got) != tc.size || !tc.holds(got) {
				t.Fatalf("%s: %d bytes, %v", tc.algorithm, len(got), err)
			}
		}
		if text := fmt.Sprintf("%v %+v %#v", tc.key, tc.key, tc.key); strings.Contains(text, "test-key") {
			t.Errorf("%s prints as %s", tc.algorithm, text)
		}
		for _, other := range Algorithms {
			name := map[string]string{"ed25519": "test-key-ed25519", "ecdsa-p256-sha256": "test-key-ecc-p256", "rsa-v1_5-sha256": "test-key-rsa"}[tc.algorithm]
			if name == "" || other == HMAC || other == tc.algorithm || tc.algorithm == "rsa-v1_5-sha256" && other == "rsa-pss-sha512" {
				continue
			}
			text, err := os.ReadFile(filepath.Join("testdata", name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := NewKey(other, "x", secret.New(text)); err == nil {
				t.Errorf("a key of %s signs with %s", tc.algorithm, other)
			}
		}
	}
}

// TestComponents holds each component against the RFC's examples of section 2.
func TestComponents(t *testing.T) {
	r := &Request{Method: "GET", Scheme: "https", Host: "WWW.Example.com:443", Path: "/path", RawQuery: "var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&qux=&twice=1&twice=2", ContentLength: -1, Header: http.Header{
		"X-Ows-Header": {"   Leading and trailing whitespace.   "}, "Cache-Control": {"max-age=60", "   must-revalidate"}, "Example-Dict": {"  a=1,    b=2;x=1;y=2,   c=(a   b   c), d"}, "X-Empty-Header": {""}, "Priority": {"u=1,   u=2", "i"},
		"Example-Header": {"value, with, lots", "of, commas"},
	}}
	for component, want := range map[string]string{
		"@method": "GET", "@authority": "www.example.com", "@scheme": "https", "@path": "/path", "@target-uri": "https://www.example.com/path?" + r.RawQuery, "@request-target": "/path?" + r.RawQuery, "@query": "?" + r.RawQuery,
		`@query-param;name="var"`: "this%20is%20a%20big%0Amultiline%20value", `@query-param;name="bar"`: "with%20plus%20whitespace", `"@query-param";name="fa%C3%A7ade%22%3A%20"`: "something", `@query-param;name="qux"`: "",
		"x-ows-header": "Leading and trailing whitespace.", "Cache-Control": "max-age=60, must-revalidate", "x-empty-header": "", `example-dict;key="a"`: "1", `example-dict;key="b"`: "2;x=1;y=2", `example-dict;key="c"`: "(a b c)", `example-dict;key="d"`: "?1",
		"example-dict;sf": "a=1, b=2;x=1;y=2, c=(a b c), d", "cache-control;sf": "max-age=60, must-revalidate", "example-header;sf": "value, with, lots, of, commas", "priority;sf": "u=2, i",
		"example-header;bs": ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:",
	} {
		s := schemeOf(t, Options{Components: component, Algorithm: HMAC})
		base, _, err := s.base(r, keyOf(t, HMAC, "test-shared-secret"), created)
		line, _, _ := strings.Cut(string(base), "\n")
		if _, got, _ := strings.Cut(line, ": "); err != nil || got != want {
			t.Errorf("%s: got %q, want %q, %v", component, got, want, err)
		}
	}
	for _, component := range []string{"x-absent", `@query-param;name="absent"`, `@query-param;name="twice"`, `example-dict;key="z"`, `cache-control;key="("`, "content-length", "x-ows-header;sf", `x-ows-header;key="a"`} {
		s := schemeOf(t, Options{Components: component, Algorithm: HMAC})
		if _, _, err := s.base(r, keyOf(t, HMAC, "test-shared-secret"), created); !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v", component, err)
		}
	}
	s := schemeOf(t, Options{Components: "@method", Optional: `content-digest content-length cache-control example-dict;key="z"`, Algorithm: HMAC, Params: "expires nonce alg tag", Tag: `a"b\`, Lifetime: time.Minute})
	input, _, err := s.Sign(r, keyOf(t, HMAC, "test-shared-secret"), created)
	before, after, _ := strings.Cut(input, ";nonce=")
	if err != nil || before != `sig1=("@method" "cache-control");expires=1618884533` || len(after) < 20 || !strings.HasSuffix(after, `;alg="hmac-sha256";tag="a\"b\\"`) {
		t.Errorf("%s, %v", input, err)
	}
	empty := &Request{Method: "PUT", Scheme: "http", Host: "a:80", Header: http.Header{}}
	base, _, err := schemeOf(t, Options{Components: "@target-uri @query @request-target content-length", Algorithm: HMAC}).base(empty, keyOf(t, HMAC, "test-shared-secret"), created)
	if want := "\"@target-uri\": http://a/\n\"@query\": ?\n\"@request-target\": /\n\"content-length\": 0\n"; err != nil || !strings.HasPrefix(string(base), want) {
		t.Errorf("%q, %v", base, err)
	}
}

// TestDeclarations are refused with what is wrong with them.
func TestDeclarations(t *testing.T) {
	for want, o := range map[string]Options{
		`algorithm "rsa" is not known`:   {Algorithm: "rsa"},
		"label":                          {Label: "Sig 1"},
		`parameter "kid" is not one of`:  {Params: "created kid"},
		"each once":                      {Params: "created created"},
		"tag among the parameters":       {Tag: "x"},
		"go together":                    {Params: "tag"},
		"of ASCII that print":            {Params: "tag", Tag: "é"},
		"between 1s and 1h":              {Lifetime: 2 * time.Hour},
		`digest "md5"`:                   {Digest: "md5"},
		"of requests there are @method":  {Components: "@status"},
		"@authority says it":             {Components: "Host"},
		"it is narrowed on the way":      {Components: "accept-encoding"},
		"stands twice":                   {Components: "@method", Optional: "@method"},
		"its parameter tr is not known":  {Components: "date;tr"},
		"bs excludes key and sf":         {Components: "date;bs;sf"},
		"its parameter req is not known": {Components: "@method;req"},
		"say which":                      {Components: "@query-param"},
		"cannot be read":                 {Components: `@query-param;name="`},
		"is not the name of a field":     {Components: "a:b"},
		"name in lower case":             {Components: `"Date"`},
		"excludes key":                   {Components: `date;bs;key="a"`},
	} {
		if o.Algorithm == "" {
			o.Algorithm = HMAC
		}
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", o, err, want)
		}
	}
	for _, tc := range []struct{ algorithm, id, key string }{{"ed25519", "x", "no key"}, {HMAC, "x", "short"}, {HMAC, "é", sharedSecret}, {"ed25519", "x", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: make([]byte, 3)}))}} {
		if _, err := NewKey(tc.algorithm, tc.id, secret.New(tc.key)); err == nil || strings.Contains(err.Error(), "short") && tc.key != "short" || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%v: %v", tc, err)
		}
	}
}

func TestDigest(t *testing.T) {
	for digest, field := range map[string]string{ // RFC 9530 appendix B and section 2
		"":        "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
		"sha-512": "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
	} {
		s := schemeOf(t, Options{Components: "content-digest", Algorithm: HMAC, Digest: digest})
		h := s.NewDigest()
		h.Write([]byte(`{"hello": "world"}`))
		if got := s.ContentDigest(h.Sum(nil)); got != field {
			t.Errorf("%s: got %s, want %s", digest, got, field)
		}
		if sum, ok := s.GivenDigest([]string{"md5=:aaaa:", field}); !ok || string(sum) != string(h.Sum(nil)) {
			t.Errorf("%s: given %x, %v", digest, sum, ok)
		}
	}
	s := schemeOf(t, Options{Components: "@method", Optional: "content-digest", Algorithm: HMAC})
	for _, bad := range []string{"", "sha-256=", "sha-256=1", "sha-256=:AAAA:", "sha-256=(:AAAA:)", "x y"} {
		if _, ok := s.GivenDigest([]string{bad}); ok {
			t.Errorf("%q is a digest", bad)
		}
	}
	if always, perhaps := s.Covers("content-digest"); always || !perhaps {
		t.Error("covered always")
	}
}

// FuzzSignatureInput: what an agent sends in Signature-Input is read or refused, and key
// ids that are read stand in it.
func FuzzSignatureInput(f *testing.F) {
	for _, s := range []string{`sig1=("@method");created=1;keyid="k"`, `a=();keyid="k", b=();keyid="l"`, `a`, `a=1`, `a=();keyid=1`, `a=("x";name="y")`, `a=();keyid="q\"\\"`, ``} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ids, err := KeyIDs([]string{s})
		if err != nil {
			return
		}
		for _, id := range ids {
			text, err := quoted(id)
			if err != nil || id != "" && !strings.Contains(s, text) {
				t.Errorf("%q of %q: %v", id, s, err)
			}
		}
		New(Options{Components: s, Algorithm: HMAC})
	})
}

func BenchmarkSign(b *testing.B) {
	for algorithm, name := range map[string]string{"ed25519": "test-key-ed25519", "ecdsa-p256-sha256": "test-key-ecc-p256", "rsa-pss-sha512": "test-key-rsa-pss", HMAC: "test-shared-secret"} {
		s := schemeOf(b, Options{Components: "@method @target-uri content-digest", Algorithm: algorithm})
		k, r := keyOf(b, algorithm, name), testRequest()
		b.Run(algorithm, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Sign(r, k, created); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
