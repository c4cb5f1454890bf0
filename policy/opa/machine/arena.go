package machine

import "slices"

// Bounds of what an arena keeps for its next use.
const (
	maxKept    = 4096 // composites
	maxMembers = 256  // of one composite
)

// Arena hands out composites that live until it is reset, and uses them again. A nil
// Arena makes values for good: they are fixed and may be shared. An arena is for one
// goroutine at a time.
type Arena struct {
	kept []*composite
	used int
}

// composite returns an empty one.
func (a *Arena) composite() *composite {
	if a == nil {
		return &composite{}
	}
	if a.used == len(a.kept) {
		if a.used == maxKept {
			return &composite{}
		}
		a.kept = append(a.kept, &composite{})
	}
	c := a.kept[a.used]
	a.used++
	return c
}

// reset forgets all values, so that nothing of a question outlives it.
func (a *Arena) reset() {
	for _, c := range a.kept[:a.used] {
		if c.shaped || cap(c.keys) > maxMembers {
			c.keys = nil
		}
		if cap(c.vals) > maxMembers {
			c.vals = nil
		}
		clear(c.keys)
		clear(c.vals)
		c.keys, c.vals, c.table = c.keys[:0], c.vals[:0], nil
		c.sorted, c.fixed, c.shaped = false, false, false
	}
	a.used = 0
}

// done fixes what was made for good.
func (a *Arena) done(k Kind, c *composite) Value {
	if a == nil {
		c.fix(k)
	}
	return Value{kind: k, comp: c}
}

// Texts returns an array of strings.
func (a *Arena) Texts(list []string) Value {
	c := a.composite()
	c.vals = slices.Grow(c.vals, len(list))
	for _, s := range list {
		c.vals = append(c.vals, Text(s))
	}
	return a.done(Array, c)
}

// Array returns an array of these.
func (a *Arena) Array(list ...Value) Value {
	c := a.composite()
	c.vals = append(c.vals, list...)
	return a.done(Array, c)
}

// Field is a member of an object under a name.
type Field struct {
	Name  string
	Value Value
}

// Object returns an object of these; of two under one name the later counts.
func (a *Arena) Object(fields ...Field) Value {
	c := a.composite()
	c.keys, c.vals = slices.Grow(c.keys, len(fields)), slices.Grow(c.vals, len(fields))
	for i := range fields {
		key := Text(fields[i].Name)
		c.insert(&key, &fields[i].Value, c.hashFor(&key))
	}
	return a.done(Object, c)
}

// Shape is the names of an object that is made again and again. It is immutable.
type Shape struct {
	keys  []Value
	table []int32
	place []int // of the name at each place as it was given, in the sorted keys
}

// NewShape takes names, each once, in the order in which values will be given.
func NewShape(names ...string) *Shape {
	s := &Shape{}
	sorted := slices.Sorted(slices.Values(names))
	for _, n := range sorted {
		s.keys = append(s.keys, Text(n))
	}
	for _, n := range names {
		s.place = append(s.place, slices.Index(sorted, n))
	}
	if len(names) > small {
		var c composite
		c.index(s.keys)
		s.table = c.table
	}
	return s
}

// Make returns an object of that shape. It takes as many values as the shape has
// names, in their order.
func (a *Arena) Make(s *Shape, values ...Value) Value {
	c := a.composite()
	c.keys, c.table, c.shaped, c.sorted, c.fixed = s.keys[:len(s.keys):len(s.keys)], s.table, true, true, a == nil
	if cap(c.vals) < len(values) {
		c.vals = make([]Value, len(values))
	}
	c.vals = c.vals[:len(values)]
	for i := range values {
		c.vals[s.place[i]] = values[i]
	}
	return Value{kind: Object, comp: c}
}
