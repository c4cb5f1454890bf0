// Package machine executes the plans that OPA makes of policies.
//
// OPA parses, checks and plans; a plan is a small imperative program over local
// variables (github.com/open-policy-agent/opa/v1/ir). [New] turns its statements into
// Go functions once, and a [Machine] runs them on values that need no conversion and,
// but for what a policy makes anew, no memory. Built-in functions that have no fast
// form here are OPA's own.
package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

var (
	// ErrBudget is wrapped when an evaluation takes more steps or time than it may.
	ErrBudget = errors.New("evaluation exceeded its budget")
	// ErrConflict is wrapped when a rule gives two values, or an object two under one key.
	ErrConflict = errors.New("conflicting values")
	// ErrUnsupported is wrapped when a plan holds what this package cannot execute.
	ErrUnsupported = errors.New("not supported")

	// OPA's store takes the number in data.x[2] for the name "2", here and nowhere else.
	errNumberKey = fmt.Errorf("%w: a number as a name in the base documents", ErrUnsupported)
)

// Options of [New].
type Options struct {
	Plan  *ir.Policy
	Entry string // the name of the plan in Plan
	Data  Value  // the base documents; made for good
	// Strict makes an error of a built-in function an error of the evaluation; else
	// it leaves the expression undefined.
	Strict bool
	// Steps bounds one evaluation: 50,000 calls and turns of loops when it is 0.
	Steps int
}

// Program is a plan made ready with its data. It is immutable and safe for
// concurrent use.
type Program struct {
	strings []konst
	funcs   map[string]*function
	paths   map[string]*function // by path, for calls of names that are computed
	entry   op
	locals  int
	memos   int
	stack   int // locals that a machine has room for
	data    Value
	strict  bool
	steps   int
	idle    sync.Pool // of *Machine
}

// function is a rule or a function of the policy.
type function struct {
	params []int
	body   op
	locals int
	result int
	memo   int // place of its value in the memo, or -1
}

// op is a statement. It returns how the block that holds it goes on: 0 to the next
// statement, n to behind the n-th block outwards, done to the end of the function.
type op func(m *Machine, f []Value) int

const done = 1 << 20

// Machine evaluates one question at a time. It is for one goroutine at a time.
type Machine struct {
	program  *Program
	stack    []Value
	top      int
	memo     []memo
	gen, new uint64 // of the memo: a rule's value is known if it is of this generation
	arena    Arena
	args     [8]Value
	results  []Value
	err      error
	left     int
	ctx      context.Context
	deadline time.Time
	now      time.Time
	cache    builtins.Cache
}

type memo struct {
	gen uint64
	v   Value
}

const maxStack = 4096 // values; deeper frames are made one by one

// Machine returns an idle machine of the program.
func (p *Program) Machine() *Machine {
	if m, ok := p.idle.Get().(*Machine); ok {
		return m
	}
	return &Machine{program: p, stack: make([]Value, p.stack), memo: make([]memo, p.memos)}
}

// Close gives the machine back. Values that came out of it, or of its arena, are
// not to be used any more.
func (m *Machine) Close() {
	clear(m.results)
	clear(m.memo)
	m.results, m.err, m.ctx, m.cache = m.results[:0], nil, nil, nil
	m.args = [8]Value{}
	m.arena.reset()
	m.program.idle.Put(m)
}

// Arena is for the input of the next evaluation.
func (m *Machine) Arena() *Arena { return &m.arena }

// Eval evaluates the program's entry and returns its results, one for each set of
// bindings; none when the entry is undefined. It gives up at the deadline, when ctx
// is done, and after so many steps. A zero input is undefined. It never panics.
func (m *Machine) Eval(ctx context.Context, deadline time.Time, input Value) (results []Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			*m = Machine{program: m.program, stack: make([]Value, m.program.stack), memo: make([]memo, m.program.memos)}
			results, err = nil, fmt.Errorf("machine stopped: %v", r)
		}
	}()
	p := m.program
	m.ctx, m.deadline, m.left, m.err = ctx, deadline, p.steps, nil
	m.new++
	m.gen, m.results = m.new, m.results[:0]
	f := m.frame(p.locals)
	f[ir.Input], f[ir.Data] = input, p.data
	p.entry(m, f)
	m.release(f)
	if m.err != nil {
		return nil, m.err
	}
	return m.results, nil
}

