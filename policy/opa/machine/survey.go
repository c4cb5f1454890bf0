package machine

import "github.com/open-policy-agent/opa/v1/ir"

// scope is what a block of a list of blocks does with locals, the blocks of lists
// within it left out. The planner uses a local of one block again in another.
type scope struct {
	parent *scope
	reads  map[ir.Local]int
	seen   map[ir.Local]bool
	// exposed are read before they are set: what another block left in them.
	exposed map[ir.Local]bool
}

// survey looks through a block and those within it.
func (c *compiler) survey(b *ir.Block, parent *scope) {
	s := &scope{parent: parent, reads: map[ir.Local]int{}, seen: map[ir.Local]bool{}, exposed: map[ir.Local]bool{}}
	c.scopes[b] = s
	_ = ir.Walk(&surveyor{c, s}, b)
	for l := range s.exposed {
		c.exposed[l] += s.reads[l]
	}
}

// readsOf returns how often what the block at hand leaves in a local may be read: in it,
// directly in those around it, and where it is not set before.
func (c *compiler) readsOf(l ir.Local) int {
	n := c.exposed[l]
	for s := c.scope; s != nil; s = s.parent {
		if s != c.scope || !s.exposed[l] {
			n += s.reads[l]
		}
	}
	return n
}

type surveyor struct {
	c *compiler
	s *scope
}

// Before implements ir.Visitor.
func (*surveyor) Before(any) {}

// After implements ir.Visitor.
func (*surveyor) After(any) {}

// Visit implements ir.Visitor.
func (v *surveyor) Visit(x any) (ir.Visitor, error) {
	if list, ok := x.(*ir.BlockStmt); ok {
		for _, b := range list.Blocks {
			v.c.survey(b, v.s)
		}
		return nil, nil
	}
	s, ok := x.(ir.Stmt)
	if !ok {
		return v, nil
	}
	for _, o := range operandsOf(s) {
		if l, ok := plain(o).(ir.Local); ok {
			v.s.reads[l]++
			if !v.s.seen[l] {
				v.s.exposed[l] = true
			}
		}
	}
	for _, l := range setBy(s) {
		v.s.seen[l] = true
	}
	v.c.note(s)
	return v, nil
}

// setBy returns the locals that a statement sets.
func setBy(s ir.Stmt) []ir.Local {
	switch s := s.(type) {
	case *ir.ScanStmt:
		return []ir.Local{s.Key, s.Value}
	case *ir.ResetLocalStmt:
		return []ir.Local{s.Target}
	case *ir.AssignVarOnceStmt:
		return []ir.Local{s.Target}
	}
	if l, ok := target(s); ok {
		return []ir.Local{l}
	}
	return nil
}

// note keeps what counts in the whole function.
func (c *compiler) note(s ir.Stmt) {
	switch s := s.(type) {
	case *ir.CallStmt:
		c.called[c.caller] = append(c.called[c.caller], s.Func)
	case *ir.SetAddStmt:
		c.adds[s.Set]++
	case *ir.ResetLocalStmt:
		c.adds[s.Target]++
	case *ir.DotStmt:
		c.base[s.Target] = c.base[s.Target] || c.inBase(s.Source)
	case *ir.AssignVarStmt:
		c.base[s.Target] = c.base[s.Target] || c.inBase(s.Source)
	}
}
