package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// pythonWith is a Python that has modules, with what requirements.txt names or without,
// and the variable by which it finds them.
func pythonWith(t *testing.T, modules string) (python, path string) {
	t.Helper()
	installed, err := filepath.Abs("python_modules")
	if err != nil {
		t.Fatal(err)
	}
	path = "PYTHONPATH=" + installed
	var said []byte
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		c := exec.Command(python, "-c", "import "+modules)
		c.Env = append(os.Environ(), path)
		out, err := c.CombinedOutput()
		if err == nil {
			return python, path
		}
		said = append(out, err.Error()...)
	}
	t.Skipf("no Python here has %s (python3 -m pip install --target internal/e2e/python_modules -r internal/e2e/requirements.txt): %s", modules, said)
	return "", ""
}

// keyFile is a service account's key file, as Google's console hands it out, and is a
// credential of the world.
func keyFile(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "real@acme.iam.gserviceaccount.com", "private_key_id": "real",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tokens is a world of services that hand out tokens.
type tokens struct {
	*testkit.Program
	dir   string
	env   []string
	mints *testkit.Service
}

// givenKeys are what the stand-in of AWS's token service hands out.
var givenKeys = aws.Credentials{AccessKeyID: "ASIASTANDIN000000002", SecretAccessKey: canary + "/given/given/given/given/give", SessionToken: canary + "-session-token"}

func beginTokens(t *testing.T) *tokens {
	t.Helper()
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	own := aws.Credentials{AccessKeyID: amazonID, SecretAccessKey: amazonSecret}
	w := &tokens{dir: t.TempDir(), env: os.Environ()}
	resolve := map[string]string{}
	for host, h := range map[string]http.Handler{
		"graph.microsoft.com": graph(plainSecret), "login.microsoftonline.com": microsoftLogin(canary+"-client", plainSecret),
		"api.github.com": testkit.GitHub(githubSecret), "www.googleapis.com": testkit.Drive(plainSecret), "sts.eu-west-1.amazonaws.com": testkit.STS(own, canary+"-web-identity", givenKeys), "s3.eu-west-1.amazonaws.com": testkit.S3For(givenKeys),
		"reports.run.example": testkit.Drive(identityToken()),
		"oauth2.googleapis.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if part := strings.Split(r.FormValue("assertion"), "."); len(part) == 3 {
				if claims, err := base64.RawURLEncoding.DecodeString(part[1]); err == nil && strings.Contains(string(claims), `"target_audience":"https://reports.run.example"`) {
					fmt.Fprintf(w, `{"id_token":%q}`, identityToken())
					return
				}
			}
			fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, plainSecret)
		}),
	} {
		s, err := testkit.Serve(ca, h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		resolve[host] = s.Addr()
		if host == "oauth2.googleapis.com" {
			w.mints = s
		}
	}
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{Bin: bin, Dir: w.dir, Roots: ca.PEM(), Resolve: resolve,
		Config: "services:\n  - {service: google-reports, hosts: [reports.run.example], places: [bearer], paths: {\"/{x+}\": {GET: get read}}}\n",
		Grants: "grants:\n  agents:\n    triage-bot:\n      allow:\n        - {actions: [\"github:issues/*\", \"google-drive:files.list\", \"google-reports:get\", \"msgraph:me.*\", \"msgraph-login:instance/get\", \"msgraph-login:configuration/get\", \"aws-sts:AssumeRole\", \"aws-sts:AssumeRoleWithWebIdentity\", \"aws-s3:ListBuckets\"]}\n  humans:\n    \"*\": {allow: [{actions: [\"*:*\"]}]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	w.tell(t, "", "agent", "add", agent, "--owner", "bob@example.com")
	w.tell(t, plainSecret, "credential", "add", "person", "--service", "google-*", "--owner", "org", "--from-stdin")
	w.tell(t, keyFile(t), "credential", "add", "account", "--service", "google-*", "--owner", "org", "--kind", "google-service-account", "--set", "scopes=https://www.googleapis.com/auth/drive", "--from-stdin")
	w.tell(t, keyFile(t), "credential", "add", "identity", "--service", "google-*", "--owner", "org", "--kind", "google-service-account", "--set", "target_audience=https://reports.run.example", "--from-stdin")
	w.tell(t, canary+"-web-identity", "credential", "add", "web", "--service", "aws-sts", "--owner", "org", "--kind", "body", "--from-stdin")
	w.tell(t, `{"access_key_id":"`+amazonID+`","secret_access_key":"`+amazonSecret+`"}`, "credential", "add", "cloud", "--service", "aws-*", "--owner", "org", "--kind", "aws", "--from-stdin")
	w.tell(t, canary+"-client", "credential", "add", "app", "--service", "msgraph", "--owner", "org", "--kind", "oauth2-client",
		"--set", "token_url=https://login.microsoftonline.com/acme/oauth2/v2.0/token", "--set", "client_id=app", "--set", "auth=post", "--from-stdin")
	return w
}

// identityToken is one as Google makes them for a service account.
func identityToken() string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part([]byte(`{"aud":"https://reports.run.example","exp":4102444800}`)) + "." + part([]byte(canary))
}

