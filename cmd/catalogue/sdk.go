package main

import (
	"fmt"
	"iter"
	"path"
	"regexp"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// source is how an SDK that is generated from a description says method and path.
type source struct {
	name *regexp.Regexp // of a function: group 1
	call *regexp.Regexp // group "method" and "path"
	read *regexp.Regexp // a scope that only reads, in the comment before; nil: none is told
}

// callsOf reads a file from top to bottom: each call belongs to the function before.
func (s *source) callsOf(text string, each func(op *describe.Operation)) {
	name, published := "", policy.Access("")
	m, p := s.call.SubexpIndex("method"), s.call.SubexpIndex("path")
	for line := range strings.Lines(text) {
		if f := s.name.FindStringSubmatch(line); f != nil {
			name = f[1]
		}
		if s.read != nil && strings.Contains(line, "Required scope") {
			published = ""
			if s.read.MatchString(line) {
				published = policy.AccessRead
			}
		}
		if f := s.call.FindStringSubmatch(line); f != nil && name != "" {
			each(&describe.Operation{Method: strings.ToUpper(f[m]), Path: f[p], Name: name, Published: published})
		}
	}
}

func asana(w *work) error {
	w.Service = action.Service{
		Name: "asana", License: "Apache-2.0", Batches: map[string]string{"/api/1.0/batch": "asana"}, Hosts: []string{"app.asana.com/api"}, Env: []string{"ASANA_ACCESS_TOKEN", "ASANA_TOKEN"}, Places: []string{"bearer"},
		Resources: []action.ResourceRule{{Type: "task", ID: "{task_gid}"}, {Type: "project", ID: "{project_gid}"}, {Type: "section", ID: "{section_gid}"}, {Type: "workspace", ID: "{workspace_gid}"}},
	}
	files, err := w.npmFiles(asanaSDK, func(name string) bool {
		return strings.HasPrefix(name, "src/api/") && strings.HasSuffix(name, "Api.js")
	})
	if err != nil {
		return err
	}
	s := source{
		name: regexp.MustCompile(`^    (\w+?)(?:WithHttpInfo)?\(.*\) \{`),
		call: regexp.MustCompile(`^\s+'(?P<path>/[^']*)', '(?P<method>[A-Z]+)',`),
		read: regexp.MustCompile(`Required scope: [^a-z]*(?:&[a-z]+;[^a-z]*)*(?:/?b&gt;|/?code&gt;|&lt;|[^a-z])*[a-z_]+:read`),
	}
	var ops []*describe.Operation
	for _, name := range sorted(files) {
		group := kebab(strings.TrimSuffix(path.Base(name), "Api.js"))
		s.callsOf(string(files[name]), func(op *describe.Operation) {
			if op.Path == "/batch" {
				return // each part is decided
			}
			op.Path, op.Name = "/api/1.0"+op.Path, group+"/"+op.Name
			ops = append(ops, op)
		})
	}
	return w.operations(ops)
}

func hubSpot(w *work) error {
	w.Service = action.Service{
		Name: "hubspot", License: "Apache-2.0", Hosts: []string{"api.hubapi.com", "api-eu1.hubapi.com"}, Env: []string{"HUBSPOT_ACCESS_TOKEN", "HUBSPOT_PRIVATE_APP_TOKEN", "HUBSPOT_API_KEY"},
		Places: []string{"bearer"}, Handle: "pat-na1-",
		Resources: []action.ResourceRule{{Type: "contact", ID: "{contactId}"}, {Type: "company", ID: "{companyId}"}, {Type: "deal", ID: "{dealId}"}, {Type: "ticket", ID: "{ticketId}"}, {Type: "object", ID: "{objectType}/{objectId}"}, {Type: "object type", ID: "{objectType}"}},
	}
	files, err := w.npmFiles(hubSpotClient, func(name string) bool {
		return strings.HasPrefix(name, "lib/codegen/") && strings.HasSuffix(name, "Api.js")
	})
	if err != nil {
		return err
	}
	var ops []*describe.Operation
	for _, name := range sorted(files) {
		group := path.Dir(path.Dir(strings.TrimPrefix(name, "lib/codegen/")))
		group = strings.ReplaceAll(group, "/", ".") + "." + strings.ToLower(strings.TrimSuffix(path.Base(name), "Api.js"))
		ops = append(ops, hubSpotCalls(group, string(files[name]))...)
	}
	return w.operations(ops)
}

// hubSpotCalls reads a file in which a function names its path first and the method
// after it.
func hubSpotCalls(group, text string) []*describe.Operation {
	function := regexp.MustCompile(`^    (?:async )?(\w+)\(.*_options\) \{`)
	place := regexp.MustCompile(`const localVarPath = '(/[^']*)'`)
	method := regexp.MustCompile(`makeRequestContext\(localVarPath, http_1\.HttpMethod\.([A-Z]+)\)`)
	var ops []*describe.Operation
	name, at := "", ""
	for line := range strings.Lines(text) {
		if f := function.FindStringSubmatch(line); f != nil {
			name = f[1]
		}
		if f := place.FindStringSubmatch(line); f != nil {
			at = f[1]
		}
		if f := method.FindStringSubmatch(line); f != nil && name != "" && at != "" {
			ops = append(ops, &describe.Operation{Method: f[1], Path: at, Name: group + "." + name})
		}
	}
	return ops
}

func confluence(w *work) error {
	w.Service = action.Service{
		Name: "confluence", License: "MIT", Hosts: []string{"*.atlassian.net/wiki", "api.atlassian.com/ex/confluence"}, Env: []string{"CONFLUENCE_API_TOKEN", "ATLASSIAN_API_TOKEN"},
		Places: []string{"basic", "bearer"}, Handle: "ATATT3xFfGF0", Aliases: map[string]string{"/ex/confluence/{cloudId}/wiki": "/wiki"}, Context: []string{"cloudId"},
		Resources: []action.ResourceRule{{Type: "space", ID: "{spaceKey}"}, {Type: "space", ID: "{space_id}"}, {Type: "page", ID: "{page_id}"}, {Type: "page", ID: "{pageId}"}, {Type: "content", ID: "{contentId}"}, {Type: "content", ID: "{id}"}},
	}
	files, err := w.npmFiles(confluenceJS, func(name string) bool { return strings.HasPrefix(name, "src/api/") && strings.Count(name, "/") == 2 })
	if err != nil {
		return err
	}
	function := regexp.MustCompile(`^  async (\w+)<`)
	place := regexp.MustCompile("^\\s+url: ['`](/[^'`]*)['`]")
	method := regexp.MustCompile(`^\s+method: '([A-Z]+)'`)
	param := regexp.MustCompile(`\$\{parameters!?\??\.(\w+)\}`)
	var ops []*describe.Operation
	for _, file := range sorted(files) {
		name, at, group := "", "", kebab(strings.TrimSuffix(path.Base(file), ".ts"))
		for line := range strings.Lines(string(files[file])) {
			if f := function.FindStringSubmatch(line); f != nil {
				name = f[1]
			}
			if f := place.FindStringSubmatch(line); f != nil {
				at = "/wiki/rest" + param.ReplaceAllString(f[1], "{$1}")
			}
			if f := method.FindStringSubmatch(line); f != nil && at != "" && !strings.Contains(at, "$") {
				ops = append(ops, &describe.Operation{Method: f[1], Path: at, Name: group + "/" + name})
				at = ""
			}
		}
	}
	return w.operations(ops)
}

// linear reads the types of the SDK, which are made of the schema, and writes as
// much of a schema of them as is needed.
func linear(w *work) error {
	w.Service = action.Service{
		Name: "linear", License: "MIT", Hosts: []string{"api.linear.app"}, Env: []string{"LINEAR_API_KEY", "LINEAR_ACCESS_TOKEN"},
		Places: []string{"bearer", "header:Authorization"}, Handle: "lin_api_", GraphQL: []string{"/graphql"}, Refusal: "graphql",
	}
	files, err := w.npmFiles(linearSDK, func(name string) bool { return strings.HasSuffix(name, ".d.mts") })
	if err != nil {
		return err
	}
	types, inputs := map[string]string{}, map[string]string{}
	for _, file := range sorted(files) {
		typesOf(string(files[file]), types)
		inputsOf(string(files[file]), inputs)
	}
	if types["Query"] == "" || types["Mutation"] == "" {
		return fmt.Errorf("the SDK's types have no Query or Mutation")
	}
	var schema strings.Builder
	for _, name := range sorted(types) {
		if name == "Query" || name == "Mutation" || strings.HasSuffix(name, "Payload") || strings.Contains(types[name], "  id: ") {
			fields := types[name]
			if name == "Mutation" {
				fields = withArguments(fields, inputs)
			}
			fmt.Fprintf(&schema, "type %s {\n%s}\n", name, fields)
		}
	}
	for _, name := range sorted(inputs) {
		if strings.HasSuffix(name, "Input") {
			fmt.Fprintf(&schema, "input %s {\n%s}\n", name, inputs[name])
		}
	}
	return w.read("linear.graphql", []byte(schema.String()), w.options(""))
}

// typesOf adds the object types of TypeScript declarations, with their fields as a
// schema has them.
func typesOf(text string, types map[string]string) {
	field := regexp.MustCompile(`^  ([a-z]\w*)\??: (.*);`)
	name := regexp.MustCompile(`[A-Z]\w*`)
	for open, line := range declared(text, regexp.MustCompile(`^type (\w+) = (?:\w+ & )*\{`)) {
		f := field.FindStringSubmatch(line)
		if f == nil {
			continue
		}
		if kinds := name.FindAllString(strings.ReplaceAll(f[2], "Maybe", ""), -1); len(kinds) > 0 {
			types[open] += "  " + f[1] + ": " + kinds[len(kinds)-1] + "\n"
		}
	}
}

// declared are the lines inside of TypeScript declarations, each with the name in group 1
// of how its declaration begins.
func declared(text string, begin *regexp.Regexp) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		open := ""
		for line := range strings.Lines(text) {
			if f := begin.FindStringSubmatch(line); f != nil {
				open = f[1]
			}
			if strings.HasPrefix(line, "}") {
				open = ""
			}
			if open != "" && !yield(open, line) {
				return
			}
		}
	}
}

