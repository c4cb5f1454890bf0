package action

import (
	"math"
	"slices"
	"strconv"

	"github.com/vektah/gqlparser/v2/ast"

	"chaperone/policy"
)

// variables are those of one GraphQL request, with what its operation says of them.
type variables struct {
	given    map[string]any
	declared ast.VariableDefinitionList
	odd      bool // a literal was met that servers read in different ways, or too many
	read     int  // how many literals
}

// readVariables reads the member variables of an envelope. A text is none: some servers
// read it as JSON.
func readVariables(x any) (map[string]any, bool) {
	if x == nil {
		return nil, true
	}
	given, ok := x.(map[string]any)
	return given, ok
}

// targets are the things that a root field names in the arguments that its operation is
// on (on=): of its own, and of an input object. A list is each of its members. It returns
// false for a value that is no name.
func (o *operation) targets(f *ast.Field, vars *variables) (params []policy.Param, ok bool) {
	ok = true
	take := func(name string, v any) {
		if !slices.Contains(o.on, name) {
			return
		}
		var more []policy.Param
		if more, ok = idsOf(name, v, ok); ok {
			params = append(params, more...)
		}
		ok = ok && len(params) <= maxRoots
	}
	if len(f.Arguments) > maxRoots {
		return nil, false
	}
	for _, a := range f.Arguments { // of two of a name, servers take either
		v := vars.value(a.Value, 0)
		if !ok || vars.odd {
			return nil, false
		}
		take(a.Name, v)
		object, isObject := v.(map[string]any)
		if !isObject {
			continue
		}
		for _, name := range sorted(object) {
			take(name, object[name])
		}
	}
	return params, ok && !vars.odd
}

// idsOf makes parameters of one name, or of a list of them.
func idsOf(name string, v any, ok bool) ([]policy.Param, bool) {
	switch v := v.(type) {
	case nil:
		return nil, ok
	case string:
		return []policy.Param{{Name: name, Value: v}}, ok && v != ""
	case float64: // as JSON numbers are; of larger ones it is not known which was written
		const exact = 1 << 53
		return []policy.Param{{Name: name, Value: strconv.FormatFloat(v, 'f', -1, 64)}}, ok && v == math.Trunc(v) && math.Abs(v) < exact
	case []any:
		if len(v) > maxRoots {
			return nil, false
		}
		var all []policy.Param
		for _, x := range v {
			if _, list := x.([]any); list {
				return nil, false
			}
			one, fine := idsOf(name, x, ok)
			all, ok = append(all, one...), ok && fine
		}
		return all, ok
	}
	return nil, false
}

// onlyOne are the parameters of the act on the one at i: without those of a name that
// stands there more than once, of which each has an act of its own.
func onlyOne(params []policy.Param, i int) []policy.Param {
	times := map[string]int{}
	for _, p := range params {
		times[p.Name]++
	}
	out := make([]policy.Param, 0, len(times))
	for j, p := range params {
		if j == i || times[p.Name] == 1 {
			out = append(out, p)
		}
	}
	return out
}

// noName stands for a value that names nothing: true, a word of an enumeration.
type noName struct{}

// value reads a literal, in which variables may stand.
func (vars *variables) value(v *ast.Value, depth int) any {
	if vars.read++; v == nil || depth > maxNesting || vars.read > maxLiterals {
		vars.odd = true
	}
	if vars.odd {
		return nil
	}
	switch v.Kind {
	case ast.Variable:
		if given, ok := vars.given[v.Raw]; ok {
			return given
		}
		if d := vars.declared.ForName(v.Raw); d != nil && d.DefaultValue != nil {
			return vars.value(d.DefaultValue, depth+1)
		}
		return nil
	case ast.StringValue, ast.BlockValue, ast.IntValue:
		return v.Raw
	case ast.NullValue:
		return nil
	case ast.ListValue:
		list := make([]any, 0, len(v.Children))
		for _, c := range v.Children {
			list = append(list, vars.value(c.Value, depth+1))
		}
		return list
	case ast.ObjectValue:
		object := make(map[string]any, len(v.Children))
		for _, c := range v.Children {
			if _, twice := object[c.Name]; twice {
				vars.odd = true
			}
			object[c.Name] = vars.value(c.Value, depth+1)
		}
		return object
	}
	return noName{}
}
