package describe

import (
	"encoding/json"
	"slices"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
)

// awsModel is an api-2.json of the AWS SDKs.
type awsModel struct {
	Metadata struct {
		Protocol     string
		Protocols    []string
		Endpoint     string `json:"endpointPrefix"`
		TargetPrefix string `json:"targetPrefix"`
		Signing      string `json:"signingName"`
	}
	Operations map[string]struct {
		HTTP struct {
			Method string
			URI    string `json:"requestUri"`
		}
		Input, Output struct{ Shape string }
	}
	Shapes map[string]struct {
		Required []string
		Member   struct{ Shape string }
		Members  map[string]struct {
			Location     string
			LocationName string `json:"locationName"`
			Shape        string
		}
	}
}

func readAWS(d *Draft, b []byte, o *Options) ([]*Operation, error) {
	m := new(awsModel)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, err
	}
	d.Service.Hosts = []string{m.Metadata.Endpoint + ".amazonaws.com", m.Metadata.Endpoint + ".*.amazonaws.com"}
	d.named(o, m.Metadata.Endpoint)
	d.Service.Places, d.Service.Signing, d.Service.Refusal = []string{"aws"}, m.Metadata.Endpoint, "aws"
	if m.Metadata.Signing != "" {
		d.Service.Signing = m.Metadata.Signing
	}
	protocols := m.Metadata.Protocols
	if len(protocols) == 0 {
		protocols = []string{m.Metadata.Protocol}
	}
	var ops []*Operation
	for _, protocol := range protocols {
		switch protocol {
		case "json":
			d.Service.Protocols = append(d.Service.Protocols, "aws-json")
		case "query", "ec2":
			d.Service.Protocols = append(d.Service.Protocols, "aws-query")
		case "rest-json", "rest-xml":
		default:
			d.note("the protocol %q is not read here; its requests are unknown", protocol)
			continue
		}
		for _, name := range sorted(m.Operations) {
			ops = append(ops, m.operation(protocol, name, o))
		}
	}
	return ops, nil
}

func (m *awsModel) operation(protocol, name string, o *Options) *Operation {
	x := m.Operations[name]
	op := &Operation{Method: "POST", Name: name, Published: o.Levels[strings.ToLower(name)], Verb: true}
	switch protocol {
	case "json":
		op.Key = m.Metadata.TargetPrefix + "." + name
	case "query", "ec2":
		op.Key = name
	default:
		op.Method, op.Path = x.HTTP.Method, m.template(name)
		op.Verb = op.Method != "GET" && op.Method != "HEAD"
	}
	m.inventory(op)
	if len(o.Arguments) > 0 && op.Key != "" {
		op.mark(action.MarkOn + strings.Join(m.takes(name, o.Arguments), ","))
	}
	return op
}

// takes returns those of the arguments that an operation's input has.
func (m *awsModel) takes(name string, arguments []string) (on []string) {
	in := m.Shapes[m.Operations[name].Input.Shape]
	for _, a := range arguments {
		for _, member := range sorted(in.Members) {
			if f := in.Members[member]; member == a || f.LocationName == a {
				on = append(on, a)
				break
			}
		}
	}
	return on
}

// template is the path of a REST operation, with the query keys and the headers
// that tell it from others on the same path.
func (m *awsModel) template(name string) string {
	x := m.Operations[name]
	path, query, _ := strings.Cut(x.HTTP.URI, "?")
	var need []string
	if query != "" {
		need = strings.Split(query, "&")
	}
	in := m.Shapes[x.Input.Shape]
	for _, r := range in.Required {
		if m.Metadata.Endpoint != "s3" {
			break // nowhere else do required parameters tell operations apart
		}
		switch f := in.Members[r]; {
		case f.Location == "querystring" && !slices.Contains(need, f.LocationName):
			need = append(need, f.LocationName)
		case f.Location == "header" && strings.HasPrefix(f.LocationName, "x-amz-copy-source"):
			need = append(need, "@"+f.LocationName)
		}
	}
	if len(need) > 0 {
		path += "?" + strings.Join(need, "&")
	}
	return path
}

// inventory pairs what creates with what deletes, by their names.
func (m *awsModel) inventory(op *Operation) {
	pairs := map[string][]string{"Create": {"Delete"}, "Put": {"Delete"}, "Run": {"Terminate"}, "Allocate": {"Release"}, "Attach": {"Detach"}, "Associate": {"Disassociate"},
		"Authorize": {"Revoke"}, "Register": {"Deregister"}, "Add": {"Remove"}, "Publish": {"Delete"}}
	for _, verb := range sorted(pairs) {
		noun, ok := strings.CutPrefix(op.Name, verb)
		if !ok || noun == "" || noun[0] < 'A' || noun[0] > 'Z' {
			continue
		}
		for _, undo := range pairs[verb] {
			if _, ok := m.Operations[undo+noun]; ok {
				op.mark(action.MarkCreates + m.id(op, undo+noun))
				op.mark(action.MarkUndo + undo + noun)
				return
			}
		}
		if verb == "Create" || verb == "Run" || verb == "Allocate" {
			op.mark(action.MarkCreates)
			op.mark("undeletable")
		}
	}
	for _, verb := range [...]string{"Delete", "Terminate", "Deregister", "Release"} {
		if strings.HasPrefix(op.Name, verb) {
			op.mark(action.MarkDeletes)
			op.Published = stronger(op.Published, policy.AccessDelete)
		}
	}
}

// id tells where the first required member of the deletion is found: in the answer
// of what creates, one envelope down, or in its own request (body:).
func (m *awsModel) id(op *Operation, remove string) string {
	if id := ownID(op.Path); op.Method == "PUT" && id != "" {
		return "=" + id
	}
	create := op.Name
	need := m.Shapes[m.Operations[remove].Input.Shape].Required
	if len(need) == 0 {
		return ""
	}
	in, out := m.Shapes[m.Operations[create].Input.Shape], m.Shapes[m.Operations[create].Output.Shape]
	member := need[len(need)-1]
	if _, ok := out.Members[member]; ok {
		return "=/" + member
	}
	for _, name := range sorted(out.Members) {
		inner := m.Shapes[out.Members[name].Shape]
		if _, ok := m.Shapes[inner.Member.Shape].Members[strings.TrimSuffix(member, "s")]; ok {
			return "=/" + name + "/*/" + strings.TrimSuffix(member, "s")
		}
		if _, ok := inner.Members[member]; ok {
			return "=/" + name + "/" + member
		}
	}
	if _, ok := in.Members[member]; ok {
		return "=body:/" + member
	}
	return ""
}
