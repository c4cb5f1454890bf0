package machine

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ir"
)

// konst is a constant with its hash.
type konst struct {
	Value
	hash uint64
}

func konstOf(v Value) konst { return konst{v, v.hash()} }

// operand is a local or a constant.
type operand struct {
	local int
	konst *konst
}

func (o operand) at(f []Value) *Value {
	if o.konst != nil {
		return &o.konst.Value
	}
	return &f[o.local]
}

// hashAt is the hash of what at returns, as far as looking it up in c needs it.
func (o operand) hashAt(v *Value, c *composite) uint64 {
	if o.konst != nil {
		return o.konst.hash
	}
	if c == nil {
		return 0
	}
	return c.hashFor(v)
}

// compiler makes ops of statements.
type compiler struct {
	p       *Program
	locals  int // of the function at hand
	scopes  map[*ir.Block]*scope
	scope   *scope              // of the block at hand
	exposed map[ir.Local]int    // reads that see what another block left
	adds    map[ir.Local]int    // how often it adds to each
	base    map[ir.Local]bool   // which may hold a place in the base documents
	calls   map[string]foreign  // built-in functions
	result  int                 // the local of the result
	first   map[ir.Local]bool   // see early
	called  map[string][]string // the functions that each function calls
	caller  string
}

// New makes a plan ready. The error wraps [ErrUnsupported] when the plan is not for
// this package.
func New(o Options) (p *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("%w: the plan is malformed: %v", ErrUnsupported, r)
		}
	}()
	p = &Program{funcs: map[string]*function{}, paths: map[string]*function{}, data: o.Data, strict: o.Strict, steps: o.Steps}
	if p.steps == 0 {
		p.steps = 50_000
	}
	p.steps = (p.steps + 63) &^ 63 // time is looked at every 64
	for _, s := range o.Plan.Static.Strings {
		p.strings = append(p.strings, konstOf(Text(s.Value)))
	}
	c := &compiler{p: p, calls: map[string]foreign{}, called: map[string][]string{}}
	for _, b := range o.Plan.Static.BuiltinFuncs {
		if c.calls[b.Name], err = foreignOf(b.Name); err != nil {
			return nil, err
		}
	}
	for _, f := range o.Plan.Funcs.Funcs {
		fn := &function{memo: -1, result: int(f.Return)}
		for _, l := range f.Params {
			fn.params = append(fn.params, int(l))
		}
		if len(f.Params) == 2 { // input and data: a rule
			fn.memo = p.memos
			p.memos++
		}
		p.funcs[f.Name], p.paths[pathKey(f.Path)] = fn, fn
	}
	for _, f := range o.Plan.Funcs.Funcs {
		if err := c.function(p.funcs[f.Name], f); err != nil {
			return nil, fmt.Errorf("function %s: %w", f.Name, err)
		}
	}
	for _, plan := range o.Plan.Plans.Plans {
		if plan.Name != o.Entry {
			continue
		}
		c.caller = ""
		c.begin(plan.Blocks)
		c.first = nil
		p.entry, err = c.blocks(plan.Blocks)
		p.locals = c.locals
		p.stack = min(p.locals+c.deepest("", map[string]int{}), maxStack)
		return p, err
	}
	return nil, fmt.Errorf("%w: there is no plan %q", ErrUnsupported, o.Entry)
}

func (c *compiler) function(fn *function, f *ir.Func) (err error) {
	c.caller = f.Name
	c.begin(f.Blocks)
	c.early(f)
	for _, l := range f.Params {
		c.local(l)
	}
	c.local(f.Return)
	c.exposed[f.Return]++ // by the caller
	fn.body, err = c.blocks(f.Blocks)
	fn.locals = c.locals
	return err
}

// deepest returns how many locals the calls of a function need at most. Calls of names
// that are computed are not counted.
func (c *compiler) deepest(name string, known map[string]int) int {
	if n, ok := known[name]; ok {
		return n
	}
	known[name] = 0 // Rego has no recursion
	n := 0
	for _, callee := range c.called[name] {
		if fn := c.p.funcs[callee]; fn != nil {
			n = max(n, fn.locals+c.deepest(callee, known))
		}
	}
	known[name] = n
	return n
}

