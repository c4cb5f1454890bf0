package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chaperone/policy"
)

// carried is a request as it would go out.
type carried struct {
	path, query, body string
	header            http.Header
	length            int64
}

// carry takes a request through what the proxy does: hide, present, decide, swap.
func (b *bench) carry(t testing.TB, r *Request, body string) (carried, error) {
	t.Helper()
	path := r.Path
	r.Path, r.InPath = r.Places.HidePath(path)
	head := []byte(body)
	if r.Places.InBody(r.Header) {
		var shown []byte
		shown, r.InBody = r.Places.HideBody(r.Header, head)
		if find(string(shown)) && len(r.InBody) == 1 {
			t.Errorf("what is looked at shows the handle: %s", shown)
		}
	}
	p, err := b.Present(r)
	if err != nil {
		return carried{}, err
	}
	q := &policy.Question{Credential: p.Credential, Request: policy.Request{Method: "POST", Host: "api.acme.dev", Path: r.Path}}
	var gate policy.Gate
	gate.Use(allowAll{})
	permit, _, err := gate.Decide(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	out := &Outgoing{Target: q.Request.Target(), Header: r.Header, Path: r.Path, RawQuery: r.RawQuery, Head: head, ContentLength: int64(len(head))}
	if err := b.Swap(t.Context(), permit, &p, out); err != nil {
		return carried{}, err
	}
	got := carried{path: out.SentPath, query: out.RawQuery, header: out.Header, body: string(out.Head), length: out.ContentLength}
	if out.SentPath == "" {
		got.path = path
	}
	return got, nil
}

// with adds a credential for service acme and returns its handle.
func (b *bench) with(t testing.TB, c Credential, secret string) string {
	t.Helper()
	c.Service, c.Owner = "acme", "org"
	if err := b.Add(t.Context(), c, NewSecret([]byte(secret))); err != nil {
		t.Fatal(err)
	}
	h, err := b.Issue(t.Context(), c.ID, "s_1", "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (b *bench) acme(t testing.TB, places ...string) *Request {
	t.Helper()
	p, err := ParsePlaces(places)
	if err != nil {
		t.Fatal(err)
	}
	r := b.request()
	r.Service, r.Places, r.Header = "acme", &p, http.Header{}
	return r
}

func TestStaticKinds(t *testing.T) {
	b := vault(t)
	const secret = `s3cr"et/=+&`
	inPath, inCookie, inBody := b.with(t, Credential{ID: "p", Kind: KindPath}, "12:AB/c"), b.with(t, Credential{ID: "c", Kind: KindCookie, Place: "sid"}, "s3cret"), b.with(t, Credential{ID: "b", Kind: KindBody}, secret)
	both := b.with(t, Credential{ID: "dd", Kind: KindSeveral}, `{"header:DD-API-KEY": "one", "header:DD-APPLICATION-KEY": "two", "body:key": "three", "query:k": "four"}`)
	form, jsonType := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	for name, tc := range map[string]struct {
		places []string
		set    func(*Request)
		body   string
		want   carried
		err    error
	}{
		"path":            {[]string{"path:/bot*"}, func(r *Request) { r.Path = "/bot" + inPath + "/getMe" }, "", carried{path: "/bot12:AB%2Fc/getMe"}, nil},
		"path, deeper":    {[]string{"path:/services/*/*"}, func(r *Request) { r.Path = "/services/T1/" + inPath }, "", carried{path: "/services/T1/12:AB%2Fc"}, nil},
		"path, foreign":   {[]string{"path:/bot*"}, func(r *Request) { r.Path = "/bot123:real/getMe" }, "", carried{}, ErrForeignCredential},
		"path, elsewhere": {[]string{"path:/bot*"}, func(r *Request) { r.Path = "/file/bot" + inPath }, "", carried{}, ErrHandlePlace},
		"cookie":          {nil, func(r *Request) { r.Header["Cookie"] = []string{"__cf_bm=x; sid=" + inCookie + "; _cfuvid=y"} }, "", carried{header: http.Header{"Cookie": {"__cf_bm=x; sid=s3cret; _cfuvid=y"}}}, nil},
		"cookie, other":   {nil, func(r *Request) { r.Header["Cookie"] = []string{"other=" + inCookie} }, "", carried{}, ErrHandlePlace},
		"cookie, foreign": {[]string{"cookie:sid"}, func(r *Request) { r.Header["Cookie"] = []string{"sid=real"} }, "", carried{}, ErrForeignCredential},
		"form":            {[]string{"body:token"}, func(r *Request) { r.Header = form.Clone() }, "a=1&token=" + inBody + "&b=2", carried{body: "a=1&token=" + url.QueryEscape(secret) + "&b=2"}, nil},
		"form, foreign":   {[]string{"body:token"}, func(r *Request) { r.Header = form.Clone() }, "token=real", carried{}, ErrForeignCredential},
		"form, twice":     {[]string{"body:token"}, func(r *Request) { r.Header = form.Clone() }, "token=" + inBody + "&token=" + inBody, carried{}, ErrAmbiguousCredential},
		"JSON":            {[]string{"body:token"}, func(r *Request) { r.Header = jsonType.Clone() }, `{"a":"\"x", "token": "` + inBody + `" , "n":[1,{"token":"t"}]}`, carried{body: `{"a":"\"x", "token": "s3cr\"et/=+\u0026" , "n":[1,{"token":"t"}]}`}, nil},
		"JSON, nested":    {[]string{"body:auth.key"}, func(r *Request) { r.Header = jsonType.Clone() }, `{"auth":{"key":"` + inBody + `"}}`, carried{body: `{"auth":{"key":"s3cr\"et/=+\u0026"}}`}, nil},
		"JSON, cut off":   {[]string{"body:token"}, func(r *Request) { r.Header = jsonType.Clone() }, `{"token":"` + inBody + `","rest":"` + strings.Repeat("x", 9), carried{body: `{"token":"s3cr\"et/=+\u0026","rest":"xxxxxxxxx`}, nil},
		"compressed":      {[]string{"body:token"}, func(r *Request) { r.Header = jsonType.Clone(); r.Header["Content-Encoding"] = []string{"gzip"} }, `{"token":"` + inBody + `"}`, carried{body: `{"token":"` + inBody + `"}`}, nil},
		"another field":   {[]string{"body:token"}, func(r *Request) { r.Header = form.Clone() }, "note=" + inBody, carried{body: "note=" + inBody}, nil},
		"several": {[]string{"header:DD-API-KEY", "header:DD-APPLICATION-KEY", "body:key", "query:k"}, func(r *Request) {
			r.Header = form.Clone()
			r.Header["Dd-Api-Key"], r.Header["Dd-Application-Key"], r.RawQuery = []string{both}, []string{both}, "k="+both
		}, "key=" + both, carried{query: "k=four", body: "key=three", header: http.Header{"Dd-Api-Key": {"one"}, "Dd-Application-Key": {"two"}}}, nil},
		"several, half":      {[]string{"header:DD-API-KEY"}, func(r *Request) { r.Header["Dd-Api-Key"] = []string{both} }, "", carried{}, ErrHandlePlace},
		"one, in two places": {[]string{"bearer", "body:token"}, func(r *Request) { r.Header = form.Clone(); r.Header["Authorization"] = []string{"Bearer " + inBody} }, "token=" + inBody, carried{}, ErrAmbiguousCredential},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.acme(t, tc.places...)
			tc.set(r)
			got, err := b.carry(t, r, tc.body)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err != nil {
				return
			}
			if tc.want.path != "" && got.path != tc.want.path || got.body != tc.want.body || got.query != tc.want.query {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if got.length != int64(len(got.body)) {
				t.Errorf("length %d for %d bytes", got.length, len(got.body))
			}
			for k, v := range tc.want.header {
				if fmt.Sprint(got.header[k]) != fmt.Sprint(v) {
					t.Errorf("%s: %q, want %q", k, got.header[k], v)
				}
			}
		})
	}
}

func TestReplace(t *testing.T) {
	b := vault(t)
	h := b.with(t, Credential{ID: "x", Kind: KindBearer}, "first")
	ask := func() string {
		r := b.acme(t, "bearer")
		r.Header["Authorization"] = []string{"Bearer " + h}
		got, err := b.carry(t, r, "")
		if err != nil {
			t.Fatal(err)
		}
		return got.header.Get("Authorization")
	}
	if got := ask(); got != "Bearer first" {
		t.Errorf("before: %s", got)
	}
	if err := b.Replace(t.Context(), "x", "", NewSecret([]byte("second"))); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "Bearer second" {
		t.Errorf("after: %s", got)
	}
	if err := b.Replace(t.Context(), "x", "", NewSecret([]byte("a\nb"))); !errors.Is(err, ErrInvalid) {
		t.Errorf("a secret that cannot be used: %v", err)
	}
	if got := ask(); got != "Bearer second" {
		t.Errorf("after one that was refused: %s", got)
	}
	again, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	b.Vault = again
	if got := ask(); got != "Bearer second" {
		t.Errorf("after a restart: %s", got)
	}
}

func FuzzHideBody(f *testing.F) {
	f.Add("token=abc&x=1", true)
	f.Add(`{"a":{"token":"x\"y"},"token":"z"}`, false)
	p, err := ParsePlaces([]string{"body:token", "body:a.token", "path:/b*/*"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string, form bool) {
		h := http.Header{"Content-Type": {"application/json"}}
		if form {
			h["Content-Type"] = []string{"application/x-www-form-urlencoded"}
		}
		_, in := p.HideBody(h, []byte(body))
		last := 0
		for _, x := range in {
			if x.begin < last || x.end < x.begin || x.end > len(body) {
				t.Fatalf("%d to %d of %d, behind %d", x.begin, x.end, len(body), last)
			}
			last = x.end
		}
		// What is written in its place is found there again.
		back, err := replaced([]byte(body), in, func(*Inside) (string, error) { return "s\"&=%é", nil })
		if err != nil {
			t.Fatal(err)
		}
		_, again := p.HideBody(h, back)
		if len(again) != len(in) {
			t.Fatalf("%d places, then %d in %q", len(in), len(again), back)
		}
		for _, x := range again {
			if x.text != "s\"&=%é" {
				t.Errorf("found %q", x.text)
			}
		}
		p.HidePath("/" + body)
	})
}

// BenchmarkSwap measures each kind from the request as it came to as it goes out.
func BenchmarkSwap(b *testing.B) {
	v := vault(b)
	ed25519Key, _ := signingKey(b)
	for _, bc := range []struct {
		c      Credential
		secret string
		places []string
		set    func(r *Request, handle string) (body string)
	}{
		{Credential{ID: "bearer", Kind: KindBearer}, "s", []string{"bearer"}, func(r *Request, h string) string { r.Header["Authorization"] = []string{"Bearer " + h}; return "" }},
		{Credential{ID: "basic", Kind: KindBasic}, "s", []string{"basic"}, func(r *Request, h string) string { r.Header["Authorization"] = []string{basic("u", h)}; return "" }},
		{Credential{ID: "header", Kind: KindHeader, Place: "X-Key"}, "s", []string{"header:X-Key"}, func(r *Request, h string) string { r.Header["X-Key"] = []string{h}; return "" }},
		{Credential{ID: "query", Kind: KindQuery, Place: "k"}, "s", []string{"query:k"}, func(r *Request, h string) string { r.RawQuery = "a=b&k=" + h; return "" }},
		{Credential{ID: "cookie", Kind: KindCookie, Place: "sid"}, "s", []string{"cookie:sid"}, func(r *Request, h string) string { r.Header["Cookie"] = []string{"sid=" + h}; return "" }},
		{Credential{ID: "path", Kind: KindPath}, "s", []string{"path:/bot*"}, func(r *Request, h string) string { r.Path = "/bot" + h + "/x"; return "" }},
		{Credential{ID: "body", Kind: KindBody}, "s", []string{"body:token"}, func(r *Request, h string) string {
			r.Header["Content-Type"] = []string{"application/json"}
			return `{"channel":"C1","token":"` + h + `","text":"` + strings.Repeat("x", 1000) + `"}`
		}},
		{Credential{ID: "several", Kind: KindSeveral}, `{"header:A":"1","header:B":"2"}`, []string{"header:A", "header:B"}, func(r *Request, h string) string {
			r.Header["A"], r.Header["B"] = []string{h}, []string{h}
			return ""
		}},
		{Credential{ID: "hmac", Kind: KindHMAC, Settings: map[string]string{"string": "{method}{target}{timestamp}", "set": "header:X-Id={key},header:X-Sign={signature}"}}, `{"key_id":"id","secret":"s"}`, []string{"header:X-Id"},
			func(r *Request, h string) string { r.Header["X-Id"] = []string{h}; return "" }},
		{Credential{ID: "http-signature", Kind: KindHTTPSignature, Settings: signs}, ed25519Key, nil,
			func(r *Request, h string) string { r.Header["Authorization"] = []string{"Bearer " + h}; return "" }},
		{Credential{ID: "oauth1", Kind: KindOAuth1}, `{"consumer_key":"ck","consumer_secret":"s","token":"tk","token_secret":"s"}`, []string{"oauth1"}, func(r *Request, h string) string {
			r.Header["Authorization"] = []string{`OAuth oauth_consumer_key="x", oauth_token="` + h + `", oauth_nonce="n", oauth_signature="s"`}
			return ""
		}},
	} {
		h := v.with(b, bc.c, bc.secret)
		b.Run(bc.c.ID, func(b *testing.B) {
			places := v.acme(b, bc.places...).Places
			q := &policy.Question{Request: policy.Request{Method: "GET", Host: "api.acme.dev"}}
			var gate policy.Gate
			gate.Use(allowAll{})
			b.ReportAllocs()
			for b.Loop() {
				r := Request{Header: http.Header{"Accept": {"*/*"}}, Path: "/x", Session: "s_1", Service: "acme", Places: places, Now: time.Now()}
				head := []byte(bc.set(&r, h))
				r.Path, r.InPath = places.HidePath(r.Path)
				if places.InBody(r.Header) {
					_, r.InBody = places.HideBody(r.Header, head)
				}
				p, err := v.Present(&r)
				if err != nil {
					b.Fatal(err)
				}
				q.Request.Path, q.Credential = r.Path, p.Credential
				permit, _, err := gate.Decide(b.Context(), q)
				if err != nil {
					b.Fatal(err)
				}
				out := Outgoing{Target: q.Request.Target(), Header: r.Header, Path: r.Path, RawQuery: r.RawQuery, Head: head, Tail: io.Reader(bytes.NewReader(nil))}
				if err := v.Swap(b.Context(), permit, &p, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
