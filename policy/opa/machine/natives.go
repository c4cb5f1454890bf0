package machine

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// native is the fast form of a built-in function. It answers for the arguments that
// it is made for; false leaves all others, and every error, to OPA's own.
type native func(m *Machine, args []Value) (Value, bool)

var natives = map[string]native{
	"equal": func(_ *Machine, a []Value) (Value, bool) { return Bool(equal(&a[0], &a[1])), true },
	"neq":   func(_ *Machine, a []Value) (Value, bool) { return Bool(!equal(&a[0], &a[1])), true },
	"lt":    func(_ *Machine, a []Value) (Value, bool) { return Bool(compare(&a[0], &a[1]) < 0), true },
	"lte":   func(_ *Machine, a []Value) (Value, bool) { return Bool(compare(&a[0], &a[1]) <= 0), true },
	"gt":    func(_ *Machine, a []Value) (Value, bool) { return Bool(compare(&a[0], &a[1]) > 0), true },
	"gte":   func(_ *Machine, a []Value) (Value, bool) { return Bool(compare(&a[0], &a[1]) >= 0), true },

	"count":             count,
	"internal.member_2": member,
	"startswith":        ofTexts(strings.HasPrefix),
	"endswith":          ofTexts(strings.HasSuffix),
	"contains":          ofTexts(strings.Contains),
	"sprintf":           sprintf,
	"concat":            concat,
	"object.get":        objectGet,
	"array.concat":      arrayConcat,

	"is_null":    is(Null, Null),
	"is_boolean": is(Boolean, Boolean),
	"is_number":  is(Integer, Number),
	"is_string":  is(String, String),
	"is_array":   is(Array, Array),
	"is_object":  is(Object, Object),
	"is_set":     is(Set, Set),
}

func ofTexts(f func(a, b string) bool) native {
	return func(_ *Machine, a []Value) (Value, bool) {
		if a[0].kind != String || a[1].kind != String {
			return Value{}, false
		}
		return Bool(f(a[0].text, a[1].text)), true
	}
}

// is reports whether a value is of a kind; OPA's functions are undefined or false
// for others, so that these are left to it.
func is(from, to Kind) native {
	return func(_ *Machine, a []Value) (Value, bool) {
		return Bool(true), a[0].kind >= from && a[0].kind <= to
	}
}

func count(_ *Machine, a []Value) (Value, bool) {
	switch {
	case a[0].comp != nil:
		return Int(int64(len(a[0].comp.vals))), true
	case a[0].kind == String:
		return Int(int64(utf8.RuneCountInString(a[0].text))), true
	}
	return Value{}, false
}

// member is x in y.
func member(m *Machine, a []Value) (Value, bool) {
	c := a[1].comp
	if c == nil {
		return Bool(false), true
	}
	if a[1].kind == Set {
		return Bool(c.find(c.vals, &a[0], c.hashFor(&a[0])) >= 0), true
	}
	m.steps(len(c.vals))
	for i := range c.vals {
		if equal(&a[0], &c.vals[i]) {
			return Bool(true), true
		}
	}
	return Bool(false), true
}

// sprintf writes strings with %s and %v; anything else in a format is left to OPA.
func sprintf(_ *Machine, a []Value) (Value, bool) {
	if a[0].kind != String || a[1].kind != Array {
		return Value{}, false
	}
	format, list := a[0].text, a[1].comp.vals
	size := len(format)
	for i := range list {
		if list[i].kind != String {
			return sprintfNumbers(format, list)
		}
		size += len(list[i].text)
	}
	var b strings.Builder
	b.Grow(size)
	for {
		at := strings.IndexByte(format, '%')
		if at < 0 {
			break
		}
		if at+1 == len(format) || format[at+1] != 's' && format[at+1] != 'v' || len(list) == 0 {
			return Value{}, false
		}
		b.WriteString(format[:at])
		b.WriteString(list[0].text)
		format, list = format[at+2:], list[1:]
	}
	b.WriteString(format)
	return Text(b.String()), len(list) == 0
}

func sprintfNumbers(format string, list []Value) (Value, bool) {
	args := make([]any, len(list))
	for i := range list {
		switch list[i].kind {
		case String:
			args[i] = list[i].text
		case Integer:
			args[i] = list[i].num
		default:
			return Value{}, false
		}
	}
	return Text(fmt.Sprintf(format, args...)), true
}

func concat(_ *Machine, a []Value) (Value, bool) {
	if a[0].kind != String || a[1].kind != Array && a[1].kind != Set || len(a[1].comp.vals) > 64 {
		return Value{}, false
	}
	a[1].comp.sort(a[1].kind)
	var space [64]string
	parts := space[:0]
	for _, v := range a[1].comp.vals {
		if v.kind != String {
			return Value{}, false
		}
		parts = append(parts, v.text)
	}
	return Text(strings.Join(parts, a[0].text)), true
}

func objectGet(_ *Machine, a []Value) (Value, bool) {
	if a[0].kind != Object || a[1].kind == Array {
		return Value{}, false
	}
	if v := a[0].get(&a[1], a[0].comp.hashFor(&a[1])); v != nil {
		return *v, true
	}
	return a[2], true
}

func arrayConcat(m *Machine, a []Value) (Value, bool) {
	if a[0].kind != Array || a[1].kind != Array {
		return Value{}, false
	}
	m.steps(a[0].Len() + a[1].Len())
	c := m.arena.composite()
	c.vals = append(slices.Grow(c.vals, a[0].Len()+a[1].Len()), a[0].comp.vals...)
	c.vals = append(c.vals, a[1].comp.vals...)
	return Value{kind: Array, comp: c}, true
}
