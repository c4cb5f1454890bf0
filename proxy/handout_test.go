package proxy

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/credential"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
)

const given = "ghs_givenGIVENgivenGIVENgivenGIVENgiven0"

// handoutRoad is a road to a service that hands out credentials.
func handoutRoad(t *testing.T) *road {
	d := newRoad(t)
	c, err := action.Load(action.Shipped(), []action.Service{{Name: "acme", Hosts: []string{"api.acme.dev"}, Places: []string{"bearer"}, Handle: "ghp_", Paths: map[string]map[string]string{
		"/{path+}": {"GET": "get read", "POST": "post write"},
		"/tokens":  {"POST": "tokens/create write mints=/token,/more/*/key"},
		"/keys":    {"POST": "keys/create write mints=aws"},
	}}})
	check(t, err)
	check(t, d.server.UseCatalogue(c))
	return d
}

func (d *road) answer(kind, body string) {
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		io.WriteString(w, body)
	}
}

func (d *road) mint(c *http.Client, url string) (int, string) {
	d.t.Helper()
	resp, err := c.Do(d.request("POST", url, nil))
	check(d.t, err)
	body, err := io.ReadAll(resp.Body)
	check(d.t, err)
	return resp.StatusCode, string(body)
}

// TestHandedOutCredentialsAreHandles shows that a credential which a service hands
// out is the agent's as a handle only, for this session, and ends with it.
func TestHandedOutCredentialsAreHandles(t *testing.T) {
	both(t, func(t *testing.T, _ *road, _ *http.Client) {
		d := handoutRoad(t)
		c := d.client(false)
		d.answer("application/json", ` {"token": "`+given+`", "more":[{"key":"sk-one-of-them-123456"},{"key":"sk-two-of-them-123456"}], "other":"token"}`)
		status, body := d.mint(c, "https://api.acme.dev/tokens")
		var got struct {
			Token string
			More  []struct{ Key string }
			Other string
		}
		check(t, json.Unmarshal([]byte(body), &got))
		if status != 200 || strings.Contains(body, given) || strings.Contains(body, "-of-them-") || got.Other != "token" || !strings.HasPrefix(body, ` {"token": "`) {
			t.Fatalf("%d %s", status, body)
		}
		if !credential.IsHandle(got.Token) || !strings.HasPrefix(got.Token, "ghs_") || !credential.IsHandle(got.More[1].Key) {
			t.Errorf("no handles: %s", body)
		}
		d.serve = nil
		r := d.request("GET", "https://api.acme.dev/x", nil)
		r.Header.Set("Authorization", "token "+got.Token)
		resp, err := c.Do(r)
		check(t, err)
		resp.Body.Close()
		seen := d.received()
		if a := seen[len(seen)-1].Header.Get("Authorization"); resp.StatusCode != 200 || a != "token "+given {
			t.Errorf("%d; the service got %q", resp.StatusCode, a)
		}
		all := d.records(2)
		if all[0].Outcome.Outcome.Scrubbed != 3 || !strings.HasPrefix(all[1].Decision.Credential.ID, "acme.given-") {
			t.Errorf("records %s %s", all[0].Outcome.Raw, all[1].Decision.Raw)
		}
		if n := len(d.vault.List()); n < 4 {
			t.Errorf("%d credentials", n)
		}
		before := len(d.vault.List())
		_, err = d.dir.Revoke(t.Context(), identity.Target{Session: d.session.ID}, "test", "me")
		check(t, err)
		if after := len(d.vault.List()); after != before-3 {
			t.Errorf("%d credentials of %d are left behind", after, before)
		}
	})
}

func TestHandoutsInOtherForms(t *testing.T) {
	d := handoutRoad(t)
	c := d.client(false)
	d.answer("application/x-www-form-urlencoded; charset=utf-8", "scope=repo&token="+given+"&token_type=bearer")
	_, body := d.mint(c, "https://api.acme.dev/tokens")
	if f, err := url.ParseQuery(body); err != nil || !credential.IsHandle(f.Get("token")) || f.Get("scope") != "repo" {
		t.Errorf("form: %s", body)
	}
	d.answer("text/xml", `<R><Credentials><AccessKeyId>ASIAABCDEFGHIJKLMNOP</AccessKeyId><SecretAccessKey>secretSECRETsecretSECRETsecretSECRET1234</SecretAccessKey><SessionToken>long//token==</SessionToken><Expiration>2030</Expiration></Credentials></R>`)
	_, body = d.mint(c, "https://api.acme.dev/keys")
	var x struct {
		Credentials struct{ AccessKeyID, AccessKeyId, SecretAccessKey, SessionToken, Expiration string }
	}
	check(t, xml.Unmarshal([]byte(body), &x))
	if k := x.Credentials; !strings.HasPrefix(k.AccessKeyId, "AKIACHP") || len(k.SecretAccessKey) != 40 || strings.Contains(body, "SECRET") || k.SessionToken != "" || k.Expiration != "2030" {
		t.Errorf("AWS: %s", body)
	}
	d.answer("application/json", `{"error":"none today"}`)
	if status, body := d.mint(c, "https://api.acme.dev/tokens"); status != 200 || body != `{"error":"none today"}` {
		t.Errorf("nothing handed out: %d %s", status, body)
	}
}

