package action

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"chaperone/policy"
)

func shippedCatalogue(t testing.TB) *Catalogue {
	t.Helper()
	c, err := Load(Shipped(), hostless())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hostless gives hosts to the services that are shipped without.
func hostless() []Service {
	return []Service{{Name: "kubernetes", Hosts: []string{"kubernetes.example.com"}}, {Name: "mcp", Hosts: []string{"mcp.example.com"}}}
}

func classify(t testing.TB, c *Catalogue, r *Request) (policy.Question, error) {
	t.Helper()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if r.BodyState == "" {
		r.BodyState = policy.BodyAbsent
		if r.Body != nil {
			r.BodyState = policy.BodyParsed
		}
	}
	var q policy.Question
	return q, c.Classify(r, &q)
}

func request(line string) *Request {
	method, rest, _ := strings.Cut(line, " ")
	u, err := url.Parse(rest)
	if err != nil {
		panic(err)
	}
	_, after, _ := strings.Cut(rest, "://")
	p := after[strings.IndexByte(after, '/'):]
	p, _, _ = strings.Cut(p, "?")
	return &Request{Method: method, Host: u.Host, Path: p, RawQuery: u.RawQuery}
}

func TestKeys(t *testing.T) {
	for name, want := range map[string]string{
		"issues/create":    "s:issues/create s:issues/* s:* *:*",
		"chat.postMessage": "s:chat.postMessage s:chat.* s:* *:*",
		"a.b/c.d":          "s:a.b/c.d s:a.b/c.* s:a.b/* s:a.* s:* *:*",
		"x":                "s:x s:* *:*",
	} {
		if got := strings.Join(known("s", name, policy.AccessRead).Keys, " "); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := strings.Join(resourceKeys("acme/web"), " "); got != "acme/web acme/* *" {
		t.Errorf("resource keys %q", got)
	}
}

// TestConfusion are the ways to make what is decided differ from what is done.
func TestConfusion(t *testing.T) {
	c := shippedCatalogue(t)
	for name, p := range map[string]string{
		"encoded slash": "/repos/acme%2Fweb", "encoded backslash": "/repos/acme%5Cweb", "backslash": `/repos/acme\web`, "double slash": "/repos//acme/web",
		"leading double slash": "//repos/acme/web", "dot": "/repos/./acme/web", "dot dot": "/repos/acme/web/../other", "dot dot at the end": "/repos/acme/..",
		"encoded dots": "/repos/acme/%2e%2e/other", "half encoded dots": "/repos/acme/.%2e/other", "double encoding": "/repos/acme%252Fweb", "double encoded dots": "/repos/%252e%252e/x",
		"needless escape": "/%72epos/acme/web", "matrix": "/repos/acme;a=b/web", "encoded matrix": "/repos/acme%3Ba/web", "NUL": "/repos/acme%00/web", "newline": "/repos/acme%0a/web",
		"DEL": "/repos/acme%7f/web", "not UTF-8": "/repos/%C0%AF/web", "Latin 1": "/repos/caf%E9/web", "broken escape": "/repos/%zz", "cut escape": "/repos/%2", "fragment": "/repos#x",
		"raw non-ASCII": "/repos/é/web", "space": "/repos/a b/web", "not absolute": "repos/acme", "empty": "", "long": "/" + strings.Repeat("a", maxPath),
	} {
		if _, err := classify(t, c, &Request{Method: "GET", Host: "api.stripe.com", Path: p}); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("path, %s: %v", name, err)
		}
	}
	for name, q := range map[string]string{"broken escape": "a=%zz", "semicolon": "a=1;b=2", "space": "a= b", "raw non-ASCII": "a=é", "override": "a=1&_method=DELETE"} {
		if _, err := classify(t, c, &Request{Method: "GET", Host: "api.github.com", Path: "/user", RawQuery: q}); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("query, %s: %v", name, err)
		}
	}
	for _, h := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", http.CanonicalHeaderKey("X_HTTP_METHOD_OVERRIDE")} {
		if _, err := classify(t, c, &Request{Method: "POST", Host: "api.github.com", Path: "/user", Header: http.Header{h: {"DELETE"}}}); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("%s: %v", h, err)
		}
	}
	form := &Request{Method: "POST", Host: "api.stripe.com", Path: "/v1/customers/cus_1", Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	for body, want := range map[string]error{"name=x": nil, "name=x&_method=DELETE": ErrAmbiguous, "%5fmethod=DELETE": ErrAmbiguous, "payment_method=pm_1": nil} {
		form.Body = []byte(body)
		if c.NeedsBody(form) == 0 {
			t.Error("the form is not asked for")
		}
		if _, err := classify(t, c, form); !errors.Is(err, want) {
			t.Errorf("form %q: %v", body, err)
		}
	}
	form.BodyState = policy.BodyTruncated
	if q, _ := classify(t, c, form); q.Action.Known {
		t.Error("a form that is too long has a name")
	}
	for _, p := range []string{"/repos/acme/web", "/repos/acme/a%20b", "/repos/acme/%E2%9C%93", "/repos/acme/100%25", "/repos/acme/a:b@c", "/repos/a.b/c..d", "/repos/acme/..."} {
		if _, err := classify(t, c, &Request{Method: "GET", Host: "api.github.com", Path: p}); err != nil {
			t.Errorf("a clear path %s: %v", p, err)
		}
	}
}

