package opa

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// schema is a JSON schema as far as paths go: which members there are.
type schema struct {
	Properties map[string]*schema `json:"properties"`
	Additional json.RawMessage    `json:"additionalProperties"`
	Items      *schema            `json:"items"`
	AnyOf      []*schema          `json:"anyOf"`
	Type       any                `json:"type"`
}

func parseSchema(b []byte) *schema {
	s := new(schema)
	if b == nil || json.Unmarshal(b, s) != nil {
		return nil
	}
	return s
}

// step goes one member down. It returns the members that would have been there, when
// name is none of them; a nil schema with no names holds anything.
func (s *schema) step(name string) (below *schema, others []string) {
	if s == nil {
		return nil, nil
	}
	var all []string
	for _, alternative := range s.AnyOf {
		below, others := alternative.step(name)
		if below != nil {
			return below, nil
		}
		all = append(all, others...)
	}
	if below, ok := s.Properties[name]; ok {
		return below, nil
	}
	if len(s.Properties) > 0 && s.Additional == nil {
		return nil, slices.Sorted(maps.Keys(s.Properties))
	}
	if s.Properties == nil && len(s.AnyOf) > 0 {
		return nil, all
	}
	var additional schema
	if s.Additional != nil && json.Unmarshal(s.Additional, &additional) == nil {
		return &additional, nil
	}
	return nil, nil
}

// missing walks a reference below s, and returns the first name that s has not, with
// those that it has. A variable or number goes into the items of a list.
func (s *schema) missing(path []*ast.Term) (name string, others []string) {
	for _, t := range path {
		if s == nil {
			return "", nil
		}
		key, constant := t.Value.(ast.String)
		if !constant {
			s = s.Items
			continue
		}
		below, others := s.step(string(key))
		if len(others) > 0 {
			return string(key), others
		}
		s = below
	}
	return "", nil
}

// at returns the schema at a path of constant names below s, or nil.
func (s *schema) at(path []*ast.Term) *schema {
	for _, t := range path {
		if s == nil {
			return nil
		}
		key, constant := t.Value.(ast.String)
		if !constant {
			s = s.Items
			continue
		}
		s, _ = s.step(string(key))
	}
	return s
}

// find returns where in s, at most so deep, a member of that name stands, as a path.
func (s *schema) find(name string, depth int) string {
	if s == nil || depth == 0 {
		return ""
	}
	if _, ok := s.Properties[name]; ok {
		return "." + name
	}
	for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
		if below := s.Properties[key].find(name, depth-1); below != "" {
			return "." + key + below
		}
	}
	for _, alternative := range s.AnyOf {
		if below := alternative.find(name, depth); below != "" {
			return below
		}
	}
	return ""
}

// dotted writes the constant start of a reference as authors do.
func dotted(ref ast.Ref) string {
	var parts []string
	for i, t := range ref {
		switch v := t.Value.(type) {
		case ast.Var:
			if i > 0 {
				return strings.Join(parts, ".")
			}
			parts = append(parts, string(v))
		case ast.String:
			parts = append(parts, string(v))
		default:
			return strings.Join(parts, ".")
		}
	}
	return strings.Join(parts, ".")
}

// named is the last name of a reference, as authors write it.
func named(ref ast.Ref) string {
	s, _ := ref[len(ref)-1].Value.(ast.String)
	return string(s)
}
