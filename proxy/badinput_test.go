package proxy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chaperone/credential"
	"chaperone/credential/source"
)

// bad is one way in which what is behind a credential fails.
type bad struct {
	credential.Credential                  // its kind and settings; a bearer of acme where it says nothing
	secret                string           // empty: the credential has a source
	answer                http.HandlerFunc // of the token endpoint, or of Vault
	wait                  time.Duration    // how long is waited for it; 0: as long as the defaults say
	code                  string           // of the refusal
	agent                 string           // what the agent is told to do
	operator              string           // and what an operator is
}

// answers makes an answer of a status and a body, which is JSON where it looks like that.
func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if strings.HasPrefix(body, "{") {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// hangs answers begin, and no more until whoever asked goes away.
func hangs(begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // else nobody sees that it went away
		if begin != "" {
			answers(200, begin)(w, r)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}
}

// cut answers begin and cuts the connection.
func cut(begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		answers(200, begin)(w, r)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// redirects sends the one who asks to another host.
func redirects(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://evil.example.com"+r.URL.Path)
		answers(status, canary)(w, r)
	}
}

// behind has the clock of who answers be d behind.
func behind(d time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-d).UTC().Format(http.TimeFormat))
		h(w, r)
	}
}

// takesStatements is a token endpoint that takes signed statements, by a clock that is an
// hour behind: one whose iat is of the future is refused (RFC 7523 section 3).
func takesStatements(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.FormValue("assertion"), ".")
	var claims struct {
		Issued int64 `json:"iat"`
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err != nil || json.Unmarshal(b, &claims) != nil || claims.Issued == 0 {
		answers(400, `{"error":"invalid_request"}`)(w, r)
		return
	}
	if claims.Issued > time.Now().Add(-time.Hour).Unix() {
		answers(400, `{"error":"invalid_grant","error_description":"iat is in the future"}`)(w, r)
		return
	}
	answers(200, `{"access_token":"`+canary+`","token_type":"bearer"}`)(w, r)
}

func badSources(t *testing.T) map[string]bad {
	pipe := filepath.Join(t.TempDir(), "pipe")
	check(t, syscall.Mkfifo(pipe, 0o600))
	from := func(source, code, operator string, more ...func(*bad)) bad {
		b := bad{Credential: credential.Credential{Source: source}, code: code, operator: operator, agent: "`chaperone credential show`"}
		for _, f := range more {
			f(&b)
		}
		return b
	}
	vault := func(h http.HandlerFunc, code, operator string, more ...func(*bad)) bad {
		return from("vault:secret/data/x#token", code, operator, append(more, func(b *bad) { b.answer = h })...)
	}
	soon := func(b *bad) { b.wait = 300 * time.Millisecond }
	shape := func(b *bad) { b.agent = "Ask an operator to replace it." }
	const look, raise, replace = "run or read what the source names by hand", "sources.timeout", "credential replace"
	return map[string]bad{
		"a command hangs":           from("command:sleep 300", "credential_source_timeout", raise, soon),
		"a command's child hangs":   from("command:sleep 300 & wait", "credential_source_timeout", raise, soon),
		"a command fails":           from("command:echo "+canary+"; echo "+canary+" >&2; exit 3", "credential_source", look),
		"a command prints nothing":  from("command:true", "credential_source", look),
		"a command prints too much": from("command:yes "+canary+" | head -c 200000", "credential_source", look),
		"a file is not there":       from("file:/nowhere/token", "credential_source", look),
		"a file is a pipe":          from("file:"+pipe, "credential_source", look),
		"a file is a folder":        from("file:/tmp", "credential_source", look),
		"a file has no such field":  from("file:/dev/null#token", "credential_source", look),
		"Vault hangs":               vault(hangs(""), "credential_source_timeout", raise, soon),
		"Vault hangs in mid-answer": vault(hangs(`{"data":{"token":"`+canary), "credential_source_timeout", raise, soon),
		"Vault is cut":              vault(cut(`{"data":{"token":"`+canary), "credential_source", look),
		"Vault is sealed":           vault(answers(503, `{"errors":["`+canary+`"]}`), "credential_source", look),
		"Vault answers 5xx":         vault(answers(500, canary), "credential_source", look),
		"Vault answers rubbish":     vault(answers(200, "<html>"+canary), "credential_source", look),
		"Vault has no such field":   vault(answers(200, `{"data":{"data":{"other":"`+canary+`"},"metadata":{}}}`), "credential_source", look),
		"Vault has no data":         vault(answers(200, `{}`), "credential_source", look),
		"Vault redirects":           vault(redirects(307), "credential_source", look),
		"Vault refuses the token":   vault(answers(403, `{"errors":["`+canary+`"]}`), "credential_source", look),
		"a control byte":            from("command:printf '"+canary+"\\001'", "credential_shape", replace, shape),
		"of another kind":           from("command:printf '"+canary+"'", "credential_shape", replace, shape, func(b *bad) { b.Kind = credential.KindSeveral }),
		"of another vendor":         from("command:printf 'xoxb-1-"+canary+"'", "credential_shape", replace, shape, func(b *bad) { b.Service = "github" }),
		"a JWT that is none": from("command:printf '"+canary+"'", "credential_shape", replace, shape, func(b *bad) {
			b.Kind, b.Settings = credential.KindGoogleFederal, map[string]string{"audience": "//iam.googleapis.com/x", "scopes": "a"}
		}),
	}
}