func TestBodies(t *testing.T) {
	c := shippedCatalogue(t)
	formType, jsonType := []string{"application/x-www-form-urlencoded"}, []string{"application/json; charset=utf-8"}
	for name, tc := range map[string]struct {
		path  string
		query string
		types []string
		body  string
		state policy.BodyState
		want  string // resource id, "?why", or an error's word
	}{
		"form":                       {"/api/chat.postMessage", "", formType, "channel=C1&text=hi", "", "C1"},
		"JSON":                       {"/api/chat.postMessage", "", jsonType, `{"channel":"C1","text":"hi"}`, "", "C1"},
		"no channel":                 {"/api/chat.postMessage", "", formType, "text=hi", "", ""},
		"twice in the form":          {"/api/chat.postMessage", "", formType, "channel=C1&channel=C2", "", "clear"},
		"query against form":         {"/api/chat.postMessage", "channel=C1", formType, "channel=C2", "", "clear"},
		"query beside form, equal":   {"/api/chat.postMessage", "channel=C1", formType, "channel=C1", "", "C1"},
		"twice in JSON":              {"/api/chat.postMessage", "", jsonType, `{"channel":"C1","channel":"C2"}`, "", "clear"},
		"twice but for case":         {"/api/chat.postMessage", "", jsonType, `{"channel":"C1","Channel":"C2"}`, "", "clear"},
		"JSON, not text":             {"/api/chat.postMessage", "", jsonType, `{"channel":["C1"]}`, "", "?body"},
		"JSON array":                 {"/api/chat.postMessage", "", jsonType, `[]`, "", "?body"},
		"JSON trailing":              {"/api/chat.postMessage", "", jsonType, `{"channel":"C1"}{}`, "", "clear"},
		"JSON under the form's type": {"/api/chat.postMessage", "", formType, `{"channel":"C1"}`, "", "?body"},
		"BOM":                        {"/api/chat.postMessage", "", jsonType, "\ufeff" + `{"channel":"C1"}`, "", "clear"},
		"bomb":                       {"/api/chat.postMessage", "", jsonType, strings.Repeat("[", 100000), "", "clear"},
		"too long":                   {"/api/chat.postMessage", "", jsonType, `{"channel":"C1"`, policy.BodyTruncated, "?body"},
		"token in the form":          {"/api/chat.postMessage", "", formType, "token=xoxb-1&channel=C1", "", "credential"},
		"token in JSON":              {"/api/chat.postMessage", "", jsonType, `{"token":"xoxb-1"}`, "", "credential"},
		"semicolons":                 {"/api/chat.postMessage", "", formType, "text=a;channel=C2", "", "clear"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Method: "POST", Host: "slack.com", Path: tc.path, RawQuery: tc.query, Header: http.Header{"Content-Type": tc.types}, Body: []byte(tc.body), BodyState: tc.state}
			if c.NeedsBody(r) == 0 {
				t.Fatal("the body is not asked for")
			}
			q, err := classify(t, c, r)
			got := q.Resource.ID
			if err == nil && !q.Action.Known {
				got = "?" + q.Action.Why
			}
			if err != nil {
				got = err.Error()
				if !strings.Contains(got, tc.want) || tc.want == "" {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				return
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	gzipped := &Request{Method: "POST", Host: "slack.com", Path: "/api/chat.postMessage", Header: http.Header{"Content-Type": jsonType, "Content-Encoding": {"gzip"}}, Body: []byte("x")}
	for _, h := range []http.Header{gzipped.Header, {"Content-Type": {"multipart/form-data; boundary=x"}}, {"Content-Type": {"text/plain"}}, {"Content-Type": {"multipart/form-data; boundary=x; charset=utf-16"}}, {}} {
		gzipped.Header, gzipped.RawQuery, gzipped.BodyState = h, "channel=C1", policy.BodyUnread
		if q, err := classify(t, c, gzipped); err != nil || q.Action.Known {
			t.Errorf("a body that is not looked into, %v: %+v, %v", h, q.Action, err)
		}
	}
}

func TestGraphQL(t *testing.T) {
	c := shippedCatalogue(t)
	for name, tc := range map[string]struct{ body, want string }{
		"query":               {`{"query":"query { viewer { login } }"}`, "query.viewer"},
		"alias":               {`{"query":"{ harmless: repository(owner:\"a\",name:\"b\") { id } }"}`, "query.repository"},
		"mutation":            {`{"query":"mutation { deleteIssue(input:{issueId:\"x\"}) { clientMutationId } }","variables":{}}`, "mutation.deleteIssue"},
		"several":             {`{"query":"mutation { a: createIssue(input:{}) { x } b: deleteRef(input:{}) { x } }"}`, "mutation.createIssue mutation.deleteRef"},
		"fragment":            {`{"query":"mutation { ...f } fragment f on Mutation { deleteRef(input:{}) { x } }"}`, "mutation.deleteRef"},
		"inline fragment":     {`{"query":"mutation { ... on Mutation { deleteRef(input:{}) { x } } }"}`, "mutation.deleteRef"},
		"all operations":      {`{"query":"query A { viewer { login } } mutation B { deleteRef(input:{}) { x } }","operationName":"A"}`, "query.viewer mutation.deleteRef"},
		"batch":               {`[{"query":"{ viewer { login } }"},{"query":"mutation { deleteRef(input:{}) { x } }"}]`, "query.viewer mutation.deleteRef"},
		"fragment cycle":      {`{"query":"{ ...f } fragment f on Query { ...f }"}`, "?"},
		"unknown fragment":    {`{"query":"{ ...g }"}`, "?"},
		"persisted":           {`{"extensions":{"persistedQuery":{"sha256Hash":"x"}}}`, "?"},
		"persisted with text": {`{"query":"{ viewer { login } }","extensions":{"persistedQuery":{"sha256Hash":"x"}}}`, "?"},
		"document id":         {`{"query":"{ viewer { login } }","doc_id":"1"}`, "?"},
		"member twice":        {`{"query":"{ viewer { login } }","query":"mutation { deleteRef(input:{}) { x } }"}`, "?"},
		"member's case":       {`{"query":"{ viewer { login } }","Query":"mutation { deleteRef(input:{}) { x } }"}`, "?"},
		"subscription":        {`{"query":"subscription { x }"}`, "?"},
		"no query":            {`{}`, "?"},
		"rubbish":             {`{"query":"}"}`, "?"},
		"trailing":            {`{"query":"{ viewer { login } }"} {"query":"x"}`, "?"},
		"too many roots":      {`{"query":"{` + strings.Repeat(" viewer { login }", maxRoots+1) + `}"}`, "?"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Method: "POST", Host: "api.github.com", Path: "/graphql", Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(tc.body)}
			q, err := classify(t, c, r)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range q.Actions {
				got = append(got, strings.TrimPrefix(a.Action.Operation, "graphql/"))
			}
			if len(got) == 0 && q.Action.Known {
				got = []string{strings.TrimPrefix(q.Action.Operation, "graphql/")}
			}
			if !q.Action.Known {
				got = []string{"?"}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %q", got, tc.want)
			}
		})
	}
}

func TestMutationsAreAdminUnlessKnown(t *testing.T) {
	c := shippedCatalogue(t)
	for name, want := range map[string]policy.Access{"createIssue": policy.AccessWrite, "deleteIssue": policy.AccessDelete, "updateBranchProtectionRule": policy.AccessAdmin, "inviteEnterpriseAdmin": policy.AccessAdmin} {
		r := &Request{Method: "POST", Host: "api.github.com", Path: "/graphql", Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"query":"mutation { ` + name + `(input:{}) { x } }"}`)}
		if q, err := classify(t, c, r); err != nil || q.Action.Access != want {
			t.Errorf("%s: %s, %v", name, q.Action.Access, err)
		}
		r.RawQuery = "qu%65ry=x"
		if q, _ := classify(t, c, r); q.Action.Known {
			t.Errorf("%s beside a query string is known", name)
		}
	}
}

func TestGitPush(t *testing.T) {
	c := shippedCatalogue(t)
	line := func(s string) string {
		return string([]byte{hexDigit(len(s)+4, 3), hexDigit(len(s)+4, 2), hexDigit(len(s)+4, 1), hexDigit(len(s)+4, 0)}) + s
	}
	id, zero := strings.Repeat("a", 40), strings.Repeat("0", 40)
	for name, tc := range map[string]struct{ body, want string }{
		"one ref":  {line(zero+" "+id+" refs/heads/x\x00 report-status\n") + "0000PACK", "refs/heads/x write"},
		"two refs": {line(id+" "+zero+" refs/heads/x\x00 caps") + line(zero+" "+id+" refs/tags/v1") + "0000", "refs/heads/x delete refs/tags/v1 write"},
		"probe":    {"0000", ""},
		"cut":      {line(zero + " " + id + " refs/heads/x")[:20], "?"},
		"rubbish":  {"zzzz", "?"},
		"odd ref":  {line(zero+" "+id+" HEAD\x00") + "0000", "?"},
		"cert":     {line("push-cert\x00caps") + "0000", "?"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Method: "POST", Host: "github.com", Path: "/acme/web.git/git-receive-pack", Header: http.Header{"Content-Type": {"application/x-git-receive-pack-request"}}, Body: []byte(tc.body)}
			q, err := classify(t, c, r)
			if err != nil {
				t.Fatal(err)
			}
			acts := q.Actions
			if len(acts) == 0 {
				acts = []policy.Act{{Action: q.Action, Resource: q.Resource}}
			}
			var got []string
			for _, a := range acts {
				if !a.Action.Known {
					got = append(got, "?")
					continue
				}
				if p := a.Resource.Params; len(p) == 3 {
					got = append(got, p[2].Value, string(a.Action.Access))
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %q", got, tc.want)
			}
		})
	}
}

func hexDigit(n, place int) byte { return "0123456789abcdef"[n>>(4*place)&15] }

func TestOwnService(t *testing.T) {
	own := []Service{{Name: "acme", Hosts: []string{"api.acme.dev", "*.acme.example"}, Places: []string{"bearer"}, Paths: map[string]map[string]string{
		"/things/{id}": {"GET": "things/get read", "DELETE": "things/delete delete"}, "/things/{id}:cancel": {"POST": "things/cancel write"}, "/files/{path+}/meta": {"GET": "files/meta read"}, "/files/{path+}": {"GET": "files/get read"},
	}}, {Name: "github", Hosts: []string{"api.github.com", "github.acme.dev"}, Paths: map[string]map[string]string{"/repos/{owner}/{repo}": {"GET": "repos/get admin"}}}}
	c, err := Load(Shipped(), own)
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"GET https://api.acme.dev/things/7":            "acme:things/get",
		"POST https://eu.acme.example/things/7:cancel": "acme:things/cancel",
		"GET https://api.acme.dev/files/a/b/meta":      "acme:files/meta",
		"GET https://api.acme.dev/files/a/b/c":         "acme:files/get",
		"POST https://api.acme.dev/things/7":           "",
		"GET https://acme.example/things/7":            "",
		"GET https://xacme.example/things/7":           "",
		"GET https://github.acme.dev/repos/acme/web":   "github:repos/get",
		"GET https://api.github.com/orgs/acme":         "github:orgs/get",
	} {
		if q, err := classify(t, c, request(line)); err != nil || q.Action.ID != want {
			t.Errorf("%s: got %q, %v, want %q", line, q.Action.ID, err, want)
		}
	}
	if q, _ := classify(t, c, request("GET https://api.github.com/repos/acme/web")); q.Action.Access != policy.AccessAdmin {
		t.Errorf("the operator's access level does not win: %+v", q.Action)
	}
}

func TestFaults(t *testing.T) {
	own := []Service{
		{Name: "A b", Hosts: []string{"*.com"}, Paths: map[string]map[string]string{"x": {"GET": "a read"}, "/y": {"GET": "a", "POST": "a reed", "PUT": "handle/trade read"}}},
		{Name: "copies", Hosts: []string{"copies.example"}, Copies: map[string]string{"copy": "/{source}"}},
		{Name: "two", Hosts: []string{"api.github.com"}},
		{Name: "same", Hosts: []string{"same.example"}, Paths: map[string]map[string]string{"/a/{x}": {"GET": "one read"}, "/a/{y}": {"GET": "other read"}}},
	}
	_, err := Load(Shipped(), own)
	if err == nil {
		t.Fatal("faults passed")
	}
	for _, want := range []string{`the name is not`, `whole top-level domain`, `path "x"`, `"a" is not`, `access "reed"`, `"handle/trade" is what the proxy does`, `copy: copies: "/{source}" is not`, `belongs to`, `are the same request`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if _, err := Load(fstest.MapFS{"bad.json": {Data: []byte(`{"service":"x","hots":[]}`)}}, nil); err == nil || !strings.Contains(err.Error(), "bad.json") {
		t.Errorf("a file with an unknown key: %v", err)
	}
}

// TestServicesAreDocumented holds docs/services.md to the catalogue.
func TestServicesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shippedCatalogue(t).Services() {
		row := regexp.MustCompile("(?m)^\\| `" + s.Name + "` \\|.*\\| " + strconv.Itoa(len(s.Rows())) + " \\|.*\\| " + s.License + " \\|$")
		if !row.Match(doc) {
			t.Errorf("docs/services.md has no row for %s with %d operations and licence %s", s.Name, len(s.Rows()), s.License)
		}
	}
}
