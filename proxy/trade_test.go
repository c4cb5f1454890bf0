package proxy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/credential"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
)

// trading has the road lead to a service and to the token endpoint of its tokens.
func trading(t *testing.T, d *road) {
	t.Helper()
	c, err := action.Load(action.Shipped(), []action.Service{
		{Name: "acme", Hosts: []string{"api.acme.dev"}, Places: []string{"bearer"}, Paths: map[string]map[string]string{"/{path+}": {"GET": "get read", "POST": "post write"}}},
		{Name: "acme-login", Hosts: []string{"raw.example.com"}, Places: []string{"basic", "body:refresh_token", "body:client_secret", "body:assertion"}, TokensOf: []string{"acme"}, Refusal: "oauth2",
			Paths: map[string]map[string]string{"/token": {"POST": "token/create write mints=/access_token,/refresh_token"}, "/revoke": {"POST": "token/revoke admin"}}},
	})
	check(t, err)
	check(t, d.server.UseCatalogue(c))
}

// statement is a signed statement as libraries make them, with a handle as the name of
// the key.
func statement(kid, claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256","typ":"JWT","kid":"`+kid+`"}`)) + "." + part([]byte(claims)) + "." + part([]byte("a signature"))
}

func (d *road) form(c *http.Client, path string, change func(*http.Request), f url.Values) (int, map[string]any, string) {
	d.t.Helper()
	r := d.request("POST", "https://raw.example.com"+path, nil)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(f.Encode())), int64(len(f.Encode()))
	r.Header.Del("Authorization")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if change != nil {
		change(r)
	}
	resp, err := c.Do(r)
	check(d.t, err)
	b, err := io.ReadAll(resp.Body)
	check(d.t, err)
	resp.Body.Close()
	var m map[string]any
	check(d.t, json.Unmarshal(b, &m))
	return resp.StatusCode, m, string(b)
}

// TestTokenEndpointsAreAnsweredWithHandles shows that what a library sends to a token
// endpoint by itself goes no further, and that the answer is a handle which works.
func TestTokenEndpointsAreAnsweredWithHandles(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		trading(t, d)
		handle := d.session.Handles["acme"]
		signed := statement(handle, `{"iss":"bot@acme.dev","scope":"all"}`)
		asked := map[string]url.Values{
			"refresh":            {"grant_type": {"refresh_token"}, "refresh_token": {handle}, "client_id": {"x"}, "client_secret": {handle}},
			"client credentials": {"grant_type": {"client_credentials"}, "client_id": {"x"}, "client_secret": {handle}},
			"another statement":  {"assertion": {statement("", `{"iss":"`+handle+`@chaperone.iam.gserviceaccount.com"}`)}},
			"statement":          {"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {signed}},
		}
		for name, f := range asked {
			status, got, body := d.form(c, "/token", nil, f)
			if status != 200 || got["access_token"] != handle || got["token_type"] != "Bearer" || got["expires_in"].(float64) < 1 || got["expires_in"].(float64) > 3600 {
				t.Fatalf("%s: %d %s", name, status, body)
			}
		}
		status, _, body := d.form(c, "/token", func(r *http.Request) { r.SetBasicAuth("x", handle) }, url.Values{"grant_type": {"client_credentials"}})
		if status != 200 {
			t.Errorf("Basic: %d %s", status, body)
		}
		if n := len(d.received()); n != 0 {
			t.Fatalf("%d requests were forwarded", n)
		}
		for _, token := range []string{handle, signed} { // some libraries send the statement itself
			r := d.request("GET", "https://api.acme.dev/x", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := c.Do(r)
			check(t, err)
			resp.Body.Close()
			seen := d.received()
			if a := seen[len(seen)-1].Header.Get("Authorization"); resp.StatusCode != 200 || a != "Bearer "+canary {
				t.Errorf("%d; the service got %q", resp.StatusCode, a)
			}
		}
		all := d.records(7)
		x := all[0]
		if x.Decision.Action.ID != "acme-login:handle/trade" || x.Decision.Action.Access != "read" || x.Decision.Decision.Result != "allow" || x.Decision.Decision.Reasons[0] != "It had the handle." || x.Decision.Decision.Policy == "" ||
			x.Decision.Credential.ID != "acme" || x.Outcome.Outcome.Status != 200 || x.Outcome.Outcome.UpstreamUS != 0 {
			t.Errorf("record %s\n%s", x.Decision.Raw, x.Outcome.Raw)
		}
		for _, x := range all {
			if s := string(x.Decision.Raw) + string(x.Outcome.Raw); strings.Contains(s, handle) || strings.Contains(s, canary) {
				t.Errorf("a secret is in the log: %s", s)
			}
		}
	})
}

