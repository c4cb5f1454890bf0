package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/ir"
)

// Plan has OPA plan the evaluation of one rule, named by its path without "data"
// ("chaperone/decision"). Modules are as they were parsed.
func Plan(ctx context.Context, modules map[string]*ast.Module, capabilities *ast.Capabilities, entry string) (*ir.Policy, error) {
	b := &bundle.Bundle{Data: map[string]any{}}
	b.SetRegoVersion(ast.RegoV1)
	for name, m := range modules {
		b.Modules = append(b.Modules, bundle.ModuleFile{URL: name, Path: name, Parsed: m})
	}
	c := compile.New().WithTarget(compile.TargetPlan).WithEntrypoints(entry).WithPruneUnused(true).WithBundle(b).
		WithCapabilities(capabilities).WithRegoVersion(ast.RegoV1).WithOutput(&bytes.Buffer{})
	if err := c.Build(ctx); err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	if len(c.Bundle().PlanModules) != 1 {
		return nil, errors.New("planning: OPA made no plan")
	}
	var p ir.Policy
	if err := json.Unmarshal(c.Bundle().PlanModules[0].Raw, &p); err != nil {
		return nil, fmt.Errorf("reading plan: %w", err)
	}
	return &p, nil
}