// graph is Microsoft Graph, as far as it says who somebody is.
func graph(token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"displayName":"Acme"}`)
	})
}

// microsoftLogin is the endpoint of Microsoft's tokens, and what its libraries read first.
func microsoftLogin(secret, token string) http.Handler {
	const at = "https://login.microsoftonline.com/acme/"
	m := http.NewServeMux()
	say := func(pattern, format string, args ...any) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.Method == http.MethodPost && r.FormValue("client_secret") != secret {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, format, args...)
		})
	}
	say("GET /common/discovery/instance", `{"tenant_discovery_endpoint":"%sv2.0/.well-known/openid-configuration","metadata":[{"preferred_network":"login.microsoftonline.com","preferred_cache":"login.windows.net","aliases":["login.microsoftonline.com"]}]}`, at)
	say("GET /acme/v2.0/.well-known/openid-configuration", `{"issuer":"%[1]sv2.0","authorization_endpoint":"%[1]soauth2/v2.0/authorize","token_endpoint":"%[1]soauth2/v2.0/token"}`, at)
	say("POST /acme/oauth2/v2.0/token", `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, token)
	return m
}

// tell runs a verb that has to succeed.
func (w *tokens) tell(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r, err := w.Run(t.Context(), stdin, w.env, args...)
	if err != nil || r.Code != 0 || strings.Contains(r.Out+r.Err, canary) {
		t.Fatalf("chaperone %s: %v, code %d\n%s%s", strings.Join(args, " "), err, r.Code, r.Out, r.Err)
	}
	return r.Out + r.Err
}

// TestLibrariesThatGetTokens shows that what Google's, AWS's and Microsoft's own libraries
// do by themselves, from the files and variables that a session has, works and yields no
// secret.
func TestLibrariesThatGetTokens(t *testing.T) {
	python, modules := pythonWith(t, "google.auth.transport.requests, boto3, msal")
	script, err := filepath.Abs("testdata/tokens.py")
	if err != nil {
		t.Fatal(err)
	}
	w := beginTokens(t)
	config := filepath.Join(w.dir, "aws.ini")
	if err := os.WriteFile(config, []byte("[profile reader]\nrole_arn = arn:aws:iam::123456789012:role/reader\ncredential_source = Environment\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env = append(os.Environ(), "AWS_CONFIG_FILE="+config, "AWS_REGION=eu-west-1", modules)
	for _, tc := range []struct{ credential, call, want string }{
		{"person", "default", "google.oauth2.credentials\n200"},
		{"account", "default", "google.oauth2.service_account\n200"},
		{"account", "service-account", "200"},
		{"account", "self-signed", "200"},
		{"identity", "id-token", "200"},
		{"cloud", "assume", "acme"},
		{"cloud", "profile", "acme"},
		{"web", "web-identity", "acme"},
		{"app", "client-secret", "200 Acme"},
		{"app", "refresh-token", "200 Acme"},
	} {
		t.Run(tc.credential+" "+tc.call, func(t *testing.T) {
			out := w.tell(t, "", "run", "--agent", agent, "--human", human, "--credential", tc.credential, "--", python, script, tc.call)
			if !strings.Contains(out, tc.want) {
				t.Errorf("got %s, want %s", out, tc.want)
			}
		})
	}
	if n := len(w.mints.Received()); n != 2 {
		t.Errorf("the token endpoint was asked %d times, want twice, by the proxy", n)
	}
	r, err := w.Run(t.Context(), "", w.env, "run", "--agent", agent, "--human", human, "--credential", "account", "--", python, script, "id-token")
	if err != nil || r.Code == 0 || !strings.Contains(r.Err, "target_audience") {
		t.Errorf("an ID token of an account for access tokens: %v %s%s", err, r.Out, r.Err)
	}
	if strings.Contains(w.Output(), canary) {
		t.Errorf("the program says %s", w.Output())
	}
}

// TestScopesBeyondThePolicy has an operator try credentials: what they hear of scopes is
// what the policy in force can use.
func TestScopesBeyondThePolicy(t *testing.T) {
	w := beginTokens(t)
	w.tell(t, githubSecret, "credential", "add", "gh", "--service", "github", "--owner", "org", "--from-stdin")
	out := w.tell(t, "", "credential", "test", "gh")
	for _, want := range []string{"credential gh works (the service answers 200)", "it is octo's there", "its scopes are gist, read:org, repo", "no grant of the policy needs gist, read:org: leave that out"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %s, want %s", out, want)
		}
	}
	own := "package chaperone\n\ndefault decision := {\"result\": \"deny\", \"reasons\": [\"No.\"]}\n"
	if err := os.WriteFile(filepath.Join(w.dir, "rego", "chaperone", "decision.rego"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "a policy without grants", func() bool {
		return strings.Contains(w.tell(t, "", "credential", "test", "gh"), "cannot be told: it does not decide by its grants")
	})
}