// TestTradesAreDecided shows that policy is asked for a trade, that its no and its limits
// hold, and that the record says so.
func TestTradesAreDecided(t *testing.T) {
	for name, tc := range map[string]struct {
		decision    string // of the policy; status and words are those of the second trade
		status      int
		want, error string
	}{
		"allowed":         {`{"result": "allow", "obligations": {"headers": {"set": {"X-A": "b"}}, "body": {"request": {"remove": ["/x"]}}}}`, 200, "access_token", ""},
		"denied":          {`{"result": "deny", "reasons": ["Not here."]}`, 403, "Not here.", "denied"},
		"asked":           {`{"result": "ask", "reasons": ["Ask Bob."]}`, 403, "Ask Bob.", "approval_required"},
		"broken":          {`{"result": "perhaps"}`, 403, "could not be evaluated", "policy_failed"},
		"limited":         {`{"result": "allow", "obligations": {"limits": [{"of": "requests", "per": ["action"], "max": 1}]}}`, 429, "used up", "limit_exceeded"},
		"by credential":   {`{"result": "deny", "reasons": [sprintf("%s of %s, at %s", [input.credential.id, input.credential.service, input.action.id])]}`, 403, "acme of acme, at acme-login:handle/trade", "denied"},
		"as the endpoint": {`{"result": ["allow", "deny"][count([1 | input.action.operation == "token/create"])]}`, 200, "access_token", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newRoad(t)
			trading(t, d)
			d.decides(tc.decision)
			c := d.client(false)
			f := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {d.session.Handles["acme"]}}
			d.form(c, "/token", nil, f)
			status, got, body := d.form(c, "/token", nil, f)
			if status != tc.status || !strings.Contains(body, tc.want) || status != 200 && got["access_token"] != nil {
				t.Errorf("%d %s", status, body)
			}
			x := d.records(2)[1]
			said := x.Decision.Decision
			if x.Decision.Action.ID != "acme-login:handle/trade" || said.Policy == "" || x.Outcome.Outcome.Error != tc.error || x.Decision.Credential.ID != "acme" {
				t.Errorf("record %s\n%s", x.Decision.Raw, x.Outcome.Raw)
			}
			if n := len(d.received()); n != 0 {
				t.Errorf("%d requests were forwarded", n)
			}
		})
	}
}

