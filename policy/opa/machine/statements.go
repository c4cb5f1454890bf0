package machine

import (
	"fmt"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// run executes the statements of a block.
func run(m *Machine, f []Value, ops []op) int {
	for _, o := range ops {
		if r := o(m, f); r != 0 {
			return r
		}
	}
	return 0
}

// out is how the block outside goes on after one inside ended with r > 1.
func out(r int) int {
	if r >= done {
		return r
	}
	return r - 1
}

// blocks makes one op of blocks that are executed one after the other.
func (c *compiler) blocks(list []*ir.Block) (op, error) {
	bodies, guards, guarded := make([][]op, len(list)), make([]guard, len(list)), make([]bool, len(list))
	around := c.scope
	defer func() { c.scope = around }()
	for i, b := range list {
		c.scope = c.scopes[b]
		stmts := c.simplify(b.Stmts)
		guards[i], guarded[i] = c.guardOf(stmts)
		var err error
		if bodies[i], err = c.block(stmts); err != nil {
			return nil, err
		}
	}
	var joined [][]op
	for i := 0; i < len(bodies); {
		if n := jumps(guards, guarded, i); n >= fewest {
			joined = append(joined, []op{newJump(guards[i:i+n], bodies[i:i+n]).run})
			i += n
			continue
		}
		joined = append(joined, bodies[i])
		i++
	}
	return func(m *Machine, f []Value) int {
		for _, body := range joined {
			if r := run(m, f, body); r > 1 {
				return out(r)
			}
		}
		return 0
	}, nil
}

func (c *compiler) block(list []ir.Stmt) (ops []op, err error) {
	list = c.simplify(list)
	for i := 0; i < len(list); {
		o, n := c.fused(list[i:])
		if n == 0 {
			n = 1
			if o, err = c.stmt(list[i]); err != nil {
				return nil, err
			}
		}
		if o != nil {
			ops = append(ops, o)
		}
		i += n
	}
	return ops, nil
}

// stmt makes an op of a statement; nil of one that does nothing.
func (c *compiler) stmt(s ir.Stmt) (op, error) {
	switch s := s.(type) {
	case *ir.NopStmt:
		return nil, nil
	case *ir.ReturnLocalStmt:
		return func(*Machine, []Value) int { return done }, nil
	case *ir.BreakStmt:
		n := int(s.Index) + 1
		return func(*Machine, []Value) int { return n }, nil
	case *ir.BlockStmt:
		return c.blocks(s.Blocks)
	case *ir.NotStmt:
		return c.not(s)
	case *ir.ScanStmt:
		return c.scan(s)
	case *ir.WithStmt:
		return c.with(s)
	case *ir.CallStmt:
		return c.callStmt(s)
	case *ir.CallDynamicStmt:
		return c.callDynamic(s)
	case *ir.ResultSetAddStmt:
		l := c.local(s.Value)
		return func(m *Machine, f []Value) int { m.results = append(m.results, f[l]); return 0 }, nil
	}
	if o := c.make(s); o != nil {
		return o, nil
	}
	if o := c.test(s); o != nil {
		return o, nil
	}
	if o := c.change(s); o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("%w: statement %T", ErrUnsupported, s)
}

// make is for the statements that set a local.
func (c *compiler) make(s ir.Stmt) op {
	set := func(l ir.Local, v Value) op {
		t := c.local(l)
		return func(_ *Machine, f []Value) int { f[t] = v; return 0 }
	}
	fresh := func(l ir.Local, k Kind) op {
		t := c.local(l)
		return func(m *Machine, f []Value) int { f[t] = Value{kind: k, comp: m.arena.composite()}; return 0 }
	}
	switch s := s.(type) {
	case *ir.ResetLocalStmt:
		return set(s.Target, Value{})
	case *ir.MakeNullStmt:
		return set(s.Target, Nothing())
	case *ir.MakeNumberIntStmt:
		return set(s.Target, Int(s.Value))
	case *ir.AssignIntStmt:
		return set(s.Target, Int(s.Value))
	case *ir.MakeNumberRefStmt:
		return set(s.Target, numberOf(ast.Number(c.p.strings[s.Index].text)))
	case *ir.MakeArrayStmt:
		return fresh(s.Target, Array)
	case *ir.MakeObjectStmt:
		return fresh(s.Target, Object)
	case *ir.MakeSetStmt:
		return fresh(s.Target, Set)
	case *ir.AssignVarStmt:
		t, src := c.local(s.Target), c.operand(s.Source)
		if src.konst != nil {
			return set(s.Target, src.konst.Value)
		}
		return func(_ *Machine, f []Value) int { f[t] = f[src.local]; return 0 }
	case *ir.AssignVarOnceStmt:
		t, src := c.local(s.Target), c.operand(s.Source)
		if c.first[s.Target] {
			result := c.result
			return func(_ *Machine, f []Value) int { f[result] = src.konst.Value; return done }
		}
		return func(m *Machine, f []Value) int {
			v := src.at(f)
			if f[t].kind != Undefined && !equal(&f[t], v) {
				return m.fail(ErrConflict)
			}
			f[t] = *v
			return 0
		}
	}
	return nil
}

// test is for the statements that end the block when something does not hold, some
// of which set a local when it does.
func (c *compiler) test(s ir.Stmt) op {
	is := func(o ir.Operand, k Kind) op {
		src := c.operand(o)
		return func(_ *Machine, f []Value) int { return undefinedUnless(src.at(f).kind == k) }
	}
	switch s := s.(type) {
	case *ir.DotStmt:
		t, src, key := c.local(s.Target), c.operand(s.Source), c.operand(s.Key)
		base := c.inBase(s.Source) && key.konst == nil
		return func(m *Machine, f []Value) int {
			from, k := src.at(f), key.at(f)
			if base && from.kind == Object && rank(k.kind) == Integer {
				return m.fail(errNumberKey)
			}
			v := from.get(k, key.hashAt(k, from.comp))
			if v == nil {
				return 1
			}
			f[t] = *v
			return 0
		}
	case *ir.LenStmt:
		t, src := c.local(s.Target), c.operand(s.Source)
		return func(_ *Machine, f []Value) int {
			v := src.at(f)
			switch {
			case v.comp != nil:
				f[t] = Int(int64(len(v.comp.vals)))
			case v.kind == String:
				f[t] = Int(int64(utf8.RuneCountInString(v.text)))
			default:
				return 1
			}
			return 0
		}
	case *ir.EqualStmt:
		a, b := c.operand(s.A), c.operand(s.B)
		return func(_ *Machine, f []Value) int { return undefinedUnless(equal(a.at(f), b.at(f))) }
	case *ir.NotEqualStmt:
		a, b := c.operand(s.A), c.operand(s.B)
		return func(_ *Machine, f []Value) int { return undefinedUnless(!equal(a.at(f), b.at(f))) }
	case *ir.IsDefinedStmt:
		l := c.local(s.Source)
		return func(_ *Machine, f []Value) int { return undefinedUnless(f[l].kind != Undefined) }
	case *ir.IsUndefinedStmt:
		l := c.local(s.Source)
		return func(_ *Machine, f []Value) int { return undefinedUnless(f[l].kind == Undefined) }
	case *ir.IsArrayStmt:
		return is(s.Source, Array)
	case *ir.IsObjectStmt:
		return is(s.Source, Object)
	case *ir.IsSetStmt:
		return is(s.Source, Set)
	}
	return nil
}

func undefinedUnless(ok bool) int {
	if ok {
		return 0
	}
	return 1
}

// change is for the statements that change a composite.
func (c *compiler) change(s ir.Stmt) op {
	switch s := s.(type) {
	case *ir.ArrayAppendStmt:
		t, src := c.local(s.Array), c.operand(s.Value)
		return func(m *Machine, f []Value) int {
			to := f[t].own(&m.arena)
			to.vals = append(to.vals, *src.at(f))
			return 0
		}
	case *ir.SetAddStmt:
		t, src := c.local(s.Set), c.operand(s.Value)
		return func(m *Machine, f []Value) int {
			to, v := f[t].own(&m.arena), src.at(f)
			to.add(v, src.hashAt(v, to))
			return 0
		}
	case *ir.ObjectInsertStmt:
		t, key, src := c.local(s.Object), c.operand(s.Key), c.operand(s.Value)
		return func(m *Machine, f []Value) int {
			to, k := f[t].own(&m.arena), key.at(f)
			to.insert(k, src.at(f), key.hashAt(k, to))
			return 0
		}
	case *ir.ObjectInsertOnceStmt:
		t, key, src := c.local(s.Object), c.operand(s.Key), c.operand(s.Value)
		return func(m *Machine, f []Value) int {
			to, k, v := f[t].own(&m.arena), key.at(f), src.at(f)
			if i := to.find(to.keys, k, key.hashAt(k, to)); i >= 0 {
				if !equal(&to.vals[i], v) {
					return m.fail(ErrConflict)
				}
				return 0
			}
			to.insert(k, v, key.hashAt(k, to))
			return 0
		}
	case *ir.ObjectMergeStmt:
		a, b, t := c.local(s.A), c.local(s.B), c.local(s.Target)
		return func(m *Machine, f []Value) int {
			f[t] = m.merge(f[a], f[b])
			if m.err != nil {
				return done
			}
			return 0
		}
	}
	return nil
}
