package action

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

// example makes a request that performs the row's operation, as its service's
// clients do.
func example(s *Service, row *Row) *Request {
	part := s
	for _, api := range s.APIs {
		if row.Host != "" && api.Hosts[0] == row.Host {
			part = api
		}
	}
	r := &Request{Method: "POST", Host: exampleHost(part), Path: "/", Header: http.Header{}}
	switch {
	case alsoForm.MatchString(row.Key):
		exampleAlso(r, part, row)
	case row.Key == "":
		r.Method = row.Method
		if row.Method == "*" {
			r.Method = "POST"
		}
		examplePath(r, row.Path)
		if len(part.Bases) > 0 {
			r.Path = part.Bases[0] + r.Path
		}
	case len(part.GraphQL) > 0:
		kind, field, _ := strings.Cut(row.Key, ".")
		r.Path = part.GraphQL[0]
		exampleBody(r, map[string]any{"query": kind + " { " + field + " }"})
	case len(part.MCP) > 0:
		method, name, _ := strings.Cut(row.Key, ":")
		_, param := mcpNames(method)
		if name == "" {
			name = "x1"
		}
		r.Path = part.MCP[0]
		exampleBody(r, map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": map[string]any{param: name}})
	case len(part.JSONRPC) > 0:
		r.Path = part.JSONRPC[0]
		exampleBody(r, map[string]any{"jsonrpc": "2.0", "id": 1, "method": row.Key})
	case strings.Contains(row.Key, "."):
		r.Header.Set("X-Amz-Target", row.Key)
		exampleBody(r, map[string]any{})
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	default:
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body = []byte(url.Values{"Action": {row.Key}, "Version": {"2010-05-08"}}.Encode())
	}
	return r
}

// exampleAlso makes a request of some operation with what makes the service do the row's
// beside.
func exampleAlso(r *Request, part *Service, row *Row) {
	of, condition, found := strings.Cut(row.Key, " ")
	if !found {
		of, condition = "", row.Key
	}
	for _, other := range part.Rows() {
		if _, operation, _ := strings.Cut(other.Action, ":"); other.Path == "" || other.Method == "*" || strings.Contains(other.Path, "?") || of != "" && operation != of {
			continue
		}
		r.Method = other.Method
		examplePath(r, other.Path)
		break
	}
	if field, ok := strings.CutPrefix(condition, "@"); ok {
		r.Header.Set(strings.ReplaceAll(field, "*", "x"), "x1")
		return
	}
	r.RawQuery = condition[1:] + "=x1"
}

// exampleHost is the service's first host, with something in place of wildcards; of
// several, one that puts nothing in front of the path.
func exampleHost(s *Service) string {
	if len(s.Hosts) == 0 {
		return s.Name + ".example.com" // see shippedCatalogue
	}
	name := s.Hosts[0]
	for _, h := range s.Hosts {
		if !strings.ContainsAny(h, "*{/") {
			name = h
			break
		}
	}
	name, _, _ = strings.Cut(name, "/")
	return strings.ReplaceAll(name, "*", "x1")
}

// examplePath fills a template, and adds the query and fields that it asks for.
func examplePath(r *Request, template string) {
	p, need, _ := strings.Cut(template, "?")
	for strings.Contains(p, "{") {
		i, j := strings.IndexByte(p, '{'), strings.IndexByte(p, '}')
		v := "v1"
		if p[j-1] == '+' {
			v = "v1/v2"
		}
		p = p[:i] + v + p[j+1:]
	}
	r.Path = p
	var query []string
	for n := range strings.SplitSeq(need, "&") {
		if field, ok := strings.CutPrefix(n, "@"); ok {
			r.Header.Set(field, "v1/v2") // the source of a copy
		} else if n != "" {
			query = append(query, n)
		}
	}
	r.RawQuery = strings.Join(query, "&")
}

func exampleBody(r *Request, v any) {
	r.Body, _ = json.Marshal(v)
	r.Header.Set("Content-Type", "application/json")
}

// exceptions are the operations that another one stands in front of, each with the
// reason: "ACTION is OTHER: why".
func exceptions(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("testdata/exceptions.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		pair, why, ok := strings.Cut(line, ": ")
		id, other, is := strings.Cut(pair, " is ")
		if !ok || !is || why == "" {
			t.Fatalf("testdata/exceptions.txt: %q is not \"ACTION is OTHER: why\"", line)
		}
		out[id] = other
	}
	return out
}

// TestEveryOperationIsItsOwn makes an example request of every operation of every
// catalogue and finds the same operation again.
func TestEveryOperationIsItsOwn(t *testing.T) {
	c := shippedCatalogue(t)
	odd := exceptions(t)
	used := map[string]bool{}
	total := 0
	for _, s := range c.Services() {
		rows := s.Rows()
		total += len(rows)
		for i := range rows {
			row := &rows[i]
			r := example(s, row)
			got := outcome(c, r)
			id, _, _ := strings.Cut(got[0], " ")
			if alsoForm.MatchString(row.Key) {
				id, _, _ = strings.Cut(got[len(got)-1], " ")
			}
			switch {
			case id == row.Action: // first, where a path can be cut in several ways
			case odd[row.Action] != "" && id == odd[row.Action]:
				used[row.Action] = true
			default:
				t.Errorf("%s %s%s (%s): got %s", row.Method, row.Path, row.Key, row.Action, strings.Join(got, ", "))
			}
		}
	}
	if total < 2000 {
		t.Errorf("only %d operations", total)
	}
	for id := range odd {
		if !used[id] {
			t.Errorf("testdata/exceptions.txt: %s is its own, or is not there any more", id)
		}
	}
}
