package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/credential"
	"chaperone/proxy/identity"
	"chaperone/rego"
)

func (a *app) demoVerb() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Show the whole story on this machine, with no account and no network", Args: noArguments,
		Long: `Show the whole story on this machine: stand-ins of two services and the real proxy, all
on loopback and in a temporary directory. Each request is shown as the agent sent it and
as the service received it, with its record. Exit code 1 if a step did not come out as
promised.`,
		RunE: func(c *cobra.Command, _ []string) error { return a.demo(c.Context()) },
	}
}

// demoGrants is the policy of the demo.
const demoGrants = `grants:
  agents:
    triage-bot:
      allow:
        - actions: ["github:*"]
          access: [read, list, write]
          resources: [acme/*]
        - actions: ["slack:chat.postMessage"]
    report-bot:
      allow:
        - actions: ["github:*"]
          access: [read, list]
  groups: {}
  humans:
    "*":
      allow:
        - actions: ["*:*"]
`

// demonstration is a proxy with its services and agents, and what went wrong.
type demonstration struct {
	a       *app
	r       *road
	up      *running
	client  *admin.Client
	service *standIns
	alice   admin.Session // triage-bot for alice
	bob     admin.Session // report-bot for bob
	failed  []string
}

// demo plays the whole story.
func (a *app) demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "chaperone-demo-*")
	if err != nil {
		return fmt.Errorf("making demo directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	service, err := openStandIns(filepath.Join(dir, "services"))
	if err != nil {
		return fmt.Errorf("starting stand-ins: %w", err)
	}
	defer service.close()
	d := &demonstration{a: a, service: service}
	if err := d.start(ctx, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.up.stop(), d.r.close()) }()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	d.play(ctx)
	if len(d.failed) > 0 {
		return problem.Failure(fmt.Errorf("%d steps did not come out as promised: %s", len(d.failed), strings.Join(d.failed, ", ")), "report it with this output")
	}
	d.say("\nAll six steps came out as promised. To do the same for real:\n")
	d.say("  chaperone serve")
	d.say("  chaperone agent add triage-bot --owner you@example.com")
	d.say("  chaperone credential add gh --service github --owner org --from-env GITHUB_TOKEN")
	d.say("  $EDITOR rego/chaperone/grants.yaml")
	d.say("  chaperone run --agent triage-bot --human you@example.com --credential gh -- CMD")
	d.say("  chaperone log tail")
	return nil
}

func (d *demonstration) say(format string, args ...any) {
	fmt.Fprintf(d.a.stdout, format+"\n", args...)
}