// begin surveys a function or plan.
func (c *compiler) begin(blocks []*ir.Block) {
	c.locals, c.scope = 2, nil
	c.scopes, c.exposed, c.adds = map[*ir.Block]*scope{}, map[ir.Local]int{}, map[ir.Local]int{}
	c.base = map[ir.Local]bool{ir.Data: true}
	for _, b := range blocks {
		c.survey(b, nil)
	}
}

// inBase reports whether an operand may be a place in the base documents.
func (c *compiler) inBase(o ir.Operand) bool {
	l, ok := plain(o).(ir.Local)
	return ok && c.base[l]
}

// operandsOf returns all that a statement reads, but for the blocks in it.
func operandsOf(s ir.Stmt) []ir.Operand {
	local := func(ls ...ir.Local) (out []ir.Operand) {
		for _, l := range ls {
			out = append(out, ir.Operand{Value: l})
		}
		return out
	}
	switch s := s.(type) {
	case *ir.DotStmt:
		return []ir.Operand{s.Source, s.Key}
	case *ir.EqualStmt:
		return []ir.Operand{s.A, s.B}
	case *ir.NotEqualStmt:
		return []ir.Operand{s.A, s.B}
	case *ir.CallStmt:
		return s.Args
	case *ir.CallDynamicStmt:
		return append(local(s.Args...), s.Path...)
	case *ir.AssignVarStmt:
		return []ir.Operand{s.Source}
	case *ir.AssignVarOnceStmt:
		return append(local(s.Target), s.Source)
	case *ir.ScanStmt:
		return local(s.Source)
	case *ir.LenStmt:
		return []ir.Operand{s.Source}
	case *ir.IsArrayStmt:
		return []ir.Operand{s.Source}
	case *ir.IsObjectStmt:
		return []ir.Operand{s.Source}
	case *ir.IsSetStmt:
		return []ir.Operand{s.Source}
	case *ir.IsDefinedStmt:
		return local(s.Source)
	case *ir.IsUndefinedStmt:
		return local(s.Source)
	case *ir.ObjectInsertStmt:
		return append(local(s.Object), s.Key, s.Value)
	case *ir.ObjectInsertOnceStmt:
		return append(local(s.Object), s.Key, s.Value)
	case *ir.ObjectMergeStmt:
		return local(s.A, s.B)
	case *ir.SetAddStmt:
		return append(local(s.Set), s.Value)
	case *ir.ArrayAppendStmt:
		return append(local(s.Array), s.Value)
	case *ir.WithStmt:
		return append(local(s.Local), s.Value)
	case *ir.ReturnLocalStmt:
		return local(s.Source)
	case *ir.ResultSetAddStmt:
		return local(s.Value)
	}
	return nil
}

func (c *compiler) local(l ir.Local) int {
	c.locals = max(c.locals, int(l)+1)
	return int(l)
}

func (c *compiler) operand(o ir.Operand) operand {
	switch v := plain(o).(type) {
	case ir.Local:
		return operand{local: c.local(v)}
	case ir.StringIndex:
		return operand{konst: &c.p.strings[v]}
	case ir.Bool:
		return operand{konst: new(konstOf(Bool(bool(v))))}
	}
	panic(fmt.Sprintf("operand %T", o.Value))
}

// plain is the value of an operand. In a plan that was read from JSON it is a pointer.
func plain(o ir.Operand) ir.Val {
	switch v := o.Value.(type) {
	case *ir.Local:
		return *v
	case *ir.StringIndex:
		return *v
	case *ir.Bool:
		return *v
	}
	return o.Value
}

func (c *compiler) operands(list []ir.Operand) []operand {
	out := make([]operand, len(list))
	for i, o := range list {
		out[i] = c.operand(o)
	}
	return out
}
