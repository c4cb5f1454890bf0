package e2e

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// desk takes a credential at each path in another way, and says whose it is where it is
// right.
type desk struct {
	public ed25519.PublicKey
	app    *rsa.PublicKey // of the GitHub App
}

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if !d.right(r) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch {
	case r.Host == "oauth2.googleapis.com" && r.URL.Path == "/tokeninfo":
		fmt.Fprint(w, `{"scope":"openid https://www.googleapis.com/auth/drive","expires_in":"3599"}`)
	case strings.HasSuffix(r.URL.Path, ":generateAccessToken"):
		fmt.Fprintf(w, `{"accessToken":%q,"expireTime":"2099-01-01T00:00:00Z"}`, canary+"-access")
	case strings.HasSuffix(r.URL.Path, "/token"):
		fmt.Fprintf(w, `{"access_token":%q,"id_token":%q,"token_type":"Bearer","expires_in":3600}`, canary+"-access", identityToken())
	case strings.HasSuffix(r.URL.Path, "/access_tokens"):
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"token":%q,"expires_at":"2099-01-01T00:00:00Z"}`, canary+"-access")
	case r.URL.Path == "/app/installations/7":
		fmt.Fprint(w, `{"app_slug":"triage","account":{"login":"acme"},"permissions":{"issues":"write","contents":"write","metadata":"read","checks":"read"}}`)
	default:
		fmt.Fprint(w, `{"login":"octo","total_count":1}`)
	}
}

// right reports whether a request carries the credential as its path wants it.
func (d *desk) right(r *http.Request) bool {
	h, auth := r.Header, r.Header.Get("Authorization")
	user, password, _ := r.BasicAuth()
	cookie, _ := r.Cookie("sid")
	path := r.URL.Path
	if strings.HasPrefix(path, "/app/") {
		return d.statement(strings.TrimPrefix(auth, "Bearer "))
	}
	switch path {
	case "/basic":
		return user == "alice" && password == canary+"-basic"
	case "/header":
		return h.Get("X-Key") == canary+"-header" && auth == ""
	case "/query":
		return r.URL.Query().Get("key") == canary+"-query"
	case "/cookie":
		return cookie != nil && cookie.Value == canary+"-cookie"
	case "/bot" + canary + "-path/getMe":
		return true
	case "/several":
		return h.Get("X-Key") == canary+"-one" && r.URL.Query().Get("key") == canary+"-two"
	case "/hmac":
		m := hmac.New(sha256.New, []byte(canary+"-hmac"))
		m.Write([]byte("GET" + r.RequestURI + h.Get("X-Time") + r.Host))
		return h.Get("X-Key") == "acme" && h.Get("X-Sign") == hex.EncodeToString(m.Sum(nil))
	case "/signed":
		return d.signed(r)
	case "/oauth1":
		return oauth1(r)
	case "/mtls":
		return len(r.TLS.PeerCertificates) == 1 && r.TLS.PeerCertificates[0].Subject.CommonName == "acme" && auth == ""
	case "/bearer":
		return auth == "Bearer "+canary+"-bearer"
	case "/tokeninfo":
		q := r.URL.Query()
		return q.Get("access_token") == canary+"-access" || q.Get("id_token") == identityToken()
	case "/token", "/v1/token":
		return true
	}
	return auth == "Bearer "+canary+"-access"
}

// statement verifies a statement of the app's (RFC 7515).
func (d *desk) statement(text string) bool {
	at := strings.LastIndexByte(text, '.')
	signature, err := base64.RawURLEncoding.DecodeString(text[at+1:])
	sum := sha256.Sum256([]byte(text[:max(at, 0)]))
	return err == nil && rsa.VerifyPKCS1v15(d.app, crypto.SHA256, sum[:], signature) == nil
}

// signed verifies a signature over method and address (RFC 9421 section 2.5).
func (d *desk) signed(r *http.Request) bool {
	params, _ := strings.CutPrefix(r.Header.Get("Signature-Input"), "sig1=")
	base := fmt.Sprintf("\"@method\": GET\n\"@target-uri\": https://%s%s\n\"@signature-params\": %s", r.Host, r.RequestURI, params)
	signature, err := base64.StdEncoding.DecodeString(strings.Trim(strings.TrimPrefix(r.Header.Get("Signature"), "sig1="), ":"))
	return err == nil && strings.Contains(params, `keyid="acme-1"`) && ed25519.Verify(d.public, []byte(base), signature)
}

// oauth1 verifies a signature of OAuth 1.0a (RFC 5849 section 3.4).
func oauth1(r *http.Request) bool {
	var list []string
	signature := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "OAuth "), ", ") {
		name, text, _ := strings.Cut(part, "=")
		if text = strings.Trim(text, `"`); name == "oauth_signature" {
			signature, _ = url.QueryUnescape(text)
			continue
		}
		list = append(list, name+"="+text)
	}
	slices.Sort(list)
	m := hmac.New(sha1.New, []byte(canary+"-consumer&"+canary+"-token"))
	m.Write([]byte("GET&" + url.QueryEscape("https://"+r.Host+r.URL.Path) + "&" + url.QueryEscape(strings.Join(list, "&"))))
	return signature == base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// workload is a token by which a platform says who a workload is.