func badEndpoints(t *testing.T) map[string]bad {
	at := func(h http.HandlerFunc, code, agent, operator string, more ...func(*bad)) bad {
		b := bad{Credential: credential.Credential{Kind: credential.KindRefresh, Settings: map[string]string{"token_url": "https://login.acme.dev/token", "client_id": "app"}},
			secret: `{"refresh_token":"` + canary + `","client_secret":"` + canary + `"}`, answer: h, code: code, agent: agent, operator: operator}
		for _, f := range more {
			f(&b)
		}
		return b
	}
	refused := func(status int, code string) http.HandlerFunc {
		return answers(status, `{"error":"`+code+`","error_description":"`+canary+`"}`)
	}
	keys := sweptKinds(t)
	as := func(kind string) func(*bad) {
		return func(b *bad) { b.Kind, b.secret, b.Settings = kind, keys[kind].material, keys[kind].settings }
	}
	soon := func(b *bad) { b.wait = 300 * time.Millisecond }
	const login, show, status, clock = "`chaperone credential login`", "`chaperone credential show`", "look at the provider's status", "Ask an operator to set the proxy's clock."
	return map[string]bad{
		"the refresh token expired":        at(refused(400, "invalid_grant"), "grant_expired", login, "credential login"),
		"GitHub's way to say so":           at(answers(200, `{"error":"bad_refresh_token","error_description":"`+canary+`"}`), "grant_expired", login, "credential login"),
		"the app was revoked":              at(refused(401, "invalid_client"), "client_refused", "whether the app was revoked", "look at the app at the provider"),
		"the app may not":                  at(refused(400, "unauthorized_client"), "client_refused", "whether the app was revoked", "look at the app at the provider"),
		"a GitHub App was revoked":         at(answers(401, `{"message":"`+canary+`"}`), "client_refused", "whether the app was revoked", "look at the app at the provider", as(credential.KindGitHubApp)),
		"GitHub hangs in mid-answer":       at(hangs(`{"token":"`+canary), "token_timeout", "Try again later.", "sources.token_timeout", as(credential.KindGitHubApp), soon),
		"a GitHub App was uninstalled":     at(answers(404, `{"message":"`+canary+`"}`), "grant_expired", login, "credential login", as(credential.KindGitHubApp)),
		"the scope is too wide":            at(refused(400, "invalid_scope"), "grant_scope", "narrower than the session's scope", "widen the app's permissions"),
		"the endpoint hangs":               at(hangs(""), "token_timeout", "Try again later.", "sources.token_timeout", soon),
		"it hangs in mid-answer":           at(hangs(`{"access_token":"`+canary), "token_timeout", "Try again later.", "sources.token_timeout", soon),
		"it is cut":                        at(cut(`{"access_token":"`+canary), "token_endpoint", show, status),
		"it hangs up":                      at(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "token_unreachable", "the credential's token_url", "try `curl` to its token_url"),
		"its certificate is another":       at(nil, "token_unreachable", "the credential's token_url", "try `curl` to its token_url", func(b *bad) { b.Settings["token_url"] = "https://alien.acme.dev/token" }),
		"nobody is there":                  at(nil, "token_unreachable", "the credential's token_url", "try `curl` to its token_url", func(b *bad) { b.Settings["token_url"] = "https://nobody.acme.dev/token" }),
		"it answers 5xx":                   at(answers(503, canary), "token_endpoint", show, status),
		"it answers 5xx in JSON":           at(refused(500, "server_error"), "token_endpoint", show, status),
		"it answers rubbish":               at(answers(200, "<html>"+canary), "token_endpoint", show, status),
		"it answers rubbish in JSON":       at(answers(200, `{"access_token":{"x":"`+canary+`"}}`), "token_endpoint", show, status),
		"it gives no token":                at(answers(200, `{"refresh":"`+canary+`"}`), "token_endpoint", show, status),
		"it gives a line break":            at(answers(200, `{"access_token":"`+canary+`\nX: y","token_type":"bearer"}`), "token_endpoint", show, status),
		"it gives what has ended":          at(answers(200, `{"access_token":"`+canary+`","token_type":"bearer","expires_in":-60}`), "token_endpoint", show, status),
		"it redirects the refresh":         at(redirects(307), "token_redirect", "token_url", "no secret is sent on"),
		"it redirects by 302":              at(redirects(302), "token_redirect", "token_url", "no secret is sent on"),
		"a clock differs":                  at(behind(time.Hour, refused(400, "invalid_grant")), "clock_skew", clock, "NTP"),
		"a statement is of the future":     at(behind(time.Hour, takesStatements), "clock_skew", clock, "NTP", as(credential.KindJWT)),
		"an installation token has ended":  at(answers(201, `{"token":"`+canary+`","expires_at":"2020-01-01T00:00:00Z"}`), "clock_skew", clock, "NTP", as(credential.KindGitHubApp)),
		"an account's token is of no form": at(answers(200, `[`), "token_endpoint", show, status, as(credential.KindGoogleAccount)),
	}
}

