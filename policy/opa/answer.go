package opa

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"chaperone/policy"
	"chaperone/policy/opa/machine"
)

var (
	resultKey      = ast.StringTerm("result")
	reasonsKey     = ast.StringTerm("reasons")
	obligationsKey = ast.StringTerm("obligations")
)

// answer reads {"result", "reasons", "obligations"}; the last two may be absent.
func answer(v ast.Value) (policy.Answer, error) {
	object, ok := v.(ast.Object)
	if !ok {
		return policy.Answer{}, fmt.Errorf("%w: it is no object", ErrAnswer)
	}
	var a policy.Answer
	result, ok := valueOf(object, resultKey).(ast.String)
	if !ok {
		return a, fmt.Errorf("%w: result is no string", ErrAnswer)
	}
	switch a.Result = policy.Result(result); a.Result {
	case policy.Allow, policy.Deny, policy.Ask:
	default:
		return policy.Answer{}, fmt.Errorf("%w: result is none of allow, deny, ask", ErrAnswer)
	}
	var err error
	if a.Reasons, err = reasons(valueOf(object, reasonsKey)); err != nil {
		return policy.Answer{}, err
	}
	if o := valueOf(object, obligationsKey); o != nil {
		j, err := ast.JSON(o)
		obligations, ok := j.(map[string]any)
		if err != nil || !ok {
			return policy.Answer{}, fmt.Errorf("%w: obligations is no object", ErrAnswer)
		}
		if len(obligations) > 0 {
			a.Obligations = obligations
		}
	}
	return a, nil
}

func valueOf(o ast.Object, key *ast.Term) ast.Value {
	if t := o.Get(key); t != nil {
		return t.Value
	}
	return nil
}

// reasons reads an array or set of strings, a set in its order.
func reasons(v ast.Value) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.(interface{ Foreach(func(*ast.Term)) })
	if _, object := v.(ast.Object); !ok || object {
		return nil, fmt.Errorf("%w: reasons is no list", ErrAnswer)
	}
	var out []string
	var err error
	list.Foreach(func(t *ast.Term) {
		s, ok := t.Value.(ast.String)
		if !ok {
			err = fmt.Errorf("%w: a reason is no string", ErrAnswer)
		}
		out = append(out, string(s))
	})
	return out, err
}

// plainAnswer is answer for a value of the machine.
func plainAnswer(v *machine.Value) (policy.Answer, error) {
	result, list, obligations := v.Field("result"), v.Field("reasons"), v.Field("obligations")
	a := policy.Answer{Result: policy.Result(result.String())}
	usual := a.Result == policy.Allow || a.Result == policy.Deny || a.Result == policy.Ask
	usual = usual && (list.Kind() == machine.Array || list.Kind() == machine.Set)
	usual = usual && obligations.Kind() == machine.Object && obligations.Len() == 0
	if !usual {
		return answer(v.AST())
	}
	if list.Len() > 0 {
		a.Reasons = make([]string, 0, list.Len())
	}
	for _, r := range list.Elements() {
		if r.Kind() != machine.String {
			return policy.Answer{}, fmt.Errorf("%w: a reason is no string", ErrAnswer)
		}
		a.Reasons = append(a.Reasons, r.String())
	}
	return a, nil
}
