package action

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"chaperone/policy"
)

// Limits of a GraphQL document.
const (
	maxTokens     = 15000
	maxRoots      = 64
	maxBatch      = 10
	maxSelections = 1000    // of root fields and fragments, opened
	maxNesting    = 64      // of selections
	maxLiterals   = 1 << 16 // in arguments, those of a default anew each time that it counts
)

// graphQL names every root field that a GraphQL request would run, as
// graphql/mutation.NAME or graphql/query.NAME. Whatever is not understood whole is
// unknown: persisted queries by hash, subscriptions, odd envelopes.
func (k *compiled) graphQL(r *Request, q *policy.Question) error {
	documents, why := graphQLDocuments(r)
	w := rootsWalk{k: k}
	for _, d := range documents {
		if why == "" {
			why = w.document(d, r.Method == http.MethodGet)
		}
	}
	if why == "" && len(w.acts) == 0 {
		why = "graphql"
	}
	k.several(w.acts, why, q)
	return nil
}

// document is one GraphQL request of perhaps several in a batch.
type document struct {
	query, operation string
	variables        map[string]any
}

func graphQLDocuments(r *Request) ([]document, string) {
	if r.Method == http.MethodGet {
		return graphQLQuery(r)
	}
	if r.Method != http.MethodPost || formOf(r.Header) != jsonForm || r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable ||
		r.RawQuery != "" {
		return nil, "graphql"
	}
	v, err := parseJSON(r.Body)
	if err != nil {
		return nil, "body"
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) == 0 || len(list) > maxBatch {
		return nil, "graphql"
	}
	var out []document
	for _, x := range list {
		d, why := envelope(x)
		if why != "" {
			return nil, why
		}
		out = append(out, d)
	}
	return out, ""
}

// graphQLQuery reads the document of a GET, which has no body.
func graphQLQuery(r *Request) ([]document, string) {
	v, err := url.ParseQuery(r.RawQuery)
	if err != nil || len(v["query"]) != 1 || r.BodyState != policy.BodyAbsent {
		return nil, "graphql"
	}
	for name, values := range v {
		switch name {
		case "query", "operationName", "variables":
		case "extensions":
			x, err := parseJSON([]byte(values[0]))
			if err != nil || !plainExtensions(x, v.Get("query")) {
				return nil, "persisted"
			}
		default:
			return nil, "graphql"
		}
		if len(values) != 1 {
			return nil, "graphql"
		}
	}
	var x any
	if text := v.Get("variables"); text != "" {
		if x, err = parseJSON([]byte(text)); err != nil {
			return nil, "graphql"
		}
	}
	given, ok := readVariables(x)
	if !ok {
		return nil, "graphql"
	}
	return []document{{v.Get("query"), v.Get("operationName"), given}}, ""
}

// envelope reads {query, operationName, variables, extensions}. It returns why that
// cannot be done, if so.
func envelope(x any) (d document, why string) {
	object, ok := x.(map[string]any)
	if !ok {
		return d, "graphql"
	}
	query, ok := object["query"].(string)
	if !ok && object["query"] == nil && persisted(object) {
		return d, "persisted"
	}
	for name, v := range object {
		switch name {
		case "query", "variables":
		case "operationName":
			if _, text := v.(string); !text && v != nil {
				return d, "graphql"
			}
		case "extensions":
			if !plainExtensions(v, query) {
				return d, "persisted"
			}
		default:
			return d, "graphql"
		}
	}
	operation, _ := object["operationName"].(string)
	given, plain := readVariables(object["variables"])
	if !ok || !plain {
		why = "graphql"
	}
	return document{query, operation, given}, why
}

// persisted reports whether a request without text asks for a stored one.
func persisted(object map[string]any) bool {
	for name := range object {
		switch name {
		case "extensions", "id", "documentId", "doc_id", "queryId", "hash":
			return true
		}
	}
	return false
}

// plainExtensions reports whether the text in sight is what runs: extensions may hold
// the hash of a stored document, which is harmless when it is the text's own (Apollo,
// automatic persisted queries, version 1).
func plainExtensions(v any, query string) bool {
	if v == nil {
		return true
	}
	object, ok := v.(map[string]any)
	if !ok {
		return false
	}
	for name, x := range object {
		stored, ok := x.(map[string]any)
		if name != "persistedQuery" || !ok {
			return false
		}
		sum := sha256.Sum256([]byte(query))
		if len(stored) != 2 || stored["version"] != 1.0 || stored["sha256Hash"] != hex.EncodeToString(sum[:]) {
			return false
		}
	}
	return true
}

