// Package e2e drives the built program from outside, with the clients that people
// use, against stand-ins of the services on loopback.
package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// canary stands in every secret. Nobody but a service may ever see it.
const canary = "CANARYcanary"

// Who acts in every test here.
const (
	agent = "triage-bot"
	human = "alice@example.com"
)

// The secrets of the stand-ins.
const (
	githubSecret = "ghp_" + canary + "GitHub0000000000000000"
	slackSecret  = "xoxb-" + canary + "-slack"
	openaiSecret = "sk-" + canary + "openai"
	stripeSecret = "sk_test_" + canary + "stripe"
	echoSecret   = "echo_" + canary
	claudeSecret = "sk-ant-api03-" + canary
	plainSecret  = canary + "-of-the-other-services"
	amazonID     = "AKIASTANDIN000000001"
	amazonSecret = canary + "/amazon/amazon/amazon/amazon"
)

// An account is a credential of the world: what clients call it, and what an agent
// might have found in its place. One of several parts has as many words in each.
type account struct{ service, secret, place, variable, stray string }

// parts calls f with each variable of an account.
func (a account) parts(f func(variable, secret, stray string)) {
	secrets, strays := strings.Fields(a.secret), strings.Fields(a.stray)
	for i, variable := range strings.Fields(a.variable) {
		f(variable, secrets[i], strays[i])
	}
}

