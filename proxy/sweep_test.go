package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"chaperone/credential"
	"chaperone/credential/source"
	"chaperone/policy/action"
	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
)

// swept is how a kind takes part in the sweep.
type swept struct {
	material string // with canary in it wherever a secret stands
	place    string
	settings map[string]string
	put      func(r *http.Request, handle string, parts map[string]string) // nil: Authorization: Bearer
}

func inHeader(name string) func(*http.Request, string, map[string]string) {
	return func(r *http.Request, h string, _ map[string]string) { r.Header.Set(name, h) }
}

func awsSign(r *http.Request, h string, parts map[string]string) {
	sum := sha256.Sum256(nil)
	v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: h, SecretAccessKey: parts["AWS_SECRET_ACCESS_KEY"]}, r, hex.EncodeToString(sum[:]), "acme", "us-east-1", time.Now())
}

// sweptKinds are all kinds, each with the canary in its secret.
func sweptKinds(t *testing.T) map[string]swept {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	check(t, err)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	der, err = x509.MarshalPKCS8PrivateKey(rs)
	check(t, err)
	account, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "a@acme.com", "private_key_id": "1", "token_uri": "https://login.acme.dev/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))})
	check(t, err)
	endpoint := map[string]string{"token_url": "https://login.acme.dev/token", "client_id": "app"}
	const jwt = "eyJhbGciOiJSUzI1NiJ9." + canary + ".canarycanary"
	keys := `{"access_key_id":"AKIACANARYCANARY0000","secret_access_key":"` + canary + `","session_token":"` + canary + `"}`
	return map[string]swept{
		credential.KindBearer: {material: canary}, credential.KindBasic: {material: canary, put: func(r *http.Request, h string, _ map[string]string) { r.SetBasicAuth("x", h) }},
		credential.KindHeader: {material: canary, place: "X-Key", put: inHeader("X-Key")},
		credential.KindQuery:  {material: canary, place: "key", put: func(r *http.Request, h string, _ map[string]string) { r.URL.RawQuery = "key=" + h }},
		credential.KindCookie: {material: canary, place: "session", put: func(r *http.Request, h string, _ map[string]string) { r.Header.Set("Cookie", "session="+h) }},
		credential.KindPath:   {material: canary, put: func(r *http.Request, h string, _ map[string]string) { r.URL.Path = "/bot" + h + "/x" }},
		credential.KindBody: {material: canary, put: func(r *http.Request, h string, _ map[string]string) {
			body := `{"token":"` + h + `"}`
			r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Type", "application/json")
		}},
		credential.KindSeveral: {material: `{"header:X-Key":"` + canary + `","header:X-Other":"other-` + canary + `"}`, put: func(r *http.Request, h string, _ map[string]string) {
			r.Header.Set("X-Key", h)
			r.Header.Set("X-Other", h)
		}},
		credential.KindRefresh: {material: `{"refresh_token":"` + canary + `","client_secret":"` + canary + `"}`, settings: endpoint}, credential.KindClient: {material: canary, settings: endpoint},
		credential.KindExchange:      {material: `{"subject_token":"` + canary + `","client_secret":"` + canary + `"}`, settings: endpoint},
		credential.KindJWT:           {material: key, settings: map[string]string{"token_url": "https://login.acme.dev/token", "issuer": "a"}},
		credential.KindGitHubApp:     {material: key, settings: map[string]string{"app_id": "1", "installation_id": "2", "api_url": "https://login.acme.dev"}},
		credential.KindGoogleAccount: {material: string(account), settings: map[string]string{"scopes": "a"}},
		credential.KindGoogleFederal: {material: jwt, settings: map[string]string{"scopes": "a", "audience": "//iam.googleapis.com/x"}},
		credential.KindAWS:           {material: keys, put: awsSign},
		credential.KindAWSRole:       {material: keys, put: awsSign, settings: map[string]string{"role_arn": "arn:aws:iam::1:role/r"}},
		credential.KindAWSWeb:        {material: jwt, put: awsSign, settings: map[string]string{"role_arn": "arn:aws:iam::1:role/r"}},
		credential.KindOAuth1: {material: `{"consumer_key":"ck","consumer_secret":"` + canary + `","token":"tk","token_secret":"` + canary + `"}`, put: func(r *http.Request, h string, _ map[string]string) {
			r.Header.Set("Authorization", `OAuth oauth_consumer_key="x", oauth_token="`+h+`", oauth_nonce="n", oauth_signature="s"`)
		}},
		credential.KindHMAC:          {material: `{"key_id":"id","secret":"` + canary + `"}`, settings: map[string]string{"string": "{method}{target}", "set": "header:X-Key={key},header:X-Sign={signature}"}, put: inHeader("X-Key")},
		credential.KindHTTPSignature: {material: `{"key_id":"id","secret":"` + canary + `","token":"` + canary + `"}`, settings: map[string]string{"components": "@method @target-uri authorization", "algorithm": "hmac-sha256"}},
		credential.KindMTLS:          {material: clientCertificate(t, "agent"), put: func(*http.Request, string, map[string]string) {}},
	}
}

