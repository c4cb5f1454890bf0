package describe

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"chaperone/policy"
	"chaperone/policy/action"
)

// rows reads a description and returns its operations by request.
func rows(t *testing.T, file, content string, o Options) (*Draft, map[string]string) {
	t.Helper()
	d, err := Read(file, []byte(content), o)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for path, methods := range d.Service.Paths {
		for method, row := range methods {
			out[method+" "+path] = row
		}
	}
	maps.Copy(out, d.Service.Ops)
	return d, out
}

func expect(t *testing.T, got, want map[string]string) {
	t.Helper()
	for request, row := range want {
		if got[request] != row {
			t.Errorf("%s: %q, want %q", request, got[request], row)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d operations, want %d: %v", len(got), len(want), got)
	}
}

const petStore = `
openapi: 3.0.0
info: {title: Pets}
servers: [{url: https://api.pets.example/v1}]
paths:
  /pets:
    get: {operationId: listPets, responses: {200: {description: ok}}}
    post: {operationId: createPet, responses: {201: {content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}}}
  /pets/{petId}:
    get: {operationId: getPet, responses: {200: {content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}}}
    delete: {operationId: deletePet, responses: {204: {description: gone}}}
  /pets/{petId}/webhooks:
    post: {operationId: createHook, responses: {201: {description: ok}}}
  /pets/search:
    post: {operationId: searchPets, responses: {200: {description: ok}}}
  /files/{path}:
    get: {operationId: getFile, parameters: [{name: path, in: path, x-multi-segment: true}], responses: {200: {description: ok}}}
  /pets/{a},{b}:
    get: {operationId: comparePets, responses: {200: {description: ok}}}
components:
  schemas:
    Pet: {properties: {id: {type: string}, name: {type: string}}}
`

func TestOpenAPI(t *testing.T) {
	d, got := rows(t, "pets.yaml", petStore, Options{})
	expect(t, got, map[string]string{
		"GET /v1/pets":                   "listPets list",
		"POST /v1/pets":                  "createPet write creates=/id undo=deletePet",
		"GET /v1/pets/{petId}":           "getPet read",
		"DELETE /v1/pets/{petId}":        "deletePet delete deletes",
		"POST /v1/pets/{petId}/webhooks": "createHook admin creates undeletable lasting",
		"POST /v1/pets/search":           "searchPets write maybe-read",
		"GET /v1/files/{path+}":          "getFile read",
	})
	if h := d.Service.Hosts; len(h) != 1 || h[0] != "api.pets.example" {
		t.Errorf("hosts %v", h)
	}
	if notes := strings.Join(d.Notes, "\n"); !strings.Contains(notes, "/v1/pets/{a},{b} (comparePets): a segment with several parameters") || !strings.Contains(notes, "1 operations may only read") {
		t.Errorf("notes:\n%s", notes)
	}
}

func TestSwagger(t *testing.T) {
	_, got := rows(t, "x.json", `{"swagger":"2.0","host":"API.Old.example","basePath":"/api/","paths":{
		"/a/{id}":{"parameters":[{"name":"id","in":"path"}],"put":{"responses":{"201":{}}},"delete":{"operationId":"dropA","responses":{}}}}}`, Options{})
	expect(t, got, map[string]string{
		"PUT /api/a/{id}":    "api/a/replace write creates={id} undo=dropA",
		"DELETE /api/a/{id}": "dropA delete deletes",
	})
}

func TestDiscovery(t *testing.T) {
	_, got := rows(t, "cal.json", `{"kind":"discovery#restDescription","rootUrl":"https://www.googleapis.com/","servicePath":"calendar/v3/",
		"schemas":{"Event":{"properties":{"id":{},"summary":{}}}},
		"resources":{"events":{"methods":{
			"get":{"id":"calendar.events.get","path":"calendars/{calendarId}/events/{eventId}","httpMethod":"GET","response":{"$ref":"Event"},"scopes":["https://x/calendar.readonly"]},
			"insert":{"id":"calendar.events.insert","path":"calendars/{calendarId}/events","httpMethod":"POST","response":{"$ref":"Event"},"scopes":["https://x/calendar"]},
			"watch":{"id":"calendar.events.watch","path":"calendars/{calendarId}/events/watch","httpMethod":"POST","scopes":["https://x/calendar.readonly"]},
			"query":{"id":"calendar.freebusy.query","path":"freeBusy","httpMethod":"POST","scopes":["https://x/calendar.readonly"]},
			"delete":{"id":"calendar.events.delete","path":"calendars/{calendarId}/events/{eventId}","httpMethod":"DELETE"}}}}}`, Options{})
	expect(t, got, map[string]string{
		"GET /calendar/v3/calendars/{calendarId}/events/{eventId}":    "calendar.events.get read",
		"POST /calendar/v3/calendars/{calendarId}/events":             "calendar.events.insert write creates=/id undo=calendar.events.delete",
		"POST /calendar/v3/calendars/{calendarId}/events/watch":       "calendar.events.watch write lasting",
		"POST /calendar/v3/freeBusy":                                  "calendar.freebusy.query read",
		"DELETE /calendar/v3/calendars/{calendarId}/events/{eventId}": "calendar.events.delete delete deletes",
	})
}

func TestAWS(t *testing.T) {
	d, got := rows(t, "ddb.json", `{"metadata":{"protocol":"json","endpointPrefix":"dynamodb","targetPrefix":"DynamoDB_20120810"},
		"operations":{"CreateTable":{"http":{"method":"POST","requestUri":"/"},"input":{"shape":"C"}},"DeleteTable":{"input":{"shape":"D"}},"GetItem":{}},
		"shapes":{"C":{"members":{"TableName":{}}},"D":{"required":["TableName"]}}}`, Options{Levels: map[string]policy.Access{"getitem": policy.AccessRead}})
	expect(t, got, map[string]string{
		"DynamoDB_20120810.CreateTable": "CreateTable write creates=body:/TableName undo=DeleteTable",
		"DynamoDB_20120810.DeleteTable": "DeleteTable delete deletes",
		"DynamoDB_20120810.GetItem":     "GetItem read",
	})
	if p := d.Service.Protocols; len(p) != 1 || p[0] != "aws-json" {
		t.Errorf("protocols %v", p)
	}
}

func TestGraphQLSchema(t *testing.T) {
	_, got := rows(t, "api.graphql", `
		schema { query: Root mutation: Mutation }
		type Root { viewer: User  issues: [Issue] }
		type Mutation { createIssue(x: String): CreateIssuePayload  deleteIssue(id: ID!): CreateIssuePayload  rotateApiKey: User
			move(input: Move!): User  renew(input: Renew!): User  invite(input: Invite!): User }
		input Move { issueId: ID!  toId: ID!  afterId: ID  labelIds: [ID!]!  clientMutationId: ID! }
		input Renew { keyId: ID  noteId: ID }
		input Invite { userId: ID  userLogin: String }
		type CreateIssuePayload { issue: Issue }
		type Issue { id: ID! }
		type User { id: ID! }`, Options{Hosts: []string{"api.example.com"}})
	expect(t, got, map[string]string{
		"query.viewer":          "graphql/query.viewer read",
		"query.issues":          "graphql/query.issues list",
		"mutation.createIssue":  "graphql/mutation.createIssue write creates=/data/createIssue/issue/id undo=graphql/mutation.deleteIssue",
		"mutation.deleteIssue":  "graphql/mutation.deleteIssue delete on=id deletes",
		"mutation.move":         "graphql/mutation.move write on=issueId,toId",
		"mutation.renew":        "graphql/mutation.renew write on=keyId,noteId",
		"mutation.invite":       "graphql/mutation.invite admin lasting",
		"mutation.rotateApiKey": "graphql/mutation.rotateApiKey admin lasting",
	})
}

func TestDescriptors(t *testing.T) {
	method := func(name string) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{Name: &name}
	}
	safe := method("GetShelf")
	safe.Options = &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}
	b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Package: new("library.v1"), Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Library"),
			Method: []*descriptorpb.MethodDescriptorProto{safe, method("CreateShelf"), method("GetBook")}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	_, got := rows(t, "library.pb", string(b), Options{Hosts: []string{"library.example.com"}})
	expect(t, got, map[string]string{
		"POST /library.v1.Library/GetShelf":    "Library/GetShelf read",
		"GET /library.v1.Library/GetShelf":     "Library/GetShelf read",
		"POST /library.v1.Library/CreateShelf": "Library/CreateShelf write",
		"POST /library.v1.Library/GetBook":     "Library/GetBook write maybe-read",
	})
}

