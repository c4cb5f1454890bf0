// Package routers compares the naming of requests with what the nearest libraries do of
// it: finding an operation of GitHub's description by method and path. It is a module of
// its own, so that none of them is in the program's:
//
//	cd bench/routers && go test -bench . -run xxx
package routers

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/go-chi/chi/v5"
	"github.com/pb33f/libopenapi"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/paths"
	"github.com/pb33f/libopenapi-validator/radix"

	"chaperone/policy"
	"chaperone/policy/action"
)

// asked is the request that all look for.
const asked = "/repos/acme/web/issues/5/comments"

var parameter = regexp.MustCompile(`\{([^}]*)\}`)

// github are GitHub's REST operations that all of them can write.
func github(tb testing.TB) []action.Row {
	tb.Helper()
	c, err := action.Load(action.Shipped(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	var rows []action.Row
	for _, row := range c.Service("github").Rows() {
		if row.Path != "" && !strings.ContainsAny(row.Path, "?+") && row.Method != "*" {
			rows = append(rows, row)
		}
	}
	return rows
}

// document writes the operations as an OpenAPI document.
func document(tb testing.TB, rows []action.Row) []byte {
	tb.Helper()
	items := map[string]map[string]any{}
	for _, row := range rows {
		params := []any{}
		for _, m := range parameter.FindAllStringSubmatch(row.Path, -1) {
			params = append(params, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
		}
		if items[row.Path] == nil {
			items[row.Path] = map[string]any{}
		}
		items[row.Path][strings.ToLower(row.Method)] = map[string]any{
			"operationId": row.Method + row.Path, "parameters": params, "responses": map[string]any{"200": map[string]any{"description": "done"}},
		}
	}
	b, err := json.Marshal(map[string]any{
		"openapi": "3.0.3", "info": map[string]any{"title": "x", "version": "1"},
		"servers": []any{map[string]any{"url": "https://api.github.com"}}, "paths": items,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// BenchmarkClassify is all that the program does: host, checks of the path, query and
// fields, operation, parameters, resource, and the patterns of grants.
func BenchmarkClassify(b *testing.B) {
	c, err := action.Load(action.Shipped(), nil)
	if err != nil {
		b.Fatal(err)
	}
	r := &action.Request{Method: "POST", Host: "api.github.com", Path: asked, Header: http.Header{"Content-Type": {"application/json"}}, BodyState: policy.BodyUnread}
	b.ReportAllocs()
	for b.Loop() {
		var q policy.Question
		if err := c.Classify(r, &q); err != nil || q.Action.ID != "github:issues/create-comment" {
			b.Fatal(err, q.Action)
		}
	}
}

func BenchmarkChi(b *testing.B) {
	mux := chi.NewRouter()
	for _, row := range github(b) {
		mux.MethodFunc(row.Method, row.Path, func(http.ResponseWriter, *http.Request) {})
	}
	ctx := chi.NewRouteContext()
	b.ReportAllocs()
	for b.Loop() {
		if ctx.Reset(); mux.Find(ctx, "POST", asked) == "" {
			b.Fatal("not found")
		}
	}
}

// BenchmarkServeMux leaves out the templates that ServeMux refuses beside others.
func BenchmarkServeMux(b *testing.B) {
	mux, refused := http.NewServeMux(), 0
	for _, row := range github(b) {
		func() {
			defer func() {
				if recover() != nil {
					refused++
				}
			}()
			mux.HandleFunc(row.Method+" "+strings.ReplaceAll(row.Path, "-", "_"), func(http.ResponseWriter, *http.Request) {})
		}()
	}
	r := httptest.NewRequest("POST", "https://api.github.com"+asked, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, pattern := mux.Handler(r); pattern == "" {
			b.Fatal("not found")
		}
	}
	b.ReportMetric(float64(refused), "refused")
}

func BenchmarkKinOpenAPI(b *testing.B) {
	doc, err := openapi3.NewLoader().LoadFromData(document(b, github(b)))
	if err != nil {
		b.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("POST", "https://api.github.com"+asked, nil)
	b.ReportAllocs()
	for b.Loop() {
		if route, _, err := router.FindRoute(r); err != nil || route.Method != "POST" {
			b.Fatal(err)
		}
	}
}

func BenchmarkLibOpenAPI(b *testing.B) {
	doc, err := libopenapi.NewDocument(document(b, github(b)))
	if err != nil {
		b.Fatal(err)
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		b.Fatal(err)
	}
	options := config.NewValidationOptions(config.WithPathTree(radix.BuildPathTree(&model.Model)))
	r := httptest.NewRequest("POST", "https://api.github.com"+asked, nil)
	b.ReportAllocs()
	for b.Loop() {
		if item, faults, _ := paths.FindPath(r, &model.Model, options); item == nil {
			b.Fatal(faults)
		}
	}
}
