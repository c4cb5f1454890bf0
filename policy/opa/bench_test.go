package opa

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"chaperone/policy"
)

// manyGrants is a grants file of so many agents with 100 grants each.
func manyGrants(agents int) string {
	var y strings.Builder
	y.WriteString("grants:\n  agents:\n")
	for i := range agents {
		fmt.Fprintf(&y, "    agent-%d:\n      allow:\n", i)
		for j := range 10 {
			fmt.Fprintf(&y, "        - {actions: [\"github:issues/*\"")
			for k := range 9 {
				fmt.Fprintf(&y, ", \"github:x%d%d/*\"", j, k)
			}
			fmt.Fprintf(&y, "], resources: [\"org%d/*\"]}\n", j)
		}
	}
	y.WriteString("  humans:\n    \"*\": {allow: [{actions: [\"*:*\"]}]}\n")
	return y.String()
}

// BenchmarkEval asks of few and of many agents: the machine, OPA's evaluator, and the
// memory.
func BenchmarkEval(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("%d agents", n), func(b *testing.B) { benchmarkEval(b, engine(b, manyGrants(n))) })
	}
}

func benchmarkEval(b *testing.B, e *Engine) {
	if e.Slow() != "" {
		b.Fatal(e.Slow())
	}
	allowed := question("agent-3", "alice@acme.com", "github:issues/create", policy.AccessWrite, "org0/web")
	last := question("agent-3", "alice@acme.com", "github:issues/create", policy.AccessWrite, "org9/web")
	denied := question("agent-3", "alice@acme.com", "github:repos/delete", policy.AccessAdmin, "org0/web")
	interpret := func(ctx context.Context, q *policy.Question) (policy.Answer, error) {
		return e.interpret(ctx, q, time.Now().Add(time.Second))
	}
	for _, x := range []struct {
		name string
		q    *policy.Question
		want policy.Result
		eval func(context.Context, *policy.Question) (policy.Answer, error)
	}{
		{"new", allowed, policy.Allow, e.evaluate},
		{"new, last grant", last, policy.Allow, e.evaluate},
		{"new, denied", denied, policy.Deny, e.evaluate},
		{"new, by OPA", allowed, policy.Allow, interpret},
		{"again", allowed, policy.Allow, e.Eval},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a, err := x.eval(b.Context(), x.q); err != nil || a.Result != x.want {
					b.Fatal(a, err)
				}
			}
		})
	}
}
