package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/policy"
	"chaperone/store"
	"chaperone/store/bolt"
)

const canary = "ghp_canary0123456789abcdefghijklmnopqrst"

type allowAll struct{}

func (allowAll) Eval(context.Context, *policy.Question) (policy.Answer, error) {
	return policy.Answer{Result: policy.Allow}, nil
}
func (allowAll) Revision() string { return "r1" }
func (allowAll) ReadsBody() bool  { return false }

type bench struct {
	*Vault
	kv     store.Store
	key    Key
	places Places
	handle map[string]string
}

func vault(t testing.TB) *bench {
	t.Helper()
	kv, err := bolt.Open(filepath.Join(t.TempDir(), "s"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(t.Context(), kv, key)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Vault: v, kv: kv, key: key, handle: map[string]string{}}
	if b.places, err = ParsePlaces([]string{"bearer", "basic", "header:X-Api-Key", "query:key"}); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, c := range []Credential{
		{ID: "gh", Service: "github", Owner: "org", Kind: KindBearer},
		{ID: "slack", Service: "slack", Owner: "org", Kind: KindBearer},
	} {
		if err := v.Add(ctx, c, NewSecret([]byte(strings.Replace(canary, "ghp_", map[string]string{"github": "ghp_", "slack": "xoxb-"}[c.Service], 1)+"\n"))); err != nil {
			t.Fatal(err)
		}
	}
	end := time.Now().Add(time.Hour)
	for name, args := range map[string][3]string{
		"mine": {"gh", "s_1", "ghp_"}, "theirs": {"gh", "s_2", "ghp_"}, "slack": {"slack", "s_1", "xoxb-"}, "revoked": {"gh", "s_1", ""},
	} {
		if b.handle[name], err = v.Issue(ctx, args[0], args[1], args[2], end); err != nil {
			t.Fatal(err)
		}
	}
	if b.handle["expired"], err = v.Issue(ctx, "gh", "s_1", "ghp_", time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	id, _ := HandleID(b.handle["expired"])
	v.byID[id].Expires = time.Now().Add(-time.Second)
	id, _ = HandleID(b.handle["revoked"])
	if n, err := v.Revoke(ctx, func(h *Handle) bool { return h.ID == id }); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	return b
}

func (b *bench) request() *Request {
	return &Request{Header: http.Header{"User-Agent": {"octokit"}, "Accept": {"*/*"}}, Path: "/repos/acme/web", Session: "s_1", Service: "github", Places: &b.places, Now: time.Now()}
}

func basic(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

func TestPresentAndSwap(t *testing.T) {
	b := vault(t)
	mine := b.handle["mine"]
	for name, tc := range map[string]struct {
		set  func(*Request)
		want func(h http.Header, query string) string
		then string
	}{
		"bearer":                     {func(r *Request) { r.Header["Authorization"] = []string{"Bearer " + mine} }, auth, "Bearer " + canary},
		"token":                      {func(r *Request) { r.Header["Authorization"] = []string{"token " + mine} }, auth, "token " + canary},
		"basic password":             {func(r *Request) { r.Header["Authorization"] = []string{basic("x-access-token", mine)} }, auth, basic("x-access-token", canary)},
		"basic user":                 {func(r *Request) { r.Header["Authorization"] = []string{basic(mine, "x-oauth-basic")} }, auth, basic(canary, "x-oauth-basic")},
		"basic user, empty password": {func(r *Request) { r.Header["Authorization"] = []string{basic(mine, "")} }, auth, basic(canary, "")},
		"header":                     {func(r *Request) { r.Header["X-Api-Key"] = []string{mine} }, func(h http.Header, _ string) string { return h.Get("X-Api-Key") }, canary},
		"query":                      {func(r *Request) { r.RawQuery = "a=%20b&key=" + mine + "&c" }, func(_ http.Header, q string) string { return q }, "a=%20b&key=" + url.QueryEscape(canary) + "&c"},
		"query, an empty one before": {func(r *Request) { r.RawQuery = "key=&key=" + mine }, func(_ http.Header, q string) string { return q }, "key=&key=" + url.QueryEscape(canary)},
		"basic, both halves empty":   {func(r *Request) { r.Header["Authorization"] = []string{basic("", "")} }, func(http.Header, string) string { return "" }, ""},
		"none":                       {func(*Request) {}, auth, ""},
		"bot cookie":                 {func(r *Request) { r.Header["Cookie"] = []string{"__cf_bm=x; _cfuvid=y"} }, auth, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.request()
			tc.set(r)
			p, err := b.Present(r)
			if err != nil {
				t.Fatal(err)
			}
			if (p.Credential != nil) != (tc.then != "") {
				t.Fatalf("presented %+v", p.Credential)
			}
			q := &policy.Question{Credential: p.Credential, Request: policy.Request{Method: "GET", Host: "api.github.com", Path: r.Path}}
			var gate policy.Gate
			gate.Use(allowAll{})
			permit, _, err := gate.Decide(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			out := &Outgoing{Target: q.Request.Target(), Header: r.Header, Path: r.Path, RawQuery: r.RawQuery}
			for name, bad := range map[string]*policy.Permit{"none": nil, "zero": {}} {
				if err := b.Swap(t.Context(), bad, &p, out); !errors.Is(err, policy.ErrNoPermit) {
					t.Errorf("permit %s: %v", name, err)
				}
			}
			other := *out
			other.Target.Path = "/other"
			if err := b.Swap(t.Context(), permit, &p, &other); !errors.Is(err, policy.ErrNoPermit) {
				t.Errorf("another target: %v", err)
			}
			if err := b.Swap(t.Context(), permit, &Presented{Credential: &policy.Credential{}, handle: p.handle, cred: p.cred}, out); p.handle != nil && !errors.Is(err, policy.ErrNoPermit) {
				t.Errorf("another credential: %v", err)
			}
			if err := b.Swap(t.Context(), permit, &p, out); err != nil {
				t.Fatal(err)
			}
			if got := tc.want(out.Header, out.RawQuery); got != tc.then {
				t.Errorf("got %q, want %q", got, tc.then)
			}
		})
	}
}

func auth(h http.Header, _ string) string { return h.Get("Authorization") }

func TestPresentRefuses(t *testing.T) {
	b := vault(t)
	mine, token := b.handle["mine"], NewSessionToken()
	foreign := "ghp_realrealrealrealrealrealrealrealreal"
	set := func(name string, values ...string) func(*Request) {
		return func(r *Request) { r.Header[name] = values }
	}
	for name, tc := range map[string]struct {
		set  func(*Request)
		want error
	}{
		"foreign bearer":              {set("Authorization", "Bearer "+foreign), ErrForeignCredential},
		"foreign without scheme":      {set("Authorization", foreign), ErrForeignCredential},
		"foreign basic":               {set("Authorization", basic("alice", "hunter2")), ErrForeignCredential},
		"foreign basic, rubbish":      {set("Authorization", "Basic !!"), ErrForeignCredential},
		"foreign basic, user alone":   {set("Authorization", basic(foreign, "")), ErrForeignCredential},
		"foreign as the scheme":       {set("Authorization", foreign+" "), ErrForeignCredential},
		"foreign digest":              {set("Authorization", `Digest username="alice", response="x"`), ErrForeignCredential},
		"foreign SigV4":               {set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIA/x/y/s3/aws4_request, Signature=z"), ErrForeignCredential},
		"foreign key field":           {set("X-Goog-Api-Key", foreign), ErrForeignCredential},
		"foreign declared field":      {set("X-Api-Key", foreign), ErrForeignCredential},
		"foreign key, underscores":    {set("X_api_key", foreign), ErrForeignCredential},
		"foreign query":               {func(r *Request) { r.RawQuery = "access_token=" + foreign }, ErrForeignCredential},
		"foreign query, encoded name": {func(r *Request) { r.RawQuery = "access%5Ftoken=" + foreign }, ErrForeignCredential},
		"foreign query, upper case":   {func(r *Request) { r.RawQuery = "Access_Token=" + foreign }, ErrForeignCredential},
		"foreign declared query":      {func(r *Request) { r.RawQuery = "key=AIza" }, ErrForeignCredential},
		"presigned URL":               {func(r *Request) { r.RawQuery = "X-Amz-Signature=abc" }, ErrForeignCredential},
		"session cookie":              {set("Cookie", "user_session=abc"), ErrForeignCredential},
		"handle beside foreign": {func(r *Request) {
			r.Header["Authorization"] = []string{"Bearer " + mine}
			r.Header["X-Auth-Token"] = []string{foreign}
		}, ErrForeignCredential},
		"stolen":                         {set("Authorization", "Bearer "+b.handle["theirs"]), ErrHandleTheft},
		"revoked":                        {set("Authorization", "Bearer "+b.handle["revoked"]), ErrHandleRevoked},
		"expired":                        {set("Authorization", "Bearer "+b.handle["expired"]), ErrHandleExpired},
		"of another service":             {set("Authorization", "Bearer "+b.handle["slack"]), ErrWrongService},
		"to an unknown host":             {func(r *Request) { r.Header["Authorization"] = []string{"Bearer " + mine}; r.Service = "" }, ErrWrongService},
		"made up":                        {set("Authorization", "Bearer "+madeUp()), ErrHandleUnknown},
		"right id, wrong secret":         {set("Authorization", "Bearer "+forged(mine)), ErrHandleUnknown},
		"in another field":               {set("X-Note", "see "+mine), ErrHandlePlace},
		"in the user agent":              {set("User-Agent", "agent/"+mine), ErrHandlePlace},
		"in another field, base64":       {set("X-Note", base64.StdEncoding.EncodeToString([]byte("x="+mine))), ErrHandlePlace},
		"in another field, base64url":    {set("X-Note", base64.RawURLEncoding.EncodeToString([]byte("xy="+mine))), ErrHandlePlace},
		"in another field, percent":      {set("X-Note", percent(mine)), ErrHandlePlace},
		"in another field, twice":        {set("X-Note", url.PathEscape(percent(mine))), ErrHandlePlace},
		"in a cookie":                    {set("Cookie", "__cf_bm="+mine), ErrHandlePlace},
		"in the path":                    {func(r *Request) { r.Path = "/repos/" + mine }, ErrHandlePlace},
		"in the path, percent":           {func(r *Request) { r.Path = "/repos/" + percent(mine) }, ErrHandlePlace},
		"in another parameter":           {func(r *Request) { r.RawQuery = "q=" + mine }, ErrHandlePlace},
		"in a parameter's name":          {func(r *Request) { r.RawQuery = mine + "=1" }, ErrHandlePlace},
		"with something around it":       {set("Authorization", "Bearer "+mine+"x"), ErrHandlePlace},
		"in another field, bad percent":  {set("X-Note", "100%"+percent(mine)), ErrHandlePlace},
		"as the scheme too":              {set("Authorization", mine+" "+mine), ErrHandlePlace},
		"in the wrong half too":          {set("Authorization", basic(mine, mine)), ErrAmbiguousCredential},
		"in an undeclared place":         {set("X-Auth-Token", mine), ErrHandlePlace},
		"two fields":                     {set("Authorization", "Bearer "+mine, "Bearer "+mine), ErrAmbiguousCredential},
		"two places":                     {func(r *Request) { r.Header["Authorization"] = []string{"Bearer " + mine}; r.RawQuery = "key=" + mine }, ErrAmbiguousCredential},
		"session token as bearer":        {set("Authorization", "Bearer "+token), ErrProxyToken},
		"session token as the scheme":    {set("Authorization", token+" "+mine), ErrProxyToken},
		"session token as password":      {set("Authorization", basic("bot", token)), ErrProxyToken},
		"session token in another field": {set("X-Note", token), ErrProxyToken},
		"session token in the query":     {func(r *Request) { r.RawQuery = "q=" + token }, ErrProxyToken},
		"session token in the path":      {func(r *Request) { r.Path = "/" + token }, ErrProxyToken},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.request()
			tc.set(r)
			p, err := b.Present(r)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if s := fmt.Sprintf("%v %+v", err, p.Fingerprint); strings.Contains(s, mine) || strings.Contains(s, foreign) || strings.Contains(s, token) {
				t.Errorf("told: %s", s)
			}
		})
	}
	allowed := b.places
	allowed.Foreign = true
	r := b.request()
	r.Places = &allowed
	r.Header["Authorization"] = []string{"Bearer " + foreign}
	if _, err := b.Present(r); err != nil {
		t.Errorf("foreign where it is allowed: %v", err)
	}
}

func madeUp() string { h, _ := newHandle("ghp_"); return h }

// forged keeps the id of a handle and makes up the rest.
func forged(handle string) string {
	p, _ := payload(handle)
	body := p[:len(mark)+idLen] + random(secretLen)
	return "ghp_" + body + checksum(body)
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

func TestVaultPersists(t *testing.T) {
	b := vault(t)
	again, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	r := b.request()
	r.Header["Authorization"] = []string{"Bearer " + b.handle["mine"]}
	if _, err := again.Present(r); err != nil {
		t.Errorf("a handle after reopening: %v", err)
	}
	r.Header["Authorization"] = []string{"Bearer " + b.handle["revoked"]}
	if _, err := again.Present(r); !errors.Is(err, ErrHandleUnknown) {
		t.Errorf("a revoked handle after reopening: %v", err)
	}
	if how, err := again.opened(t.Context(), again.credentials["gh"]); err != nil || how.(*static).text != canary {
		t.Errorf("secret: %v", err)
	}
	other, _ := NewKey()
	if _, err := Open(t.Context(), b.kv, other); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	if err := again.Remove(t.Context(), "gh"); err != nil {
		t.Fatal(err)
	}
	r.Header["Authorization"] = []string{"Bearer " + b.handle["mine"]}
	if _, err := again.Present(r); !errors.Is(err, ErrHandleRevoked) {
		t.Errorf("a handle of a removed credential: %v", err)
	}
	for e, err := range b.kv.Scan(t.Context(), "") {
		if err != nil || strings.Contains(string(e.Value), canary) || strings.Contains(string(e.Value), b.handle["mine"][4:]) {
			t.Errorf("the store shows a secret under %s: %v", e.Name, err)
		}
	}
}

// full is a store that can be read and takes no changes while it is full.
type full struct {
	store.Store
	full bool
}

var errFull = errors.New("no space left")

func (f *full) Delete(ctx context.Context, name string) error {
	if f.full {
		return errFull
	}
	return f.Store.Delete(ctx, name)
}

func TestRevocationThatTheStoreDidNotTake(t *testing.T) {
	b := vault(t)
	kv := &full{Store: b.kv, full: true}
	b.Vault.kv = kv
	all := func(*Handle) bool { return true }
	r := b.request()
	r.Header["Authorization"] = []string{"Bearer " + b.handle["mine"]}
	if n, err := b.Revoke(t.Context(), all); n == 0 || !errors.Is(err, errFull) {
		t.Fatalf("revoked %d, %v", n, err)
	}
	if _, err := b.Present(r); !errors.Is(err, ErrHandleRevoked) {
		t.Errorf("a handle that is revoked in memory: %v", err)
	}
	if err := b.Remove(t.Context(), "gh"); !errors.Is(err, errFull) {
		t.Errorf("removing: %v", err)
	}
	if _, err := b.Issue(t.Context(), "gh", "s_1", "", time.Now().Add(time.Hour)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a handle for what is being removed: %v", err)
	}
	kv.full = false
	if n, err := b.Revoke(t.Context(), all); n == 0 || err != nil {
		t.Errorf("again: revoked %d, %v", n, err)
	}
	if err := b.Remove(t.Context(), "gh"); err != nil {
		t.Errorf("removing again: %v", err)
	}
	again, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Present(r); !errors.Is(err, ErrHandleUnknown) {
		t.Errorf("after a restart: %v", err)
	}
	if n, err := b.Revoke(t.Context(), all); n != 0 || err != nil {
		t.Errorf("with nothing left: revoked %d, %v", n, err)
	}
}

func TestAddRefuses(t *testing.T) {
	b := vault(t)
	ok := Credential{ID: "new", Service: "github", Owner: "human:alice@acme.com", Kind: KindBearer}
	for name, tc := range map[string]struct {
		change func(*Credential)
		secret string
		want   error
	}{
		"duplicate":        {func(c *Credential) { c.ID = "gh" }, "x", ErrDuplicate},
		"no id":            {func(c *Credential) { c.ID = "" }, "x", ErrInvalid},
		"odd id":           {func(c *Credential) { c.ID = "a/b" }, "x", ErrInvalid},
		"no service":       {func(c *Credential) { c.Service = "" }, "x", ErrInvalid},
		"odd owner":        {func(c *Credential) { c.Owner = "alice" }, "x", ErrInvalid},
		"unknown kind":     {func(c *Credential) { c.Kind = "bearrer" }, "x", ErrInvalid},
		"header, no name":  {func(c *Credential) { c.Kind = KindHeader }, "x", ErrInvalid},
		"empty":            {func(*Credential) {}, "\n", ErrInvalid},
		"line break":       {func(*Credential) {}, "a\r\nX: y", ErrInvalid},
		"NUL":              {func(*Credential) {}, "a\x00", ErrInvalid},
		"Slack's token":    {func(*Credential) {}, "xoxb-1-2-3", ErrShape},
		"a handle":         {func(*Credential) {}, b.handle["mine"], ErrShape},
		"no setting":       {func(c *Credential) { c.Kind = KindClient }, "x", ErrInvalid},
		"odd setting":      {func(c *Credential) { c.Settings = map[string]string{"client_id": "x"} }, "x", ErrInvalid},
		"several, no JSON": {func(c *Credential) { c.Kind = KindSeveral }, "x", ErrShape},
		"several, one":     {func(c *Credential) { c.Kind = KindSeveral }, `{"header:A": "x"}`, ErrShape},
		"no private key": {func(c *Credential) {
			c.Kind, c.Settings = KindGitHubApp, map[string]string{"app_id": "1", "installation_id": "2"}
		}, "x", ErrShape},
		"token endpoint in clear": {func(c *Credential) {
			c.Kind, c.Settings = KindClient, map[string]string{"client_id": "1", "token_url": "http://a/b"}
		}, "x", ErrInvalid},
		"no such source": {func(c *Credential) { c.Source = "vaultt:x" }, "", ErrInvalid},
	} {
		c := ok
		tc.change(&c)
		if err := b.Add(t.Context(), c, NewSecret([]byte(tc.secret))); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := NewSecret([]byte(canary))
	k, _ := ParseKey([]byte(canary[:KeySize]))
	holder := struct {
		S      Secret
		hidden Secret
		K      Key
	}{s, s, k}
	j, _ := json.Marshal(holder)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "h", holder, "k", k)
	var out strings.Builder
	out.WriteString(string(j) + log.String())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		out.WriteString(fmt.Sprintf(verb+verb+verb+verb, s, &s, holder, &holder))
	}
	if strings.Contains(out.String(), "canary") || strings.Contains(out.String(), fmt.Sprintf("%x", canary[:8])) {
		t.Errorf("printed: %s", out.String())
	}
}

func TestBasicUserSecretWithColon(t *testing.T) {
	p := Presented{spot: spot{text: "h", place: Place{kind: KindBasic}}}
	out := &Outgoing{Header: http.Header{"Authorization": {basic("h", "x")}}}
	if err := (&use{&p, out}).write("a:b"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func FuzzPresent(f *testing.F) {
	b := vault(f)
	mine := b.handle["mine"]
	f.Add("Authorization", "Bearer "+mine, "/x", "a=b")
	f.Add("X-Note", base64.StdEncoding.EncodeToString([]byte(mine)), "/x", "key="+mine)
	f.Fuzz(func(t *testing.T, name, value, path, query string) {
		r := b.request()
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
		r.Path, r.RawQuery = path, query
		p, err := b.Present(r)
		if err == nil && p.Credential == nil && find(value+" "+path+" "+query) {
			t.Fatalf("a handle passed unnoticed in %q %q %q %q", name, value, path, query)
		}
	})
}

func BenchmarkPresent(b *testing.B) {
	v := vault(b)
	r := v.request()
	r.Header = http.Header{
		"User-Agent": {"octokit-core.js/5.0.0 Node.js/24"}, "Accept": {"application/vnd.github+json"}, "Accept-Encoding": {"gzip, deflate"},
		"Content-Type": {"application/json"}, "X-Github-Api-Version": {"2022-11-28"}, "Authorization": {"Bearer " + v.handle["mine"]},
	}
	r.RawQuery = "per_page=50&state=open"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Present(r); err != nil {
			b.Fatal(err)
		}
	}
}
