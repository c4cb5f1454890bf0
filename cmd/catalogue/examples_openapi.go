package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"chaperone/policy/action/describe"
)

// object is a JSON object of a document.
type object = map[string]any

// shown is a document whose examples are read.
type shown struct {
	root object
	// urls are addresses that its answers show, by the template that they fit, as values.
	urls map[string]map[string]string
}

// documentExamples reads the examples of an OpenAPI document: requests whose parameters
// all have one, or stand in an address of an example answer.
func documentExamples(b []byte, ops []*describe.Operation) []example {
	var root object
	plain, err := describe.Plain(b)
	if err != nil || json.Unmarshal(plain, &root) != nil {
		return nil // another form
	}
	paths, _ := root["paths"].(object)
	d := &shown{root: root, urls: map[string]map[string]string{}}
	d.findURLs(paths)
	var out []example
	for _, path := range sorted(paths) {
		item, _ := paths[path].(object)
		for _, op := range ops {
			plain := strings.ReplaceAll(op.Path, "+}", "}")
			x, ok := item[strings.ToLower(op.Method)].(object)
			base, fits := strings.CutSuffix(plain, path)
			if !ok || !fits || strings.Contains(base, "{") || strings.Count(base, "/") > 2 {
				continue
			}
			if e, ok := d.example(item, x, path, op); ok {
				out = append(out, e)
			}
		}
	}
	return out
}

// example makes a request of an operation.
func (d *shown) example(item, x object, path string, op *describe.Operation) (example, bool) {
	values, query := map[string]string{}, url.Values{}
	for _, list := range []any{item["parameters"], x["parameters"]} {
		all, _ := list.([]any)
		for _, p := range all {
			p := d.resolve(p)
			name, _ := p["name"].(string)
			v := d.shownValue(p)
			switch {
			case v == "":
			case p["in"] == "path":
				values[name] = v
			case p["in"] == "query" && p["required"] == true:
				query.Set(name, v)
			}
		}
	}
	for name, v := range d.near(path) {
		if values[name] == "" {
			values[name] = v
		}
	}
	target, ok := fill(op.Path, values)
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	e := example{method: op.Method, target: target, name: op.Name}
	if body := d.body(x); body != "" && len(body) <= longestBody {
		e.fields, e.body = []string{"Content-Type: application/json"}, body
	}
	// where nothing is filled in, a list shows nothing that the template does not
	return e, ok && (strings.Contains(op.Path, "{") || e.body != "")
}

// resolve follows a reference within the document.
func (d *shown) resolve(x any) object {
	o, _ := x.(object)
	for range 8 {
		ref, ok := o["$ref"].(string)
		if !ok {
			break
		}
		var at any = d.root
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			inside, _ := at.(object)
			at = inside[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
		}
		o, _ = at.(object)
	}
	return o
}

// shownValue is the example of a parameter, or "".
func (d *shown) shownValue(p object) string {
	schema := d.resolve(p["schema"])
	for _, v := range []any{p["example"], d.first(p["examples"]), schema["example"], p["x-example"]} {
		switch v := v.(type) {
		case string:
			return v
		case float64, int:
			return fmt.Sprint(v)
		}
	}
	for _, list := range []any{schema["enum"], p["enum"]} {
		if all, ok := list.([]any); ok && len(all) > 0 {
			v, _ := all[0].(string)
			return v
		}
	}
	return ""
}

// first is the value of the first of several examples by name.
func (d *shown) first(x any) any {
	all, _ := x.(object)
	for _, name := range sorted(all) {
		return d.resolve(all[name])["value"]
	}
	return nil
}

// body is the example of a request's JSON body, or "".
func (d *shown) body(x object) string {
	content, _ := d.resolve(x["requestBody"])["content"].(object)
	media := d.resolve(content["application/json"])
	v := media["example"]
	if v == nil {
		v = d.first(media["examples"])
	}
	if _, ok := v.(object); !ok {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// findURLs notes the addresses in example answers that fit a template of the document.
func (d *shown) findURLs(paths object) {
	templates := sorted(paths)
	for _, path := range templates {
		item, _ := paths[path].(object)
		for _, method := range sorted(item) {
			x, _ := item[method].(object)
			responses, _ := x["responses"].(object)
			for _, code := range sorted(responses) {
				d.note(d.address(responses[code]), templates)
			}
		}
	}
}

// address is the url in the example of an answer, or "".
func (d *shown) address(response any) string {
	content, _ := d.resolve(response)["content"].(object)
	media := d.resolve(content["application/json"])
	answer, _ := d.first(media["examples"]).(object)
	if answer == nil {
		answer, _ = media["example"].(object)
	}
	address, _ := answer["url"].(string)
	return address
}

func (d *shown) note(address string, templates []string) {
	u, err := url.Parse(address)
	if err != nil || u.Path == "" {
		return
	}
	have := strings.Split(u.Path, "/")
	for _, t := range templates {
		want := strings.Split(t, "/")
		if d.urls[t] != nil || len(want) != len(have) {
			continue
		}
		values := map[string]string{}
		for i := range want {
			name, is := strings.CutPrefix(want[i], "{")
			if is {
				values[strings.TrimSuffix(name, "}")] = have[i]
			} else if want[i] != have[i] {
				values = nil
				break
			}
		}
		if len(values) > 0 {
			d.urls[t] = values
		}
	}
}

// near are the values of an address that fits a template, or one below it.
func (d *shown) near(template string) map[string]string {
	if v := d.urls[template]; v != nil {
		return v
	}
	for _, t := range sorted(d.urls) {
		if strings.HasPrefix(t, template+"/") {
			return d.urls[t]
		}
	}
	return nil
}