const workload = "e30.e30." + canary

// pemOf writes a private key.
func pemOf(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// shownPair is a certificate that a client shows, with its key.
func shownPair(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "acme"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + pemOf(t, private)
}

// beginTrials starts a proxy whose operator tries credentials, of which these are the keys
// that sign, in PEM.
func beginTrials(t *testing.T) (w *tokens, signing, app string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{public: public, app: &key.PublicKey}
	s := httptest.NewUnstartedServer(d)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(hello.ServerName) }}
	s.StartTLS()
	t.Cleanup(s.Close)
	addr := s.Listener.Addr().String()
	resolve := map[string]string{}
	for _, host := range []string{"api.desk.dev", "api.github.com", "oauth2.googleapis.com", "sts.googleapis.com", "iamcredentials.googleapis.com"} {
		resolve[host] = addr
	}
	own := aws.Credentials{AccessKeyID: amazonID, SecretAccessKey: amazonSecret}
	sts, err := testkit.Serve(ca, testkit.STS(own, workload, givenKeys))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sts.Close() })
	resolve["sts.us-east-1.amazonaws.com"], resolve["sts.eu-west-1.amazonaws.com"] = sts.Addr(), sts.Addr()
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w = &tokens{dir: t.TempDir(), env: os.Environ()}
	w.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{Bin: bin, Dir: w.dir, Roots: ca.PEM(), Resolve: resolve,
		Config: "services:\n  - {service: desk, hosts: [api.desk.dev], places: [bearer, basic, \"path:/bot*\", oauth1, \"body:token\"], paths: {\"/{x+}\": {GET: get read}}}\n",
		Grants: "grants:\n  agents:\n    triage-bot: {allow: [{actions: [\"github:issues/*\"]}, {actions: [\"google-drive:files.list\"]}]}\n  humans:\n    \"*\": {allow: [{actions: [\"*:*\"]}]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	return w, pemOf(t, private), pemOf(t, key)
}

