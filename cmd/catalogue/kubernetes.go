package main

import (
	"encoding/json"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// kubernetes names operations as RBAC does: the resource, with the group in front
// where it has one, and the verb. Versions of a group share the names.
func kubernetes(w *work) error {
	w.Service = action.Service{
		Name: "kubernetes", License: "Apache-2.0", OwnHosts: true,
		Also: map[string]string{"@impersonate-*": "impersonate admin"}, // RBAC's verb
		Env:  []string{"KUBE_TOKEN"}, Places: []string{"bearer"},
		Resources: []action.ResourceRule{{Type: "object", ID: "{namespace}/{name}"}, {Type: "namespace", ID: "{namespace}"}, {Type: "object", ID: "{name}"}},
	}
	b, err := w.goFile(pack{"k8s.io/kubernetes", "v1.37.2"}, "api/openapi-spec/swagger.json")
	if err != nil {
		return err
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	var ops []*describe.Operation
	for _, path := range sorted(doc.Paths) {
		for _, method := range sorted(doc.Paths[path]) {
			if method == "parameters" {
				continue
			}
			var x struct {
				ID   string `json:"operationId"`
				Verb string `json:"x-kubernetes-action"`
			}
			if err := json.Unmarshal(doc.Paths[path][method], &x); err != nil {
				return err
			}
			ops = append(ops, rbac(strings.ToUpper(method), path, x.Verb, x.ID))
		}
	}
	return w.operations(ops)
}

// rbac is one operation in RBAC's words.
func rbac(method, path, verb, id string) *describe.Operation {
	op := &describe.Operation{Method: method, Path: strings.Replace(path, "/proxy/{path}", "/proxy/{path+}", 1), Name: id}
	if verb == "" {
		op.Name = "meta/" + id
		return op
	}
	segments := strings.Split(strings.Trim(path, "/"), "/")
	group := ""
	if segments[0] == "apis" {
		group, segments = segments[1]+"/", segments[1:]
	}
	var fixed []string
	for _, s := range segments[2:] { // behind the version
		if !strings.HasPrefix(s, "{") && s != "watch" {
			fixed = append(fixed, s)
		}
	}
	if len(fixed) > 1 && fixed[0] == "namespaces" && strings.Contains(path, "/namespaces/{namespace}/") {
		fixed = fixed[1:]
	}
	verbs := map[string]string{"post": "create", "put": "update", "watchlist": "watch", "connect": "connect"}
	if v := verbs[verb]; v != "" {
		verb = v
	}
	op.Name = group + strings.Join(fixed, "/") + "/" + verb
	switch verb {
	case "list", "watch":
		op.Published = policy.AccessList
	case "create":
		op.Fields = []string{"metadata.name"}
	}
	return op
}
