package machine

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ir"
)

func (c *compiler) not(s *ir.NotStmt) (op, error) {
	body, err := c.block(s.Block.Stmts)
	return func(m *Machine, f []Value) int {
		switch r := run(m, f, body); r {
		case 0:
			return 1
		case 1:
			return 0
		default:
			return out(r)
		}
	}, err
}

// scan visits the members of a composite in order, and of anything else none.
func (c *compiler) scan(s *ir.ScanStmt) (op, error) {
	k, v, list := c.visited(s)
	src, key, val := c.local(s.Source), c.local(k), c.local(v)
	keyed, valued := c.readsOf(k) > 0, c.readsOf(v) > 0
	body, err := c.block(list)
	return func(m *Machine, f []Value) int {
		kind := f[src].kind
		keys, vals := sorted(&f[src])
		for i := range vals {
			if m.step() {
				return done
			}
			switch {
			case !keyed:
			case kind == Array:
				f[key] = Int(int64(i))
			case kind == Object:
				f[key] = keys[i]
			default:
				f[key] = vals[i]
			}
			if valued {
				f[val] = vals[i]
			}
			if r := run(m, f, body); r > 1 {
				return out(r)
			}
		}
		return 0
	}, err
}

// with executes a block while a local, or a place in it, has another value. What is
// known of rules counts for nothing in it, and nothing that becomes known there counts
// outside.
func (c *compiler) with(s *ir.WithStmt) (op, error) {
	l, src := c.local(s.Local), c.operand(s.Value)
	path := make([]konst, len(s.Path))
	for i, p := range s.Path {
		path[i] = c.p.strings[p]
	}
	body, err := c.block(s.Block.Stmts)
	return func(m *Machine, f []Value) int {
		old, gen := f[l], m.gen
		f[l] = m.put(old, path, *src.at(f))
		m.new++
		m.gen = m.new
		r := 0
		if m.step() {
			r = done
		} else {
			r = run(m, f, body)
		}
		f[l], m.gen = old, gen
		if r > 1 {
			return out(r)
		}
		return r
	}, err
}

func (c *compiler) callStmt(s *ir.CallStmt) (op, error) {
	args, t := c.operands(s.Args), c.local(s.Result)
	if fn := c.p.funcs[s.Func]; fn != nil {
		if len(args) != len(fn.params) {
			return nil, fmt.Errorf("%w: call of %s with %d arguments", ErrUnsupported, s.Func, len(args))
		}
		return func(m *Machine, f []Value) int { return m.call(fn, f, args, t) }, nil
	}
	builtin, ok := c.calls[s.Func]
	if !ok || len(args) > len(Machine{}.args) {
		return nil, fmt.Errorf("%w: call of %s", ErrUnsupported, s.Func)
	}
	native := natives[s.Func]
	return func(m *Machine, f []Value) int {
		in := m.args[:len(args)]
		for i := range args {
			in[i] = *args[i].at(f)
			if in[i].kind == Undefined {
				return 1
			}
		}
		if m.step() {
			return done
		}
		if native != nil {
			if v, ok := native(m, in); ok {
				f[t] = v // which is defined
				return 0
			}
		}
		v, err := builtin(m, in)
		if err != nil {
			return m.fail(err)
		}
		return give(f, t, &v)
	}, nil
}

// callDynamic calls a rule whose path is computed.
func (c *compiler) callDynamic(s *ir.CallDynamicStmt) (op, error) {
	path, t := c.operands(s.Path), c.local(s.Result)
	var args []operand
	for _, l := range s.Args {
		args = append(args, operand{local: c.local(l)})
	}
	return func(m *Machine, f []Value) int {
		names := make([]string, len(path))
		for i := range path {
			v := path[i].at(f)
			if v.kind != String {
				return 1
			}
			names[i] = v.text
		}
		fn := m.program.paths[pathKey(names)]
		if fn == nil || len(fn.params) != len(args) {
			return 1
		}
		return m.call(fn, f, args, t)
	}, nil
}
