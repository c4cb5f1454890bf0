package action

import (
	"net/http"
	"strings"
	"testing"
)

// TestAlsoIsKnown holds what fields make a service do beside to the operation of that
// name, where there is one: it is no weaker.
func TestAlsoIsKnown(t *testing.T) {
	n := 0
	for _, s := range shippedCatalogue(t).Services() {
		levels := map[string]bool{}
		names := map[string]bool{}
		for _, r := range s.Rows() {
			levels[r.Action+" "+string(r.Access)] = true
			names[strings.TrimPrefix(r.Action, s.Name+":")] = true
		}
		for key, row := range s.Also {
			n++
			if !levels[s.Name+":"+row] {
				t.Errorf("%s: %q makes %s, which is not of that level", s.Name, key, row)
			}
			if of, _, found := strings.Cut(key, " "); found && !names[of] {
				t.Errorf("%s: %q is of no operation", s.Name, key)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d", n)
	}
}

// TestAlsoIsChecked refuses what cannot be understood when it is loaded.
func TestAlsoIsChecked(t *testing.T) {
	for key, row := range map[string]string{"x-acl": "a admin", "@x acl": "a admin", "PutObject": "a admin", "@x-acl": "a", "?": "a admin", "@x-acl ": "a admin"} {
		_, err := Load(Shipped(), []Service{{Name: "own", Hosts: []string{"own.acme.dev"}, Also: map[string]string{key: row}, Paths: map[string]map[string]string{"/x": {"GET": "x read"}}}})
		if err == nil || !strings.Contains(err.Error(), "own") {
			t.Errorf("%q: %q: %v", key, row, err)
		}
	}
}

// TestAlsoAtEveryParser shows a field that acts for another beside what a body says.
func TestAlsoAtEveryParser(t *testing.T) {
	own := Service{Name: "own", Hosts: []string{"own.acme.dev"}, GraphQL: []string{"/graphql"}, MCP: []string{"/mcp"}, JSONRPC: []string{"/rpc"},
		Batches: map[string]string{"/batch": "odata"}, Also: map[string]string{"@x-as": "as admin"},
		Ops: map[string]string{"mutation.a": "a write", "do": "do write"}, Paths: map[string]map[string]string{"/x": {"GET": "x read"}}}
	c, err := Load(Shipped(), []Service{own})
	if err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{
		"/graphql": `{"query":"mutation { a }"}`, "/mcp": `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "/rpc": `{"jsonrpc":"2.0","id":1,"method":"do"}`,
		"/batch": `{"requests":[{"id":"1","method":"GET","url":"/x"}]}`,
	} {
		r := &Request{Method: "POST", Host: "own.acme.dev", Path: path, Header: http.Header{"Content-Type": {"application/json"}, "X-As": {"root"}}, Body: []byte(body)}
		if got := outcome(c, r); len(got) != 2 || got[1] != "own:as admin" {
			t.Errorf("%s: %v", path, got)
		}
	}
}
