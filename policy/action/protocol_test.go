package action

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"chaperone/policy"
)

// protocols is a catalogue with one service for each way of naming an operation
// elsewhere than in the path.
func protocols(tb testing.TB) *Catalogue {
	tb.Helper()
	c, err := Load(Shipped(), append(hostless(), []Service{
		{Name: "tools", Hosts: []string{"mcp.acme.dev"}, MCP: []string{"/mcp"}, Ops: map[string]string{"tools/call:search": "tools/call read"}},
		{Name: "chain", Hosts: []string{"rpc.acme.dev"}, JSONRPC: []string{"/"}, Ops: map[string]string{"block.get": "block/get read", "tx.send": "tx/send write"}},
		{Name: "cloud", Hosts: []string{"db.acme.dev"}, Protocols: []string{"aws-json", "aws-query"}, Ops: map[string]string{"DB_2012.PutItem": "PutItem write", "ListUsers": "ListUsers list"}},
		{Name: "graph", Hosts: []string{"graph.acme.dev"}, Batches: map[string]string{"/v1/$batch": "odata"}, Paths: map[string]map[string]string{"/v1/me": {"GET": "me/get read", "DELETE": "me/delete delete"}}},
		{Name: "google", Hosts: []string{"www.acme.dev"}, Batches: map[string]string{"/batch/calendar/v3": "multipart"}, Paths: map[string]map[string]string{
			"/calendar/v3/calendars/{calendar}/events": {"GET": "events.list list", "POST": "events.insert write"}, "/calendar/v3/calendars/{calendar}/events/{event}": {"GET": "events.get read", "DELETE": "events.delete delete"}}},
		{Name: "force", Hosts: []string{"*.force.acme.dev"}, Batches: map[string]string{"/services/data/{version}/composite": "composite", "/services/data/{version}/composite/batch": "composite-batch", "/services/data/{version}/composite/graph": "composite-graph"},
			Paths: map[string]map[string]string{"/services/data/{version}/sobjects/{type}": {"POST": "sobjects/create write"}, "/services/data/{version}/sobjects/{type}/{id}": {"GET": "sobjects/get read", "DELETE": "sobjects/delete delete", "PATCH": "sobjects/update write"}}},
		{Name: "notes", Hosts: []string{"grpc.acme.dev"}, Paths: map[string]map[string]string{"/acme.v1.Notes/Get": {"POST": "Notes/Get read", "GET": "Notes/Get read"}, "/acme.v1.Notes/Delete": {"POST": "Notes/Delete delete"}}},
		{Name: "todo", Hosts: []string{"app.acme.dev"}, Batches: map[string]string{"/api/1.0/batch": "asana"}, Paths: map[string]map[string]string{"/api/1.0/tasks/{task}": {"GET": "tasks/get read", "DELETE": "tasks/delete delete"}}},
		{Name: "dynamo", Hosts: []string{"dynamo.us-east-1.amazonaws.com", "dynamo.acme.dev"}, Signing: "dynamodb", Protocols: []string{"aws-json", "aws-cbor"}, Ops: map[string]string{"DB_2012.PutItem": "PutItem write"}},
		{Name: "bucket", Hosts: []string{"s3.acme.dev", "{Bucket}.s3.acme.dev"}, Signing: "s3", Query: []string{"prefix"}, Resources: []ResourceRule{{Type: "object", ID: "{Bucket}/{Key}"}, {Type: "bucket", ID: "{Bucket}"}}, Paths: map[string]map[string]string{
			"/{Bucket}": {"GET": "ListObjects list"}, "/{Bucket}/{Key+}": {"GET": "GetObject read", "PUT": "PutObject write"}, "/{Bucket}/{Key+}?acl": {"GET": "GetObjectAcl read", "PUT": "PutObjectAcl admin"}, "/{Bucket}/{Key+}?@x-amz-copy-source": {"PUT": "CopyObject write"}}},
		{Name: "lab", Hosts: []string{"lab.acme.dev"}, GitHosts: []string{"lab.acme.dev"}, GitNested: true, Bases: []string{"/api/v4", ""}, Aliases: map[string]string{"/things-by-number/{number}": "/things/{owner}/{thing}"},
			Resources: []ResourceRule{{Type: "thing", ID: "{owner}/{thing}"}, {Type: "thing", ID: "{number}"}, {Type: "repository", ID: "{owner}/{repo}"}}, Paths: map[string]map[string]string{
				"/things/{owner}/{thing}": {"GET": "things/get read", "POST": "things/update write", "DELETE": "things/delete delete"}, "/things/{owner}/{thing}/notes": {"GET": "notes/list list", "POST": "notes/create write"},
				"/branches/{name+}": {"GET": "branches/get read", "DELETE": "branches/delete delete"}, "/branches/{name+}/protection": {"GET": "protection/get read", "DELETE": "protection/delete admin"}, "/search?type=users": {"GET": "users/search list"}, "/search": {"GET": "search list"}}},
	}...))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestProtocols(t *testing.T) {
	c := protocols(t)
	for name, tt := range map[string]struct {
		line, body string
		header     http.Header
		want       string // ids of all actions, unknown, or unclear
	}{
		"tool":                    {"POST mcp.acme.dev /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_file"}}`, nil, "tools:tools/call delete_file admin"},
		"tool that is known":      {"POST mcp.acme.dev /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}`, nil, "tools:tools/call search read"},
		"tool without a name":     {"POST mcp.acme.dev /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}`, nil, "unknown"},
		"method twice":            {"POST mcp.acme.dev /mcp", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, nil, "unknown"},
		"new method":              {"POST mcp.acme.dev /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/delete"}`, nil, "unknown"},
		"header that agrees":      {"POST mcp.acme.dev /mcp", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, http.Header{"Mcp-Method": {"ping"}}, "tools:ping  read"},
		"header that differs":     {"POST mcp.acme.dev /mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}`, http.Header{"Mcp-Name": {"other"}}, "unclear"},
		"batch of calls":          {"POST mcp.acme.dev /mcp", `[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"tools/list"}]`, nil, "tools:ping  read, tools:tools/list  list"},
		"batch with a stranger":   {"POST mcp.acme.dev /mcp", `[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"x"}]`, nil, "unknown"},
		"rpc":                     {"POST rpc.acme.dev /", `{"jsonrpc":"2.0","id":1,"method":"tx.send","params":[]}`, nil, "chain:tx/send  write"},
		"rpc with another member": {"POST rpc.acme.dev /", `{"jsonrpc":"2.0","id":1,"method":"block.get","Method":"tx.send"}`, nil, "unknown"},
		"rpc in another case":     {"POST rpc.acme.dev /", `{"jsonrpc":"2.0","id":1,"method":"Block.Get"}`, nil, "unknown"},
		"target":                  {"POST db.acme.dev /", `{}`, http.Header{"X-Amz-Target": {"DB_2012.PutItem"}}, "cloud:PutItem  write"},
		"target twice":            {"POST db.acme.dev /", `{}`, http.Header{"X-Amz-Target": {"DB_2012.PutItem", "DB_2012.GetItem"}}, "unclear"},
		"target that is new":      {"POST db.acme.dev /", `{}`, http.Header{"X-Amz-Target": {"DB_2012.DropAll"}}, "unknown"},
		"action in the query":     {"GET db.acme.dev /?Action=ListUsers", "", nil, "cloud:ListUsers  list"},
		"action twice":            {"GET db.acme.dev /?Action=ListUsers&Action=DeleteUser", "", nil, "unclear"},
		"parts":                   {"POST graph.acme.dev /v1/$batch", `{"requests":[{"id":"1","method":"GET","url":"/me"},{"id":"2","method":"DELETE","url":"/me"}]}`, nil, "graph:me/get  read, graph:me/delete  delete"},
		"part that is not known":  {"POST graph.acme.dev /v1/$batch", `{"requests":[{"id":"1","method":"GET","url":"/me"},{"id":"2","method":"GET","url":"/you"}]}`, nil, "unknown"},
		"batch in a batch":        {"POST graph.acme.dev /v1/$batch", `{"requests":[{"id":"1","method":"POST","url":"/$batch"}]}`, nil, "unknown"},
		"part that climbs":        {"POST graph.acme.dev /v1/$batch", `{"requests":[{"id":"1","method":"GET","url":"/x/../me"}]}`, nil, "unclear"},
		"batch with more members": {"POST graph.acme.dev /v1/$batch", `{"requests":[{"id":"1","method":"GET","url":"/me"}],"x":1}`, nil, "unknown"},
		"batch of nothing":        {"POST graph.acme.dev /v1/$batch", `{"requests":[]}`, nil, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := named(c, tt.line, tt.body, tt.header); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// named is what a request asks for, in a line.
func named(c *Catalogue, line, body string, h http.Header) string {
	words := strings.Fields(line)
	path, query, _ := strings.Cut(words[2], "?")
	r := &Request{Method: words[0], Host: words[1], Path: path, RawQuery: query, Header: http.Header{}, BodyState: policy.BodyAbsent}
	maps.Copy(r.Header, h)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
		r.Body, r.BodyState = []byte(body), policy.BodyParsed
	}
	var q policy.Question
	if c.Classify(r, &q) != nil {
		return "unclear"
	}
	acts := q.Actions
	if len(acts) == 0 {
		acts = []policy.Act{{Action: q.Action, Resource: q.Resource}}
	}
	var all []string
	for _, a := range acts {
		if !a.Action.Known {
			return "unknown"
		}
		all = append(all, a.Action.ID+" "+a.Resource.ID+" "+string(a.Action.Access))
	}
	return strings.Join(all, ", ")
}

// FuzzProtocols shows that no body makes the parsers fail, and that nothing is named
// by halves.
func FuzzProtocols(f *testing.F) {
	c := protocols(f)
	for _, body := range []string{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}`, `[]`, `{"requests":[{"method":"GET","url":"/me"}]}`, `{"a":`} {
		for _, line := range []string{"POST mcp.acme.dev /mcp", "POST rpc.acme.dev /", "POST db.acme.dev /", "POST graph.acme.dev /v1/$batch"} {
			f.Add(line, body)
		}
	}
	f.Fuzz(func(t *testing.T, line, body string) {
		if len(strings.Fields(line)) != 3 {
			return
		}
		if got := named(c, line, body, nil); got == "" || strings.HasPrefix(got, ":") {
			t.Fatalf("%q", got)
		}
	})
}
