package action

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
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
		if checkPath(p, true) == nil {
			if once, _ := url.PathUnescape(p); path.Clean(once) != strings.TrimSuffix(once, "/") && once != "/" {
				t.Fatalf("with encoded slashes admitted, %q is cleaned to %q", once, path.Clean(once))
			}
		}
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

// FuzzGraphQL shows that a document is named whole or not at all: hidden behind an
// operation that is allowed, none is left out by another cut of the same text.
func FuzzGraphQL(f *testing.F) {
	c := shippedCatalogue(f)
	for _, doc := range []string{"{ viewer { login } }", "mutation { ...f } fragment f on Mutation { deleteRef(input:{}) { x } }", "query A { a: viewer { id } # }\r mutation B { x }\n}", `{ repository(owner:"""a""" name:"b") { id } }`} {
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		body, err := json.Marshal(map[string]string{"query": doc})
		if err != nil {
			return
		}
		r := &Request{Method: "POST", Host: "api.github.com", Path: "/graphql", Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
		got := outcome(c, r)
		for _, line := range got {
			if !strings.HasPrefix(line, "github:graphql/") && !strings.HasPrefix(line, "? ") {
				t.Fatalf("%q: %s", doc, line)
			}
		}
		// The same in carriage returns, in a batch, and beside another operation.
		r.Body = slices.Concat([]byte("["), body, []byte("]"))
		if batch := outcome(c, r); !slices.Equal(got, batch) {
			t.Fatalf("%q: %v, in a batch %v", doc, got, batch)
		}
	})
}

// FuzzMultipart shows that a body which is split is split by mime/multipart alike.
func FuzzMultipart(f *testing.F) {
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b--\r\n"))
	f.Add([]byte("--b\nContent-Disposition: form-data; name=\"a\"; filename=\"f\"\n\nx\n--b\nContent-Disposition: form-data; name=\"b\"\n\n\n--b--"))
	f.Fuzz(func(t *testing.T, body []byte) {
		h := http.Header{"Content-Type": {"multipart/form-data; boundary=b"}}
		parts, whole := splitParts(h, "multipart/form-data", body)
		if !whole {
			return
		}
		reader := multipart.NewReader(bytes.NewReader(body), "b")
		for i, p := range parts {
			other, err := reader.NextRawPart()
			if err != nil {
				t.Fatalf("part %d: %v", i, err)
			}
			content, err := io.ReadAll(other)
			if err != nil || !bytes.Equal(content, p.body) || other.Header.Get("Content-Disposition") != p.header.Get("Content-Disposition") {
				t.Fatalf("part %d: %q %v, and %q", i, content, err, p.body)
			}
		}
		if _, err := reader.NextRawPart(); err != io.EOF {
			t.Fatalf("more than %d parts: %v", len(parts), err)
		}
	})
}

// FuzzBatch shows that no batch is named by halves.
func FuzzBatch(f *testing.F) {
	c := protocols(f)
	f.Add("www.acme.dev", "/batch/calendar/v3", "multipart/mixed; boundary=b", []byte("--b\r\nContent-Type: application/http\r\n\r\nGET /calendar/v3/calendars/c/events\r\n\r\n--b--"))
	f.Add("x.force.acme.dev", "/services/data/v1/composite", "application/json", []byte(`{"compositeRequest":[{"method":"GET","url":"/services/data/v59.0/sobjects/Account/1","referenceId":"r"}]}`))
	f.Add("app.acme.dev", "/api/1.0/batch", "application/json", []byte(`{"data":{"actions":[{"method":"get","relative_path":"/tasks/1"}]}}`))
	f.Fuzz(func(t *testing.T, host, path, kind string, body []byte) {
		var q policy.Question
		r := &Request{Method: "POST", Host: host, Path: path, Header: http.Header{"Content-Type": {kind}}, Body: body, BodyState: policy.BodyParsed}
		c.NeedsBody(r)
		if c.Classify(r, &q) != nil {
			return
		}
		if !q.Action.Known && (len(q.Actions) > 0 || q.Action.Why == "") {
			t.Fatalf("%+v", q)
		}
		for _, a := range q.Actions {
			if !a.Action.Known {
				t.Fatalf("%+v", a)
			}
		}
	})
}

// FuzzGit shows that every command of a push is read, or none: what git's own plumbing
// would take for a command is among the refs.
func FuzzGit(f *testing.F) {
	c := shippedCatalogue(f)
	id := strings.Repeat("a", 40)
	f.Add([]byte("0069" + id + " " + id + " refs/heads/main\x00 report-status0000PACK"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &Request{Method: "POST", Host: "github.com", Path: "/acme/web.git/git-receive-pack", Header: http.Header{"Content-Type": {"application/x-git-receive-pack-request"}}, Body: body, BodyState: policy.BodyParsed}
		var q policy.Question
		if err := c.Classify(r, &q); err != nil || !q.Action.Known {
			return
		}
		commands, _, _ := bytes.Cut(body, []byte("0000"))
		if n := bytes.Count(commands, []byte(" refs/")); n > max(len(q.Actions), len(q.Resource.Params)-2) {
			t.Fatalf("%d commands, %d actions", n, len(q.Actions))
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
