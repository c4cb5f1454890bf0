package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
	"chaperone/policy/action"
	"chaperone/proxy/identity"
	"chaperone/store/bolt"
	"chaperone/store/replica"
)

// open starts a server on a real socket and returns a client of it.
func open(t *testing.T) (*Client, *credential.Vault) {
	t.Helper()
	dir := t.TempDir()
	kv, err := bolt.Open(filepath.Join(dir, "db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	key, err := credential.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	vault, err := credential.Open(t.Context(), kv, key)
	if err != nil {
		t.Fatal(err)
	}
	directory, err := identity.Open(t.Context(), identity.Options{Store: kv, Vault: vault})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(directory.Close)
	catalogue, err := action.Load(os.DirFS(dir), []action.Service{{Name: "tracker", Hosts: []string{"tracker.example"}, Env: []string{"TRACKER_TOKEN"}, Places: []string{"bearer"}}})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{
		Directory: directory, Vault: vault, Catalogue: func() *action.Catalogue { return catalogue }, Metrics: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler),
		Status:   func() Status { return Status{Ready: true, Trust: dir} },
		Confirm:  func(context.Context) ([]replica.Ack, error) { return []replica.Ack{{ID: "r", Done: true}}, nil },
		Replicas: func() []replica.Status { return nil },
		Unready:  func() string { return "" },
		ProxyURL: func(agent, token string) string { return "http://" + agent + ":" + token + "@proxy" },
	})
	path := filepath.Join(dir, "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() { s.Close(); <-served })
	return NewClient(path), vault
}

func TestErrorsKeepTheirHints(t *testing.T) {
	c, _ := open(t)
	_, err := c.Agent(t.Context(), "no/body?")
	p, ok := errors.AsType[*problem.Problem](err)
	if !ok || p.Message != "agent is not known: no/body?" || !strings.Contains(p.Hint, "chaperone agent list") {
		t.Errorf("got %+v", err)
	}
	if _, err := c.AddAgent(t.Context(), AgentSpec{Name: "a", Owner: "o"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddAgent(t.Context(), AgentSpec{Name: "a", Owner: "o"}); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a second one: %v", err)
	}
}

func TestSecretGoesInAndNotOut(t *testing.T) {
	c, _ := open(t)
	const secret = "canary-secret"
	in := CredentialSpec{Credential: credential.Credential{ID: "c", Service: "tracker", Owner: "org", Kind: "bearer"}, Secret: []byte(secret)}
	if _, err := c.AddCredential(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddAgent(t.Context(), AgentSpec{Name: "a", Owner: "o"}); err != nil {
		t.Fatal(err)
	}
	s, err := c.CreateSession(t.Context(), identity.Spec{Agent: "a", Credentials: []string{"c"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Variables["c"][0] != "TRACKER_TOKEN" || s.Handles["c"] == "" || s.ProxyURL != "http://a:"+s.Token+"@proxy" {
		t.Errorf("session %+v", s)
	}
	for _, path := range []string{"/v1/credentials", "/v1/credentials/c", "/v1/agents", "/v1/agents/a", "/v1/sessions", "/v1/sessions/" + s.ID, "/v1/status"} {
		resp, err := c.http.Get("http://admin" + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %v", path, resp.Status, err)
		}
		for _, hidden := range []string{secret, s.Token, s.Handles["c"]} {
			if strings.Contains(string(b), hidden) {
				t.Errorf("%s shows a secret, a token or a handle", path)
			}
		}
	}
	if out, err := c.Revoke(t.Context(), Revocation{Target: identity.Target{Session: s.ID}}); err != nil || len(out.Sessions) != 1 || out.Handles != 1 {
		t.Errorf("revoke: %+v %v", out, err)
	}
	if err := c.Heartbeat(t.Context(), s.ID); err == nil {
		t.Error("a revoked session took a heartbeat")
	}
}

func TestUnknownMembersAreRefused(t *testing.T) {
	c, _ := open(t)
	for _, body := range []string{`{"nam":"a"}`, `[]`, ``, `{"name":"a","owner":"` + strings.Repeat("x", maxBody) + `"}`} {
		resp, err := c.http.Post("http://admin/v1/agents", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%.20s: %s", body, resp.Status)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if p := problem.Of(err); !strings.Contains(p.Hint, "chaperone serve") {
		t.Errorf("got %v, %q", err, p.Hint)
	}
}
