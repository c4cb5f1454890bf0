package action

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"chaperone/policy"
)

// Explanation says how a request got its name, or why it has none, for people.
type Explanation struct {
	Host     string `json:"host,omitzero"`     // the entry of the catalogue that the host fits
	Part     string `json:"part,omitzero"`     // of the service
	Parser   string `json:"parser,omitzero"`   // what told the action: path, graphql, mcp, json-rpc, batch, aws, git
	Template string `json:"template,omitzero"` // of the path, with its method
	// Reason is a sentence for the reason that stands in records, Hint what to do.
	Reason string `json:"reason,omitzero"`
	Hint   string `json:"hint,omitzero"`
	// Nearest are operations of the service that the request may have meant.
	Nearest []Row `json:"nearest,omitzero"`
}

// reasons explain why an action is not known, and what to do.
var reasons = map[string][2]string{
	"unknown_host": {"no service of the catalogue answers at this host", "add it under services: in config.yaml, or make it of the API's description with `chaperone service import FILE`"},
	"no_route":     {"the service has no such operation", "look at the method and the spelling of the path; what the catalogue lacks can be added under services: in config.yaml"},
	"query":        {"a key of the query may make it another operation", "write the query's keys plainly, each once; keys that change nothing can be added to query: of the service"},
	"path":         {"the path fits too many operations", "write the path so that it fits one"},
	"body":         {"the body says what is asked, and cannot be read in one way", "send JSON or a form of at most 256 KiB, not compressed, under its own type"},
	"graphql":      {"the GraphQL request is not understood whole", "send one JSON object with query, variables and operationName; subscriptions have no name"},
	"persisted":    {"the request names a stored query by its hash or id, which says nothing of what it does", "send the text of the query"},
	"jsonrpc":      {"the JSON-RPC message is not understood, or its method is not in the catalogue", "send JSON-RPC 2.0 as application/json; add the method to ops: of the service"},
	"mcp":          {"the method is none of the Model Context Protocol, or names nothing", "send a method of the protocol, with the name of its tool, prompt or resource"},
	"source":       {"what the request copies is not written in one way, or has no name", "name the source by plain path, each segment encoded as in a URL; access points by their ARN have no name"},
	"batch":        {"the batch is not understood, or a request in it has no name", "send its requests one by one to see which"},
	"catalogue":    {"the service's part of the catalogue cannot be read", "see the program's own log"},
}

// Explain says how Classify came to what is in q.
func (c *Catalogue) Explain(r *Request, q *policy.Question) Explanation {
	var x Explanation
	if !q.Action.Known {
		x.Reason, x.Hint = reasons[q.Action.Why][0], reasons[q.Action.Why][1]
	}
	h, lead := c.hosts.find(r.Host, r.Path)
	if h == nil {
		return x
	}
	k := h.service
	x.Host, x.Part = h.text, k.part
	if h.git && (!h.api || gitPath(r.Path)) {
		x.Parser = "git"
		return x
	}
	if x.Parser = k.parser(r); x.Parser != "path" && x.Parser != "aws" || !k.ready() {
		return x
	}
	m := match{query: r.RawQuery, header: r.Header}
	switch {
	case k.route(k.under(lead, r), &m):
		x.Parser = "path"
		x.Template = m.leaf.method + " " + m.leaf.path
	case q.Action.Why == "no_route":
		x.Nearest = k.nearest(m.path, r)
	}
	return x
}

// parser names what tells the action of a request to the service.
func (k *compiled) parser(r *Request) string {
	switch k.endpoint(r.Path) {
	case endpointNone:
	case endpointGraphQL:
		return "graphql"
	case endpointMCP:
		return "mcp"
	case endpointJSONRPC:
		return "json-rpc"
	default:
		return "batch"
	}
	if len(k.Protocols) > 0 {
		return "aws"
	}
	return "path"
}

// nearest returns up to three operations that are closest to a request: the same path
// with another method, another case, a segment more or less.
func (k *compiled) nearest(path string, r *Request) []Row {
	type near struct {
		row Row
		far int
	}
	var all []near
	for _, row := range k.owner.Rows() {
		if row.Path == "" || row.Host != "" && k.part == "" {
			continue
		}
		template, _, _ := strings.Cut(row.Path, "?")
		far := distance(template, cmp.Or(path, r.Path))
		if row.Method != r.Method && row.Method != "*" && (r.Method != http.MethodHead || row.Method != http.MethodGet) {
			far += 2
		}
		if far <= 6 {
			all = append(all, near{row, far})
		}
	}
	slices.SortStableFunc(all, func(a, b near) int { return a.far - b.far })
	var rows []Row
	for i := range min(3, len(all)) {
		rows = append(rows, all[i].row)
	}
	return rows
}

// distance tells how far a path is from a template: nothing for equal segments, one
// for a parameter or another case, three for one that begins alike, six for another.
func distance(template, path string) int {
	want, have := strings.Split(template, "/"), strings.Split(path, "/")
	far := 4 * max(len(want)-len(have), len(have)-len(want))
	for i := range min(len(want), len(have)) {
		a, b := want[i], have[i]
		switch {
		case a == b:
		case strings.Contains(a, "{"), strings.EqualFold(a, b):
			far++
		case alike(a, b):
			far += 3
		default:
			far += 6
		}
	}
	return far
}

// alike reports whether most of the longer word is in the shorter, from the front and
// from the end.
func alike(a, b string) bool {
	n := min(len(a), len(b))
	front := 0
	for front < n && a[front] == b[front] {
		front++
	}
	back := 0
	for back < n-front && a[len(a)-1-back] == b[len(b)-1-back] {
		back++
	}
	return 3*(front+back) >= 2*max(len(a), len(b))
}
