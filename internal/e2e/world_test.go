package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io/fs"
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
)

const grants = `grants:
  agents:
    triage-bot:
      allow:
        - {actions: ["github:issues/*", "github:repos/get", "github:git/*"], resources: [acme/web]}
        - {actions: ["slack:chat.postMessage", "openai:chat.completions.create", "stripe:balance/list", "echo:say", "anthropic:messages.create", "shapes:socket", "mcp:call", "google-drive:files.list"]}
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
  - service: shapes
    hosts: [shapes.example.com]
    env: [SHAPES_TOKEN]
    places: [bearer]
    paths: {/ws: {GET: socket read}, /hang: {GET: hang read}}
  - service: mcp
    hosts: [mcp.example.com]
    env: [MCP_TOKEN]
    places: [bearer]
    refusal: mcp
    paths: {/mcp: {GET: call read, POST: call read}, /admin: {POST: admin admin}}
  - {service: google-drive, env: [GOOGLE_TOKEN]}
  - {service: aws-s3, allow_foreign: true}
  - {service: aws-sts, allow_foreign: true}
  - {service: aws-dynamodb, allow_foreign: true}
  - {service: aws-ec2, allow_foreign: true}
`

// world is a running proxy among stand-ins of the services.
type world struct {
	*testkit.Program
	dir      string
	services map[string]*testkit.Service // by host
}

// begin builds and starts everything, with an agent and a credential for each
// service: gh, slack, openai, stripe, echo.
func begin(t *testing.T) *world {
	t.Helper()
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: t.TempDir(), services: map[string]*testkit.Service{}}
	resolve := map[string]string{}
	for host, h := range w.handlers(t) {
		s, err := testkit.Serve(ca, h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		w.services[host], resolve[host] = s, s.Addr()
	}
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{
		Bin: bin, Dir: w.dir, Resolve: resolve, Roots: ca.PEM(), Grants: grants, Config: services,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	w.verb(t, "", "agent", "add", agent, "--owner", "bob@example.com")
	for id, c := range map[string][2]string{
		"gh": {"github", githubSecret}, "slack": {"slack", slackSecret}, "openai": {"openai", openaiSecret},
		"stripe": {"stripe", stripeSecret}, "echo": {"echo", echoSecret},
		"shapes": {"shapes", plainSecret}, "mcp": {"mcp", plainSecret}, "drive": {"google-drive", plainSecret},
	} {
		w.verb(t, c[1], "credential", "add", id, "--service", c[0], "--owner", "org", "--from-stdin")
	}
	w.verb(t, claudeSecret, "credential", "add", "claude", "--service", "anthropic", "--owner", "org", "--kind", "header", "--place", "X-Api-Key", "--from-stdin")
	return w
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
	return map[string]http.Handler{
		"api.github.com": testkit.GitHub(githubSecret), "github.com": git, "slack.com": testkit.Slack(slackSecret),
		"api.openai.com": testkit.OpenAI(openaiSecret), "api.stripe.com": testkit.Stripe(stripeSecret),
		"grpc.example.com": testkit.GRPC(echoSecret), "api.anthropic.com": testkit.Anthropic(claudeSecret),
		"shapes.example.com": testkit.Shapes(), "mcp.example.com": testkit.MCP(plainSecret), "www.googleapis.com": testkit.Drive(plainSecret),
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