var accounts = map[string]account{
	"gh":     {"github", githubSecret, "", "GITHUB_TOKEN", "ghp_0123456789abcdefghijABCDEFGHIJ012345"},
	"slack":  {"slack", slackSecret, "", "SLACK_BOT_TOKEN", "xoxb-123456789012-123456789012-abcdefghijklmnopqrstuvwx"},
	"openai": {"openai", openaiSecret, "", "OPENAI_API_KEY", "sk-0123456789abcdefghijABCDEFGHIJ0123456789abcdefgh"},
	"stripe": {"stripe", stripeSecret, "", "STRIPE_API_KEY", "sk_test_0123456789abcdefghijABCD"},
	"claude": {"anthropic", claudeSecret, "X-Api-Key", "ANTHROPIC_API_KEY", "sk-ant-api03-0123456789abcdefghijABCDEFGHIJ0123456789"},
	"echo":   {"echo", echoSecret, "", "ECHO_TOKEN", "echo_0123456789abcdefghijABCDEFGHIJ"},
	"shapes": {"shapes", plainSecret, "", "SHAPES_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
	"mcp":    {"mcp", plainSecret, "", "MCP_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
	"drive":  {"google-drive", plainSecret, "", "GOOGLE_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
	"gcs":    {"google-storage", plainSecret, "", "STORAGE_TOKEN", "ya29.0123456789abcdefghijABCDEFGHIJ0123456789"},
	"kube":   {"kube", plainSecret, "", "KUBE_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
	"depot":  {"depot", plainSecret, "", "DEPOT_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
	"npm":    {"npm", plainSecret, "", "NPM_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
	"crates": {"crates", plainSecret, "", "CRATES_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
	"amazon": {"aws-s3", amazonID + " " + amazonSecret, "aws", "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY", "AKIA0123456789ABCDEF 0123456789abcdefghij0123456789abcdefghij"},
	"oci":    {"oci", plainSecret, "", "OCI_TOKEN", "plain_0123456789abcdefghijABCDEFGHIJ"},
}

const grants = `grants:
  agents:
    triage-bot:
      allow:
        - {actions: ["github:issues/*", "github:repos/get", "github:git/*"], resources: [acme/web]}
        - {actions: ["slack:chat.postMessage", "slack:auth.test", "openai:chat.completions.create", "openai:models.list", "stripe:balance/list", "stripe:customers/create"]}
        - {actions: ["anthropic:messages.create", "anthropic:models.list", "echo:say", "echo:talk", "echo:watch", "shapes:allowed", "shapes:upload", "google-drive:files.list", "google-drive:files.create"]}
        - {actions: ["mcp:initialize", "mcp:notifications/*", "mcp:stream/*", "mcp:tools/list", "mcp:look", "aws-s3:ListBuckets", "aws-s3:PutObject", "aws-s3:GetObject", "kube:list", "kube:create", "kube:watch", "depot:read", "npm:read", "npm:write", "crates:read", "crates:write", "oci:read", "oci:write"]}
        - {actions: ["google-storage:buckets.get", "google-storage:objects.list", "google-storage:objects.get", "google-storage:objects.insert", "lfs:download", "lfs:upload"]}
  humans:
    "*": {allow: [{actions: ["*:*"]}]}
`

const services = `services:
  - service: echo
    hosts: [grpc.example.com]
    env: [ECHO_TOKEN]
    places: [bearer]
    paths:
      /chaperone.test.Echo/Say: {POST: say read}
      /chaperone.test.Echo/Talk: {POST: talk write}
      /chaperone.test.Echo/Watch: {POST: watch read}
      /chaperone.test.Echo/Drop: {POST: drop delete}
  - service: shapes
    hosts: [shapes.example.com]
    env: [SHAPES_TOKEN]
    places: [bearer]
    paths:
      /ws: {GET: allowed read}
      /sse: {GET: allowed read}
      /ticks: {GET: allowed read}
      /file: {GET: allowed read, HEAD: allowed read}
      /upload: {POST: upload write}
      /hang: {GET: hang read}
  - service: mcp
    hosts: [mcp.example.com]
    env: [MCP_TOKEN]
    places: [bearer]
    refusal: mcp
    mcp: [/mcp]
    ops: {"tools/call:look": look read, "tools/call:wipe": wipe delete}
  - {service: google-drive, env: [GOOGLE_TOKEN]}
  - {service: google-storage, env: [STORAGE_TOKEN]}
  - service: lfs
    hosts: [github-cloud.githubusercontent.com]
    allow_foreign: true
    paths: {"/alambic/media/{object+}": {GET: download read, PUT: upload write}}
  - service: kube
    hosts: [kube.example.com]
    env: [KUBE_TOKEN]
    places: [bearer]
    refusal: kubernetes
    paths: {"/{path+}": {GET: list list, POST: create write, DELETE: delete delete}}
  - {service: npm, hosts: [npm.example.com], env: [NPM_TOKEN], places: [bearer], refusal: npm, paths: {"/{path+}": {GET: read read, PUT: write write}, "/secret/{path+}": {GET: hide read}}}
  - {service: crates, hosts: [crates.example.com], env: [CRATES_TOKEN], places: [bearer], refusal: cargo, paths: {"/{path+}": {GET: read read, PUT: write write}, "/secret/{path+}": {GET: hide read}}}
  - service: oci
    hosts: [oci.example.com]
    env: [OCI_TOKEN]
    places: [basic]
    refusal: oci
    paths:
      /v2/: {GET: read read}
      "/v2/{path+}": {GET: read read, HEAD: read read, POST: write write, PATCH: write write, PUT: write write}
      "/v2/secret/{path+}": {GET: hide read, HEAD: hide read}
  - {service: depot, hosts: [depot.example.com], env: [DEPOT_TOKEN], places: [basic], paths: {"/{path+}": {GET: read read, HEAD: read read}, "/secret/{path+}": {GET: hide read, HEAD: hide read}}}
`

// world is a running proxy among stand-ins of the services.
type world struct {
	*testkit.Program
	dir      string
	bin      string
	roots    []byte                      // PEM of the CA of the stand-ins
	services map[string]*testkit.Service // by host
	resolve  map[string]string           // host -> address
}

// begin builds and starts everything, with an agent and a credential for each
// service.
func begin(t *testing.T) *world {
	t.Helper()
	return beginWith(t, nil)
}

// beginWith puts others in the place of stand-ins, by host.
func beginWith(t *testing.T, instead map[string]http.Handler) *world {
	t.Helper()
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{bin: bin, roots: ca.PEM(), services: map[string]*testkit.Service{}, resolve: map[string]string{}}
	handlers := w.handlers(t)
	maps.Copy(handlers, instead)
	for host, h := range handlers {
		s, err := testkit.Serve(ca, h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		w.services[host], w.resolve[host] = s, s.Addr()
	}
	w.start(t)
	return w
}

// without is the same world with all of its services down.
func (w *world) without(t *testing.T) *world {
	t.Helper()
	closed, err := testkit.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	down := &world{bin: w.bin, roots: w.roots, resolve: map[string]string{}}
	for host := range w.resolve {
		down.resolve[host] = closed
	}
	down.start(t)
	return down
}

// start starts the program, and gives it an agent and credentials.
func (w *world) start(t *testing.T) {
	t.Helper()
	var err error
	w.dir = t.TempDir()
	w.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{
		Bin: w.bin, Dir: w.dir, Resolve: w.resolve, Roots: w.roots, Grants: grants, Config: services,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	w.verb(t, "", "agent", "add", agent, "--owner", "bob@example.com")
	for id, c := range accounts {
		args, secret := []string{"credential", "add", id, "--service", c.service, "--owner", "org", "--from-stdin"}, c.secret
		switch c.place {
		case "":
		case "aws":
			args, secret = append(args, "--kind", "aws"), `{"access_key_id":"`+amazonID+`","secret_access_key":"`+amazonSecret+`"}`
		default:
			args = append(args, "--kind", "header", "--place", c.place)
		}
		w.verb(t, secret, args...)
	}
}

func (w *world) handlers(t *testing.T) map[string]http.Handler {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"acme/web", "acme/other"} {
		if err := testkit.InitRepo(root, name); err != nil {
			t.Fatal(err)
		}
	}
	git, err := testkit.Git(root, githubSecret)
	if err != nil {
		t.Fatal(err)
	}
	lfs := testkit.NewLFS(git, githubSecret, "github-cloud.githubusercontent.com")
	shelf := t.TempDir()
	if err := stock(shelf); err != nil {
		t.Fatal(err)
	}
	depot := testkit.Depot(shelf, plainSecret)
	return map[string]http.Handler{
		"api.github.com": testkit.GitHub(githubSecret), "github.com": lfs, "github-cloud.githubusercontent.com": lfs.Objects(), "oauth2.googleapis.com": testkit.GoogleTokens(plainSecret), "storage.googleapis.com": testkit.Buckets(plainSecret), "slack.com": testkit.Slack(slackSecret),
		"api.openai.com": testkit.OpenAI(openaiSecret), "api.stripe.com": testkit.Stripe(stripeSecret),
		"grpc.example.com": testkit.GRPC(echoSecret), "api.anthropic.com": testkit.Anthropic(claudeSecret),
		"shapes.example.com": testkit.Shapes(), "mcp.example.com": testkit.MCP(plainSecret), "www.googleapis.com": testkit.Drive(plainSecret),
		"s3.eu-west-1.amazonaws.com": testkit.S3(amazonID, amazonSecret), "acme.s3.eu-west-1.amazonaws.com": testkit.S3(amazonID, amazonSecret), "kube.example.com": testkit.Kube(plainSecret),
		"depot.example.com": depot, "npm.example.com": depot, "crates.example.com": depot, "oci.example.com": registry(t, plainSecret),
	}
}

// verb runs a verb that has to succeed, and returns what it printed.
func (w *world) verb(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r, err := w.Run(t.Context(), stdin, nil, args...)
	if err != nil || r.Code != 0 {
		t.Fatalf("chaperone %s: %v, code %d\n%s%s", strings.Join(args, " "), err, r.Code, r.Out, r.Err)
	}
	return r.Out
}

// session is what `session create --format json` prints.
type session struct {
	Session  string
	ProxyURL string            `json:"proxy_url"`
	Handles  map[string]string `json:"handles"`
	Env      map[string]string
}

// open makes a session with a handle for gh, and a client that uses it.
func (w *world) open(t *testing.T, human string) (session, *http.Client) {
	t.Helper()
	var s session
	out := w.verb(t, "", "session", "create", "--agent", agent, "--human", human, "--credential", "gh", "--format", "json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(s.Env["NODE_EXTRA_CA_CERTS"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := direct(s.ProxyURL, roots)
	t.Cleanup(c.CloseIdleConnections)
	return s, c
}

// decisions are the decision records that is chooses, once there are at least n: a
// record may reach the file a moment after the answer did its reader.
func (w *world) decisions(t *testing.T, n int, is func(testkit.Record) bool) (out []testkit.Record) {
	t.Helper()
	until(t, "the record", func() bool {
		all, err := w.Records()
		if err != nil {
			t.Fatal(err)
		}
		out = nil
		for _, r := range all {
			if r.Event == "decision" && is(r) {
				out = append(out, r)
			}
		}
		return len(out) >= n
	})
	return out
}

// received is the number of requests that services got so far.
func (w *world) received() (n int) {
	for _, s := range w.services {
		n += len(s.Received())
	}
	return n
}

// secrets are what may stand nowhere: the canary, the handle and the token.
func (s session) secrets(t *testing.T) []string {
	t.Helper()
	u, err := url.Parse(s.ProxyURL)
	if err != nil {
		t.Fatal("the proxy's URL is none")
	}
	token, _ := u.User.Password()
	if len(token) < 16 || len(s.Handles["gh"]) < 16 {
		t.Fatal("the session has no token or no handle")
	}
	return []string{canary, token, s.Handles["gh"]}
}

// sweep searches everything that the proxy wrote or says for secrets.
func (w *world) sweep(t *testing.T, secrets ...string) {
	t.Helper()
	look := func(where, text string) {
		for i, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("secret %d is in %s", i, where)
			}
		}
	}
	look("what the program printed", w.Output())
	if b, err := w.Admin(context.Background(), "/metrics"); err != nil {
		t.Error(err)
	} else {
		look("the metrics", string(b))
	}
	err := filepath.WalkDir(w.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		look(name, string(b))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
