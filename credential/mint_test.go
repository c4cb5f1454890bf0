package credential

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/source"
	"chaperone/policy"
	"chaperone/store"
)

// provider is a token endpoint that rotates refresh tokens: each is good once.
type provider struct {
	*httptest.Server
	mu      sync.Mutex
	good    string // the refresh token that is good
	n       int
	life    int // of access tokens, in seconds
	asked   atomic.Int64
	forms   []url.Values
	instead http.HandlerFunc
}

func newProvider(t testing.TB) *provider {
	p := &provider{good: "refresh-0", life: 3600}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.instead != nil {
			p.instead(w, r)
			return
		}
		r.ParseForm()
		p.forms = append(p.forms, r.Form)
		w.Header().Set("Content-Type", "application/json")
		if r.Form.Get("grant_type") == "refresh_token" && r.Form.Get("refresh_token") != p.good {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"error":"invalid_grant","error_description":"`+r.Form.Get("refresh_token")+`"}`)
			return
		}
		p.n++
		p.good = fmt.Sprintf("refresh-%d", p.n)
		fmt.Fprintf(w, `{"access_token":"access-%d","refresh_token":%q,"token_type":"bearer","expires_in":%d}`, p.n, p.good, p.life)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) settings(more ...string) map[string]string {
	s := map[string]string{"token_url": p.URL + "/token", "client_id": "app"}
	for i := 0; i < len(more); i += 2 {
		s[more[i]] = more[i+1]
	}
	return s
}

// authorization is what a request with the handle goes out with.
func (b *bench) authorization(t testing.TB, handle string, c Caller) (string, error) {
	t.Helper()
	r := b.acme(t, "bearer")
	r.Header["Authorization"] = []string{"Bearer " + handle}
	p, out, err := b.sent(t, r, c)
	_ = p
	if err != nil {
		return "", err
	}
	return out.Header.Get("Authorization"), nil
}

func (b *bench) sent(t testing.TB, r *Request, c Caller) (*Presented, *Outgoing, error) {
	t.Helper()
	p, err := b.Present(r)
	if err != nil {
		return nil, nil, err
	}
	q := &policy.Question{Credential: p.Credential, Request: policy.Request{Method: "GET", Host: "api.acme.dev", Path: r.Path}}
	var gate policy.Gate
	gate.Use(allowAll{})
	permit, _, err := gate.Decide(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	out := &Outgoing{Target: q.Request.Target(), Header: r.Header, Path: r.Path, RawQuery: r.RawQuery, Caller: c}
	return &p, out, b.Swap(t.Context(), permit, &p, out)
}

// minting is a bench whose clock can be set, with a provider.
func minting(t testing.TB) (*bench, *provider, *atomic.Int64) {
	b, p := vault(t), newProvider(t)
	ahead := new(atomic.Int64)
	b.Use(Outside{HTTP: p.Client().Transport, TokenTime: 5 * time.Minute, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	return b, p, ahead
}

func TestRefresh(t *testing.T) {
	b, p, ahead := minting(t)
	h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings("scopes", "a b")}, `{"refresh_token":"refresh-0","client_secret":"hush"}`)
	want := func(text string, asked int64) {
		t.Helper()
		if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer "+text || p.asked.Load() != asked {
			t.Errorf("got %q, %v, asked %d; want %s, asked %d", got, err, p.asked.Load(), text, asked)
		}
	}
	want("access-1", 1)
	want("access-1", 1)
	if f := p.forms[0]; f.Get("scope") != "a b" || f.Get("client_secret") != "" {
		t.Errorf("the provider was asked with %v", f)
	}
	ahead.Store(int64(59*time.Minute + time.Second)) // less than a minute before its end
	want("access-2", 2)
	again, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	again.Use(b.outside)
	b.Vault = again
	want("access-2", 2) // from the store
	for e, err := range b.kv.Scan(t.Context(), "") {
		if err != nil || strings.Contains(string(e.Value), "access-") || strings.Contains(string(e.Value), "refresh-") {
			t.Errorf("the store shows a token under %s: %v", e.Name, err)
		}
	}
	if err := b.Replace(t.Context(), "r", "", NewSecret([]byte(`{"refresh_token":"refresh-2","client_secret":"hush"}`))); err != nil {
		t.Fatal(err)
	}
	want("access-3", 3)
}

func TestRenewOnRefusal(t *testing.T) {
	b, p, ahead := minting(t)
	h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
	send := func() (*Presented, *Outgoing) {
		r := b.acme(t, "bearer")
		r.Header["Authorization"] = []string{"Bearer " + h}
		pr, out, err := b.sent(t, r, Caller{})
		if err != nil {
			t.Fatal(err)
		}
		return pr, out
	}
	pr, out := send()
	if again, err := b.Renew(t.Context(), pr, out); again || err != nil {
		t.Errorf("a token that was just made: %v, %v", again, err)
	}
	ahead.Store(int64(time.Minute))
	pr, out = send()
	if again, err := b.Renew(t.Context(), pr, out); !again || err != nil {
		t.Fatalf("renewing: %v, %v", again, err)
	}
	lower := strings.ToLower("Authorization") // as it may be spelled by then
	out.Header[lower] = out.Header["Authorization"]
	delete(out.Header, "Authorization")
	pr.Restore(out)
	if got := out.Header["Authorization"]; len(out.Header[lower]) > 0 || len(got) != 1 || got[0] != "Bearer "+h {
		t.Errorf("restored %v", out.Header)
	}
	if got, _ := b.authorization(t, h, Caller{}); got != "Bearer access-2" || p.asked.Load() != 2 {
		t.Errorf("got %q, asked %d", got, p.asked.Load())
	}
	// Who still holds the first token asks for nothing new.
	if again, err := b.Renew(t.Context(), pr, out); !again || err != nil || p.asked.Load() != 2 {
		t.Errorf("again: %v, %v, asked %d", again, err, p.asked.Load())
	}
}

// lossy is a store that does not take tokens while it is full.
type lossy struct {
	store.Store
	full atomic.Bool
}

func (l *lossy) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	if l.full.Load() && strings.HasPrefix(e.Name, mintedPrefix) {
		return e, errFull
	}
	return l.Store.Save(ctx, e)
}

func TestNewerRefreshTokenIsNotLost(t *testing.T) {
	b, p, _ := minting(t)
	h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
	kv := &lossy{Store: b.kv}
	kv.full.Store(true)
	b.Vault.kv = kv
	if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("before the store has it: %v", err)
	}
	kv.full.Store(false)
	if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer access-1" || p.asked.Load() != 1 {
		t.Errorf("then: %q, %v, asked %d", got, err, p.asked.Load())
	}
	// The agent that set the refresh off goes away while the provider thinks.
	b2, p2, _ := minting(t)
	h = b2.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p2.settings()}, "refresh-0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	how, err := b2.opened(ctx, b2.credentials["r"])
	if err != nil {
		t.Fatal(err)
	}
	if tk, err := how.(*minted).current(ctx, &Caller{}, nil); err != nil || tk.text != "access-1" {
		t.Errorf("a refresh whose agent is gone: %v", err)
	}
	if got, err := b2.authorization(t, h, Caller{}); err != nil || got != "Bearer access-1" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestNewerRefreshTokenSurvives: it is kept when what came with it cannot be used, when the
// source is looked at meanwhile, and when the program ends before the store has it; a lock
// that was left behind does not hold the next start up.
func TestNewerRefreshTokenSurvives(t *testing.T) {
	b, p, ahead := minting(t)
	h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
	for i, useless := range []string{`"access_token":"a\nb","expires_in":60`, `"access_token":"a","expires_in":-60`} {
		p.instead = func(w http.ResponseWriter, r *http.Request) {
			if r.ParseForm(); r.Form.Get("refresh_token") != p.good {
				t.Errorf("asked with %q", r.Form.Get("refresh_token"))
			}
			p.good = fmt.Sprint("newer-", i)
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{%s,"token_type":"bearer","refresh_token":%q}`, useless, p.good)
		}
		if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, grant.ErrEndpoint) {
			t.Errorf("%s: %v", useless, err)
		}
		ahead.Add(int64(failedPause))
	}
	p.instead = nil
	want := func(text string) {
		t.Helper()
		if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer "+text {
			t.Errorf("got %q, %v, want %s", got, err, text)
		}
	}
	want("access-1")
	ahead.Add(int64(59*time.Minute + time.Second))
	kv := &lossy{Store: b.kv}
	kv.full.Store(true)
	b.Vault.kv = kv
	if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	kv.full.Store(false)
	if _, err := kv.Save(t.Context(), store.Entry{Name: mintPrefix + "r", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(3 * time.Hour))
	if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrUnavailable) || p.asked.Load() != 4 {
		t.Errorf("once it is closed: %v, asked %d", err, p.asked.Load())
	}
	again, err := Open(t.Context(), kv, b.key)
	if err == nil {
		err = again.Unlock(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	again.Use(b.outside)
	b.Vault = again
	want("access-3")
}

// TestSourceIsLookedAtDuringRefresh: whoever opens the credential anew shares the refresh
// that is under way.
func TestSourceIsLookedAtDuringRefresh(t *testing.T) {
	b, p, ahead := minting(t)
	o := b.outside
	o.Sources = map[string]source.Fetcher{"env": source.Env{Lookup: func(string) (string, bool) { return "refresh-0", true }}}
	b.Use(o)
	if err := b.Add(t.Context(), Credential{ID: "r", Kind: KindRefresh, Service: "acme", Owner: "org", Source: "env:R", Settings: p.settings(), Cache: time.Minute}, Secret{}); err != nil {
		t.Fatal(err)
	}
	h, err := b.Issue(t.Context(), "r", "s_1", "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	kv := &lossy{Store: b.kv}
	kv.full.Store(true)
	b.Vault.kv = kv
	if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	ahead.Store(int64(2 * time.Minute)) // the look at the source has grown old
	kv.full.Store(false)
	if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer access-1" || p.asked.Load() != 1 {
		t.Errorf("got %q, %v, asked %d", got, err, p.asked.Load())
	}
}

func TestProviderRefuses(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for name, tc := range map[string]struct {
		instead http.HandlerFunc
		want    error
	}{
		"refresh token expired": {answer(400, `{"error":"invalid_grant","error_description":"canary refresh-0"}`), grant.ErrGrant},
		"app revoked":           {answer(401, `{"error":"invalid_client"}`), grant.ErrClient},
		"scope":                 {answer(400, `{"error":"invalid_scope"}`), grant.ErrScope},
		"5xx":                   {answer(503, "canary refresh-0"), grant.ErrEndpoint},
		"rubbish":               {answer(200, "<html>canary refresh-0"), grant.ErrEndpoint},
		"no token":              {answer(200, "{}"), grant.ErrEndpoint},
		"line break in token":   {answer(200, `{"access_token":"a\r\nX: y"}`), grant.ErrEndpoint},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+r.Host+"/elsewhere", http.StatusTemporaryRedirect)
		}, grant.ErrRedirect},
		"clock": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			answer(400, `{"error":"invalid_grant"}`)(w, r)
		}, grant.ErrClock},
		"cut": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, grant.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			b, p, ahead := minting(t)
			p.instead = tc.instead
			h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
			_, err := b.authorization(t, h, Caller{})
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if strings.Contains(err.Error(), "refresh-0") || strings.Contains(err.Error(), "canary") {
				t.Errorf("told: %v", err)
			}
			if p.asked.Load() != 1 {
				t.Errorf("asked %d times", p.asked.Load())
			}
			if tr := b.Trouble("r"); tr == nil || tr.What != err.Error() {
				t.Errorf("trouble: %+v", tr)
			}
			p.mu.Lock()
			p.instead = nil
			p.mu.Unlock()
			ahead.Store(int64(failedPause))
			if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer access-1" {
				t.Errorf("once it is well: %q, %v", got, err)
			}
		})
	}
}

