package machine

import "github.com/open-policy-agent/opa/v1/ir"

// simplify returns the statements of a block without copies that nobody reads, and
// with what is copied at once, and read nowhere else, made in the place of the copy.
// It changes no statement of the plan.
func (c *compiler) simplify(list []ir.Stmt) []ir.Stmt {
	var out []ir.Stmt
	for _, s := range list {
		a, ok := s.(*ir.AssignVarStmt)
		if !ok {
			out = append(out, s)
			continue
		}
		src, local := plain(a.Source).(ir.Local)
		if c.readsOf(a.Target) == 0 {
			if local {
				c.scope.reads[src]--
			}
			continue
		}
		if n := len(out); local && n > 0 && c.readsOf(src) == 1 {
			if moved := retarget(out[n-1], src, a.Target); moved != nil {
				out[n-1] = moved
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// retarget returns a copy of a statement that sets to and not from; nil where it does
// not set from.
func retarget(s ir.Stmt, from, to ir.Local) ir.Stmt {
	switch s := s.(type) {
	case *ir.DotStmt:
		if s.Target == from {
			moved := *s
			moved.Target = to
			return &moved
		}
	case *ir.CallStmt:
		if s.Result == from {
			moved := *s
			moved.Result = to
			return &moved
		}
	}
	return nil
}

// visited returns the locals for key and value of a scan, and its body: a copy of
// either with which the body begins is made by the scan itself.
func (c *compiler) visited(s *ir.ScanStmt) (key, val ir.Local, body []ir.Stmt) {
	key, val, body = s.Key, s.Value, c.simplify(s.Block.Stmts)
	for len(body) > 0 {
		a, ok := body[0].(*ir.AssignVarStmt)
		if !ok {
			break
		}
		src, _ := plain(a.Source).(ir.Local)
		switch {
		case src == key && key == s.Key && c.readsOf(key) == 1:
			key = a.Target
		case src == val && val == s.Value && c.readsOf(val) == 1:
			val = a.Target
		default:
			return key, val, body
		}
		body = body[1:]
	}
	return key, val, body
}

// condition fuses the comparison of two values with the test of its result.
func (c *compiler) condition(list []ir.Stmt) (op, int) {
	call := list[0].(*ir.CallStmt)
	if call.Func != "neq" && call.Func != "equal" || len(call.Args) != 2 || len(list) < 2 {
		return nil, 0
	}
	test, ok := list[1].(*ir.NotEqualStmt)
	if !ok || plain(test.A) != call.Result || plain(test.B) != ir.Bool(false) || c.readsOf(call.Result) != 1 {
		return nil, 0
	}
	a, b, want := c.operand(call.Args[0]), c.operand(call.Args[1]), call.Func == "equal"
	return func(_ *Machine, f []Value) int {
		x, y := a.at(f), b.at(f)
		return undefinedUnless(x.kind != Undefined && y.kind != Undefined && equal(x, y) == want)
	}, 2
}
