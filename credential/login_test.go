package credential

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"chaperone/credential/grant"
)

// issuer is a provider at which people give consent: it checks PKCE, names itself in
// its answers, and takes a code once.
type issuer struct {
	*httptest.Server
	mu       sync.Mutex
	codes    map[string]url.Values // what each was asked with
	approved bool                  // the device's code was typed
	denied   bool
}

func newIssuer(t *testing.T) *issuer {
	p := &issuer{codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"%s/authorize","token_endpoint":"%s/token","device_authorization_endpoint":"%s/device","authorization_response_iss_parameter_supported":true}`, p.URL, p.URL, p.URL, p.URL)
	})
	mux.HandleFunc("POST /device", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"device_code":"dev","user_code":"ABCD-EFGH","verification_uri":"%s/activate","expires_in":600,"interval":1}`, p.URL)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		r.ParseForm()
		w.Header().Set("Content-Type", "application/json")
		fault := ""
		if r.Form.Get("device_code") != "" {
			switch {
			case p.denied:
				fault = "access_denied"
			case !p.approved:
				fault = "authorization_pending"
			}
		} else {
			asked := p.codes[r.Form.Get("code")]
			delete(p.codes, r.Form.Get("code"))
			sum := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
			if asked == nil || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || asked.Get("redirect_uri") != r.Form.Get("redirect_uri") {
				fault = "invalid_grant"
			}
		}
		if fault != "" {
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error":%q}`, fault)
			return
		}
		fmt.Fprint(w, `{"access_token":"canary-access","refresh_token":"canary-refresh","token_type":"bearer","expires_in":3600}`)
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

// consent is what the person's browser brings back from a URL.
func (p *issuer) consent(t *testing.T, address string) grant.Answer {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("client_id") != "app" || q.Get("state") == "" || !strings.HasPrefix(q.Get("redirect_uri"), "http://127.0.0.1:") {
		t.Errorf("the person is sent to %s", address)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code := fmt.Sprint("code-", len(p.codes))
	p.codes[code] = q
	return grant.Answer{Code: code, State: q.Get("state"), Iss: p.URL}
}

func loginBench(t *testing.T) (*bench, *Logins, *issuer, Credential, App) {
	b, p := vault(t), newIssuer(t)
	b.Use(Outside{HTTP: p.Client().Transport})
	c := Credential{ID: "alice-acme", Service: "acme", Owner: "human:alice@acme.com"}
	return b, NewLogins(b.Vault), p, c, App{Provider: grant.Provider{Issuer: p.URL}, ClientID: "app", Scopes: []string{"read", "write"}}
}

func TestLogin(t *testing.T) {
	b, l, p, c, app := loginBench(t)
	for range 2 { // the second replaces what the first brought
		s, err := l.Begin(t.Context(), c, app, "http://127.0.0.1:1/callback")
		if err != nil {
			t.Fatal(err)
		}
		made, err := l.Finish(t.Context(), s.ID, p.consent(t, s.URL))
		if err != nil || made.Kind != KindRefresh || made.Owner != c.Owner || made.Settings["token_url"] != p.URL+"/token" || made.Settings["scopes"] != "read write" {
			t.Fatalf("%+v, %v", made, err)
		}
		if _, err := l.Finish(t.Context(), s.ID, grant.Answer{}); !errors.Is(err, ErrLogin) {
			t.Errorf("a login that has ended: %v", err)
		}
	}
	for e, err := range b.kv.Scan(t.Context(), "") {
		if err != nil || strings.Contains(string(e.Value), "canary-") {
			t.Errorf("the store shows a token under %s: %v", e.Name, err)
		}
	}
	other := c
	other.Owner = "human:bob@acme.com"
	s, err := l.Begin(t.Context(), other, app, "http://127.0.0.1:1/callback")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Finish(t.Context(), s.ID, p.consent(t, s.URL)); !errors.Is(err, ErrDuplicate) {
		t.Errorf("another's credential of that id: %v", err)
	}
}

func TestLoginRefuses(t *testing.T) {
	_, l, p, c, app := loginBench(t)
	for name, tc := range map[string]struct {
		change func(*grant.Answer)
		want   error
	}{
		"another login's state": {func(a *grant.Answer) { a.State += "x" }, grant.ErrIssuer},
		"another provider":      {func(a *grant.Answer) { a.Iss = "https://evil.example" }, grant.ErrIssuer},
		"no provider":           {func(a *grant.Answer) { a.Iss = "" }, grant.ErrIssuer},
		"denied":                {func(a *grant.Answer) { a.Error = "access_denied" }, grant.ErrDenied},
		"no code":               {func(a *grant.Answer) { a.Code = "" }, grant.ErrDenied},
		"made up":               {func(a *grant.Answer) { a.Code = "x" }, grant.ErrGrant},
	} {
		s, err := l.Begin(t.Context(), c, app, "http://127.0.0.1:1/callback")
		if err != nil {
			t.Fatal(err)
		}
		a := p.consent(t, s.URL)
		tc.change(&a)
		if _, err := l.Finish(t.Context(), s.ID, a); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	app.Provider.Issuer += "/other"
	if _, err := l.Begin(t.Context(), c, app, "http://127.0.0.1:1/callback"); !errors.Is(err, grant.ErrEndpoint) {
		t.Errorf("no such provider: %v", err)
	}
	app.Provider = grant.Provider{Token: "http://a/b", Authorize: "https://a/b"}
	if _, err := l.Begin(t.Context(), c, app, "http://127.0.0.1:1/callback"); err == nil {
		t.Error("a token endpoint in clear")
	}
}

func TestDeviceLogin(t *testing.T) {
	b, l, p, c, app := loginBench(t)
	s, err := l.Begin(t.Context(), c, app, "")
	if err != nil || s.Code != "ABCD-EFGH" || s.URL != p.URL+"/activate" {
		t.Fatalf("%+v, %v", s, err)
	}
	p.mu.Lock()
	p.approved = true
	p.mu.Unlock()
	if made, err := l.Wait(t.Context(), s.ID); err != nil || made.Kind != KindRefresh {
		t.Errorf("%+v, %v", made, err)
	}
	if _, err := b.Find("alice-acme"); err != nil {
		t.Error(err)
	}
	if s, err = l.Begin(t.Context(), c, app, ""); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.denied = true
	p.mu.Unlock()
	if _, err := l.Wait(t.Context(), s.ID); !errors.Is(err, grant.ErrDenied) {
		t.Errorf("denied: %v", err)
	}
}
