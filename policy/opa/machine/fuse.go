package machine

import "github.com/open-policy-agent/opa/v1/ir"

// fused makes one op of several statements at the head of a list, where it knows a
// way, and returns how many; 0 is none.
func (c *compiler) fused(list []ir.Stmt) (op, int) {
	switch list[0].(type) {
	case *ir.DotStmt:
		return c.dots(list)
	case *ir.MakeSetStmt:
		return c.constantSet(list)
	case *ir.CallStmt:
		return c.condition(list)
	}
	return nil, 0
}

// chain returns the look-ups by constant names at the head of a list, one below the
// other, where nothing else reads what lies between; last is nil when there is none.
func (c *compiler) chain(list []ir.Stmt) (path []konst, src int, last *ir.DotStmt) {
	for _, s := range list {
		d, ok := s.(*ir.DotStmt)
		if !ok {
			break
		}
		name, ok := plain(d.Key).(ir.StringIndex)
		if !ok {
			break
		}
		from, ok := plain(d.Source).(ir.Local)
		if !ok || last != nil && (from != last.Target || c.readsOf(from) != 1) {
			break
		}
		if last == nil {
			src = c.local(from)
		}
		path, last = append(path, c.p.strings[name]), d
	}
	return path, src, last
}

// dots fuses a chain of look-ups with a comparison to a constant that follows.
func (c *compiler) dots(list []ir.Stmt) (op, int) {
	path, src, last := c.chain(list)
	if last == nil {
		return nil, 0
	}
	t, n := c.local(last.Target), len(path)
	if want := c.comparison(list[n:], last.Target); want != nil {
		return func(_ *Machine, f []Value) int {
			v := follow(&f[src], path)
			if v == nil || !equal(v, &want.Value) {
				return 1
			}
			f[t] = *v
			return 0
		}, n + 1
	}
	return func(_ *Machine, f []Value) int {
		v := follow(&f[src], path)
		if v == nil {
			return 1
		}
		f[t] = *v
		return 0
	}, n
}

// comparison returns the constant that the next statement compares l with, or nil.
func (c *compiler) comparison(list []ir.Stmt, l ir.Local) *konst {
	if len(list) == 0 {
		return nil
	}
	e, ok := list[0].(*ir.EqualStmt)
	if !ok || plain(e.A) != l {
		return nil
	}
	return c.operand(e.B).konst
}

func follow(v *Value, path []konst) *Value {
	for i := range path {
		if v = v.get(&path[i].Value, path[i].hash); v == nil {
			return nil
		}
	}
	return v
}

// constantSet makes a set of constant strings once, where the function adds nothing
// else to it.
func (c *compiler) constantSet(list []ir.Stmt) (op, int) {
	target := list[0].(*ir.MakeSetStmt).Target
	var set composite
	n := 1
	for _, s := range list[1:] {
		add, ok := s.(*ir.SetAddStmt)
		if !ok || add.Set != target {
			break
		}
		i, ok := plain(add.Value).(ir.StringIndex)
		if !ok {
			break
		}
		set.add(&c.p.strings[i].Value, c.p.strings[i].hash)
		n++
	}
	if n == 1 || n-1 != c.adds[target] {
		return nil, 0
	}
	set.fix(Set)
	v, t := Value{kind: Set, comp: &set}, c.local(target)
	return func(_ *Machine, f []Value) int { f[t] = v; return 0 }, n
}