// tells are what services and endpoints may answer that would give a secret away.
var tells = map[string]http.HandlerFunc{
	"an echo": func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.HasPrefix(r.Host, "api.") {
			w.Header().Set("X-Echo", r.Header.Get("Authorization")+r.Header.Get("X-Key"))
			json.NewEncoder(w).Encode(map[string]any{"uri": r.RequestURI, "header": r.Header, "body": string(body)})
			return
		}
		minted(w, r)
	},
	"5xx":       func(w http.ResponseWriter, r *http.Request) { repeat(w, r, 500) },
	"a refusal": func(w http.ResponseWriter, r *http.Request) { repeat(w, r, 403) },
	"a redirect": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://evil.example/?t="+r.Header.Get("Authorization")+r.Header.Get("X-Key")+r.URL.RawQuery)
		repeat(w, r, 307)
	},
	"rubbish": func(w http.ResponseWriter, r *http.Request) { repeat(w, r, 200) },
}

// minted is a good answer of every token endpoint, with the canary for a token.
func minted(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.Host, "sts.us"):
		for _, name := range []string{"AssumeRole", "AssumeRoleWithWebIdentity"} {
			fmt.Fprintf(w, "<R><%[1]sResult><Credentials><AccessKeyId>ASIACANARYCANARY0000</AccessKeyId><SecretAccessKey>%[2]s</SecretAccessKey><SessionToken>%[2]s</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></%[1]sResult></R>", name, canary)
			return
		}
	case strings.Contains(r.URL.Path, "/installations/"):
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"token":%q,"expires_at":"2099-01-01T00:00:00Z"}`, canary)
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"token_type":"Bearer","expires_in":3600}`, canary, canary)
	}
}

// repeat answers with all that it was asked with, and the canary.
func repeat(w http.ResponseWriter, r *http.Request, status int) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	own := ""
	if !strings.HasPrefix(r.Host, "api.") {
		own = canary
	}
	json.NewEncoder(w).Encode(map[string]any{"error": "invalid_grant", "error_description": own, "header": r.Header, "uri": r.RequestURI, "body": string(body)})
}

