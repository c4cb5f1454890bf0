package machine

import "slices"

// small is the size up to which members are found by looking at each.
const small = 8

// composite is what arrays, sets and objects hold. Above [small] members, sets and
// objects are found through an open-addressed table.
type composite struct {
	keys   []Value // of an object
	vals   []Value
	table  []int32 // place in vals plus one; 0 is free; its length is a power of two
	sorted bool
	fixed  bool // sorted and indexed for good; never changed
	shaped bool // keys and table belong to a shape
}

// members are what a set or an object is found by.
func (c *composite) members(k Kind) []Value {
	if k == Object {
		return c.keys
	}
	return c.vals
}

// find returns the place of key among list, which is keys or vals, or -1.
func (c *composite) find(list []Value, key *Value, hash uint64) int {
	if len(list) <= small {
		return among(list, key)
	}
	if c.table == nil {
		c.index(list)
	}
	mask := uint64(len(c.table) - 1)
	for at := hash & mask; c.table[at] != 0; at = (at + 1) & mask {
		if i := c.table[at] - 1; equal(&list[i], key) {
			return int(i)
		}
	}
	return -1
}

// among finds key by looking at each.
func among(list []Value, key *Value) int {
	if key.kind == String {
		for i := range list {
			if list[i].kind == String && list[i].text == key.text {
				return i
			}
		}
		return -1
	}
	for i := range list {
		if equal(&list[i], key) {
			return i
		}
	}
	return -1
}

// index builds the table anew.
func (c *composite) index(list []Value) {
	n := 32
	for n < 3*len(list) {
		n *= 2
	}
	c.table = make([]int32, n)
	for i := range list {
		c.enter(&list[i], i)
	}
}

func (c *composite) enter(key *Value, i int) {
	mask := uint64(len(c.table) - 1)
	at := key.hash() & mask
	for c.table[at] != 0 {
		at = (at + 1) & mask
	}
	c.table[at] = int32(i) + 1
}

// entered notes in the table, where there is one, that a member was appended to list.
func (c *composite) entered(list []Value) {
	c.sorted = false
	if c.table == nil {
		return
	}
	if 3*len(list) > 2*len(c.table) {
		c.table = nil
		return
	}
	c.enter(&list[len(list)-1], len(list)-1)
}

// add puts a member into a set.
func (c *composite) add(v *Value, hash uint64) {
	if c.find(c.vals, v, hash) < 0 {
		c.vals = append(c.vals, *v)
		c.entered(c.vals)
	}
}

// insert puts a member into an object, in place of one that is there.
func (c *composite) insert(key, v *Value, hash uint64) {
	if i := c.find(c.keys, key, hash); i >= 0 {
		c.vals[i] = *v
		return
	}
	c.unshape()
	c.keys, c.vals = append(c.keys, *key), append(c.vals, *v)
	c.entered(c.keys)
}

// unshape gives a composite keys and a table of its own.
func (c *composite) unshape() {
	if c.shaped {
		c.keys, c.table, c.shaped = slices.Clone(c.keys), nil, false
	}
}

// sort puts members into Rego's order.
func (c *composite) sort(k Kind) {
	if c.sorted || k == Array {
		return
	}
	c.sorted = true
	list := c.members(k)
	if slices.IsSortedFunc(list, compareValues) {
		return
	}
	if k == Object {
		c.unshape()
		order := make([]int, len(c.keys))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return compare(&c.keys[a], &c.keys[b]) })
		keys, vals := make([]Value, len(order)), make([]Value, len(order))
		for i, j := range order {
			keys[i], vals[i] = c.keys[j], c.vals[j]
		}
		c.keys, c.vals = keys, vals
	} else {
		slices.SortFunc(list, compareValues)
	}
	c.table = nil
}

// fix sorts and indexes for good a composite whose members are fixed.
func (c *composite) fix(k Kind) {
	c.sort(k)
	if list := c.members(k); k != Array && len(list) > small && c.table == nil {
		c.index(list)
	}
	c.fixed = true
}

// own returns v with a composite that may be changed: v itself unless it is fixed.
func (v *Value) own(a *Arena) *composite {
	if !v.comp.fixed {
		return v.comp
	}
	c := a.composite()
	c.keys, c.vals, c.sorted = append(c.keys, v.comp.keys...), append(c.vals, v.comp.vals...), true
	v.comp = c
	return c
}
