package machine

import (
	"cmp"
	"hash/maphash"
	"math"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

var seed = maphash.MakeSeed()

// hash is equal for equal values.
func (v *Value) hash() uint64 {
	switch v.kind {
	case String:
		return maphash.String(seed, v.text)
	case Integer:
		return mix(math.Float64bits(float64(v.num)))
	case Number:
		f, err := strconv.ParseFloat(v.text, 64)
		if err != nil || f == 0 {
			f = 0
		}
		return mix(math.Float64bits(f))
	case Boolean:
		return mix(uint64(v.num) + 1)
	case Array:
		h := uint64(Array)
		for i := range v.comp.vals {
			h = mix(h ^ v.comp.vals[i].hash())
		}
		return h
	case Object, Set:
		h := uint64(v.kind)
		for i := range v.comp.vals {
			x := v.comp.vals[i].hash()
			if v.kind == Object {
				x = mix(x ^ v.comp.keys[i].hash()*3)
			}
			h += mix(x) // in any order
		}
		return mix(h)
	}
	return uint64(v.kind)
}

func mix(x uint64) uint64 {
	x = (x ^ x>>32) * 0x9e3779b97f4a7c15
	return x ^ x>>29
}

// equal is compare == 0.
func equal(a, b *Value) bool {
	if a.kind != b.kind {
		return (a.kind == Integer || a.kind == Number) && (b.kind == Integer || b.kind == Number) && ast.NumberCompare(a.number(), b.number()) == 0
	}
	switch a.kind {
	case String:
		return a.text == b.text
	case Boolean, Integer:
		return a.num == b.num
	case Number:
		return ast.NumberCompare(ast.Number(a.text), ast.Number(b.text)) == 0
	case Array, Object, Set:
		return a.comp == b.comp || equalComposites(a, b)
	}
	return true
}

func equalComposites(a, b *Value) bool {
	if len(a.comp.vals) != len(b.comp.vals) {
		return false
	}
	for i := range a.comp.vals {
		v := &a.comp.vals[i]
		switch a.kind {
		case Array:
			if !equal(v, &b.comp.vals[i]) {
				return false
			}
		case Set:
			if b.comp.find(b.comp.vals, v, b.comp.hashFor(v)) < 0 {
				return false
			}
		default:
			key := &a.comp.keys[i]
			if j := b.comp.find(b.comp.keys, key, b.comp.hashFor(key)); j < 0 || !equal(v, &b.comp.vals[j]) {
				return false
			}
		}
	}
	return true
}

// hashFor is the hash of a key where it will be used.
func (c *composite) hashFor(key *Value) uint64 {
	if len(c.vals) <= small {
		return 0
	}
	return key.hash()
}

func compareValues(a, b Value) int { return compare(&a, &b) }

// compare is OPA's order of values.
func compare(a, b *Value) int {
	if x, y := rank(a.kind), rank(b.kind); x != y {
		return cmp.Compare(x, y)
	}
	switch a.kind {
	case Boolean:
		return cmp.Compare(a.num, b.num)
	case Integer, Number:
		if a.kind == Integer && b.kind == Integer {
			return cmp.Compare(a.num, b.num)
		}
		return ast.NumberCompare(a.number(), b.number())
	case String:
		return strings.Compare(a.text, b.text)
	case Array, Object, Set:
		if a.comp != b.comp {
			return compareComposites(a, b)
		}
	}
	return 0
}

func rank(k Kind) Kind {
	if k == Number {
		return Integer
	}
	return k
}

func compareComposites(a, b *Value) int {
	a.comp.sort(a.kind)
	b.comp.sort(b.kind)
	for i := range min(len(a.comp.vals), len(b.comp.vals)) {
		if a.kind == Object {
			if c := compare(&a.comp.keys[i], &b.comp.keys[i]); c != 0 {
				return c
			}
		}
		if c := compare(&a.comp.vals[i], &b.comp.vals[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a.comp.vals), len(b.comp.vals))
}