// frame returns n undefined locals.
func (m *Machine) frame(n int) []Value {
	if m.top+n > len(m.stack) {
		m.top += n
		return make([]Value, n)
	}
	f := m.stack[m.top : m.top+n : m.top+n]
	m.top += n
	return f
}

func (m *Machine) release(f []Value) {
	clear(f)
	m.top -= len(f)
}

// step counts one step and reports whether the evaluation must end. Time is looked
// at every 64 steps.
func (m *Machine) step() bool {
	m.left--
	return m.left&63 == 0 && m.over()
}

// steps counts many.
func (m *Machine) steps(n int) bool {
	m.left -= n &^ 63
	return m.left < 0 && m.over()
}

func (m *Machine) over() bool {
	if m.left <= 0 || m.ctx.Err() != nil || time.Now().After(m.deadline) {
		m.err = ErrBudget
	}
	return m.err != nil
}

// call calls a function with arguments that stand in the caller's frame or are
// constants, and stores its value; an undefined one ends the caller's block.
func (m *Machine) call(fn *function, f []Value, args []operand, target int) int {
	if fn.memo >= 0 {
		if known := &m.memo[fn.memo]; known.gen == m.gen {
			return give(f, target, &known.v)
		}
	}
	if m.step() {
		return done
	}
	g := m.frame(fn.locals)
	for i, p := range fn.params {
		g[p] = *args[i].at(f)
	}
	fn.body(m, g)
	v := g[fn.result]
	m.release(g)
	if m.err != nil {
		return done
	}
	if fn.memo >= 0 {
		m.memo[fn.memo] = memo{m.gen, v}
	}
	return give(f, target, &v)
}

// give stores a value; an undefined one ends the block and leaves the local as it was.
func give(f []Value, target int, v *Value) int {
	if v.kind == Undefined {
		return 1
	}
	f[target] = *v
	return 0
}

// fail ends the evaluation.
func (m *Machine) fail(err error) int {
	m.err = err
	return done
}

// put returns o with v at a path below it, everything on the way copied.
func (m *Machine) put(o Value, path []konst, v Value) Value {
	if len(path) == 0 {
		return v
	}
	c := m.arena.composite()
	if o.kind == Object {
		c.keys, c.vals = append(c.keys, o.comp.keys...), append(c.vals, o.comp.vals...)
		c.sorted = o.comp.sorted
		m.steps(len(c.keys))
	}
	var below Value
	if i := c.find(c.keys, &path[0].Value, path[0].hash); i >= 0 {
		below = c.vals[i]
	}
	below = m.put(below, path[1:], v)
	c.insert(&path[0].Value, &below, path[0].hash)
	return Value{kind: Object, comp: c}
}

// merge returns an object with the members of both; where both have one that is an
// object, these merged, and else that of a.
func (m *Machine) merge(a, b Value) Value {
	if a.kind != Object || b.kind != Object {
		return a
	}
	c := m.arena.composite()
	c.keys, c.vals = append(c.keys, a.comp.keys...), append(c.vals, a.comp.vals...)
	m.steps(len(a.comp.keys) + len(b.comp.keys))
	for i := range b.comp.keys {
		key, v := &b.comp.keys[i], b.comp.vals[i]
		if at := c.find(c.keys, key, key.hash()); at >= 0 {
			v = m.merge(c.vals[at], v)
		}
		c.insert(key, &v, key.hash())
	}
	return Value{kind: Object, comp: c}
}

// sorted returns the members of a composite in the order in which they are visited.
func sorted(v *Value) (keys, vals []Value) {
	if v.comp == nil {
		return nil, nil
	}
	v.comp.sort(v.kind)
	return v.comp.keys, v.comp.vals
}

// path is the key of a function in [Program.paths].
func pathKey(names []string) string {
	var b []byte
	for _, n := range names {
		b = append(append(b, 0), n...)
	}
	return string(slices.Clip(b))
}
