package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// A service that takes credentials of every kind, and where their tokens are minted.
const (
	kindHost  = "api.acme.dev"
	bodyHost  = "upload.acme.dev" // takes bodies, and no credentials in them
	loginHost = "login.acme.dev"
	stsHost   = "sts.us-east-1.amazonaws.com"
	fedHost   = "sts.googleapis.com"
	keyID     = "AKIABENCH00000000001"
)

const acme = `services:
  - service: acme
    hosts: [` + kindHost + `]
    places: [bearer, basic, "header:X-Key", "header:X-Other", "query:key", "cookie:session", "path:/bot*", "body:token", aws, oauth1]
    paths: {"/{path+}": {GET: get read, POST: post write}}
  - {service: acme-upload, hosts: [` + bodyHost + `], places: [bearer], paths: {"/{path+}": {POST: post write}}}
`

// given is what a session hands to an agent for its credential.
type given struct {
	handle string
	env    map[string]string
}

// way is one way in which a service takes a credential: how it is put away, how a client
// sends what it was given, and how it reaches the service.
type way struct {
	name     string // in the table
	upload   bool   // to the host that does not look into bodies
	kind     string
	place    string
	settings []string // NAME=VALUE
	material string
	body     string // the type of a body that the request has; empty: none
	put      func(r *http.Request, g given)
	arrived  func(r *http.Request, body string) bool
}

func asBearer(r *http.Request, g given) { r.Header.Set("Authorization", "Bearer "+g.handle) }

func bearerArrived(r *http.Request, _ string) bool {
	return r.Header.Get("Authorization") == "Bearer "+secret
}

func inField(names ...string) func(*http.Request, given) {
	return func(r *http.Request, g given) {
		for _, name := range names {
			r.Header.Set(name, g.handle)
		}
	}
}

func inBody(r *http.Request, g given) { withBody(r, r.Header.Get("Content-Type"), g.handle) }

// withBody gives a request a short body in which a token stands.
func withBody(r *http.Request, kind, token string) {
	body := `{"text":"` + strings.Repeat("x", 150) + `","token":"` + token + `"}`
	if kind == form {
		body = "text=" + strings.Repeat("x", 150) + "&token=" + token
	}
	r.Method, r.Body, r.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader(body)), int64(len(body))
}

func bodyArrived(_ *http.Request, body string) bool { return strings.Contains(body, secret) }

func awsSigned(r *http.Request, g given) {
	sum := sha256.Sum256(nil)
	// a signer without a way out does not fail
	v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: g.handle, SecretAccessKey: g.env["AWS_SECRET_ACCESS_KEY"]}, r, hex.EncodeToString(sum[:]), "acme", "us-east-1", time.Now())
}

func awsArrived(r *http.Request, _ string) bool {
	return strings.Contains(r.Header.Get("Authorization"), "Credential="+keyID)
}

const (
	form   = "application/x-www-form-urlencoded"
	inJSON = "application/json"
)

