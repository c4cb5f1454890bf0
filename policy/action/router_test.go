package action

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"chaperone/policy"
)

// plainTemplates are GitHub's REST templates that chi can write: without parameters of
// several segments and without conditions.
func plainTemplates(tb testing.TB) []Row {
	tb.Helper()
	var rows []Row
	for _, row := range shippedCatalogue(tb).Service("github").Rows() {
		if row.Path != "" && !strings.Contains(row.Path, "+}") && !strings.ContainsAny(row.Path, "?") {
			rows = append(rows, row)
		}
	}
	return rows
}

// routers builds our table and chi's of the same templates.
func routers(tb testing.TB, rows []Row) (*table, *chi.Mux) {
	tb.Helper()
	ours, theirs := &table{}, chi.NewRouter()
	for i := range rows {
		op := &operation{action: policy.Action{ID: rows[i].Method + " " + rows[i].Path}}
		if err := ours.add(rows[i].Path, rows[i].Method, op); err != nil {
			tb.Fatal(err)
		}
		theirs.MethodFunc(rows[i].Method, rows[i].Path, func(http.ResponseWriter, *http.Request) {})
	}
	return ours, theirs
}

// TestRouterAgrees compares the table with a router of others, chi, over paths in which
// parameters are called like the literals beside them.
func TestRouterAgrees(t *testing.T) {
	rows := plainTemplates(t)
	ours, theirs := routers(t, rows)
	words := map[string]bool{}
	for _, row := range rows {
		for segment := range strings.SplitSeq(row.Path, "/") {
			if segment != "" && segment[0] != '{' && len(words) < 40 {
				words[segment] = true
			}
		}
	}
	param := regexp.MustCompile(`\{[^}]*\}`)
	compared := 0
	for _, row := range rows {
		for _, word := range append(sorted(words), "v1", "5") {
			path := param.ReplaceAllString(row.Path, word)
			m := match{method: row.Method, path: path}
			got := ""
			if ours.find(&m) {
				got = m.leaf.op.action.ID
			}
			want := ""
			if pattern := theirs.Find(chi.NewRouteContext(), row.Method, path); pattern != "" {
				want = row.Method + " " + pattern
			}
			if got != want {
				t.Fatalf("%s %s: %q, chi %q", row.Method, path, got, want)
			}
			compared++
		}
	}
	if compared < 10000 {
		t.Errorf("only %d paths", compared)
	}
}

// BenchmarkRouter looks up one path beside chi, in GitHub's templates.
func BenchmarkRouter(b *testing.B) {
	ours, theirs := routers(b, plainTemplates(b))
	const path = "/repos/acme/web/issues/5/comments"
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if m := (match{method: "POST", path: path}); !ours.find(&m) {
				b.Fatal("not found")
			}
		}
	})
	b.Run("chi", func(b *testing.B) {
		b.ReportAllocs()
		ctx := chi.NewRouteContext()
		for b.Loop() {
			ctx.Reset()
			if theirs.Find(ctx, "POST", path) == "" {
				b.Fatal("not found")
			}
		}
	})
}

// BenchmarkOperations names one request among more and more operations.
func BenchmarkOperations(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		paths := map[string]map[string]string{}
		for i := range n {
			paths[fmt.Sprintf("/api/{owner}/{repo}/kind%d/{id}", i)] = map[string]string{"GET": fmt.Sprintf("kind%d/get read", i)}
		}
		own := Service{Name: "many", Hosts: []string{"many.acme.dev"}, Fold: []string{"owner", "repo"}, Resources: []ResourceRule{{Type: "repository", ID: "{owner}/{repo}"}}, Paths: paths}
		c, err := Load(Shipped(), []Service{own})
		if err != nil {
			b.Fatal(err)
		}
		r := &Request{Method: "GET", Host: "many.acme.dev", Path: "/api/acme/web/kind7/5", RawQuery: "per_page=50", Header: http.Header{"User-Agent": {"x"}, "Accept": {"*/*"}}, BodyState: policy.BodyAbsent}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var q policy.Question
				if err := c.Classify(r, &q); err != nil || !q.Action.Known {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGraphQL names a request of 500 bytes.
func BenchmarkGraphQL(b *testing.B) {
	c := shippedCatalogue(b)
	body := `{"query":"mutation CreateIssue($repo: ID!, $title: String!, $body: String) {\n  createIssue(input: {repositoryId: $repo, title: $title, body: $body}) {\n    issue {\n      id\n      number\n      url\n      title\n      state\n      author { login }\n      repository { nameWithOwner }\n    }\n  }\n}","operationName":"CreateIssue","variables":{"repo":"R_kgDOABCDEF","title":"Something is broken","body":"` + strings.Repeat("It does not work. ", 4) + `"}}`
	r := &Request{Method: "POST", Host: "api.github.com", Path: "/graphql", Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body), BodyState: policy.BodyParsed}
	b.ReportMetric(float64(len(body)), "bytes")
	b.ReportAllocs()
	for b.Loop() {
		var q policy.Question
		if err := c.Classify(r, &q); err != nil || !q.Action.Known {
			b.Fatal(err, q.Action)
		}
	}
	b.ReportMetric(float64(len(body)), "bytes")
}

// TestClassifyAllocatesLittle holds a request that its path names to three allocations:
// its parameters, its resource's patterns and the text of these.
func TestClassifyAllocatesLittle(t *testing.T) {
	c := shippedCatalogue(t)
	get := request("GET https://api.github.com/repos/acme/web/issues/5?per_page=50")
	get.Header, get.BodyState = http.Header{"User-Agent": {"x"}, "Accept": {"*/*"}}, policy.BodyAbsent
	post := request("POST https://api.github.com/repos/acme/web/issues")
	post.Header, post.BodyState = http.Header{"Content-Type": {"application/json; charset=utf-8"}}, policy.BodyUnread
	for _, r := range []*Request{get, post} {
		if n := testing.AllocsPerRun(100, func() {
			var q policy.Question
			if err := c.Classify(r, &q); err != nil || !q.Action.Known {
				t.Fatal(err)
			}
			if c.NeedsBody(r) != 0 {
				t.Fatal("it is named by its path")
			}
		}); n > 3 {
			t.Errorf("%s: %v allocations, at most 3", r.Method, n)
		}
	}
}

// BenchmarkWhole reads all operations of all services.
func BenchmarkWhole(b *testing.B) {
	for b.Loop() {
		for _, p := range shippedCatalogue(b).hosts.texts {
			p.service.ready()
		}
	}
}