// inputsOf adds the arguments of mutations and the input types of TypeScript declarations,
// as a schema has them. An id there is a String: it is one by its name.
func inputsOf(text string, inputs map[string]string) {
	field := regexp.MustCompile(`^  (\w+)(\??): (.*);`)
	name := regexp.MustCompile(`[A-Z]\w*Input\b`)
	for open, line := range declared(text, regexp.MustCompile(`^type (Mutation\w+Args|\w+Input) = \{`)) {
		f := field.FindStringSubmatch(line)
		if f == nil {
			continue
		}
		kind := "Other"
		switch input := name.FindString(f[3]); {
		case strings.Contains(f[3], "Array<"):
		case f[1] == "id" && strings.HasSuffix(open, "Args"), strings.HasSuffix(f[1], "Id"):
			kind = "ID"
		case input != "":
			kind = input
		}
		if f[2] == "" {
			kind += "!"
		}
		inputs[open] += "  " + f[1] + ": " + kind + "\n"
	}
}

// withArguments gives a schema's mutations their arguments.
func withArguments(fields string, inputs map[string]string) string {
	var out strings.Builder
	for line := range strings.Lines(fields) {
		name, kind, _ := strings.Cut(strings.TrimSpace(line), ": ")
		arguments := strings.Join(strings.Split(strings.TrimSpace(inputs["Mutation"+strings.ToUpper(name[:1])+name[1:]+"Args"]), "\n"), ",")
		if arguments != "" {
			name += "(" + arguments + ")"
		}
		fmt.Fprintf(&out, "  %s: %s\n", name, kind)
	}
	return out.String()
}