func privateKey(t testing.TB) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func claims(t testing.TB, statement string) map[string]any {
	t.Helper()
	parts := strings.Split(statement, ".")
	var out map[string]any
	if len(parts) != 3 {
		t.Fatalf("no statement: %q", statement)
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGrants(t *testing.T) {
	b, p, _ := minting(t)
	key := privateKey(t)
	file, _ := json.Marshal(map[string]string{"type": "service_account", "client_email": "sa@p.iam", "private_key": key, "token_uri": p.URL + "/g"})
	actor, _ := json.Marshal(map[string]string{"subject_token": "alice-token", "client_secret": "hush", "actor_key": key})
	for _, tc := range []struct {
		c      Credential
		secret string
		want   map[string]string
		jwt    string // parameter that is a statement
		claims map[string]any
	}{
		{Credential{ID: "cc", Kind: KindClient, Settings: p.settings("audience", "https://api", "auth", "post")}, "hush", map[string]string{"grant_type": "client_credentials", "client_secret": "hush", "audience": "https://api"}, "", nil},
		{Credential{ID: "jwt", Kind: KindJWT, Settings: map[string]string{"token_url": p.URL, "issuer": "me", "subject": "you"}}, key, map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion", map[string]any{"iss": "me", "sub": "you", "aud": p.URL}},
		{Credential{ID: "google", Kind: KindGoogleAccount, Settings: map[string]string{"scopes": "a b"}}, string(file), map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion", map[string]any{"iss": "sa@p.iam", "scope": "a b", "aud": p.URL + "/g"}},
		{Credential{ID: "x", Kind: KindExchange, Settings: p.settings()}, string(actor), map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": "alice-token", "subject_token_type": "urn:ietf:params:oauth:token-type:access_token", "actor_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "actor_token", map[string]any{"iss": "app", "sub": "bot"}},
	} {
		t.Run(tc.c.Kind, func(t *testing.T) {
			p.forms = nil
			h := b.with(t, tc.c, tc.secret)
			if got, err := b.authorization(t, h, Caller{Agent: "bot"}); err != nil || !strings.HasPrefix(got, "Bearer access-") {
				t.Fatalf("%q, %v", got, err)
			}
			for k, v := range tc.want {
				if got := p.forms[0].Get(k); got != v {
					t.Errorf("%s: %q, want %q", k, got, v)
				}
			}
			if tc.jwt == "" {
				return
			}
			got := claims(t, p.forms[0].Get(tc.jwt))
			for k, v := range tc.claims {
				if got[k] != v {
					t.Errorf("claim %s: %v, want %v", k, got[k], v)
				}
			}
			if got["exp"] == nil || got["iat"] == nil {
				t.Errorf("claims without times: %v", got)
			}
		})
	}
}

func TestInstallationTokens(t *testing.T) {
	b, p, _ := minting(t)
	var bodies []string
	p.instead = func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		json.NewDecoder(r.Body).Decode(&body)
		text, _ := json.Marshal(body)
		bodies = append(bodies, string(text))
		if r.URL.Path != "/app/installations/42/access_tokens" || claims(t, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))["iss"] != "7" {
			w.WriteHeader(401)
			return
		}
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"token":"ghs_%d","expires_at":%q}`, len(bodies), time.Now().Add(time.Hour).Format(time.RFC3339))
	}
	h := b.with(t, Credential{ID: "app", Kind: KindGitHubApp, Settings: map[string]string{"app_id": "7", "installation_id": "42", "api_url": p.URL, "permissions": "issues:write,contents:read"}}, privateKey(t))
	web := Caller{Scope: []policy.Scope{{Actions: []string{"github:issues/*"}, Resources: []string{"acme/web", "acme/app"}}}}
	for _, tc := range []struct {
		caller      Caller
		token, body string
	}{
		{Caller{}, "ghs_1", `{"permissions":{"contents":"read","issues":"write"}}`},
		{web, "ghs_2", `{"permissions":{"issues":"write","metadata":"read"},"repositories":["app","web"]}`},
		{Caller{}, "ghs_1", ""},
		{web, "ghs_2", ""},
		{Caller{Scope: []policy.Scope{{Actions: []string{"github:git/*"}, Resources: []string{"acme/*"}}}}, "ghs_3", `{"permissions":{"contents":"read","metadata":"read"}}`},
	} {
		before := len(bodies)
		got, err := b.authorization(t, h, tc.caller)
		if err != nil || got != "Bearer "+tc.token {
			t.Fatalf("got %q, %v, want %s", got, err, tc.token)
		}
		if tc.body == "" && len(bodies) != before || tc.body != "" && bodies[len(bodies)-1] != tc.body {
			t.Errorf("asked %v, want %s", bodies[before:], tc.body)
		}
	}
}

// BenchmarkMinted measures a request with a token that is in memory.
func BenchmarkMinted(b *testing.B) {
	v, p, _ := minting(b)
	h := v.with(b, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
	r := v.acme(b, "bearer")
	b.ReportAllocs()
	for b.Loop() {
		r.Header["Authorization"] = []string{"Bearer " + h}
		if _, _, err := v.sent(b, r, Caller{}); err != nil {
			b.Fatal(err)
		}
	}
}