// plainDocument reports whether a document has no character at which lexers part:
// control characters, and line separators that early versions of GraphQL took for
// the end of a comment.
func plainDocument(s string) bool {
	for _, r := range s {
		switch {
		case r == '\t', r == '\n', r == '\r':
		case r < ' ', r == 0x7f, r == 0x2028, r == 0x2029, r == 0xfeff, r == utf8.RuneError:
			return false
		}
	}
	return true
}

// rootsWalk gathers the root fields of documents.
type rootsWalk struct {
	k          *compiled
	acts       []policy.Act
	vars       variables
	selections int
}

// document adds the root fields of every operation of a document: which of them runs
// is the service's choice, so all must be allowed.
func (w *rootsWalk) document(d document, get bool) string {
	if !plainDocument(d.query) {
		return "graphql"
	}
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: d.query}, maxTokens)
	if err != nil || len(doc.Operations) == 0 {
		return "graphql"
	}
	for i, f := range doc.Fragments {
		if doc.Fragments.ForName(f.Name) != doc.Fragments[i] || !shallow(f.SelectionSet, maxNesting) {
			return "graphql" // two of one name: which one counts, servers differ
		}
	}
	for _, op := range doc.Operations {
		if op.Operation == ast.Subscription || get && op.Operation != ast.Query || !shallow(op.SelectionSet, maxNesting) {
			return "graphql"
		}
		w.vars.given, w.vars.declared = d.variables, op.VariableDefinitions
		if why := w.fields(doc, op, op.SelectionSet, nil); why != "" {
			return why
		}
	}
	return ""
}

// shallow reports whether selections nest at most n deep.
func shallow(set ast.SelectionSet, n int) bool {
	if len(set) > 0 && n == 0 {
		return false
	}
	for _, s := range set {
		var inside ast.SelectionSet
		switch s := s.(type) {
		case *ast.Field:
			inside = s.SelectionSet
		case *ast.InlineFragment:
			inside = s.SelectionSet
		}
		if !shallow(inside, n-1) {
			return false
		}
	}
	return true
}

func (w *rootsWalk) fields(doc *ast.QueryDocument, op *ast.OperationDefinition, set ast.SelectionSet, open []string) (why string) {
	for _, s := range set {
		if w.selections++; w.selections > maxSelections || len(w.acts) > maxRoots {
			return "graphql"
		}
		switch s := s.(type) {
		case *ast.Field:
			if !w.root(op.Operation, s) {
				return "graphql"
			}
		case *ast.InlineFragment:
			why = w.fields(doc, op, s.SelectionSet, open)
		case *ast.FragmentSpread:
			f := doc.Fragments.ForName(s.Name)
			if f == nil || slices.Contains(open, s.Name) || len(open) > maxSegments {
				return "graphql"
			}
			why = w.fields(doc, op, f.SelectionSet, append(open, s.Name))
		}
		if why != "" {
			return why
		}
	}
	if len(w.acts) > maxRoots {
		return "graphql"
	}
	return ""
}

// root adds the action of one root field, on each of the things that it names where the
// catalogue says in which arguments; one that the catalogue does not have is admin.
func (w *rootsWalk) root(kind ast.Operation, f *ast.Field) bool {
	k := w.k
	op := k.keyed[string(kind)+"."+f.Name]
	if op == nil {
		access := policy.AccessRead
		if kind == ast.Mutation {
			access = policy.AccessAdmin
		}
		w.acts = append(w.acts, policy.Act{Action: known(k.Name, k.prefix+"graphql/"+string(kind)+"."+f.Name, access), Resource: policy.Resource{Keys: anyResource}})
		return true
	}
	if len(op.on) == 0 {
		w.acts = append(w.acts, policy.Act{Action: op.action, Resource: policy.Resource{Keys: anyResource}})
		return true
	}
	params, ok := op.targets(f, &w.vars)
	if !ok || len(params) > maxRoots {
		return false
	}
	if len(params) == 0 {
		w.acts = append(w.acts, policy.Act{Action: op.action, Resource: policy.Resource{Keys: anyResource}})
	}
	for i, p := range params {
		resource := k.resource([]policy.Param{p})
		resource.Params = onlyOne(params, i)
		w.acts = append(w.acts, policy.Act{Action: op.action, Resource: resource})
	}
	return true
}
