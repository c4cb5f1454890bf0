package opa

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// maskRule is the rule that says what of a log event is masked before it leaves.
const maskRule = "data.chaperone.log.mask"

// ErrMask is wrapped when an event could not be masked: it must not leave then.
var ErrMask = errors.New("event cannot be masked")

// Mask takes out of log events what must not leave. It is safe for concurrent use.
type Mask struct{ query rego.PreparedEvalQuery }

// LoadMask reads the rule chaperone.log.mask of a policy: a set of paths such as
// "/human/email", or of objects {"op": "upsert", "path": "/request/path", "value": "…"},
// as OPA's own decision logs have it. The event is the input. It returns nil where the
// policy has no such rule.
func LoadMask(ctx context.Context, files fs.FS) (*Mask, error) {
	src, err := read(files, false)
	if err != nil {
		return nil, err
	}
	if len(src.faults) > 0 {
		return nil, src.faults
	}
	has := false
	for _, m := range src.modules {
		has = has || m.Package.Path.String() == strings.TrimSuffix(maskRule, ".mask")
	}
	if !has {
		return nil, nil
	}
	compiler := ast.NewCompiler().WithStrict(true).WithCapabilities(capabilities())
	if compiler.Compile(src.modules); compiler.Failed() {
		return nil, regoFaults(src, compiler.Errors, nil)
	}
	q, err := rego.New(rego.Compiler(compiler), rego.Query(maskRule)).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading mask: %w", err)
	}
	return &Mask{q}, nil
}

// Apply returns an event, as JSON, without what the mask takes out of it. What was
// taken out or put in is listed under "masked".
func (m *Mask) Apply(ctx context.Context, event []byte) ([]byte, error) {
	if m == nil {
		return event, nil
	}
	var doc map[string]any
	if err := json.Unmarshal(event, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMask, err)
	}
	results, err := m.query.Eval(ctx, rego.EvalInput(doc))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMask, err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, fmt.Errorf("%w: %s is not defined", ErrMask, maskRule)
	}
	rules, ok := results[0].Expressions[0].Value.([]any)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not a set", ErrMask, maskRule)
	}
	var masked []string
	for _, r := range rules {
		path, err := applyRule(doc, r)
		if err != nil {
			return nil, err
		}
		if path != "" {
			masked = append(masked, path)
		}
	}
	if masked == nil {
		return event, nil
	}
	doc["masked"] = masked
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMask, err)
	}
	return b, nil
}

// applyRule carries out one rule and returns its path where there was something.
func applyRule(doc map[string]any, rule any) (string, error) {
	path, op := "", "remove"
	var value any
	switch r := rule.(type) {
	case string:
		path = r
	case map[string]any:
		path, _ = r["path"].(string)
		if s, ok := r["op"].(string); ok {
			op = s
		}
		value = r["value"]
	}
	path = strings.TrimPrefix(path, "/input")
	keys := strings.Split(path, "/")
	if len(keys) < 2 || keys[0] != "" || op != "remove" && op != "upsert" {
		return "", fmt.Errorf("%w: %v is no rule: write \"/human/email\", or {\"op\": \"upsert\", \"path\": …, \"value\": …}", ErrMask, rule)
	}
	at := doc
	for _, k := range keys[1 : len(keys)-1] {
		next, ok := at[unescape(k)].(map[string]any)
		if !ok {
			return "", nil // there is nothing to mask
		}
		at = next
	}
	last := unescape(keys[len(keys)-1])
	if _, ok := at[last]; !ok {
		return "", nil
	}
	if op == "remove" {
		delete(at, last)
	} else {
		at[last] = value
	}
	return path, nil
}

// unescape reads a part of a JSON pointer (RFC 6901 section 4).
func unescape(k string) string {
	return strings.ReplaceAll(strings.ReplaceAll(k, "~1", "/"), "~0", "~")
}