// TestCredentialsOfEveryKindAreTried has an operator try a credential of each kind, right
// and wrong, at services that verify them.
func TestCredentialsOfEveryKindAreTried(t *testing.T) {
	w, signing, app := beginTrials(t)
	const at = "https://api.desk.dev"
	endpoint := []string{"--set", "token_url=" + at + "/token", "--set", "client_id=app"}
	google := []string{"--set", "scopes=https://www.googleapis.com/auth/drive"}
	role := []string{"--set", "role_arn=arn:aws:iam::123456789012:role/reader"}
	pair := `{"access_key_id":"` + amazonID + `","secret_access_key":"` + amazonSecret + `"}`
	tried := map[string]bool{}
	for i, tc := range []struct {
		kind, service, secret string
		set                   []string
		call                  string // arguments of the try
		says                  string
	}{
		{"bearer", "desk", canary + "-bearer", nil, "--url " + at + "/bearer", "does not say"},
		{"basic", "desk", canary + "-basic", nil, "--url " + at + "/basic --user alice", ""},
		{"header", "desk", canary + "-header", []string{"--place", "X-Key"}, "--url " + at + "/header", ""},
		{"query", "desk", canary + "-query", []string{"--place", "key"}, "--url " + at + "/query", ""},
		{"cookie", "desk", canary + "-cookie", []string{"--place", "sid"}, "--url " + at + "/cookie", ""},
		{"path", "desk", canary + "-path", nil, "--url " + at + "/botHANDLE/getMe", ""},
		{"several", "desk", `{"header:X-Key":"` + canary + `-one","query:key":"` + canary + `-two"}`, nil, "--url " + at + "/several", ""},
		{"oauth2-refresh", "desk", canary + "-refresh", endpoint, "--url " + at + "/x", ""},
		{"oauth2-client", "desk", canary + "-client", endpoint, "--url " + at + "/x", ""},
		{"oauth2-jwt", "desk", signing, []string{"--set", "token_url=" + at + "/token", "--set", "issuer=bot@acme.com"}, "--url " + at + "/x", "it is bot@acme.com's there"},
		{"oauth2-exchange", "desk", canary + "-subject", endpoint, "--url " + at + "/x", ""},
		{"github-app", "github", app, []string{"--set", "app_id=1", "--set", "installation_id=7", "--set", "permissions=issues:read,contents:write"}, "",
			"it is triage[bot] at acme's there\nits scopes are contents:write, issues:read\nno grant of the policy needs contents:write: leave that out"},
		{"google-service-account", "google-*", keyFile(t), google, "", "it is real@acme.iam.gserviceaccount.com's there\nits scopes are https://www.googleapis.com/auth/drive, openid\nfor all that the policy grants, https://www.googleapis.com/auth/drive.metadata.readonly would do"},
		{"google-service-account", "google-*", keyFile(t), []string{"--set", "target_audience=" + at}, "", "it is real@acme.iam.gserviceaccount.com's there"},
		{"google-workload", "google-*", workload, append(google, "--set", "audience=//iam.googleapis.com/projects/1", "--set", "service_account=bot@acme.iam.gserviceaccount.com"), "", "its scopes are https://www.googleapis.com/auth/drive, openid"},
		{"aws", "aws-*", pair, nil, "", "it is arn:aws:iam::1:user/bot's there"},
		{"aws-role", "aws-*", pair, role, "--url https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15", "it is arn:aws:iam::1:user/bot's there"},
		{"aws-web-identity", "aws-*", workload, role, "", "it is arn:aws:iam::1:user/bot's there"},
		{"oauth1", "desk", `{"consumer_key":"acme","consumer_secret":"` + canary + `-consumer","token":"t","token_secret":"` + canary + `-token"}`, nil, "--url " + at + "/oauth1", ""},
		{"hmac", "desk", `{"key_id":"acme","secret":"` + canary + `-hmac"}`, []string{"--set", "string={method}{target}{timestamp}{host}", "--set", "set=header:X-Key={key},header:X-Time={timestamp},header:X-Sign={signature}"}, "--url " + at + "/hmac?a=b", ""},
		{"http-signature", "desk", signing, []string{"--set", "components=@method @target-uri", "--set", "algorithm=ed25519", "--set", "key_id=acme-1"}, "--url " + at + "/signed?a=b", ""},
		{"mtls", "desk", shownPair(t), nil, "--url " + at + "/mtls", ""},
	} {
		tried[tc.kind] = true
		t.Run(tc.kind, func(t *testing.T) {
			id := fmt.Sprintf("%s-%d", tc.kind, i)
			w.tell(t, tc.secret, append([]string{"credential", "add", id, "--service", tc.service, "--owner", "org", "--kind", tc.kind, "--from-stdin"}, tc.set...)...)
			out := w.tell(t, "", append([]string{"credential", "test", id}, strings.Fields(tc.call)...)...)
			if !strings.Contains(out, "credential "+id+" works (the service answers 200)") || !strings.Contains(out, tc.says) {
				t.Errorf("got %s, want %s", out, tc.says)
			}
		})
	}
	for kind := range strings.Lines(w.tell(t, "", "credential", "kinds", "--json")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(kind), `"kind": "`); ok && !tried[strings.TrimSuffix(name, `",`)] && !strings.HasPrefix(name, "body") {
			t.Errorf("kind %s was not tried", name)
		}
	}
	w.tell(t, canary+"-body", "credential", "add", "body", "--service", "desk", "--owner", "org", "--kind", "body", "--from-stdin")
	for args, want := range map[string]string{
		"body --url " + at + "/x":                          "might change something",
		"path-5 --url " + at + "/x":                        "write HANDLE in the path",
		"basic-1 --url " + at + "/basic":                   "say the user with --user",
		"bearer-0 --url " + at + "/header":                 "the service answers 401 and does not take it",
		"header-2":                                         "name a harmless address of the service with --url",
		"aws-15 --url https://s3.us-east-1.amazonaws.com/": "tried at its token service",
	} {
		r, err := w.Run(t.Context(), "", w.env, append([]string{"credential", "test"}, strings.Fields(args)...)...)
		if err != nil || r.Code == 0 || !strings.Contains(r.Err, want) || strings.Contains(r.Out+r.Err, canary) {
			t.Errorf("%s: %v, code %d\n%s%s", args, err, r.Code, r.Out, r.Err)
		}
	}
	if strings.Contains(w.Output(), canary) {
		t.Errorf("the program says %s", w.Output())
	}
}
