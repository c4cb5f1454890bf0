package e2e

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// TestBehindABalancer tells agents the balancer's address, and after SIGTERM says that
// it goes while it still takes what the balancer sends until that has noticed.
func TestBehindABalancer(t *testing.T) {
	dir := t.TempDir()
	bin, err := testkit.Build(t.Context(), dir)
	must(t, err)
	ca, err := certs.Open(dir)
	must(t, err)
	p, err := testkit.Start(t.Context(), testkit.ProgramOptions{
		Bin: bin, Dir: dir, Roots: ca.PEM(), Grants: fleetGrants, Config: "advertise: http://balancer.example.com:8080\ndrain_notice: 10m\n",
	})
	must(t, err)
	t.Cleanup(p.Kill)
	run := func(args ...string) string {
		r, err := p.Run(t.Context(), "", nil, args...)
		if err != nil || r.Code != 0 {
			t.Fatalf("chaperone %s: %v, %+v", strings.Join(args, " "), err, r)
		}
		return r.Out
	}
	run("agent", "add", "bot", "--owner", "o@example.com")
	if out := run("session", "create", "--agent", "bot", "--format", "env"); !strings.Contains(out, "@balancer.example.com:8080") || strings.Contains(out, p.Addr) {
		t.Errorf("agents are told %s", out)
	}
	must(t, syscall.Kill(p.PID(), syscall.SIGTERM))
	within(t, 30*time.Second, "/readyz says that it stops", func() bool {
		_, err := p.Admin(t.Context(), "/readyz")
		return err != nil && strings.Contains(err.Error(), "stops")
	})
	resp, err := http.Get("http://" + p.Addr + "/")
	if err != nil {
		t.Fatalf("what the balancer sends before it noticed: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusProxyAuthRequired {
		t.Errorf("got %s", resp.Status)
	}
}