// TestCanarySweep has every kind of credential used against services and token
// endpoints that fail in every way and repeat what they were sent: no secret is in an
// answer, the log, what is told to operators, the metrics, or in clear in the store.
func TestCanarySweep(t *testing.T) {
	d := newRoad(t, func(o *Options, u *upstream.Options) {
		var err error
		o.Catalogue, err = action.Load(action.Shipped(), []action.Service{{Name: "acme", Hosts: []string{"api.acme.dev"}, Handle: "ghp_",
			Places: []string{"bearer", "basic", "header:X-Key", "header:X-Other", "query:key", "cookie:session", "path:/bot*", "body:token", "aws", "oauth1"},
			Paths:  map[string]map[string]string{"/{path+}": {"GET": "get read", "POST": "post write"}}}})
		check(t, err)
		for _, host := range []string{"login.acme.dev", "sts.us-east-1.amazonaws.com", "sts.googleapis.com"} {
			u.Resolve[host] = u.Resolve["api.acme.dev"]
		}
	})
	d.vault.Use(credential.Outside{HTTP: d.server.o.Upstream.Own(), Sources: map[string]source.Fetcher{"command": source.Command{}, "file": source.File{}}})
	n := 0
	kinds := sweptKinds(t)
	for _, kind := range credential.Kinds() {
		k, ok := kinds[kind.Name]
		if !ok {
			t.Errorf("kind %s is not swept", kind.Name)
		}
		for name, serve := range tells {
			n++
			c := credential.Credential{ID: fmt.Sprint("c", n), Kind: kind.Name, Place: k.place, Settings: k.settings}
			d.sweep(kind.Name+", "+name, c, k, serve, k.material)
		}
		for name, from := range map[string]string{
			"a source that fails":       "command:echo " + canary + "; echo " + canary + " >&2; exit 1",
			"of another shape":          "command:printf '{\"x\":\"" + canary + "\\001" + canary + "\"'",
			"a source that's not there": "file:" + filepath.Join(t.TempDir(), "none"),
		} {
			n++
			c := credential.Credential{ID: fmt.Sprint("c", n), Kind: kind.Name, Place: k.place, Settings: k.settings, Source: from}
			d.sweep(kind.Name+", "+name, c, k, tells["an echo"], "")
		}
	}
	all := d.records(n)
	codes := map[string]int{}
	for _, x := range all {
		d.clean("the log", string(x.Decision.Raw)+string(x.Outcome.Raw))
		codes[x.Outcome.Outcome.Error]++
	}
	for _, code := range []string{"", "credential_source", "credential_shape", "token_endpoint", "token_redirect", "grant_expired", "client_refused"} {
		if codes[code] == 0 {
			t.Errorf("nothing of the sweep ended with %q: %v", code, codes)
		}
	}
	d.clean("what operators are told", d.operation.String())
	w := httptest.NewRecorder()
	d.server.o.Metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	d.clean("the metrics", w.Body.String())
	for e, err := range d.kv.Scan(t.Context(), "") {
		check(t, err)
		if !strings.Contains(string(e.Value), `"source":`) { // the reference, which is the operator's own words
			d.clean("the store under "+e.Name, string(e.Value))
		}
	}
}

// sweep uses one credential once.
func (d *road) sweep(name string, c credential.Credential, k swept, serve http.HandlerFunc, secret string) {
	t := d.t
	t.Helper()
	c.Service, c.Owner = "acme", "org"
	var s credential.Secret
	if secret != "" {
		s = credential.NewSecret([]byte(secret))
	}
	check(t, d.vault.Add(t.Context(), c, s))
	session, err := d.dir.CreateSession(t.Context(), identity.Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{c.ID}})
	check(t, err)
	d.session = session
	d.mu.Lock()
	d.serve = serve
	d.mu.Unlock()
	r, err := http.NewRequest("GET", "https://api.acme.dev/x", nil)
	check(t, err)
	handle := session.Handles[c.ID]
	if k.put == nil {
		r.Header.Set("Authorization", "Bearer "+handle)
	} else {
		k.put(r, handle, d.vault.StandIns(c.ID, handle))
	}
	resp, err := d.client(false).Do(r)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	d.clean(name, fmt.Sprint(resp.StatusCode, resp.Header)+string(body))
	if trouble := d.vault.Trouble(c.ID); trouble != nil {
		d.clean(name+": the trouble of the credential", trouble.What)
	}
	_, err = d.dir.Revoke(t.Context(), identity.Target{Session: session.ID}, "swept", "me")
	check(t, err)
}

// clean reports a text that shows the canary, plain or in base64.
func (d *road) clean(where, text string) {
	d.t.Helper()
	plain := base64.RawStdEncoding.EncodeToString([]byte(canary))
	for _, secret := range []string{canary, plain[4:40], "PRIVATE KEY"} {
		if i := strings.Index(text, secret); i >= 0 {
			d.t.Errorf("%s shows the secret: …%.200s", where, text[max(0, i-120):])
		}
	}
}
