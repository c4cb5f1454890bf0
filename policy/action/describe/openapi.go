package describe

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"chaperone/policy"
)

// openAPI is as much of an OpenAPI 3 or Swagger 2 document as a catalogue needs.
type openAPI struct {
	Info       struct{ Title string }
	Host       string
	BasePath   string
	Servers    []struct{ URL string }
	Paths      map[string]map[string]json.RawMessage
	Parameters map[string]parameter
	Responses  map[string]response
	Components struct {
		Parameters map[string]parameter
		Responses  map[string]response
		Schemas    map[string]*schema
		Security   map[string]securityScheme `json:"securitySchemes"`
	}
	Definitions map[string]*schema
	Security    map[string]securityScheme `json:"securityDefinitions"`
}

type parameter struct {
	Name, In     string
	Ref          string `json:"$ref"`
	MultiSegment bool   `json:"x-multi-segment"`
}

type response struct {
	Ref     string `json:"$ref"`
	Schema  *schema
	Content map[string]struct{ Schema *schema }
}

type schema struct {
	Ref        string `json:"$ref"`
	Properties map[string]json.RawMessage
	AllOf      []*schema
}

type openAPIOperation struct {
	OperationID string `json:"operationId"`
	Deprecated  bool
	Tags        []string
	Parameters  []parameter
	Responses   map[string]json.RawMessage
	Security    []map[string][]string
	Permission  struct{ Permissions []string } `json:"x-permission"`
	GitHub      struct {
		TriggersNotification bool
	} `json:"x-github"`
}

func readOpenAPI(d *Draft, b []byte, o *Options) ([]*Operation, error) {
	doc := new(openAPI)
	if err := json.Unmarshal(b, doc); err != nil {
		return nil, err
	}
	base := d.servers(doc)
	d.named(o, doc.Info.Title)
	d.places(doc.Components.Security)
	d.places(doc.Security)
	var ops []*Operation
	for _, path := range sorted(doc.Paths) {
		item := doc.Paths[path]
		var shared []parameter
		if raw := item["parameters"]; raw != nil {
			if err := json.Unmarshal(raw, &shared); err != nil {
				return nil, &operationError{"parameters of", path, err}
			}
		}
		for _, method := range sorted(item) {
			switch method {
			case "get", "put", "post", "delete", "patch", "head":
			default:
				continue
			}
			x := new(openAPIOperation)
			if err := json.Unmarshal(item[method], x); err != nil {
				return nil, &operationError{strings.ToUpper(method), path, err}
			}
			op := doc.operation(strings.ToUpper(method), path, x, append(shared, x.Parameters...))
			op.Path = base + op.Path
			ops = append(ops, op)
		}
	}
	return ops, nil
}

// servers takes the hosts and the paths' beginning.
func (d *Draft) servers(doc *openAPI) (base string) {
	if doc.Host != "" {
		d.Service.Hosts = []string{strings.ToLower(doc.Host)}
	}
	base = strings.TrimRight(doc.BasePath, "/")
	for i, s := range doc.Servers {
		host, at := d.hostOf(s.URL)
		if i == 0 {
			base = at
		} else if at != base {
			d.note("the server %q has another path than the first; its operations are taken from the first", s.URL)
			continue
		}
		if host != "" && !slices.Contains(d.Service.Hosts, host) {
			d.Service.Hosts = append(d.Service.Hosts, host)
		}
	}
	if len(d.Service.Hosts) == 0 {
		d.note("the description names no host: give --host")
	}
	return base
}