// start builds and starts the proxy as serve does, with the stand-ins in the place
// of the services.
func (d *demonstration) start(ctx context.Context, dir string) error {
	policy := filepath.Join(dir, "rego")
	if err := os.CopyFS(policy, rego.FS); err != nil {
		return fmt.Errorf("writing demo policy: %w", err)
	}
	grants := filepath.Join(policy, "chaperone", "grants.yaml")
	if err := errors.Join(os.Chmod(grants, 0o600), os.WriteFile(grants, []byte(demoGrants), 0o600)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing demo policy: %w", err)
	}
	s := settings.Default()
	s.Listen, s.State, s.Policy.Path, s.Drain = "127.0.0.1:0", filepath.Join(dir, "state"), policy, time.Second
	s.Admin, s.Log.Path = filepath.Join(s.State, "admin.sock"), filepath.Join(s.State, "decisions.jsonl")
	s.Upstream.Resolve = map[string]string{githubHost: d.service.address, slackHost: d.service.address}
	s.Upstream.Roots = []string{d.service.roots}
	r, err := assemble(ctx, s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	up, err := r.start(ctx)
	if err != nil {
		return errors.Join(err, r.close())
	}
	d.r, d.up, d.client = r, up, admin.NewClient(s.Admin)
	return nil
}

// prepare registers two agents, seals two credentials and makes two sessions.
func (d *demonstration) prepare(ctx context.Context) error {
	var errs error
	for _, x := range []admin.AgentSpec{{Name: "triage-bot", Owner: "team:dev"}, {Name: "report-bot", Owner: "team:ops"}} {
		_, err := d.client.AddAgent(ctx, x)
		errs = errors.Join(errs, err)
	}
	for id, x := range map[string]struct{ service, secret string }{"gh": {"github", githubSecret}, "slack": {"slack", slackSecret}} {
		c := credential.Credential{ID: id, Service: x.service, Owner: "org", Kind: credential.KindBearer}
		_, err := d.client.AddCredential(ctx, admin.CredentialSpec{Credential: c, Secret: []byte(x.secret)})
		errs = errors.Join(errs, err)
	}
	if errs != nil {
		return fmt.Errorf("preparing demo: %w", errs)
	}
	var err error
	d.alice, err = d.client.CreateSession(ctx, identity.Spec{Agent: "triage-bot", Human: "alice@acme.com", Purpose: "triage", Credentials: []string{"gh", "slack"}})
	if err != nil {
		return fmt.Errorf("preparing demo: %w", err)
	}
	d.bob, err = d.client.CreateSession(ctx, identity.Spec{Agent: "report-bot", Human: "bob@acme.com", Purpose: "weekly report", Credentials: []string{"gh"}})
	if err != nil {
		return fmt.Errorf("preparing demo: %w", err)
	}
	return nil
}

// step is one request and what is promised of it.
type step struct {
	title   string
	session *admin.Session
	method  string
	url     string
	handle  string
	body    string
	status  int
	arrives bool   // at the service, with the secret
	code    string // outcome.error in the record, for what was refused
}

func (d *demonstration) play(ctx context.Context) {
	gh := d.alice.Handles["gh"]
	issues := "https://" + githubHost + "/repos/acme/web/issues"
	steps := []step{
		{"an allowed read", &d.alice, "GET", issues, gh, "", 200, true, ""},
		{"an allowed write", &d.alice, "POST", issues, gh, `{"title":"It is slow"}`, 201, true, ""},
		{"a denied delete", &d.alice, "DELETE", "https://" + githubHost + "/repos/acme/web", gh, "", 403, false, "denied"},
		{"a handle sent to the wrong host", &d.alice, "POST", "https://" + slackHost + "/api/chat.postMessage", gh, `{"channel":"C1","text":"hi"}`, 403, false, "wrong_service"},
		{"a stolen session: its handle with another one's token", &d.bob, "GET", issues, gh, "", 403, false, "handle_theft"},
	}
	for i, s := range steps {
		d.say("\n%d. %s", i+1, s.title)
		if err := d.try(ctx, &s); err != nil {
			d.fault(i+1, err)
		}
	}
	d.say("\n%d. a revocation in mid-stream", len(steps)+1)
	if err := d.revokeStream(ctx); err != nil {
		d.fault(len(steps)+1, err)
	}
}

func (d *demonstration) fault(n int, err error) {
	d.failed = append(d.failed, fmt.Sprintf("step %d (%v)", n, err))
	d.say("   NOT AS PROMISED: %v", err)
}

// send sends one request through the proxy as any client would, and shows it.
func (d *demonstration) send(ctx context.Context, s *step) (*http.Response, error) {
	client, err := agentClient(s.session.ProxyURL, filepath.Join(s.session.Trust, caFile))
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, s.method, s.url, strings.NewReader(s.body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+s.handle)
	if s.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	d.say("   agent sent       %s %s\n                    Authorization: Bearer %s", s.method, s.url, s.handle)
	return client.Do(r)
}

// try sends one request and holds what came of it against what was promised.
func (d *demonstration) try(ctx context.Context, s *step) error {
	d.service.take() // what an earlier step left
	resp, err := d.send(ctx, s)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	resp.Body.Close()
	if err != nil {
		return err
	}
	seen := d.service.take()
	if seen == "" {
		d.say("   service received nothing")
	} else {
		d.say("   service received %s", seen)
	}
	d.say("   agent got        %s %s", resp.Status, strings.TrimSpace(string(body)))
	x, err := d.record(ctx, decisionID(resp))
	if err != nil {
		return err
	}
	d.say("   record           %s", x.Line(audit.Layout{}))
	switch {
	case resp.StatusCode != s.status:
		return fmt.Errorf("status %d, promised %d", resp.StatusCode, s.status)
	case s.arrives != strings.Contains(seen, githubSecret), !s.arrives && seen != "":
		return errors.New("the service did not receive what was promised")
	case strings.Contains(seen, s.handle):
		return errors.New("the service received the handle")
	case x.Outcome.Outcome.Error != s.code:
		return fmt.Errorf("the record says %q, promised %q", x.Outcome.Outcome.Error, s.code)
	}
	return nil
}

func decisionID(r *http.Response) string {
	_, id, _ := strings.Cut(r.Header.Get("Chaperone-Decision"), "id=")
	return id
}

// record waits for the outcome of one request in the log.
func (d *demonstration) record(ctx context.Context, id string) (audit.Exchange, error) {
	if id == "" {
		return audit.Exchange{}, errors.New("the answer names no decision")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for x, err := range audit.Exchanges(d.r.s.Log.Path, audit.Filter{ID: id}) {
			if err == nil && x.Outcome != nil {
				return x, nil
			}
		}
		select {
		case <-ctx.Done():
			return audit.Exchange{}, fmt.Errorf("the record of %s has no outcome", id)
		case <-tick.C:
		}
	}
}

// revokeStream reads from a stream, revokes the session, and sees the stream end.
func (d *demonstration) revokeStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := d.send(ctx, &step{session: &d.alice, method: "GET", url: "https://" + githubHost + streamPath, handle: d.alice.Handles["gh"]})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d.say("   service received %s", d.service.take())
	first := make([]byte, 256)
	n, err := resp.Body.Read(first)
	if err != nil {
		return fmt.Errorf("reading stream: %w", err)
	}
	d.say("   agent got        %s %s", resp.Status, strings.TrimSpace(string(first[:n])))
	began := time.Now()
	_, err = d.client.Revoke(ctx, admin.Revocation{Target: identity.Target{Session: d.alice.ID}, Change: admin.Change{Reason: "demo", By: d.a.user()}})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil || ctx.Err() != nil {
		return errors.New("the stream was not cut")
	}
	d.say("   chaperone revoke --session %s   the stream was cut after %v", d.alice.ID, time.Since(began).Round(time.Millisecond))
	x, err := d.record(ctx, decisionID(resp))
	if err != nil {
		return err
	}
	d.say("   record           %s", x.Line(audit.Layout{}))
	return nil
}