func TestStainless(t *testing.T) {
	_, got := rows(t, "api.md", `- <code title="post /zones/{zone_id}/dns_records">client.DNS.Records.<a href="x">New</a>(ctx)</code>
- <code title="get /zones/{zone_id}/dns_records/{id}">client.DNS.Records.<a href="x">Get</a>(ctx)</code>`, Options{Prefix: "/client/v4"})
	expect(t, got, map[string]string{
		"POST /client/v4/zones/{zone_id}/dns_records":     "dns.records.create write creates undeletable",
		"GET /client/v4/zones/{zone_id}/dns_records/{id}": "dns.records.get read",
	})
}

// TestFaultsSayWhere wants the file, the line and the operation of what cannot be read.
func TestFaultsSayWhere(t *testing.T) {
	for _, c := range []struct{ file, content, want string }{
		{"a.json", "{\"openapi\":\"3\",\n\"paths\":{\n\"/x\":{\"get\":{\"parameters\":7}}}}", "a.json: line 3: GET /x: "},
		{"b.json", "{\"openapi\":\n\n!", "b.json: line 3: "},
		{"c.yaml", "a: [", "c.yaml: yaml: "},
		{"d.json", `{"hello":1}`, "d.json: the description is of no known form"},
		{"e.json", `{"openapi":"3","paths":{}}`, "no operation in it"},
		{"f.graphql", "type {", "f.graphql: "},
		{"g.pb", "\xff\xff", "g.pb: "},
		{"h.md", "# nothing", "h.md: the description is of no known form"},
		{"i.yaml", "just text", "i.yaml: the description is of no known form"},
	} {
		if _, err := Read(c.file, []byte(c.content), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.file, err, c.want)
		}
	}
	if _, err := Read("x.json", []byte(`{"hello":1}`), Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("not ErrFormat: %v", err)
	}
}

