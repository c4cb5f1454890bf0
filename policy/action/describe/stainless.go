package describe

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// stainlessRow is one operation in the api.md of an SDK that Stainless generates.
var stainlessRow = regexp.MustCompile(`<code title="([a-z]+) ([^"?]+)[^"]*">client\.(.*?)<a [^>]*>([A-Za-z0-9]+)</a>`)

// readStainless takes the names that the vendor's other SDKs have: resources and verb
// in lower case, words joined by _, New as create.
func readStainless(_ *Draft, b []byte, _ *Options) ([]*Operation, error) {
	plain := strings.NewReplacer("OAuth", "Oauth", "IPs", "Ips", "IDs", "Ids", "URLs", "Urls", "APIs", "Apis", "GraphQL", "Graphql")
	var ops []*Operation
	for _, m := range stainlessRow.FindAllSubmatch(b, -1) {
		var name []string
		for part := range strings.SplitSeq(plain.Replace(string(m[3])), ".") {
			if part != "" {
				name = append(name, strings.Join(Words(part), "_"))
			}
		}
		verb := strings.TrimSuffix(strings.Join(Words(plain.Replace(string(m[4]))), "_"), "_streaming")
		if rest, ok := strings.CutPrefix(verb, "new"); ok && (rest == "" || rest[0] == '_') {
			verb = "create" + rest
		}
		ops = append(ops, &Operation{Method: strings.ToUpper(string(m[1])), Path: string(m[2]), Name: strings.Join(append(name, verb), ".")})
	}
	if len(ops) == 0 {
		return nil, fmt.Errorf("%w: no <code title=\"get /path\"> in it, as Stainless writes them", ErrFormat)
	}
	return withoutBeta(ops), nil
}

// withoutBeta leaves out the beta form of an operation that has another: the two
// differ in a query parameter or header only.
func withoutBeta(ops []*Operation) []*Operation {
	plain := map[string]bool{}
	for _, op := range ops {
		if !strings.HasPrefix(op.Name, "beta.") {
			plain[op.Method+" "+op.Path] = true
		}
	}
	return slices.DeleteFunc(ops, func(op *Operation) bool {
		return strings.HasPrefix(op.Name, "beta.") && plain[op.Method+" "+op.Path]
	})
}
