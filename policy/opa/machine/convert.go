package machine

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// FromAST returns a document of OPA's as a value for good. It panics on what is no
// document (a variable, a call), which no evaluated document holds.
func FromAST(v ast.Value) Value { return fromAST(nil, v) }

// FromJSON returns a document as encoding/json decodes it as a value for good.
func FromJSON(x any) (Value, error) {
	v, err := ast.InterfaceToValue(x)
	if err != nil {
		return Value{}, err
	}
	return FromAST(v), nil
}

func fromAST(a *Arena, v ast.Value) Value {
	switch x := v.(type) {
	case ast.Null:
		return Nothing()
	case ast.Boolean:
		return Bool(bool(x))
	case ast.String:
		return Text(string(x))
	case ast.Number:
		return numberOf(x)
	case *ast.Array:
		c := a.composite()
		x.Foreach(func(t *ast.Term) { c.vals = append(c.vals, fromAST(a, t.Value)) })
		return a.done(Array, c)
	case ast.Set:
		c := a.composite()
		x.Foreach(func(t *ast.Term) { c.vals = append(c.vals, fromAST(a, t.Value)) })
		return a.done(Set, c)
	case ast.Object:
		c := a.composite()
		x.Foreach(func(k, t *ast.Term) {
			c.keys, c.vals = append(c.keys, fromAST(a, k.Value)), append(c.vals, fromAST(a, t.Value))
		})
		return a.done(Object, c)
	}
	panic(fmt.Sprintf("%T is no document", v))
}

// AST returns v as a document of OPA's. It must be defined.
func (v *Value) AST() ast.Value {
	switch v.kind {
	case Null:
		return ast.Null{}
	case Boolean:
		return ast.Boolean(v.truth())
	case Integer, Number:
		return v.number()
	case String:
		return ast.String(v.text)
	case Array:
		return ast.NewArray(v.terms()...)
	case Set:
		return ast.NewSet(v.terms()...)
	case Object:
		pairs := make([][2]*ast.Term, len(v.comp.vals))
		for i := range pairs {
			pairs[i] = [2]*ast.Term{v.comp.keys[i].Term(), v.comp.vals[i].Term()}
		}
		return ast.NewObject(pairs...)
	}
	panic("an undefined value is no document")
}

// Term returns AST as a term.
func (v *Value) Term() *ast.Term { return ast.NewTerm(v.AST()) }

func (v *Value) terms() []*ast.Term {
	terms := make([]*ast.Term, len(v.comp.vals))
	for i := range terms {
		terms[i] = v.comp.vals[i].Term()
	}
	return terms
}
