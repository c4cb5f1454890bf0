package machine

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"
)

// fewest is how many blocks in a row must begin alike for a jump to pay.
const fewest = 4

// guard is how a block begins: it leaves some locals undefined, and ends unless a
// place in the input or the base documents holds a certain string.
type guard struct {
	resets []ir.Local
	src    int
	path   []konst
	want   string
}

// guardOf returns the guard of a block that has one.
func (c *compiler) guardOf(list []ir.Stmt) (g guard, ok bool) {
	for len(list) > 0 {
		r, is := list[0].(*ir.ResetLocalStmt)
		if !is {
			break
		}
		g.resets, list = append(g.resets, r.Target), list[1:]
	}
	path, src, last := c.chain(list)
	if last == nil || src != int(ir.Input) && src != int(ir.Data) {
		return g, false
	}
	want := c.comparison(list[len(path):], last.Target)
	if want == nil || want.kind != String {
		return g, false
	}
	g.src, g.path, g.want = src, path, want.text
	return g, true
}

func (g *guard) like(o *guard) bool {
	return g.src == o.src && slices.Equal(g.resets, o.resets) &&
		slices.EqualFunc(g.path, o.path, func(a, b konst) bool { return a.text == b.text })
}

// jump is a row of blocks that begin alike.
type jump struct {
	guard  guard
	bodies [][]op
	at     map[string][]int // places in bodies, in order
}

// jumps returns how many blocks from the i-th on have guards alike; ok says which
// have one at all.
func jumps(guards []guard, ok []bool, i int) int {
	n := 0
	for i+n < len(guards) && ok[i+n] && guards[i].like(&guards[i+n]) {
		n++
	}
	return n
}

func newJump(guards []guard, bodies [][]op) *jump {
	j := &jump{guard: guards[0], bodies: bodies, at: map[string][]int{}}
	for i := range guards {
		j.at[guards[i].want] = append(j.at[guards[i].want], i)
	}
	return j
}

// run executes the blocks whose guard holds, and leaves locals as all of them would.
func (j *jump) run(m *Machine, f []Value) int {
	j.reset(f)
	v := follow(&f[j.guard.src], j.guard.path)
	if v == nil || v.kind != String {
		return 0
	}
	last := -1
	for _, last = range j.at[v.text] {
		if r := run(m, f, j.bodies[last]); r > 1 {
			return r
		}
	}
	if last >= 0 && last < len(j.bodies)-1 {
		j.reset(f)
	}
	return 0
}

func (j *jump) reset(f []Value) {
	for _, l := range j.guard.resets {
		f[l] = Value{}
	}
}