// TestTokenEndpointsRefuse shows that nothing but a live handle of the session is
// traded, in a form that clients of OAuth read.
func TestTokenEndpointsRefuse(t *testing.T) {
	d := newRoad(t)
	trading(t, d)
	c := d.client(false)
	handle := d.session.Handles["acme"]
	other, err := d.dir.CreateSession(t.Context(), identity.Spec{Agent: "bot", Credentials: []string{"acme"}})
	check(t, err)
	for _, tc := range []struct {
		name, path string
		form       url.Values
		want       string
	}{
		{"a real refresh token", "/token", url.Values{"refresh_token": {"1//real-refresh-token"}}, "not a handle"},
		{"a real secret beside", "/token", url.Values{"refresh_token": {handle}, "client_secret": {"GOCSPX-real"}}, "not a handle"},
		{"another service's handle", "/token", url.Values{"refresh_token": {d.session.Handles["gh"]}}, "another service"},
		{"another session's handle", "/token", url.Values{"refresh_token": {other.Handles["acme"]}}, "another session"},
		{"a statement of a real key", "/token", url.Values{"assertion": {statement("0123456789abcdef", "{}")}}, "not a handle"},
		{"a statement with a handle inside", "/token", url.Values{"assertion": {statement(handle, `{"sub":"`+d.session.Handles["gh"]+`"}`)}}, "takes no credentials"},
		{"revoking is policy's to say", "/revoke", url.Values{"token": {"x"}}, "approve"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, got, body := d.form(c, tc.path, nil, tc.form)
			text, _ := got["error_description"].(string)
			if status != 403 || got["error"] != "access_denied" || !strings.Contains(strings.ToLower(text+body), tc.want) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	_, err = d.vault.Revoke(t.Context(), func(h *credential.Handle) bool { return h.Session == d.session.ID })
	check(t, err)
	if status, _, body := d.form(c, "/token", nil, url.Values{"refresh_token": {handle}}); status != 403 || !strings.Contains(body, "revoked") {
		t.Errorf("revoked: %d %s", status, body)
	}
	if n := len(d.received()); n != 0 {
		t.Errorf("%d requests were forwarded", n)
	}
}

// TestHandlesAreOnlyTraded shows that whatever policy allows, a token endpoint gets no
// secret of the services whose tokens it hands out: what is not a trade is another
// service's business.
func TestHandlesAreOnlyTraded(t *testing.T) {
	d := newRoad(t)
	trading(t, d)
	d.gate.Use(allows{})
	c := d.client(false)
	handle := d.session.Handles["acme"]
	for _, path := range []string{"/revoke", "/elsewhere"} {
		for name, f := range map[string]url.Values{"body": {"client_secret": {handle}}, "twice": {"client_secret": {handle}, "refresh_token": {handle}}} {
			if status, _, body := d.form(c, path, nil, f); status != 403 || !strings.Contains(body, "another service") {
				t.Errorf("%s, %s: %d %s", path, name, status, body)
			}
		}
	}
	status, _, body := d.form(c, "/revoke", func(r *http.Request) { r.SetBasicAuth("x", handle) }, url.Values{"token": {"x"}})
	if status != 403 || !strings.Contains(body, "another service") {
		t.Errorf("Basic: %d %s", status, body)
	}
	if n := len(d.received()); n != 0 {
		t.Errorf("%d requests were forwarded, the last with %q", n, d.received()[n-1].Header.Get("Authorization"))
	}
}

// TestRefreshTokensThatWereHandedOut shows the whole dance of an agent that has a
// person's code: it gets handles, and the endpoint the real refresh token.
func TestRefreshTokensThatWereHandedOut(t *testing.T) {
	d := newRoad(t)
	trading(t, d)
	d.gate.Use(allows{})
	c := d.client(false)
	d.answer("application/json", `{"access_token":"real-access-token-1","refresh_token":"real-refresh-token-1","expires_in":3600}`)
	status, got, body := d.form(c, "/token", nil, url.Values{"grant_type": {"authorization_code"}, "code": {"c"}})
	refresh, _ := got["refresh_token"].(string)
	if status != 200 || strings.Contains(body, "real") || !credential.IsHandle(refresh) {
		t.Fatalf("%d %s", status, body)
	}
	sent := make(chan string, 1)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		sent <- string(b)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"real-access-token-2","expires_in":3600}`)
	}
	status, got, body = d.form(c, "/token", nil, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
	access, _ := got["access_token"].(string)
	if status != 200 || strings.Contains(body, "real") || !credential.IsHandle(access) {
		t.Fatalf("%d %s", status, body)
	}
	if b := <-sent; b != "grant_type=refresh_token&refresh_token=real-refresh-token-1" {
		t.Errorf("the endpoint received %q", b)
	}
	d.serve = nil
	r := d.request("GET", "https://api.acme.dev/x", nil)
	r.Header.Set("Authorization", "Bearer "+access)
	resp, err := c.Do(r)
	check(t, err)
	resp.Body.Close()
	seen := d.received()
	if a := seen[len(seen)-1].Header.Get("Authorization"); a != "Bearer real-access-token-2" {
		t.Errorf("%d; the service got %q", resp.StatusCode, a)
	}
}

// TestRefreshTokensWithTheirClient has a client show who it is beside the refresh token
// that it got, each by its handle, in whichever order and place; two handles that do not
// belong together are not sent.
func TestRefreshTokensWithTheirClient(t *testing.T) {
	d := newRoad(t)
	trading(t, d)
	d.gate.Use(allows{})
	for _, id := range []string{"app", "other"} {
		check(t, d.vault.Add(t.Context(), credential.Credential{ID: id, Service: "acme-login", Owner: "org", Kind: credential.KindBody}, credential.NewSecret([]byte(canary+"-"+id))))
	}
	var err error
	d.session, err = d.dir.CreateSession(t.Context(), identity.Spec{Agent: "bot", Credentials: []string{"app", "other"}})
	check(t, err)
	app, other := d.session.Handles["app"], d.session.Handles["other"]
	c := d.client(false)
	var got atomic.Value // what the endpoint received last
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got.Store(r.Header.Get("Authorization") + " " + string(b))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"real-access-token","refresh_token":"real-refresh-token"}`)
	}
	_, answer, said := d.form(c, "/token", nil, url.Values{"code": {"c"}, "client_secret": {app}})
	refresh, _ := answer["refresh_token"].(string)
	if b := got.Load(); b != " client_secret="+canary+"-app&code=c" || !credential.IsHandle(refresh) {
		t.Fatalf("the endpoint received %q, and the agent %s", b, said)
	}
	send := func(text, user string) (int, string) {
		status, _, said := d.form(c, "/token", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
			if user != "" {
				r.SetBasicAuth("id", user)
			}
		}, nil)
		return status, said
	}
	for _, tc := range []struct{ name, text, user, want string }{
		{"the secret first", "client_secret=" + app + "&a=b&refresh_token=" + refresh, "", " client_secret=" + canary + "-app&a=b&refresh_token=real-refresh-token"},
		{"the secret last", "refresh_token=" + refresh + "&client_secret=" + app + "&a=b", "", " refresh_token=real-refresh-token&client_secret=" + canary + "-app&a=b"},
		{"Basic", "refresh_token=" + refresh, app, basicAuth("id", canary+"-app") + " refresh_token=real-refresh-token"},
	} {
		status, said := send(tc.text, tc.user)
		if status != 200 || strings.Contains(said, "real") {
			t.Fatalf("%s: %d %s", tc.name, status, said)
		}
		if b := got.Load(); b != tc.want {
			t.Errorf("%s: the endpoint received %q", tc.name, b)
		}
	}
	all := d.records(4)
	client, err := audit.Parse(all[0].Decision.Raw)
	check(t, err)
	for _, x := range all[1:] { // whichever stood first
		e, err := audit.Parse(x.Decision.Raw)
		check(t, err)
		if !strings.HasPrefix(e.Credential.ID, "app.given-") || e.Credential.Beside.ID != "app" || e.Credential.Beside.Handle != client.Credential.Handle || e.Credential.Handle == client.Credential.Handle || strings.Contains(string(x.Decision.Raw), canary) {
			t.Errorf("record %s", x.Decision.Raw)
		}
	}
	if client.Credential.Beside.ID != "" {
		t.Errorf("record %s", all[0].Decision.Raw)
	}
	before := len(d.received())
	for name, text := range map[string]string{
		"another client":   "refresh_token=" + refresh + "&client_secret=" + other,
		"twice the secret": "client_secret=" + app + "&client_secret=" + app + "&refresh_token=" + refresh,
		"three":            "client_secret=" + app + "&refresh_token=" + refresh + "&assertion=" + other,
		"two clients":      "client_secret=" + app + "&assertion=" + other,
	} {
		if status, said := send(text, ""); status != 400 && status != 403 || !strings.Contains(said, "more than one credential") {
			t.Errorf("%s: %d %s", name, status, said)
		}
	}
	if n := len(d.received()); n != before {
		t.Errorf("%d requests were forwarded", n-before)
	}
	_, err = d.vault.Revoke(t.Context(), func(h *credential.Handle) bool { return h.Credential == "app" })
	check(t, err)
	if status, said := send("refresh_token="+refresh, ""); status != 403 || !strings.Contains(said, "revoked") {
		t.Errorf("revoked: %d %s", status, said)
	}
}

