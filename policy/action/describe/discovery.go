package describe

import (
	"encoding/json"
	"slices"
	"strings"

	"chaperone/policy"
)

// discovery is a Google API discovery document.
type discovery struct {
	Name        string
	RootURL     string `json:"rootUrl"`
	ServicePath string `json:"servicePath"`
	Schemas     map[string]struct{ Properties map[string]json.RawMessage }
	discoveryResource
}

type discoveryResource struct {
	Methods   map[string]discoveryMethod
	Resources map[string]discoveryResource
}

type discoveryMethod struct {
	ID, Path   string
	FlatPath   string `json:"flatPath"`
	HTTPMethod string `json:"httpMethod"`
	Scopes     []string
	Parameters map[string]struct{ Pattern string }
	Response   struct {
		Ref string `json:"$ref"`
	}
	MediaUpload struct {
		Protocols map[string]struct{ Path string }
	} `json:"mediaUpload"`
}

func readDiscovery(d *Draft, b []byte, o *Options) ([]*Operation, error) {
	doc := new(discovery)
	if err := json.Unmarshal(b, doc); err != nil {
		return nil, err
	}
	host, _ := d.hostOf(doc.RootURL)
	if host != "" {
		d.Service.Hosts = []string{host}
	}
	d.named(o, doc.Name)
	d.Service.Places = []string{"bearer"}
	var ops []*Operation
	doc.walk(&doc.discoveryResource, &ops)
	return ops, nil
}

func (doc *discovery) walk(r *discoveryResource, ops *[]*Operation) {
	for _, name := range sorted(r.Methods) {
		m := r.Methods[name]
		op := &Operation{Method: m.HTTPMethod, Path: "/" + doc.ServicePath + m.template(), Name: m.ID, Published: readonly(m.Scopes), Returns: m.Response.Ref}
		op.Fields = sorted(doc.Schemas[m.Response.Ref].Properties)
		if verb := verbOf(m.ID); verb == "insert" || verb == "create" || verb == "send" || verb == "copy" || verb == "import" {
			op.Created = true // discovery has no status codes: the verb says it
		}
		if strings.HasSuffix(m.ID, "setIamPolicy") {
			op.Published = policy.AccessAdmin
		}
		*ops = append(*ops, op)
		for _, protocol := range sorted(m.MediaUpload.Protocols) {
			up := *op
			up.Path, up.Marks = strings.ReplaceAll(m.MediaUpload.Protocols[protocol].Path, "{+", "{"), []string{"upload"}
			*ops = append(*ops, &up)
		}
	}
	for _, name := range sorted(r.Resources) {
		sub := r.Resources[name]
		doc.walk(&sub, ops)
	}
}

// template prefers the path whose parameters are single segments: the path itself,
// with the documented names, else the flat path. {+x} without one stands for several
// segments.
func (m *discoveryMethod) template() string {
	single := true
	for _, p := range sorted(m.Parameters) {
		if strings.Contains(m.Path, "{+"+p+"}") && m.Parameters[p].Pattern != "^[^/]+$" {
			single = false
		}
	}
	if single {
		return strings.ReplaceAll(m.Path, "{+", "{")
	}
	if m.FlatPath != "" && !strings.Contains(m.FlatPath, "{+") {
		return m.FlatPath
	}
	p := m.Path
	for {
		i := strings.Index(p, "{+")
		if i < 0 {
			return p
		}
		end := strings.IndexByte(p[i:], '}')
		if end < 0 {
			return p // not a template: it is left out
		}
		j := i + end
		name, plus := p[i+2:j], "+"
		if pattern := m.Parameters[name].Pattern; pattern == "^[^/]+$" {
			plus = ""
		}
		p = p[:i] + "{" + name + plus + p[j:]
	}
}

// readonly says read when a scope that only reads is enough.
func readonly(scopes []string) policy.Access {
	if slices.ContainsFunc(scopes, func(s string) bool {
		return strings.Contains(s, "readonly") || strings.Contains(s, "read-only") || strings.Contains(s, "read_only")
	}) {
		return policy.AccessRead
	}
	return ""
}