// ways are all kinds. The service's process makes the same list, with keys of its own, for
// how they arrive.
func ways() ([]way, error) {
	key, account, certificate, err := ownKeys()
	if err != nil {
		return nil, err
	}
	keys := `{"access_key_id":"` + keyID + `","secret_access_key":"` + secret + `"}`
	endpoint := []string{"token_url=https://" + loginHost + "/token", "client_id=app"}
	const jwt = "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"
	role := []string{"role_arn=arn:aws:iam::123456789012:role/r"}
	return []way{
		{name: "`bearer`", kind: "bearer", material: secret, put: asBearer, arrived: bearerArrived},
		{name: "`bearer`, and a form", kind: "bearer", upload: true, material: secret, body: form, put: func(r *http.Request, g given) {
			asBearer(r, g)
			withBody(r, form, "of-no-interest")
		}, arrived: bearerArrived},
		{name: "`bearer`, and JSON", kind: "bearer", upload: true, material: secret, body: inJSON, put: func(r *http.Request, g given) {
			asBearer(r, g)
			withBody(r, inJSON, "of-no-interest")
		}, arrived: bearerArrived},
		{name: "`basic`", kind: "basic", material: secret, put: func(r *http.Request, g given) { r.SetBasicAuth("x", g.handle) }, arrived: func(r *http.Request, _ string) bool {
			_, pass, _ := r.BasicAuth()
			return pass == secret
		}},
		{name: "`header`", kind: "header", place: "X-Key", material: secret, put: inField("X-Key"), arrived: func(r *http.Request, _ string) bool { return r.Header.Get("X-Key") == secret }},
		{name: "`query`", kind: "query", place: "key", material: secret, put: func(r *http.Request, g given) { r.URL.RawQuery = "key=" + g.handle }, arrived: func(r *http.Request, _ string) bool { return r.URL.Query().Get("key") == secret }},
		{name: "`cookie`", kind: "cookie", place: "session", material: secret, put: func(r *http.Request, g given) { r.Header.Set("Cookie", "session="+g.handle) }, arrived: func(r *http.Request, _ string) bool {
			return r.Header.Get("Cookie") == "session="+secret
		}},
		{name: "`path`", kind: "path", material: secret, put: func(r *http.Request, g given) { r.URL.Path = "/bot" + g.handle + "/issues" }, arrived: func(r *http.Request, _ string) bool { return r.URL.Path == "/bot"+secret+"/issues" }},
		{name: "`several` (two fields)", kind: "several", material: `{"header:X-Key":"` + secret + `","header:X-Other":"` + secret + `"}`, put: inField("X-Key", "X-Other"), arrived: func(r *http.Request, _ string) bool {
			return r.Header.Get("X-Key") == secret && r.Header.Get("X-Other") == secret
		}},
		{name: "`body`, a form", kind: "body", material: secret, body: form, put: inBody, arrived: bodyArrived},
		{name: "`body`, JSON", kind: "body", material: secret, body: inJSON, put: inBody, arrived: bodyArrived},
		{name: "`oauth2-refresh`", kind: "oauth2-refresh", settings: endpoint, material: `{"refresh_token":"r","client_secret":"s"}`, put: asBearer, arrived: bearerArrived},
		{name: "`oauth2-client`", kind: "oauth2-client", settings: endpoint, material: "s", put: asBearer, arrived: bearerArrived},
		{name: "`oauth2-jwt`", kind: "oauth2-jwt", settings: []string{endpoint[0], "issuer=bench"}, material: key, put: asBearer, arrived: bearerArrived},
		{name: "`oauth2-exchange`", kind: "oauth2-exchange", settings: endpoint, material: `{"subject_token":"t","client_secret":"s"}`, put: asBearer, arrived: bearerArrived},
		{name: "`github-app`", kind: "github-app", settings: []string{"app_id=1", "installation_id=2", "api_url=https://" + loginHost}, material: key, put: asBearer, arrived: bearerArrived},
		{name: "`google-service-account`", kind: "google-service-account", settings: []string{"scopes=a"}, material: account, put: asBearer, arrived: bearerArrived},
		{name: "`google-workload`", kind: "google-workload", settings: []string{"scopes=a", "audience=//iam.googleapis.com/x"}, material: jwt, put: asBearer, arrived: bearerArrived},
		{name: "`aws`", kind: "aws", material: keys, put: awsSigned, arrived: awsArrived},
		{name: "`aws-role`", kind: "aws-role", settings: role, material: keys, put: awsSigned, arrived: awsArrived},
		{name: "`aws-web-identity`", kind: "aws-web-identity", settings: role, material: jwt, put: awsSigned, arrived: awsArrived},
		{name: "`oauth1`", kind: "oauth1", material: `{"consumer_key":"` + keyID + `","consumer_secret":"s","token":"t","token_secret":"s"}`, put: func(r *http.Request, g given) {
			r.Header.Set("Authorization", `OAuth oauth_consumer_key="x", oauth_token="`+g.handle+`", oauth_nonce="n", oauth_signature="s"`)
		}, arrived: func(r *http.Request, _ string) bool { return strings.Contains(r.Header.Get("Authorization"), keyID) }},
		{name: "`hmac`", kind: "hmac", settings: []string{"string={method}{target}{timestamp}", "set=header:X-Key={key},header:X-Time={timestamp},header:X-Sign={signature}"}, material: `{"key_id":"` + keyID + `","secret":"` + secret + `"}`, put: inField("X-Key"), arrived: func(r *http.Request, _ string) bool {
			return r.Header.Get("X-Key") == keyID && len(r.Header.Get("X-Sign")) == 2*sha256.Size
		}},
		{name: "`http-signature` (HMAC)", kind: "http-signature", settings: []string{"components=@method @target-uri", "algorithm=hmac-sha256"}, material: `{"key_id":"` + keyID + `","secret":"` + secret + `"}`, put: asBearer, arrived: func(r *http.Request, _ string) bool {
			return strings.Contains(r.Header.Get("Signature-Input"), keyID) && r.Header.Get("Signature") != "" && r.Header.Get("Authorization") == ""
		}},
		{name: "`mtls`", kind: "mtls", material: certificate, put: func(*http.Request, given) {}, arrived: func(r *http.Request, _ string) bool { return len(r.TLS.PeerCertificates) > 0 }},
	}, nil
}

// ownKeys are a private key, a service account's file and a client certificate.
func ownKeys() (key, account, certificate string, err error) {
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", "", "", err
	}
	if key, err = inPEM(rs); err != nil {
		return "", "", "", err
	}
	b, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "a@acme.dev", "private_key_id": "1", "token_uri": "https://" + loginHost + "/token", "private_key": key})
	if err != nil {
		return "", "", "", err
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", "", err
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, about, about, ec.Public(), ec)
	if err != nil {
		return "", "", "", err
	}
	own, err := inPEM(ec)
	return key, string(b), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + own, err
}

func inPEM(key any) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), err
}

// request is what a client sends, as text: to the service of all kinds, with the kind's
// number for it to look whether the credential arrived.
func (w *way) request(n int, g given) (string, error) {
	u := &url.URL{Scheme: "https", Host: w.host(), Path: "/issues"}
	r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{"User-Agent": {"bench"}, "Accept": {inJSON}, wayField: {fmt.Sprint(n)}}}
	if w.body != "" {
		r.Header.Set("Content-Type", w.body)
	}
	w.put(r, g)
	var b bytes.Buffer
	err := r.Write(&b)
	return b.String(), err
}

func (w *way) host() string {
	if w.upload {
		return bodyHost
	}
	return kindHost
}

func (w *way) service() string {
	if w.upload {
		return "acme-upload"
	}
	return "acme"
}

// wayField is the field in which a request says which of the ways it is.
const wayField = "X-Way"