// TestBadInput has all that is behind a credential fail, at the running proxy, one after the
// other. Each has a refusal of its own, with what the agent can do, and what an operator can,
// who is told in three places; one record; nothing at the service, least of all without its
// credential; and nowhere the secret.
func TestBadInput(t *testing.T) {
	d := kindsRoad(t, new(atomic.Int64))
	way := d.server.o.Upstream.Own()
	all := badSources(t)
	maps.Copy(all, badEndpoints(t))
	told := map[string]*credential.Trouble{}
	for n, name := range slices.Sorted(maps.Keys(all)) {
		b := all[name]
		o := credential.Outside{HTTP: way, SourceTime: b.wait, TokenTime: b.wait, Told: func(id string, x *credential.Trouble) { told[id] = x }, Sources: map[string]source.Fetcher{"command": source.Command{}, "file": source.File{}}}
		o.Sources["vault"] = &source.Vault{HTTP: way, Address: "https://login.acme.dev", Token: func(context.Context) (credential.Secret, error) { return credential.NewSecret([]byte(canary)), nil }}
		d.vault.Use(o)
		d.mu.Lock()
		d.serve = b.answer
		d.mu.Unlock()
		b.ID = fmt.Sprint("c", n)
		d.badly(name, n, &b)
		x := d.vault.Trouble(b.ID)
		if x == nil || x.What == "" || !strings.Contains(x.Hint, b.operator) || told[b.ID] == nil || *told[b.ID] != *x {
			t.Errorf("%s: the trouble is %+v, operators were told %+v", name, x, told[b.ID])
			continue
		}
		d.clean(name+": the trouble", x.What+x.Hint)
	}
	for _, r := range d.received() {
		if r.Host != "login.acme.dev" {
			t.Errorf("%s received %s with %v", r.Host, r.URI, r.Header)
		}
	}
	for _, x := range d.records(len(all)) {
		d.clean("the log", string(x.Decision.Raw)+string(x.Outcome.Raw))
	}
	d.clean("what operators are told", d.operation.String())
}

// badly makes the request and looks at the refusal and its record.
func (d *road) badly(name string, n int, b *bad) {
	t := d.t
	t.Helper()
	if b.Kind == "" {
		b.Kind = credential.KindBearer
	}
	url := "https://api.acme.dev/me"
	if b.Service == "github" {
		url = "https://api.github.com/user"
	}
	var handle string
	if b.secret != "" {
		handle = d.holds(b.Credential, b.secret)
	} else {
		handle = d.sourced(b.Credential)
	}
	r, err := http.NewRequest("GET", url, nil)
	check(t, err)
	r.Header.Set("Authorization", "Bearer "+handle)
	resp, err := d.client(false).Do(r)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	d.clean(name, fmt.Sprint(resp.Header)+string(body))
	var p problem
	if err := json.Unmarshal(body, &p); err != nil || p.Title == "" || !strings.Contains(p.Hint, b.agent) {
		t.Errorf("%s: the agent is told %s", name, body)
	}
	want := 502
	if strings.HasSuffix(b.code, "_timeout") {
		want = 504
	}
	records := d.records(n + 1)
	x := records[n]
	if resp.StatusCode != want || x.Outcome.Outcome.Error != b.code || x.Outcome.Outcome.Status != want || x.Decision.Decision.Result != "allow" || x.Decision.Credential.ID != b.ID || len(records) != n+1 {
		t.Errorf("%s: %d, want %s; %d records, the last\n%s\n%s", name, resp.StatusCode, b.code, len(records), x.Decision.Raw, x.Outcome.Raw)
	}
	if p.DecisionID != x.Decision.ID {
		t.Errorf("%s: the refusal names decision %s, the record %s", name, p.DecisionID, x.Decision.ID)
	}
}
