package machine

import "github.com/open-policy-agent/opa/v1/ir"

// early finds the functions that give one constant or nothing, as most rules without
// a value do: the first body that holds then decides, and nothing more is looked at,
// as in OPA's own evaluator. It fills c.first with the locals whose first
// assignment is the end.
//
// Such a function assigns its result only in blocks that copy a local when it is defined,
// each of these locals is assigned in blocks before, and all of that is one constant.
func (c *compiler) early(f *ir.Func) {
	c.result, c.first = int(f.Return), nil
	locals, copies := map[ir.Local]bool{}, 0
	for _, b := range f.Blocks {
		if l, ok := copied(b, f.Return); ok {
			locals[l] = true
			copies++
		}
	}
	v := &assignments{locals: locals, result: f.Return, ok: len(locals) > 0}
	for _, b := range f.Blocks {
		_ = ir.Walk(v, b)
	}
	if v.ok && v.copies == copies && v.value != nil {
		c.first = locals
	}
}

// copied returns the local that a block copies to the result when it is defined.
func copied(b *ir.Block, result ir.Local) (ir.Local, bool) {
	if len(b.Stmts) != 2 {
		return 0, false
	}
	d, ok := b.Stmts[0].(*ir.IsDefinedStmt)
	if !ok {
		return 0, false
	}
	a, ok := b.Stmts[1].(*ir.AssignVarOnceStmt)
	if !ok || a.Target != result || plain(a.Source) != d.Source {
		return 0, false
	}
	return d.Source, true
}

// assignments checks all that is assigned to some locals, and to the result.
type assignments struct {
	locals map[ir.Local]bool
	result ir.Local
	value  ir.Val // the one constant
	copies int
	ok     bool
}

// Before implements ir.Visitor.
func (*assignments) Before(any) {}

// After implements ir.Visitor.
func (*assignments) After(any) {}

// Visit implements ir.Visitor.
func (v *assignments) Visit(x any) (ir.Visitor, error) {
	switch s := x.(type) {
	case *ir.NotStmt, *ir.WithStmt:
		inner := &assignments{locals: v.locals, result: v.result, ok: true}
		for _, t := range blockIn(s).Stmts {
			_ = ir.Walk(inner, t)
		}
		v.ok = v.ok && inner.ok && inner.value == nil && inner.copies == 0
		return nil, nil
	case *ir.AssignVarOnceStmt:
		v.assigned(s)
	case *ir.ResetLocalStmt:
		v.ok = v.ok && s.Target != v.result
	case *ir.ScanStmt:
		v.ok = v.ok && !v.locals[s.Key] && !v.locals[s.Value] && s.Key != v.result && s.Value != v.result
	case ir.Stmt:
		if l, sets := target(s); sets && (l == v.result || v.locals[l]) {
			v.ok = false
		}
	}
	return v, nil
}

func (v *assignments) assigned(s *ir.AssignVarOnceStmt) {
	src := plain(s.Source)
	switch {
	case s.Target == v.result:
		l, ok := src.(ir.Local)
		v.ok = v.ok && ok && v.locals[l]
		v.copies++
	case v.locals[s.Target]:
		_, local := src.(ir.Local)
		v.ok = v.ok && !local && (v.value == nil || v.value == src)
		v.value = src
	}
}

func blockIn(s any) *ir.Block {
	switch s := s.(type) {
	case *ir.NotStmt:
		return s.Block
	case *ir.WithStmt:
		return s.Block
	}
	return &ir.Block{}
}

// target returns the local that a statement sets, if it sets one in another way than
// once or to undefined.
func target(s ir.Stmt) (ir.Local, bool) {
	switch s := s.(type) {
	case *ir.DotStmt:
		return s.Target, true
	case *ir.LenStmt:
		return s.Target, true
	case *ir.CallStmt:
		return s.Result, true
	case *ir.CallDynamicStmt:
		return s.Result, true
	case *ir.AssignVarStmt:
		return s.Target, true
	case *ir.AssignIntStmt:
		return s.Target, true
	case *ir.MakeNullStmt:
		return s.Target, true
	case *ir.MakeNumberIntStmt:
		return s.Target, true
	case *ir.MakeNumberRefStmt:
		return s.Target, true
	case *ir.MakeArrayStmt:
		return s.Target, true
	case *ir.MakeObjectStmt:
		return s.Target, true
	case *ir.MakeSetStmt:
		return s.Target, true
	case *ir.ObjectMergeStmt:
		return s.Target, true
	}
	return 0, false
}
