package main

import (
	"encoding/json"
	"slices"
	"strings"
)

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// itemsOf are the paths of an OpenAPI document.
func itemsOf(b []byte) (map[string]bool, error) {
	var doc struct{ Paths map[string]json.RawMessage }
	err := json.Unmarshal(b, &doc)
	out := map[string]bool{}
	for p := range doc.Paths {
		out[p] = true
	}
	return out, err
}

// stripeName names an operation after its path: Stripe's own ids
// (PostCustomersCustomer) are no names that people use.
func stripeName(path, method string, all map[string]bool) string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")[1:]
	var fixed []string
	for _, x := range segments {
		if !strings.HasPrefix(x, "{") {
			fixed = append(fixed, x)
		}
	}
	name, last := strings.Join(fixed, "/"), fixed[len(fixed)-1]
	item := strings.HasSuffix(path, "}")
	below := len(segments) > 1 && strings.HasPrefix(segments[len(segments)-2], "{")
	switch {
	case method == "DELETE":
		return name + "/delete"
	case method == "GET" && item:
		return name + "/retrieve"
	case method == "GET":
		return name + "/list"
	case item:
		return name + "/update"
	case below && !strings.HasSuffix(last, "s") && !all[path+"/{"+last+"}"]:
		return name // /v1/charges/{charge}/capture
	}
	return name + "/create"
}
