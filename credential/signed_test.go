package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chaperone/credential/sigv4"
	"chaperone/policy"
)

// text is a body.
type text string

func (s text) WholeBody(int) ([]byte, error) { return []byte(s), nil }

// post is a request of acme's with a body, up to the swap.
func (b *bench) post(t testing.TB, r *Request, body string) (*Outgoing, error) {
	t.Helper()
	r.Body = text(body)
	return b.send(t, r, &Outgoing{RawQuery: r.RawQuery, Tail: strings.NewReader(body), ContentLength: -1})
}

// send has out go out for r, which policy allows.
func (b *bench) send(t testing.TB, r *Request, out *Outgoing) (*Outgoing, error) {
	t.Helper()
	r.Method, r.Host = "POST", "api.acme.dev"
	p, err := b.Present(r)
	if err != nil {
		return nil, err
	}
	q := &policy.Question{Credential: p.Credential, Request: policy.Request{Method: "POST", Scheme: "https", Host: "api.acme.dev", Path: r.Path}}
	var gate policy.Gate
	gate.Use(allowAll{})
	permit, _, err := gate.Decide(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	out.Target, out.Header, out.Path, out.HostHeader = q.Request.Target(), r.Header, r.Path, "api.acme.dev"
	return out, b.Swap(t.Context(), permit, &p, out)
}

// TestOAuth1Vector is the example of Twitter's documentation, "Creating a signature".
func TestOAuth1Vector(t *testing.T) {
	how, err := openOAuth1(&opening{nil, &kept{}, NewSecret([]byte(`{"consumer_key":"xvz1evFS4wEEPTGEFPHBog","consumer_secret":"kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw","token":"370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb","token_secret":"LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE"}`))})
	if err != nil {
		t.Fatal(err)
	}
	u := &use{
		&Presented{signed: &signed{form: "status=" + url.QueryEscape("Hello Ladies + Gentlemen, a signed OAuth request!")}},
		&Outgoing{Target: policy.Target{Method: "POST", Scheme: "https"}, HostHeader: "api.twitter.com", Path: "/1/statuses/update.json", RawQuery: "include_entities=true"},
	}
	got, err := how.(*oauth1).sign(u, map[string]string{
		"oauth_consumer_key": "xvz1evFS4wEEPTGEFPHBog", "oauth_nonce": "kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg", "oauth_signature_method": "HMAC-SHA1",
		"oauth_timestamp": "1318622958", "oauth_token": "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb", "oauth_version": "1.0",
	})
	if err != nil || got != "tnnArxj06cWHq44gCs1OSKk/jLY=" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOAuth1(t *testing.T) {
	b := vault(t)
	h := b.with(t, Credential{ID: "o1", Kind: KindOAuth1}, `{"consumer_key":"real-key","consumer_secret":"hush","token":"real-token","token_secret":"hush"}`)
	form := func(auth string) *Request {
		r := b.acme(t, "oauth1")
		r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Authorization": {auth}}
		return r
	}
	out, err := b.post(t, form(`OAuth oauth_consumer_key="stand-in", oauth_token="`+h+`", oauth_nonce="n", oauth_signature="x", oauth_callback="oob"`), "status=a%20b")
	if err != nil {
		t.Fatal(err)
	}
	params, err := oauth1Params(strings.TrimPrefix(out.Header.Get("Authorization"), "OAuth "))
	if err != nil || params["oauth_consumer_key"] != "real-key" || params["oauth_token"] != "real-token" || params["oauth_callback"] != "oob" || params["oauth_nonce"] == "n" || params["oauth_signature"] == "x" {
		t.Errorf("%v, %v", params, err)
	}
	if s := out.Header.Get("Authorization"); strings.Contains(s, "hush") || strings.Contains(s, h) {
		t.Errorf("sent %s", s)
	}
	for auth, want := range map[string]error{
		`OAuth oauth_consumer_key="real", oauth_token="real"`:                   ErrForeignCredential,
		`OAuth oauth_token="` + h + `", oauth_token="x"`:                        ErrForeignCredential,
		`OAuth oauth_token="` + h + `", oauth_nonce="` + b.handle["mine"] + `"`: ErrHandlePlace,
		`OAuth oauth_token="` + b.handle["theirs"] + `"`:                        ErrHandleTheft,
	} {
		if _, err := b.post(t, form(auth), ""); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", auth, err, want)
		}
	}
}

// TestHMACVector is the example of Binance's documentation.
func TestHMACVector(t *testing.T) {
	b := vault(t)
	h := b.with(t, Credential{ID: "bn", Kind: KindHMAC, Settings: map[string]string{"string": "{query}{body}", "set": "header:X-MBX-APIKEY={key},query:signature={signature}"}},
		`{"key_id":"vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A","secret":"NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"}`)
	r := b.acme(t)
	r.Header["X-Mbx-Apikey"] = []string{h}
	r.RawQuery = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559&signature=made-with-a-stand-in"
	r.Places.list = append(r.Places.list, Place{KindHeader, "X-Mbx-Apikey"})
	out, err := b.post(t, r, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "&signature=c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"; !strings.HasSuffix(out.RawQuery, want) || strings.Count(out.RawQuery, "signature=") != 1 || out.Header.Get("X-Mbx-Apikey")[:4] != "vmPU" {
		t.Errorf("sent %s, %v", out.RawQuery, out.Header)
	}
}

func TestHMACScheme(t *testing.T) {
	b := vault(t)
	h := b.with(t, Credential{ID: "cb", Kind: KindHMAC, Settings: map[string]string{
		"string": `{timestamp}{method}{target}\n{body}`, "set": "header:Cb-Key={key},header:Cb-Time={timestamp},header:Cb-Sign=v1={signature}", "encoding": "hex", "key_encoding": "base64",
	}}, `{"key_id":"real","secret":"aHVzaA=="}`)
	r := b.acme(t, "header:Cb-Key")
	r.Header, r.RawQuery = http.Header{"Cb-Key": {h}, "Cb-Sign": {"the agent's"}}, "a=1"
	out, err := b.post(t, r, `{"size":1}`)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte("hush"))
	mac.Write([]byte(out.Header.Get("Cb-Time") + "POST/repos/acme/web?a=1\n" + `{"size":1}`))
	if got := out.Header.Get("Cb-Sign"); got != "v1="+hex.EncodeToString(mac.Sum(nil)) || out.Header.Get("Cb-Key") != "real" || string(out.Head) != `{"size":1}` || out.ContentLength != 10 || out.Tail != nil {
		t.Errorf("sent %v, %q", out.Header, out.Head)
	}
	// The body's hash may stand in a field and nowhere else.
	h = b.with(t, Credential{ID: "bh", Kind: KindHMAC, Settings: map[string]string{"string": "{method}{timestamp}", "set": "header:Cb-Key={key},header:Cb-Hash={body_hash},header:Cb-Sign={signature}"}}, `{"key_id":"real","secret":"hush"}`)
	r = b.acme(t, "header:Cb-Key")
	r.Header = http.Header{"Cb-Key": {h}}
	sum := sha256.Sum256([]byte(`{"size":1}`))
	if out, err = b.post(t, r, `{"size":1}`); err != nil || out.Header.Get("Cb-Hash") != hex.EncodeToString(sum[:]) || string(out.Head) != `{"size":1}` {
		t.Errorf("sent %v, %q, %v", out.Header, out.Head, err)
	}
	for name, bad := range map[string]map[string]string{
		"unknown part":       {"string": "{secret}", "set": "header:A={signature},header:K={key}"},
		"no signature":       {"string": "{body}", "set": "header:K={key}"},
		"no key":             {"string": "{body}", "set": "header:A={signature}"},
		"a place it has not": {"string": "{body}", "set": "cookie:A={signature},header:K={key}"},
		"unknown hash":       {"string": "{body}", "set": "header:A={signature},header:K={key}", "hash": "md5"},
	} {
		if err := b.Add(t.Context(), Credential{ID: "bad", Service: "acme", Owner: "org", Kind: KindHMAC, Settings: bad}, NewSecret([]byte(`{"secret":"x"}`))); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// clientPair is a certificate with its key, in PEM.
func clientPair(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "acme agent"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return out.String()
}

func TestClientCertificate(t *testing.T) {
	b := vault(t)
	h := b.with(t, Credential{ID: "m", Kind: KindMTLS}, clientPair(t))
	r := b.acme(t)
	out, err := b.post(t, r, "")
	if err != nil || out.Certificate == nil {
		t.Fatalf("a request of the session: %v", err)
	}
	r = b.acme(t)
	r.Header["Authorization"] = []string{"Bearer " + h}
	again, err := b.post(t, r, "")
	if err != nil || again.Certificate != out.Certificate || again.Header["Authorization"] != nil {
		t.Errorf("with its handle: %v, %v", again.Header, err)
	}
	r = b.acme(t)
	r.Session = "s_2"
	if out, err := b.post(t, r, ""); err != nil || out.Certificate != nil {
		t.Errorf("another session's: %v", err)
	}
	id, _ := HandleID(h)
	if _, err := b.Revoke(t.Context(), func(x *Handle) bool { return x.ID == id }); err != nil {
		t.Fatal(err)
	}
	if out, err := b.post(t, b.acme(t), ""); err != nil || out.Certificate != nil {
		t.Errorf("revoked: %v", err)
	}
	if err := b.Add(t.Context(), Credential{ID: "bad", Service: "acme", Owner: "org", Kind: KindMTLS}, NewSecret([]byte("x"))); !errors.Is(err, ErrShape) {
		t.Errorf("no certificate: %v", err)
	}
}

// BenchmarkAWS measures verifying and signing anew: a request whose body's hash is in
// its head.
func BenchmarkAWS(b *testing.B) {
	v := vault(b)
	h := v.with(b, Credential{ID: "aws", Kind: KindAWS}, `{"access_key_id":"AKIACANARY0000000000","secret_access_key":"hush"}`)
	keys := sigv4.Keys{ID: h, Secret: NewSecret([]byte(v.StandIns("aws", h)["AWS_SECRET_ACCESS_KEY"]))}
	r := v.acme(b, "aws")
	r.Method, r.Host, r.RawQuery = "GET", "api.acme.dev", "list-type=2&prefix=a%2Fb"
	r.Header = http.Header{"X-Amz-Content-Sha256": {sigv4.Hash(nil)}, "Accept": {"*/*"}}
	sigv4.New(&sigv4.Request{Method: r.Method, Host: r.Host, Path: r.Path, RawQuery: r.RawQuery, Header: r.Header}, keys, "eu-west-1", "s3", nil, time.Now())
	b.ReportAllocs()
	for b.Loop() {
		one := *r
		one.Header = r.Header.Clone()
		p, err := v.Present(&one)
		if err != nil {
			b.Fatal(err)
		}
		out := &Outgoing{Target: policy.Target{Method: "GET"}, Header: one.Header, Path: one.Path, RawQuery: one.RawQuery, HostHeader: one.Host}
		how, err := v.opened(b.Context(), p.cred)
		if err != nil {
			b.Fatal(err)
		}
		if err := how.apply(b.Context(), &use{&p, out}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestCheckHMAC: a description may have any of the encodings of a key, which it does not
// hold.
func TestCheckHMAC(t *testing.T) {
	for encoding, want := range map[string]bool{"": true, "raw": true, "hex": true, "base64": true, "base32": false} {
		settings := map[string]string{"string": "{method}", "set": "header:X-Key={key},header:X-Sign={signature}"}
		if encoding != "" {
			settings["key_encoding"] = encoding
		}
		if err := CheckHMAC(settings); (err == nil) != want {
			t.Errorf("key_encoding %q: %v", encoding, err)
		}
	}
}

// TestRFC3986 has every byte encoded as RFC 5849 section 3.6 says.
func TestRFC3986(t *testing.T) {
	for i := range 256 {
		s, want := string([]byte{byte(i)}), fmt.Sprintf("%%%02X", i)
		if strings.Contains("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", s) {
			want = s
		}
		if got := rfc3986(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
	if got := rfc3986("Ladies + Gentlemen é"); got != "Ladies%20%2B%20Gentlemen%20%C3%A9" {
		t.Errorf("got %s", got)
	}
}
