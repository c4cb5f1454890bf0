package opa

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.yaml.in/yaml/v3"
)

// Fault is one thing that is wrong with a policy.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Col     int    `json:"col,omitempty"`
	Message string `json:"message"`
	Text    string `json:"text,omitempty"`    // the line itself
	Rule    string `json:"rule,omitempty"`    // of the lint, that found it
	Warning bool   `json:"warning,omitempty"` // the policy works, but slowly or not as it reads
}

// Error says it with its place.
func (f Fault) Error() string { return f.place() + ": " + f.Message }

func (f Fault) place() string {
	place := f.File
	if f.Line > 0 {
		place += ":" + strconv.Itoa(f.Line)
	}
	if f.Col > 0 {
		place += ":" + strconv.Itoa(f.Col)
	}
	return place
}

// Faults are all that was found, in the order of files and lines.
type Faults []Fault

// Error lists them, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Col-b.Col, strings.Compare(a.Message, b.Message))
	})
}

// sources is a policy as it stands in files.
type sources struct {
	names   []string // sorted
	files   map[string][]byte
	modules map[string]*ast.Module
	data    map[string]any
	faults  Faults
}

// asides are folders beside the policy: they hold none of it.
var asides = map[string]bool{"schema": true, casesDir: true, "examples": true}

// read reads and parses all files, tests too when they are asked for.
func read(files fs.FS, tests bool) (*sources, error) {
	s := &sources{files: map[string][]byte{}, modules: map[string]*ast.Module{}, data: map[string]any{}}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (asides[name] || strings.HasPrefix(d.Name(), ".") && name != "."):
			return fs.SkipDir
		case d.IsDir(), !tests && strings.HasSuffix(name, "_test.rego"):
			return nil
		}
		switch path.Ext(name) {
		case ".rego", ".yaml", ".yml", ".json":
			b, err := fs.ReadFile(files, name)
			if err != nil {
				return err
			}
			s.names = append(s.names, name)
			s.files[name] = b
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	if len(s.names) == 0 {
		return nil, errors.New("reading policy: the folder holds no .rego file")
	}
	for _, name := range s.names {
		s.parse(name)
	}
	return s, nil
}

func (s *sources) parse(name string) {
	b := s.files[name]
	switch {
	case name == grantsFile:
		// kept out of the engine's data; see parseGrants
	case name == "chaperone/grants.yml", name == "chaperone/grants.json":
		s.faults = append(s.faults, Fault{File: name, Message: "grants are read from " + grantsFile + " only"})
	case strings.HasSuffix(name, ".rego"):
		m, err := ast.ParseModuleWithOpts(name, string(b), ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			s.faults = append(s.faults, regoFaults(s, err, nil)...)
			return
		}
		if m != nil {
			s.modules[name] = m
		}
	default:
		var v any
		var err error
		if path.Ext(name) == ".json" {
			err = json.Unmarshal(b, &v)
		} else {
			err = yaml.Unmarshal(b, &v)
		}
		if err == nil {
			err = put(s.data, dataPath(name), v)
		}
		if err != nil {
			s.faults = append(s.faults, yamlFaults(name, err)...)
		}
	}
}

// put merges a data document at its place.
func put(root map[string]any, at []string, v any) error {
	object, ok := v.(map[string]any)
	if !ok {
		if v == nil {
			return nil
		}
		return errors.New("a data file holds an object")
	}
	for _, name := range at {
		next, ok := root[name].(map[string]any)
		if !ok {
			next = map[string]any{}
			root[name] = next
		}
		root = next
	}
	for k, x := range object {
		if _, taken := root[k]; taken {
			return fmt.Errorf("%q is defined by another data file already", k)
		}
		root[k] = x
	}
	return nil
}

// denied are built-in functions that a policy has no use for on the path of a
// request: they reach outside, differ from call to call, or run long.
var denied = map[string]bool{
	"http.send": true, "net.lookup_ip_addr": true, "opa.runtime": true, "rego.parse_module": true, "rego.metadata.chain": true, "rego.metadata.rule": true,
	"trace": true, "rand.intn": true, "uuid.rfc4122": true, "time.now_ns": true, "io.jwt.encode_sign": true, "io.jwt.encode_sign_raw": true,
	"providers.aws.sign_req": true, "net.cidr_expand": true, "numbers.range": true, "numbers.range_step": true, "graph.reachable": true, "graph.reachable_paths": true,
	"regex.globs_match": true, "json.match_schema": true, "json.verify_schema": true,
}