// TestRegistryTokens pulls as a registry's clients do: the token that they ask for, by Basic
// or by OAuth, is a handle, which the registry sees as the token.
func TestRegistryTokens(t *testing.T) {
	d := newRoad(t, func(_ *Options, u *upstream.Options) {
		u.Resolve["auth.docker.io"], u.Resolve["registry-1.docker.io"] = u.Resolve["api.acme.dev"], u.Resolve["api.acme.dev"]
	})
	engine, err := opa.Load(opa.Options{FS: fstest.MapFS{"p.rego": {Data: []byte("package chaperone\n\ndecision := {\"result\": \"allow\"} if input.action.service == \"docker-registry\"\n")}}, Timeout: 10 * time.Second})
	check(t, err)
	d.gate.Use(engine)
	check(t, d.vault.Add(t.Context(), credential.Credential{ID: "hub", Service: "docker-registry", Owner: "org", Kind: credential.KindBasic}, credential.NewSecret([]byte(canary))))
	d.session, err = d.dir.CreateSession(t.Context(), identity.Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{"hub"}})
	check(t, err)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Host == "auth.docker.io" && (password == canary || r.FormValue("password") == canary):
			fmt.Fprintf(w, `{"token":%[1]q,"access_token":%[1]q,"expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}`, given)
		case r.Host == "registry-1.docker.io" && r.Header.Get("Authorization") == "Bearer "+given:
			io.WriteString(w, `{"tags":["1"]}`)
		default:
			w.WriteHeader(401)
		}
	}
	for n, asked := range []func() *http.Request{
		func() *http.Request {
			r := d.request("GET", "https://auth.docker.io/token?service=registry.docker.io&scope=repository:acme/web:pull", nil)
			r.SetBasicAuth("acme", d.session.Handles["hub"])
			return r
		},
		func() *http.Request {
			form := url.Values{"grant_type": {"password"}, "service": {"registry.docker.io"}, "client_id": {"containerd"}, "scope": {"repository:acme/web:pull"}, "username": {"acme"}, "password": {d.session.Handles["hub"]}}
			r := d.request("POST", "https://auth.docker.io/token", strings.NewReader(form.Encode()))
			r.Header.Del("Authorization")
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return r
		},
	} {
		resp, err := d.client(false).Do(asked())
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, err)
		var got struct {
			Token       string
			AccessToken string `json:"access_token"`
		}
		check(t, json.Unmarshal(body, &got))
		if resp.StatusCode != 200 || strings.Contains(string(body), given) || !credential.IsHandle(got.Token) || got.AccessToken != got.Token {
			t.Fatalf("%d: %d %s", n, resp.StatusCode, body)
		}
		if code, body := d.do("GET", "https://registry-1.docker.io/v2/acme/web/tags/list", "Bearer "+got.Token, ""); code != 200 || body != `{"tags":["1"]}` {
			t.Errorf("%d: the registry says %d %s", n, code, body)
		}
		all := d.records(2*n + 2)
		if a, b := all[2*n], all[2*n+1]; a.Decision.Action.ID != "docker-registry:token/get" || a.Outcome.Outcome.Scrubbed != 1 || !strings.HasPrefix(b.Decision.Credential.ID, "hub.given-") {
			t.Errorf("%d: records %s %s", n, a.Outcome.Raw, b.Decision.Raw)
		}
	}
	d.unseen(4, canary, given)
}

// TestHandoutsThatCannotBeKept shows that an answer goes no further when what it
// hands out cannot be replaced.
func TestHandoutsThatCannotBeKept(t *testing.T) {
	d := handoutRoad(t)
	c := d.client(false)
	for name, tc := range map[string]struct{ kind, body, url string }{
		"no form that is known": {"text/plain", given, "tokens"},
		"not JSON to its end":   {"application/json", `{"token":"` + given + `"`, "tokens"},
		"too long":              {"application/json", `{"token":"` + given + `","x":"` + strings.Repeat("x", maxHandout) + `"}`, "tokens"},
		"a line break in it":    {"application/json", `{"token":"` + given + `\nmore"}`, "tokens"},
		"keys twice":            {"text/xml", "<a><AccessKeyId>ASIAABCDEFGHIJKLMNOP</AccessKeyId><SecretAccessKey>" + given + "</SecretAccessKey><SecretAccessKey>x</SecretAccessKey></a>", "keys"},
		"another JSON":          {"application/json", `{"kind":"Table","rows":[{"object":{"token":"` + given + `"}}]}`, "tokens"},
		"twice":                 {"application/json", `{"token":"` + given + `","again":"` + given + `"}`, "tokens"},
		"another form":          {"application/x-www-form-urlencoded", "t=" + given, "tokens"},
		"keys in JSON":          {"application/json", `{"AssumeRoleResponse":{"Credentials":{"AccessKeyId":"ASIAABCDEFGHIJKLMNOP","SecretAccessKey":"` + given + `"}}}`, "keys"},
		"half a key":            {"text/xml", "<a><SecretAccessKey>" + given + "</SecretAccessKey></a>", "keys"},
	} {
		t.Run(name, func(t *testing.T) {
			d.answer(tc.kind, tc.body)
			status, body := d.mint(c, "https://api.acme.dev/"+tc.url)
			if status != 502 || strings.Contains(body, given) || !strings.Contains(body, "could not be kept") {
				t.Errorf("%d %.300s", status, body)
			}
		})
	}
	for i, x := range d.records(10) {
		if x.Outcome.Outcome.Error != "handout_kept_back" || !x.Outcome.Outcome.Indeterminate {
			t.Error(fmt.Sprint(i), x.Outcome.Raw)
		}
	}
}
