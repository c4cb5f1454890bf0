package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// awsShape is one of the forms of an AWS model.
type awsShape struct {
	Type      string
	Flattened bool
	Member    struct {
		Shape        string
		LocationName string `json:"locationName"`
	}
	Members map[string]struct {
		Location     string
		LocationName string `json:"locationName"`
		QueryName    string `json:"queryName"`
		Shape        string
	}
}

// awsModel is what a request takes of an api-2.json.
type awsModel struct {
	Metadata struct {
		Protocol, APIVersion string
		TargetPrefix         string `json:"targetPrefix"`
		JSONVersion          string `json:"jsonVersion"`
	}
	Operations map[string]struct {
		HTTP struct {
			Method string
			URI    string `json:"requestUri"`
		}
		Input struct{ Shape string }
	}
	Shapes map[string]awsShape
}

// awsExamples reads AWS's examples-1.json, an input for each, and writes it as the
// service's protocol does.
func (w *work) awsExamples(model string, api []byte) error {
	b, err := w.goFile(awsSDK, "models/apis/"+model+"/examples-1.json")
	if err != nil {
		return err
	}
	m := new(awsModel)
	var file struct {
		Examples map[string][]struct{ Input map[string]any }
	}
	if err := json.Unmarshal(api, m); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return err
	}
	for _, name := range sorted(file.Examples) {
		for _, x := range file.Examples[name] {
			e, ok := m.request(name, x.Input)
			if e.name, e.source = name, w.cited[len(w.cited)-1]; ok && len(e.body) <= longestBody {
				w.examples = append(w.examples, e)
			}
		}
	}
	return nil
}

func (m *awsModel) request(name string, in map[string]any) (example, bool) {
	op, known := m.Operations[name]
	switch m.Metadata.Protocol {
	case "json":
		if in == nil {
			in = map[string]any{}
		}
		b, err := json.Marshal(in)
		fields := []string{"Content-Type: application/x-amz-json-" + m.Metadata.JSONVersion, "X-Amz-Target: " + m.Metadata.TargetPrefix + "." + name}
		return example{method: "POST", target: "/", fields: fields, body: string(b)}, known && err == nil
	case "query", "ec2":
		form := url.Values{"Action": {name}, "Version": {m.Metadata.APIVersion}}
		m.form(form, "", op.Input.Shape, in)
		return example{method: "POST", target: "/", fields: []string{"Content-Type: application/x-www-form-urlencoded"}, body: form.Encode()}, known
	}
	return m.rest(op.HTTP.Method, op.HTTP.URI, m.Shapes[op.Input.Shape], in)
}

// form writes members under the names of the query protocol: lists are NAME.1, of the
// older protocol NAME.member.1.
func (m *awsModel) form(form url.Values, prefix, shape string, x any) {
	s := m.Shapes[shape]
	switch x := x.(type) {
	case map[string]any:
		for _, name := range sorted(x) {
			f, value := s.Members[name], x[name]
			switch {
			case m.Metadata.Protocol != "ec2":
			case f.QueryName != "":
				name = f.QueryName
			case f.LocationName != "":
				name = strings.ToUpper(f.LocationName[:1]) + f.LocationName[1:]
			}
			m.form(form, prefix+"."+name, f.Shape, value)
		}
	case []any:
		for i, one := range x {
			between := ".member."
			if m.Metadata.Protocol == "ec2" || s.Flattened {
				between = "."
			}
			m.form(form, fmt.Sprint(prefix, between, i+1), s.Member.Shape, one)
		}
	default:
		form.Set(strings.TrimPrefix(prefix, "."), fmt.Sprint(x))
	}
}

// rest writes a request by the places that the model gives to members.
func (m *awsModel) rest(method, uri string, s awsShape, in map[string]any) (example, bool) {
	path, query, _ := strings.Cut(uri, "?")
	values, keys := map[string]string{}, []string{}
	if query != "" {
		keys = append(keys, query)
	}
	e := example{method: method}
	for _, name := range sorted(in) {
		f, v := s.Members[name], fmt.Sprint(in[name])
		switch f.Location {
		case "uri":
			values[f.LocationName] = v
		case "querystring":
			keys = append(keys, f.LocationName+"="+url.QueryEscape(v))
		case "header":
			e.fields = append(e.fields, f.LocationName+": "+v)
		}
	}
	target, ok := fill(path, values)
	if e.target = target; len(keys) > 0 {
		e.target += "?" + strings.Join(keys, "&")
	}
	return e, ok
}
