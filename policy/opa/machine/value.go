package machine

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Kind says what a [Value] is. The order is that in which Rego sorts values.
type Kind uint8

// The kinds of values. Undefined is the zero Value, which no document holds.
const (
	Undefined Kind = iota
	Null
	Boolean
	Integer // a number that an int64 holds and that is written as strconv writes it
	Number  // any other number, as its text
	String
	Array
	Object
	Set
)

// Value is a Rego value. Its zero value is undefined. Values are small and passed
// by value; what a composite holds is shared. A value made by [FromAST], [FromJSON]
// or a nil [Arena] is never changed and may be shared between goroutines; one made
// by an arena or by an evaluation lives until its [Machine] is closed.
type Value struct {
	kind Kind
	num  int64  // of a boolean and an integer
	text string // of a string and a number
	comp *composite
}

// Text returns the value of a string.
func Text(s string) Value { return Value{kind: String, text: s} }

// Int returns the value of a whole number.
func Int(n int64) Value { return Value{kind: Integer, num: n} }

// Bool returns the value of a boolean.
func Bool(b bool) Value {
	if b {
		return Value{kind: Boolean, num: 1}
	}
	return Value{kind: Boolean}
}

// Nothing returns null.
func Nothing() Value { return Value{kind: Null} }

// Kind returns what v is.
func (v *Value) Kind() Kind { return v.kind }

// String returns the text of a string, else the empty string.
func (v *Value) String() string {
	if v.kind == String {
		return v.text
	}
	return ""
}

// Len returns how many members a composite has, else 0.
func (v *Value) Len() int {
	if v.comp == nil {
		return 0
	}
	return len(v.comp.vals)
}

// Field returns the member of an object under a name; it is undefined when there
// is none.
func (v *Value) Field(name string) Value {
	key := Text(name)
	if p := v.get(&key, key.hash()); p != nil && v.kind == Object {
		return *p
	}
	return Value{}
}

// Elements returns the members of an array, or of a set in its order; nil of
// anything else. The slice is not to be changed.
func (v *Value) Elements() []Value {
	switch v.kind {
	case Array:
		return v.comp.vals
	case Set:
		v.comp.sort(Set)
		return v.comp.vals
	}
	return nil
}

// get returns the member of v under a key with that hash, or nil.
func (v *Value) get(key *Value, hash uint64) *Value {
	switch v.kind {
	case Object:
		if i := v.comp.find(v.comp.keys, key, hash); i >= 0 {
			return &v.comp.vals[i]
		}
	case Array:
		if i, ok := key.index(); ok && i < int64(len(v.comp.vals)) {
			return &v.comp.vals[i]
		}
	case Set:
		if i := v.comp.find(v.comp.vals, key, hash); i >= 0 {
			return &v.comp.vals[i]
		}
	}
	return nil
}

// index returns a number as a place in an array.
func (v *Value) index() (int64, bool) {
	switch v.kind {
	case Integer:
		return v.num, v.num >= 0
	case Number:
		i, ok := ast.Number(v.text).Int64() // 1.0
		return i, ok && i >= 0
	}
	return 0, false
}

func (v *Value) truth() bool { return v.num != 0 }

// number returns a number as OPA has it.
func (v *Value) number() ast.Number {
	if v.kind == Integer {
		return ast.Number(strconv.FormatInt(v.num, 10))
	}
	return ast.Number(v.text)
}

func numberOf(n ast.Number) Value {
	if i, ok := n.Int64(); ok && strconv.FormatInt(i, 10) == string(n) {
		return Int(i)
	}
	return Value{kind: Number, text: string(n)}
}
