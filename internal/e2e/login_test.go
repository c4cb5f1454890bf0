package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// consentService is an API with its own OAuth provider. Its refresh tokens are good once.
type consentService struct {
	mu      sync.Mutex
	codes   map[string]url.Values
	refresh int
	issued  int
}

func (s *consentService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		fmt.Fprint(w, `{"issuer":"https://login.acme.dev","authorization_endpoint":"https://login.acme.dev/authorize","token_endpoint":"https://login.acme.dev/token","device_authorization_endpoint":"https://login.acme.dev/device","authorization_response_iss_parameter_supported":true}`)
	case "/authorize":
		q := r.URL.Query()
		code := fmt.Sprint("code", len(s.codes))
		s.codes[code] = q
		http.Redirect(w, r, q.Get("redirect_uri")+"?code="+code+"&state="+q.Get("state")+"&iss="+url.QueryEscape("https://login.acme.dev"), http.StatusFound)
	case "/device":
		fmt.Fprint(w, `{"device_code":"dev","user_code":"ABCD-EFGH","verification_uri":"https://login.acme.dev/activate","expires_in":600,"interval":1}`)
	case "/token":
		s.token(w, r)
	case "/me":
		if r.Header.Get("Authorization") != fmt.Sprint("Bearer canary-access-", s.issued) || s.issued == 0 {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":"invalid_token"}`)
			return
		}
		fmt.Fprint(w, `{"login":"alice"}`)
	default:
		http.NotFound(w, r)
	}
}

func (s *consentService) token(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	good := r.Form.Get("device_code") == "dev"
	switch r.Form.Get("grant_type") {
	case "authorization_code":
		asked := s.codes[r.Form.Get("code")]
		sum := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
		good = asked != nil && asked.Get("code_challenge") == base64.RawURLEncoding.EncodeToString(sum[:])
		delete(s.codes, r.Form.Get("code"))
	case "refresh_token":
		good = r.Form.Get("refresh_token") == fmt.Sprint("canary-refresh-", s.refresh)
	}
	if !good {
		w.WriteHeader(400)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	s.refresh++
	s.issued++
	fmt.Fprintf(w, `{"access_token":"canary-access-%d","refresh_token":"canary-refresh-%d","token_type":"bearer","expires_in":3600}`, s.issued, s.refresh)
}

// TestLogin walks a person through consent, with curl in the place of their browser,
// and uses what comes of it through the proxy.
func TestLogin(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl, which is the person's browser here")
	}
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	provider := &consentService{codes: map[string]url.Values{}}
	s, err := testkit.Serve(ca, provider)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	dir := t.TempDir()
	bin, err := testkit.Build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := testkit.Start(t.Context(), testkit.ProgramOptions{
		Bin: bin, Dir: dir, Roots: ca.PEM(), Resolve: map[string]string{"login.acme.dev": s.Addr(), "api.acme.dev": s.Addr()},
		Grants: "grants:\n  agents:\n    bot:\n      allow:\n        - {actions: [\"acme:*\"]}\n  humans:\n    alice@acme.com:\n      allow:\n        - {actions: [\"acme:*\"]}\n",
		Config: "services:\n  - {service: acme, hosts: [api.acme.dev], env: [ACME_TOKEN], places: [bearer], paths: {/me: {GET: me/get read}}}\n" +
			"logins:\n  acme: {issuer: \"https://login.acme.dev\", client_id: app, scopes: [me]}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	browser := filepath.Join(dir, "browser")
	script := "#!/bin/sh\nexec curl -sL --noproxy '*' --cacert " + filepath.Join(dir, "roots.pem") + " --connect-to login.acme.dev:443:" + s.Addr() + " \"$1\" >/dev/null\n"
	if err := os.MkdirAll(browser, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(browser, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + browser + ":" + os.Getenv("PATH")}
	verb := func(want string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		got, err := p.Run(ctx, "", env, args...)
		if err != nil || !strings.Contains(got.Out+got.Err, want) || strings.Contains(got.Out+got.Err, "canary") {
			t.Fatalf("%v: %v, %d\n%s%s\nwant %q", args, err, got.Code, got.Out, got.Err, want)
		}
	}
	verb("is registered", "agent", "add", "bot", "--owner", "alice@acme.com")
	verb("credential alice-acme of human:alice@acme.com for acme is kept", "credential", "login", "acme", "--human", "alice@acme.com")
	verb("credential alice-acme works", "credential", "test", "alice-acme", "--url", "https://api.acme.dev/me")
	verb("is not a host of service acme", "credential", "test", "alice-acme", "--url", "https://login.acme.dev/me")
	verb(`{"login":"alice"}`, "run", "--agent", "bot", "--human", "alice@acme.com", "--credential", "acme", "--", "sh", "-c", `curl -s -H "Authorization: Bearer $ACME_TOKEN" https://api.acme.dev/me`)
	verb("type ABCD-EFGH at", "credential", "login", "acme", "--human", "alice@acme.com", "--device")
	verb(`{"login":"alice"}`, "run", "--agent", "bot", "--human", "alice@acme.com", "--credential", "acme", "--", "sh", "-c", `curl -s -H "Authorization: Bearer $ACME_TOKEN" https://api.acme.dev/me`)
	verb("there is no app for people to log in to github", "credential", "login", "github", "--human", "alice@acme.com")
	records, err := p.Records()
	if err != nil || len(records) == 0 {
		t.Fatal(records, err)
	}
	if strings.Contains(p.Output(), "canary") {
		t.Errorf("the program says %s", p.Output())
	}
	for _, x := range records {
		if x.Event == "decision" && x.Credential.ID != "alice-acme" {
			t.Errorf("record %+v", x)
		}
	}
}
