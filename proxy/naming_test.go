package proxy

import (
	"fmt"
	"strings"
	"testing"

	"chaperone/policy/action"
	"chaperone/proxy/upstream"
)

// talkative is a service whose bodies say what is asked.
func talkative(t *testing.T) func(*Options, *upstream.Options) {
	t.Helper()
	c, err := action.Load(action.Shipped(), []action.Service{{
		Name: "acme", Hosts: []string{"api.acme.dev"}, Places: []string{"bearer"}, GraphQL: []string{"/graphql"}, MCP: []string{"/mcp"}, JSONRPC: []string{"/rpc"},
		Batches: map[string]string{"/v1/$batch": "odata", "/batch": "multipart"}, Arguments: []string{"channel"},
		Ops: map[string]string{"query.viewer": "viewer read", "mutation.drop": "drop delete", "tools/call:look": "look read", "tools/call:wipe": "wipe delete", "get": "get read"},
		Paths: map[string]map[string]string{
			"/v1/things/{id}": {"GET": "things/get read", "POST": "things/update write", "DELETE": "things/delete delete"},
			"/post":           {"POST": "post write"}, "/search": {"GET": "search list"}, "/search?type=users": {"GET": "users/search list"},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *Options, _ *upstream.Options) { o.Catalogue = c }
}

// TestNaming sends requests that say what they are in their bodies through both doors.
// What is refused or denied never reaches the service; what is allowed reaches it with
// the bytes in which it came. The names begin with the row of docs/threats.md.
func TestNaming(t *testing.T) {
	const jsonType, formType = "Content-Type: application/json\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"
	const multi = "Content-Type: multipart/form-data; boundary=b\r\n"
	call := func(tool string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `"}}`
	}
	cases := map[string]struct{ line, header, body, want string }{
		"A7 key in another spelling":         {"GET search?Type=users", "", "", "403"},
		"A7 key as it should be":             {"GET search?type=users", "", "", "200"},
		"A8 in a form":                       {"POST v1/things/5", formType, "a=b&_method=DELETE", "400"},
		"A8 in a multipart form":             {"POST v1/things/5", multi, "--b\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--b--\r\n", "400"},
		"A8 in a body without a type":        {"POST v1/things/5", "", "_method=DELETE", "400"},
		"A8 in a compressed form":            {"POST v1/things/5", formType + "Content-Encoding: gzip\r\n", "x", "403"},
		"A8 in a field of CGI":               {"POST v1/things/5", "X_HTTP_Method_Override: DELETE\r\n", "", "400"},
		"A8 a form that is only one":         {"POST v1/things/5", formType, "a=b&method=DELETE", "200"},
		"A9 mutation by another name":        {"POST graphql", jsonType, `{"query":"mutation { viewer: drop { id } }"}`, "403"},
		"A9 mutation behind the operation":   {"POST graphql", jsonType, `{"query":"query A { viewer { id } } mutation B { drop { id } }","operationName":"A"}`, "403"},
		"A9 mutation in a batch":             {"POST graphql", jsonType, `[{"query":"{ viewer { id } }"},{"query":"mutation { drop { id } }"}]`, "403"},
		"A9 fragment of two bodies":          {"POST graphql", jsonType, `{"query":"mutation { ...f } fragment f on Mutation { viewer } fragment f on Mutation { drop }"}`, "403"},
		"A9 hash":                            {"POST graphql", jsonType, `{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"00"}}}`, "403"},
		"A9 hash of another text":            {"POST graphql", jsonType, `{"query":"{ viewer { id } }","extensions":{"persistedQuery":{"version":1,"sha256Hash":"00"}}}`, "403"},
		"A9 query that is plain":             {"POST graphql", jsonType, `{"query":"{ viewer { id } }"}`, "200"},
		"A10 member twice":                   {"POST post", jsonType, `{"channel":"a","channel":"b"}`, "400"},
		"A10 member in two cases":            {"POST post", jsonType, `{"channel":"a","CHANNEL":"b"}`, "400"},
		"A10 field in two spellings":         {"POST post", formType, `channel=a&channel[]=b`, "400"},
		"A10 query against body":             {"POST post?channel=a", formType, `channel=b`, "400"},
		"A11 tool that is not granted":       {"POST mcp", jsonType, call("wipe"), "403"},
		"A11 in a batch":                     {"POST mcp", jsonType, "[" + call("look") + "," + call("wipe") + "]", "403"},
		"A11 field that says otherwise":      {"POST mcp", jsonType + "Mcp-Method: tools/call\r\nMcp-Name: look\r\n", call("wipe"), "400"},
		"A11 field in base64":                {"POST mcp", jsonType + "Mcp-Name: =?base64?bG9vaw==?=\r\n", call("look"), "200"},
		"A11 method in another case":         {"POST rpc", jsonType, `{"jsonrpc":"2.0","id":1,"method":"GET"}`, "403"},
		"A12 deletion in a batch":            {"POST v1/$batch", jsonType, `{"requests":[{"id":"1","method":"GET","url":"/things/5"},{"id":"2","method":"DELETE","url":"/things/5"}]}`, "403"},
		"A12 batch in a batch":               {"POST v1/$batch", jsonType, `{"requests":[{"id":"1","method":"POST","url":"/$batch","body":{}}]}`, "403"},
		"A12 override in a part":             {"POST v1/$batch", jsonType, `{"requests":[{"id":"1","method":"POST","url":"/things/5","headers":{"X-HTTP-Method":"DELETE"}}]}`, "400"},
		"A12 way back in a part":             {"POST v1/$batch", jsonType, `{"requests":[{"id":"1","method":"GET","url":"/x/../things/5"}]}`, "400"},
		"A12 parts that are all granted":     {"POST v1/$batch", jsonType, `{"requests":[{"id":"1","method":"GET","url":"/things/5"}]}`, "200"},
		"A12 deletion in a multipart batch":  {"POST batch", "Content-Type: multipart/mixed; boundary=b\r\n", "--b\r\nContent-Type: application/http\r\n\r\nDELETE /v1/things/5\r\n\r\n--b--", "403"},
		"A12 second end of a multipart":      {"POST batch", "Content-Type: multipart/mixed; boundary=b\r\n", "--b\r\nContent-Type: application/http\r\n\r\nGET /v1/things/5\r\n\r\n--b--\r\n--b\r\nContent-Type: application/http\r\n\r\nDELETE /v1/things/5\r\n\r\n--b--", "403"},
		"A12 multipart that is granted":      {"POST batch", "Content-Type: multipart/mixed; boundary=b\r\n", "--b\r\nContent-Type: application/http\r\n\r\nGET /v1/things/5\r\n\r\n--b--", "200"},
		"A13 two types":                      {"POST post", jsonType + formType, `{"channel":"a"}`, "400"},
		"A13 JSON under the form's type":     {"POST post", formType, `{"channel":"a"}`, "403"},
		"A13 JSON in UTF-16":                 {"POST post", "Content-Type: application/json; charset=utf-16\r\n", `{"channel":"a"}`, "403"},
		"A13 more than is read":              {"POST post", jsonType, `{"channel":"a","text":"` + strings.Repeat("x", 300<<10) + `"}`, "403"},
		"A13 a body of another type":         {"POST post", "Content-Type: image/png\r\n", "x", "403"},
		"A13 a body of the service's format": {"POST post", jsonType, `{"channel":"a","text":"hi"}`, "200"},
	}
	for _, door := range []string{"tunnel", "front"} {
		d := newRoad(t, talkative(t))
		target := map[string]string{"tunnel": "/", "front": "http://api.acme.dev/"}[door]
		asked := 0
		for name, tc := range cases {
			if door == "front" && tc.want == "200" {
				continue // the service speaks TLS only
			}
			asked++
			t.Run(name+", "+door, func(t *testing.T) {
				before := len(d.received())
				method, rest, _ := strings.Cut(tc.line, " ")
				text := fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: api.acme.dev\r\n%sContent-Length: %d\r\n\r\n%s", method, target, rest, tc.header, len(tc.body), tc.body)
				if got := d.raw(door, text); !strings.HasPrefix(got, tc.want) || strings.Contains(got, "decision_id") != (tc.want != "200") {
					t.Errorf("answer %q, want %s", got, tc.want)
				}
				d.records(asked)
				switch got := d.received()[before:]; {
				case tc.want != "200" && len(got) > 0:
					t.Errorf("it reached the service: %+v", got)
				case tc.want == "200" && (len(got) != 1 || string(got[0].Body) != tc.body):
					t.Errorf("the service received %+v", got)
				}
			})
		}
	}
}
