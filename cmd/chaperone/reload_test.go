package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chaperone/cmd/chaperone/admin"
)

// begin starts the demo's proxy, which has services, agents and sessions.
func begin(t *testing.T) *demonstration {
	t.Helper()
	service, err := openStandIns(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.close)
	d := &demonstration{a: &app{stdout: io.Discard, stderr: io.Discard}, service: service}
	if err := d.start(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.up.stop(); err != nil {
			t.Error(err)
		}
		if err := d.r.close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// until polls the status until it is as want says.
func (d *demonstration) until(t *testing.T, what string, want func(admin.Status) bool) admin.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := d.client.Status(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if want(s) {
			return s
		}
		<-tick.C
	}
}

// TestReload edits the policy under a proxy that runs: a good one takes effect, a
// broken one is shown and changes nothing, and a signal reads it again.
func TestReload(t *testing.T) {
	d := begin(t)
	grants := filepath.Join(d.r.s.Policy.Path, "chaperone", "grants.yaml")
	write := func(text string) {
		if err := os.WriteFile(grants, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := step{session: &d.alice, method: "GET", url: "https://" + githubHost + "/repos/acme/web/issues", handle: d.alice.Handles["gh"], status: 200, arrives: true}
	if err := d.try(t.Context(), &read); err != nil {
		t.Fatal(err)
	}
	first := d.until(t, "readiness", func(s admin.Status) bool { return s.Ready }).Policy

	write(strings.ReplaceAll(demoGrants, "access: [read, list, write]", "access: [write]"))
	second := d.until(t, "the new policy", func(s admin.Status) bool { return s.Policy != first }).Policy
	denied := read
	denied.status, denied.arrives, denied.code = 403, false, "denied"
	if err := d.try(t.Context(), &denied); err != nil {
		t.Errorf("after the reload: %v", err)
	}

	write("grants: {agents: {triage-bot: {alow: []}}}\n")
	s := d.until(t, "the fault", func(s admin.Status) bool { return s.Reload != "" })
	if s.Policy != second || !s.Ready {
		t.Errorf("a broken policy took the place of a good one: %+v", s)
	}
	if _, err := d.client.Reload(t.Context()); err == nil {
		t.Error("reload of a broken policy is no error")
	}

	write(demoGrants)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.until(t, "the first policy again", func(s admin.Status) bool { return s.Policy == first && s.Reload == "" })
	if err := d.try(t.Context(), &read); err != nil {
		t.Errorf("after the second reload: %v", err)
	}
}

// TestMetrics reads the metrics and readiness over the admin socket.
func TestMetrics(t *testing.T) {
	d := begin(t)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.r.s.Admin)
	}}}
	defer client.CloseIdleConnections()
	for path, want := range map[string]string{"/metrics": "chaperone_tunnels_total", "/readyz": "ready"} {
		resp, err := client.Get("http://admin" + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: %s %v", path, resp.Status, err)
		}
		if bytes.Contains(b, []byte(githubSecret)) {
			t.Errorf("%s shows a secret", path)
		}
	}
	d.r.ready.Store(false)
	resp, err := client.Get("http://admin/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("not ready, and yet %s", resp.Status)
	}
}

// TestSecretsStayInside plays the demo and looks for the secrets in all that is
// written: the log, the store and the trust files.
func TestSecretsStayInside(t *testing.T) {
	d := begin(t)
	d.play(t.Context())
	if len(d.failed) > 0 {
		t.Fatal(d.failed)
	}
	err := filepath.WalkDir(d.r.s.State, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, secret := range []string{githubSecret, slackSecret, d.alice.Token, d.alice.Handles["gh"]} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds a secret, a token or a handle", filepath.Base(path))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
