package credential

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"

	"chaperone/credential/grant"
)

// openIDProvider is an OpenID provider of others' making.
func openIDProvider(t *testing.T) (*httptest.Server, func(address string) grant.Answer) {
	var handler http.Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	server.StartTLS()
	t.Cleanup(server.Close)
	storage.RegisterClients(storage.NativeClient("native", "http://127.0.0.1:1/callback"), storage.WebClient("web", "hush", "http://127.0.0.1:1/callback"))
	handler = exampleop.SetupServer(server.URL, storage.NewStorage(storage.NewUserStore(server.URL)), slog.New(slog.NewTextHandler(io.Discard, nil)), false)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := server.Client()
	browser.Jar = jar
	browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Port() == "1" { // back where the login listens
			return http.ErrUseLastResponse
		}
		return nil
	}
	return server, func(address string) grant.Answer {
		t.Helper()
		page, err := browser.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		page.Body.Close()
		back, err := browser.PostForm(server.URL+"/login/username", url.Values{"id": {page.Request.URL.Query().Get("authRequestID")}, "username": {"test-user2"}, "password": {"verysecure"}})
		if err != nil {
			t.Fatal(err)
		}
		back.Body.Close()
		u, err := url.Parse(back.Header.Get("Location"))
		if err != nil || u.Query().Get("code") == "" {
			t.Fatalf("%s brought back %d %q", address, back.StatusCode, back.Header.Get("Location"))
		}
		return grant.Answer{Code: u.Query().Get("code"), State: u.Query().Get("state"), Iss: u.Query().Get("iss")}
	}
}

// TestOpenIDProvider logs in at an OpenID provider, refreshes there as tokens end, and
// exchanges what it got.
func TestOpenIDProvider(t *testing.T) {
	server, consent := openIDProvider(t)
	for _, app := range []App{{ClientID: "native"}, {ClientID: "web", Secret: NewSecret([]byte("hush"))}} {
		t.Run(app.ClientID, func(t *testing.T) {
			b := vault(t)
			ahead := time.Duration(0)
			b.Use(Outside{HTTP: server.Client().Transport, Now: func() time.Time { return time.Now().Add(ahead) }})
			l := NewLogins(b.Vault)
			app.Provider, app.Scopes = grant.Provider{Issuer: server.URL}, []string{"openid", "offline_access"}
			s, err := l.Begin(t.Context(), Credential{ID: "user", Service: "acme", Owner: "human:user@acme.com"}, app, "http://127.0.0.1:1/callback")
			if err != nil {
				t.Fatal(err)
			}
			c, err := l.Finish(t.Context(), s.ID, consent(s.URL))
			if err != nil || c.Kind != KindRefresh {
				t.Fatalf("%+v, %v", c, err)
			}
			h, err := b.Issue(t.Context(), "user", "s_1", "", time.Now().Add(24*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for range 3 { // each refresh token that it rotates is good once
				got, err := b.authorization(t, h, Caller{})
				if err != nil || !strings.HasPrefix(got, "Bearer ") || seen[got] {
					t.Fatalf("%q, %v", got, err)
				}
				seen[got] = true
				ahead += 6 * time.Hour
			}
		})
	}
}
