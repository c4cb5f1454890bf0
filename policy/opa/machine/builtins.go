package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// foreign is one of OPA's built-in functions; an undefined value comes with no error.
type foreign func(m *Machine, args []Value) (Value, error)

func foreignOf(name string) (foreign, error) {
	f, decl := topdown.GetBuiltin(name), ast.BuiltinMap[name]
	if f == nil || decl == nil {
		return nil, fmt.Errorf("%w: built-in function %s", ErrUnsupported, name)
	}
	return func(m *Machine, args []Value) (Value, error) {
		terms := make([]*ast.Term, len(args))
		for i := range args {
			terms[i] = args[i].Term()
		}
		var out Value
		all := m.arena.composite() // of a relation
		err := f(m.builtinContext(), terms, func(t *ast.Term) error {
			out = fromAST(&m.arena, t.Value)
			if decl.Relation {
				all.vals = append(all.vals, out)
			}
			if m.step() {
				return m.err
			}
			return nil
		})
		switch halt := (topdown.Halt{}); {
		case m.err != nil:
			return Value{}, m.err
		case errors.As(err, &halt):
			return Value{}, halt.Err
		case err != nil && m.program.strict:
			return Value{}, err
		case err != nil:
			return Value{}, nil
		case decl.Relation:
			return Value{kind: Array, comp: all}, nil
		}
		return out, nil
	}, nil
}

func (m *Machine) builtinContext() topdown.BuiltinContext {
	if m.cache == nil {
		m.cache, m.now = builtins.Cache{}, time.Now()
	}
	return topdown.BuiltinContext{
		Context: context.WithoutCancel(m.ctx), Metrics: metrics.NoOp(), Cache: m.cache, Cancel: (*cancel)(m), Seed: rand.Reader,
		Time: ast.NewTerm(ast.Number(strconv.FormatInt(m.now.UnixNano(), 10))), Capabilities: ast.CapabilitiesForThisVersion(),
	}
}

// cancel lets long functions know that the time is over.
type cancel Machine

// Cancel implements topdown.Cancel.
func (c *cancel) Cancel() { c.err = ErrBudget }

// Cancelled implements topdown.Cancel.
func (c *cancel) Cancelled() bool { return (*Machine)(c).step() || c.err != nil }
