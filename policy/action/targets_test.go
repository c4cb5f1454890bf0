package action

import (
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// TestGraphQLIsBounded has small requests ask for much: one list in many arguments, a
// default that counts many times. They have no name, and cost about what they weigh.
func TestGraphQLIsBounded(t *testing.T) {
	c := shippedCatalogue(t)
	list := `[` + strings.TrimSuffix(strings.Repeat(`"a",`, 5000), ",") + `]`
	for name, body := range map[string]string{
		"an argument many times":    `{"query":"mutation ($x: ID) { commentCreate(` + strings.Repeat("issueId:$x ", 500) + `) { success } }","variables":{"x":` + list + `}}`,
		"a long list":               `{"query":"mutation ($x: ID) { commentCreate(issueId:$x) { success } }","variables":{"x":` + list + `}}`,
		"a long default many times": `{"query":"mutation ($x: [Int] = [` + strings.Repeat("1 ", 5000) + `]) { ` + strings.Repeat(`commentCreate(issueId:\"a\" b:$x c:$x d:$x e:$x f:$x) { success } `, 60) + `}"}`,
		"many arguments":            `{"query":"mutation { commentCreate(` + strings.Repeat("a:1 ", 4000) + `) { success } }"}`,
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			q, err := classify(t, c, &Request{Method: "POST", Host: "api.linear.app", Path: "/graphql", Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)})
			runtime.ReadMemStats(&after)
			if most := uint64(50 << 20); err != nil || q.Action.Known || q.Action.Why != "graphql" || after.TotalAlloc-before.TotalAlloc > most {
				t.Errorf("%v; known: %v, %s; %d MB of memory for %d bytes", err, q.Action.Known, q.Action.Why, (after.TotalAlloc-before.TotalAlloc)>>20, len(body))
			}
		})
	}
}