// allows is a policy that allows everything.
type allows struct{ denies }

func (allows) Eval(context.Context, *policy.Question) (policy.Answer, error) {
	return policy.Answer{Result: policy.Allow, Reasons: []string{"Yes."}}, nil
}

// TestHandlesEndByTheSharedClock has the clock that replicas share a day ahead of this
// machine's, and then right.
func TestHandlesEndByTheSharedClock(t *testing.T) {
	var ahead atomic.Int64
	d := newRoad(t, func(o *Options, _ *upstream.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	c := d.client(false)
	ask := func() int {
		r, err := http.NewRequest(http.MethodPost, "https://api.github.com/repos/acme/web/issues", strings.NewReader("{}"))
		check(t, err)
		r.Header.Set("Authorization", "Bearer "+d.handle)
		resp, err := c.Do(r)
		check(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	ahead.Store(int64(24 * time.Hour))
	if got := ask(); got != http.StatusForbidden {
		t.Errorf("the handle has ended: %d", got)
	}
	if got := d.records(1)[0].Outcome.Outcome.Error; got != "handle_expired" {
		t.Errorf("recorded as %q", got)
	}
	ahead.Store(0)
	if got := ask(); got != http.StatusOK || len(d.received()) != 1 {
		t.Errorf("the handle has not ended: %d, the service received %d requests", got, len(d.received()))
	}
}
