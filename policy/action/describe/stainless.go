package describe

import (
	"fmt"
	"regexp"
	"strings"
)

// stainlessRow is one operation in the api.md of an SDK that Stainless generates.
var stainlessRow = regexp.MustCompile(`<code title="([a-z]+) ([^"?]+)[^"]*">client\.(.*?)<a [^>]*>([A-Za-z0-9]+)</a>`)

func readStainless(_ *Draft, b []byte, _ *Options) ([]*Operation, error) {
	verbs := map[string]string{"New": "create", "NewStreaming": "create", "Get": "get", "Edit": "edit"}
	var ops []*Operation
	for _, m := range stainlessRow.FindAllSubmatch(b, -1) {
		verb := string(m[4])
		if v, ok := verbs[verb]; ok {
			verb = v
		}
		op := &Operation{Method: strings.ToUpper(string(m[1])), Path: string(m[2]), Name: strings.ToLower(strings.Trim(string(m[3])+verb, "."))}
		ops = append(ops, op)
	}
	if len(ops) == 0 {
		return nil, fmt.Errorf("%w: no <code title=\"get /path\"> in it, as Stainless writes them", ErrFormat)
	}
	return ops, nil
}