// TestFormatReadsBack wants what is written to be a catalogue file of the same operations.
func TestFormatReadsBack(t *testing.T) {
	d, got := rows(t, "pets.yaml", petStore, Options{})
	d.Service.APIs = map[string]*action.Service{"x": {Hosts: []string{"x.example.com"}, Ops: map[string]string{"a": "b read"}, Protocols: []string{"aws-json"}}}
	b, err := Format(&d.Service)
	if err != nil {
		t.Fatal(err)
	}
	s, err := action.Parse("pets.json", b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if len(s.Rows()) != len(got)+1 {
		t.Errorf("%d rows, want %d", len(s.Rows()), len(got)+1)
	}
	again, err := Format(s)
	if err != nil || string(again) != string(b) {
		t.Errorf("written differently the second time: %v\n%s\n%s", err, b, again)
	}
}

// FuzzRead wants any bytes read or refused.
func FuzzRead(f *testing.F) {
	for _, file := range []string{"x.yaml", "x.json", "x.graphql", "x.pb", "x.md"} {
		f.Add(file, []byte(petStore))
		f.Add(file, []byte(`{"kind":"discovery#restDescription","methods":{"a":{"path":"{+x"}}}`))
		f.Add(file, []byte(`{"metadata":{"protocol":"rest-xml"},"operations":{"A":{"http":{"requestUri":"/{B}?x"}}}}`))
		f.Add(file, []byte("type Query { a: B  _: B  __: [C] }"))
		f.Add(file, []byte(`{"openapi":"3","info":{"title":"_"},"components":{"securitySchemes":{"a":{"type":"apiKey","in":"query"}}},"paths":{"/_":{"put":{}}}}`))
	}
	if own, err := os.ReadFile("format.go"); err == nil {
		f.Add("x.json", own)
	}
	f.Fuzz(func(_ *testing.T, file string, b []byte) {
		if d, err := Read(file, b, Options{Service: "x", Hosts: []string{"x.example.com"}}); err == nil {
			_, _ = Format(&d.Service)
		}
	})
}

// TestPlaces wants where credentials go taken from what a description says, and asked
// for where it says nothing.
func TestPlaces(t *testing.T) {
	const paths = `"paths":{"/a":{"get":{"operationId":"a"}}}`
	for file, tt := range map[string]struct{ content, name, places, note string }{
		"openapi.json": {`{"openapi":"3.1.0","info":{"title":"Acme Tickets"},"components":{"securitySchemes":{"b":{"type":"http","scheme":"Basic"},"o":{"type":"oauth2"},"q":{"type":"apiKey","in":"query","name":"key"}}},` + paths + `}`,
			"acme-tickets", "basic bearer query:key", "give --host"},
		"old.json":   {`{"swagger":"2.0","host":"x.example","securityDefinitions":{"k":{"type":"apiKey","in":"header","name":"Authorization"},"s":{"type":"saml"}},` + paths + `}`, "old", "bearer", `the security scheme "s" (saml)`},
		"none.json":  {`{"swagger":"2.0","host":"x.example",` + paths + `}`, "none", "", "where the service takes credentials is not said"},
		"api-2.json": {`{"metadata":{"protocol":"json","endpointPrefix":"kms","targetPrefix":"T"},"operations":{"Sign":{}}}`, "kms", "aws", ""},
	} {
		d, err := Read(file, []byte(tt.content), Options{})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		notes := strings.Join(d.Notes, "\n")
		if d.Service.Name != tt.name || strings.Join(d.Service.Places, " ") != tt.places || !strings.Contains(notes, tt.note) {
			t.Errorf("%s: %q, %q\n%s", file, d.Service.Name, d.Service.Places, notes)
		}
		if len(d.Service.Env) != 1 || d.Service.Env[0] != strings.ToUpper(strings.ReplaceAll(tt.name, "-", "_"))+"_TOKEN" {
			t.Errorf("%s: variables %v", file, d.Service.Env)
		}
	}
	d, err := Read("openapi.json", []byte(`{"openapi":"3",`+paths+`}`), Options{Service: "x", Hosts: []string{"x.example"}})
	if err != nil || strings.Contains(strings.Join(d.Notes, "\n"), "--host") || d.Service.Name != "x" {
		t.Errorf("with a host and a name: %v, %q, %v", err, d.Service.Name, d.Notes)
	}
}