func (doc *openAPI) operation(method, path string, x *openAPIOperation, params []parameter) *Operation {
	path, _, _ = strings.Cut(path, "#")
	for _, p := range params {
		if p.Ref != "" {
			name := lastPart(p.Ref)
			if known, ok := doc.Components.Parameters[name]; ok {
				p = known
			} else {
				p = doc.Parameters[name]
			}
		}
		if p.MultiSegment && p.In == "path" {
			path = strings.Replace(path, "{"+p.Name+"}", "{"+p.Name+"+}", 1)
		}
	}
	op := &Operation{Method: method, Path: path, Name: x.OperationID}
	if len(x.Tags) > 0 {
		op.Tag = x.Tags[0]
	}
	if x.GitHub.TriggersNotification {
		op.mark("notify")
	}
	if x.Deprecated {
		op.mark("deprecated")
	}
	op.Published = published(x)
	for _, code := range sorted(x.Responses) {
		if len(code) == 3 && code[0] == '2' {
			op.Created = op.Created || code == "201"
			var r response
			if json.Unmarshal(x.Responses[code], &r) == nil {
				doc.answer(op, &r)
			}
		}
	}
	return op
}

// published reads a level out of scopes and permissions: read when one of them
// says so, else nothing; they never lower what is inferred.
func published(x *openAPIOperation) policy.Access {
	scopes := slices.Clone(x.Permission.Permissions)
	for _, s := range x.Security {
		for _, name := range sorted(s) {
			scopes = append(scopes, s[name]...)
		}
	}
	level := policy.Access("")
	for _, s := range scopes {
		words := Words(s)
		switch {
		case slices.Contains(words, "admin"):
			return policy.AccessAdmin
		case slices.Contains(words, "read") || slices.Contains(words, "readonly"):
			level = policy.AccessRead
		}
	}
	return level
}

// answer takes the type of a response and its own fields, those of one envelope too.
func (doc *openAPI) answer(op *Operation, r *response) {
	if r.Ref != "" {
		name := lastPart(r.Ref)
		known, ok := doc.Components.Responses[name]
		if !ok {
			known = doc.Responses[name]
		}
		r = &known
	}
	s := r.Schema
	for _, kind := range sorted(r.Content) {
		if s == nil || kind == "application/json" {
			s = r.Content[kind].Schema
		}
	}
	if s == nil || op.Returns != "" {
		return
	}
	op.Returns = lastPart(s.Ref)
	op.Fields = doc.fields(s, "", 0)
	slices.Sort(op.Fields)
}

func (doc *openAPI) fields(s *schema, prefix string, depth int) []string {
	for range 4 {
		if s == nil || s.Ref == "" {
			break
		}
		name := lastPart(s.Ref)
		if s = doc.Components.Schemas[name]; s == nil {
			s = doc.Definitions[name]
		}
	}
	if s == nil || depth > 3 {
		return nil
	}
	var out []string
	for _, name := range sorted(s.Properties) {
		out = append(out, prefix+name)
		var inner schema
		if prefix == "" && len(s.Properties) <= 3 && json.Unmarshal(s.Properties[name], &inner) == nil {
			out = append(out, doc.fields(&inner, name+".", depth+1)...)
		}
	}
	for _, part := range s.AllOf {
		out = append(out, doc.fields(part, prefix, depth+1)...)
	}
	return out
}

func lastPart(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// Plain returns a description as JSON, which it may be already or be YAML.
func Plain(b []byte) ([]byte, error) {
	if json.Valid(b) {
		return b, nil
	}
	return fromYAML(b)
}

// fromYAML turns YAML into JSON. Keys that are no text become text, as JSON would
// have them.
func fromYAML(b []byte) ([]byte, error) {
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	if _, ok := v.(map[string]any); !ok {
		if _, ok = v.(map[any]any); !ok {
			return nil, fmt.Errorf("%w: neither JSON nor YAML with members", ErrFormat)
		}
	}
	return json.Marshal(textKeys(v))
}

func textKeys(v any) any {
	switch v := v.(type) {
	case map[any]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[fmt.Sprint(k)] = textKeys(x)
		}
		return out
	case map[string]any:
		for k, x := range v {
			v[k] = textKeys(x)
		}
	case []any:
		for i, x := range v {
			v[i] = textKeys(x)
		}
	}
	return v
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
