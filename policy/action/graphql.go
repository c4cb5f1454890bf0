package action

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"chaperone/policy"
)

// Limits of a GraphQL document.
const (
	maxTokens = 15000
	maxRoots  = 64
	maxBatch  = 10
)

// graphQL names every root field that a GraphQL request would run, as
// graphql/mutation.NAME or graphql/query.NAME. Whatever is not understood whole is
// unknown: persisted queries by hash, subscriptions, odd envelopes.
func (k *compiled) graphQL(r *Request, q *policy.Question) error {
	documents, why := graphQLDocuments(r)
	var acts []policy.Act
	for _, d := range documents {
		if why == "" {
			why = k.roots(d, r.Method == http.MethodGet, &acts)
		}
	}
	if why == "" && len(acts) == 0 {
		why = "graphql"
	}
	if why != "" {
		q.Action = unknown(k.Name, why)
		return nil
	}
	q.Action, q.Resource = acts[0].Action, acts[0].Resource
	if len(acts) > 1 {
		q.Actions = acts
	}
	return nil
}

// document is one GraphQL request of perhaps several in a batch.
type document struct{ query, operation string }

func graphQLDocuments(r *Request) ([]document, string) {
	if r.Method == http.MethodGet {
		v, err := url.ParseQuery(r.RawQuery)
		if err != nil || len(v["query"]) != 1 || len(v["operationName"]) > 1 || v.Has("extensions") || r.BodyState != policy.BodyAbsent {
			return nil, "graphql"
		}
		return []document{{v.Get("query"), v.Get("operationName")}}, ""
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
		d, ok := envelope(x)
		if !ok {
			return nil, "graphql"
		}
		out = append(out, d)
	}
	return out, ""
}

// envelope reads {query, operationName, variables}. Extensions may hold the hash
// of a stored query that runs in place of the one in sight.
func envelope(x any) (document, bool) {
	object, ok := x.(map[string]any)
	if !ok {
		return document{}, false
	}
	for name, v := range object {
		switch name {
		case "query", "variables":
		case "operationName":
			if _, text := v.(string); !text && v != nil {
				return document{}, false
			}
		default:
			return document{}, false
		}
	}
	query, ok := object["query"].(string)
	operation, _ := object["operationName"].(string)
	return document{query, operation}, ok
}

// roots adds the root fields of every operation of a document: which of them runs
// is the service's choice, so all must be allowed.
func (k *compiled) roots(d document, get bool, acts *[]policy.Act) string {
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: d.query}, maxTokens)
	if err != nil || len(doc.Operations) == 0 {
		return "graphql"
	}
	for _, op := range doc.Operations {
		if op.Operation == ast.Subscription || get && op.Operation != ast.Query {
			return "graphql"
		}
		if why := k.fields(doc, op, op.SelectionSet, nil, acts); why != "" {
			return why
		}
	}
	return ""
}

func (k *compiled) fields(doc *ast.QueryDocument, op *ast.OperationDefinition, set ast.SelectionSet, open []string, acts *[]policy.Act) string {
	for _, s := range set {
		why := ""
		switch s := s.(type) {
		case *ast.Field:
			if len(*acts) == maxRoots {
				return "graphql"
			}
			*acts = append(*acts, k.root(op.Operation, s.Name))
		case *ast.InlineFragment:
			why = k.fields(doc, op, s.SelectionSet, open, acts)
		case *ast.FragmentSpread:
			f := doc.Fragments.ForName(s.Name)
			if f == nil || slices.Contains(open, s.Name) || len(open) > maxSegments {
				return "graphql"
			}
			why = k.fields(doc, op, f.SelectionSet, append(open, s.Name), acts)
		}
		if why != "" {
			return why
		}
	}
	return ""
}

// root is the action of one root field. What a mutation does to whom is said by
// opaque ids, so it is never on a resource, and its level errs upwards.
func (k *compiled) root(kind ast.Operation, name string) policy.Act {
	if op := k.keyed[string(kind)+"."+name]; op != nil {
		return policy.Act{Action: op.action, Resource: policy.Resource{Keys: anyResource}}
	}
	access := policy.AccessRead
	if kind == ast.Mutation {
		access = policy.AccessAdmin
		if level, ok := mutations[name]; ok {
			access = level
		}
	}
	return policy.Act{Action: known(k.Name, k.prefix+"graphql/"+string(kind)+"."+name, access), Resource: policy.Resource{Keys: anyResource}}
}

// mutations are those of GitHub that a person has found to change content and
// nothing about who may do what. All others are admin.
var mutations = map[string]policy.Access{
	"createIssue": policy.AccessWrite, "updateIssue": policy.AccessWrite, "closeIssue": policy.AccessWrite, "reopenIssue": policy.AccessWrite,
	"addComment": policy.AccessWrite, "updateIssueComment": policy.AccessWrite, "addReaction": policy.AccessWrite, "removeReaction": policy.AccessWrite,
	"addLabelsToLabelable": policy.AccessWrite, "removeLabelsFromLabelable": policy.AccessWrite,
	"addAssigneesToAssignable": policy.AccessWrite, "removeAssigneesFromAssignable": policy.AccessWrite,
	"createPullRequest": policy.AccessWrite, "updatePullRequest": policy.AccessWrite, "closePullRequest": policy.AccessWrite, "reopenPullRequest": policy.AccessWrite,
	"mergePullRequest": policy.AccessWrite, "addPullRequestReview": policy.AccessWrite, "submitPullRequestReview": policy.AccessWrite, "requestReviews": policy.AccessWrite,
	"markPullRequestReadyForReview": policy.AccessWrite, "convertPullRequestToDraft": policy.AccessWrite,
	"createDiscussion": policy.AccessWrite, "addDiscussionComment": policy.AccessWrite, "addStar": policy.AccessWrite, "removeStar": policy.AccessWrite,
	"deleteIssue": policy.AccessDelete, "deleteIssueComment": policy.AccessDelete, "deleteDiscussionComment": policy.AccessDelete, "deletePullRequestReviewComment": policy.AccessDelete,
}
