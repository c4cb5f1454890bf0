package action

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"chaperone/policy"
)

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/repos/acme/web", "/a/%2e%2e/b", "/a//b", "/a;b", "/%E2%9C%93"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if checkPath(p, false) != nil {
			return
		}
		u, err := url.ParseRequestURI(p)
		if err != nil {
			t.Fatalf("%q passed and net/url refuses it: %v", p, err)
		}
		if clean := path.Clean(u.Path); clean != strings.TrimSuffix(u.Path, "/") && u.Path != "/" {
			t.Fatalf("%q is cleaned to %q", u.Path, clean)
		}
		once, _ := url.PathUnescape(p)
		if strings.Count(once, "/") != strings.Count(p, "/") {
			t.Fatalf("%q gains slashes when decoded", p)
		}
		if twice, err := url.PathUnescape(once); err == nil && strings.Count(twice, "/") != strings.Count(p, "/") {
			t.Fatalf("%q gains slashes when decoded twice", p)
		}
	})
}

func FuzzClassify(f *testing.F) {
	c := shippedCatalogue(f)
	f.Add("POST", "slack.com", "/api/chat.postMessage", "a=b", "application/json", []byte(`{"channel":"C"}`))
	f.Add("POST", "api.github.com", "/graphql", "", "application/json", []byte(`{"query":"{viewer{login}}"}`))
	f.Add("POST", "github.com", "/a/b/git-receive-pack", "", "application/x-git-receive-pack-request", []byte("0000"))
	f.Fuzz(func(t *testing.T, method, host, p, query, kind string, body []byte) {
		var q policy.Question
		r := &Request{Method: method, Host: host, Path: p, RawQuery: query, Header: http.Header{"Content-Type": {kind}}, Body: body, BodyState: policy.BodyParsed}
		if c.Classify(r, &q) != nil {
			return
		}
		acts := append([]policy.Act{{Action: q.Action}}, q.Actions...)
		for _, a := range acts {
			if a.Action.Known != (a.Action.ID != "") || !a.Action.Known && len(a.Action.Keys) > 0 || a.Action.Known && !slices.Contains(a.Action.Keys, "*:*") {
				t.Fatalf("%+v", a.Action)
			}
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	c := shippedCatalogue(b)
	for name, line := range map[string]string{"issues": "GET https://api.github.com/repos/acme/web/issues?per_page=50", "contents": "PUT https://api.github.com/repos/acme/web/contents/docs/a.md", "unknown": "GET https://api.github.com/nonesuch/x"} {
		r := request(line)
		r.Header = http.Header{"User-Agent": {"x"}}
		r.BodyState = policy.BodyAbsent
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var q policy.Question
				if err := c.Classify(r, &q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(Shipped(), nil); err != nil {
			b.Fatal(err)
		}
	}
}