func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return denied[b.Name] })
	c.AllowNet = []string{}
	return c
}

// compile compiles all modules strictly, with types where there is a schema.
func compile(src *sources, schema []byte) (*ast.Compiler, Faults) {
	faults := slices.Clone(src.faults)
	c := ast.NewCompiler().WithStrict(true).WithCapabilities(capabilities()).WithUseTypeCheckAnnotations(true).SetErrorLimit(0)
	if schema != nil {
		var v any
		if err := json.Unmarshal(schema, &v); err != nil {
			return nil, Faults{{File: "schema/input.json", Message: err.Error()}}
		}
		set := ast.NewSchemaSet()
		set.Put(ast.SchemaRootRef, v)
		set.Put(ast.MustParseRef("schema.input"), v) // as annotations, and so editors, name it
		c = c.WithSchemas(set)
	}
	if len(faults) == 0 {
		c.Compile(src.modules)
		faults = append(faults, regoFaults(src, c.Errors, parseSchema(schema))...)
	}
	if len(faults) == 0 && len(c.GetRulesExact(ast.MustParseRef(entry))) == 0 {
		faults = append(faults, Fault{File: src.names[0], Message: "the policy does not define " + entry + ", which answers every question"})
	}
	faults.sort()
	return c, faults
}

// regoFaults makes faults of OPA's errors.
func regoFaults(src *sources, err error, s *schema) Faults {
	var list ast.Errors
	if !errors.As(err, &list) {
		if err == nil {
			return nil
		}
		return Faults{{Message: err.Error()}}
	}
	var out Faults
	for _, e := range list {
		f := Fault{Message: e.Message}
		if e.Location != nil {
			f.File, f.Line, f.Col = e.Location.File, e.Location.Row, e.Location.Col
			if lines := strings.Split(string(src.files[f.File]), "\n"); f.Line > 0 && f.Line <= len(lines) {
				f.Text = lines[f.Line-1]
			}
		}
		f.Message += misspelt(e, &f, s)
		if name, ok := strings.CutPrefix(e.Message, "undefined function "); ok && denied[name] {
			f.Message = name + " may not be used in a policy: it reaches outside, differs from call to call, or runs long; the input holds time and documents"
		}
		out = append(out, f)
	}
	return out
}

// misspelt says which name was meant where a reference goes to none, and moves the
// fault to that name where it stands in the same line.
func misspelt(e *ast.Error, f *Fault, s *schema) string {
	d, ok := e.Details.(*ast.RefErrInvalidDetail)
	if !ok || d.Pos >= len(d.Ref) {
		return ""
	}
	var names []string
	for _, v := range d.OneOf {
		if s, ok := v.(ast.String); ok {
			names = append(names, string(s))
		}
	}
	t := d.Ref[d.Pos]
	if at := t.Location; at != nil && at.File == f.File && at.Row == f.Line && at.Col > f.Col {
		f.Col = at.Col
	}
	name, _ := t.Value.(ast.String)
	if text := meant(string(name), names); text != "" {
		return text
	}
	if path := s.find(string(name), 3); path != "" && name != "" {
		return "; did you mean input" + path + "?"
	}
	if slices.Sort(names); len(names) > 0 && len(names) <= 16 {
		return "; there is " + strings.Join(names, ", ")
	}
	return ""
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

// yamlFaults takes the lines out of the errors of a YAML decoder.
func yamlFaults(name string, err error) Faults {
	var out Faults
	for _, m := range yamlLine.FindAllStringSubmatch(err.Error(), -1) {
		n, _ := strconv.Atoi(m[1])
		out = append(out, Fault{File: name, Line: n, Message: m[2]})
	}
	if out == nil {
		out = Faults{{File: name, Message: err.Error()}}
	}
	return out
}
