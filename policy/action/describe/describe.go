// Package describe reads the descriptions that vendors publish of their APIs
// (OpenAPI, Swagger, Google discovery, AWS models, Stainless listings, GraphQL
// schemas, protobuf descriptors) and makes a service of them for
// [chaperone/policy/action]. Its inputs are files of the operator's or of the
// catalogue's makers, never traffic.
package describe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
)

// ErrFormat is wrapped when a file is of no form that is known here.
var ErrFormat = errors.New("the description is of no known form")

// Options say what the description itself does not.
type Options struct {
	Service string   // name of the service; "" takes the file's
	Hosts   []string // nil takes the description's
	Prefix  string   // put in front of every path
	// Keep picks operations, before they are named; nil keeps all.
	Keep func(*Operation) bool
	// Rename gives an operation its name; nil keeps the description's.
	Rename func(*Operation) string
	// Levels are published access levels by name, for forms that hold none (AWS).
	Levels map[string]policy.Access
	// Arguments are the service's (see [action.Service]), for forms that say which an
	// operation takes (AWS).
	Arguments []string
	// Adjust sees every operation last, and may raise its level or add marks.
	Adjust func(*Operation)
}

// Operation is one operation of a description. It belongs to one goroutine.
type Operation struct {
	Method, Path string
	Name         string
	Tag          string        // the description's group of it
	Key          string        // how a protocol names it, where the path does not
	Published    policy.Access // what the description says of its level, or ""
	Access       policy.Access // what it is taken for
	Returns      string        // the type of its answer
	Fields       []string      // the answer's own fields
	Created      bool          // answers 201
	Marks        []string
	single       bool // a query that answers with one thing
	unnamed      bool // the description names it not
	Verb         bool // the name alone says what it does: every request is a POST
}

// Draft is a service ready for review.
type Draft struct {
	Service action.Service
	Notes   []string // what could not be taken over, or wants a look
}

// reader reads one form. It fills d and returns the operations.
type reader func(d *Draft, b []byte, o *Options) ([]*Operation, error)

// Read makes a service of one description. The form is told from the content;
// errors name the file, and the line and operation where there is one.
func Read(file string, b []byte, o Options) (*Draft, error) {
	d := &Draft{}
	d.Service.Name = o.Service
	if d.Service.Name == "" {
		d.Service.Name = plainName(strings.TrimSuffix(path.Base(file), path.Ext(file)))
	}
	read, b, err := form(file, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	ops, err := read(d, b, &o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, located(b, err))
	}
	d.head(&o)
	d.finish(ops, &o)
	if len(d.Service.Paths)+len(d.Service.Ops) == 0 {
		return nil, fmt.Errorf("%s: %w: no operation in it", file, ErrFormat)
	}
	return d, nil
}

// From makes a service of operations that were gathered elsewhere.
func From(ops []*Operation, o Options) *Draft {
	d := &Draft{Service: action.Service{Name: o.Service, Hosts: o.Hosts}}
	d.finish(ops, &o)
	return d
}

// form tells what a file is, and turns YAML into JSON.
func form(file string, b []byte) (reader, []byte, error) {
	switch ext := path.Ext(file); {
	case ext == ".graphql" || ext == ".graphqls" || ext == ".gql":
		return readGraphQL, b, nil
	case ext == ".md":
		return readStainless, b, nil
	case ext == ".pb" || ext == ".binpb" || ext == ".protoset":
		return readProto, b, nil
	}
	if trimmed := bytes.TrimSpace(b); len(trimmed) == 0 || trimmed[0] != '{' {
		plain, err := fromYAML(b)
		if err != nil {
			return nil, nil, err
		}
		b = plain
	}
	var head struct {
		OpenAPI, Swagger string
		Kind             string
		Metadata         *struct{ Protocol string }
		Discovery        string `json:"discoveryVersion"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, nil, located(b, err)
	}
	switch {
	case head.OpenAPI != "" || head.Swagger != "":
		return readOpenAPI, b, nil
	case head.Kind == "discovery#restDescription" || head.Discovery != "":
		return readDiscovery, b, nil
	case head.Metadata != nil && head.Metadata.Protocol != "":
		return readAWS, b, nil
	}
	return nil, nil, fmt.Errorf("%w: neither OpenAPI, discovery nor an AWS model", ErrFormat)
}

// located adds the line to an error of encoding/json.
func located(b []byte, err error) error {
	at := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var place *operationError
	switch {
	case errors.As(err, &place):
		at = int64(bytes.Index(b, []byte(place.path)))
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &kind):
		at = kind.Offset
	}
	if at < 0 || at > int64(len(b)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(b[:at], []byte("\n")), err)
}

// operationError is a fault in one operation.
type operationError struct {
	method, path string
	err          error
}

func (e *operationError) Error() string { return e.method + " " + e.path + ": " + e.err.Error() }
func (e *operationError) Unwrap() error { return e.err }

// plainName makes a service name of any text.
func plainName(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, s)
	return strings.Trim(name, "-")
}

// plainOperation makes an operation name of any text.
func plainOperation(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("_.:@/-", r):
			return r
		}
		return '-'
	}, s)
	return strings.Trim(name, "-")
}

// finish names, judges and enters the operations, in an order of its own.
func (d *Draft) finish(ops []*Operation, o *Options) {
	kept := ops[:0]
	for _, op := range ops {
		if op.Path != "" {
			op.Path = o.Prefix + op.Path
		}
		if o.Keep != nil && !o.Keep(op) {
			continue
		}
		if o.Rename != nil {
			op.Name = o.Rename(op)
		}
		if op.Name = plainOperation(op.Name); op.Name == "" {
			op.Name, op.unnamed = NameOf(op.Method, op.Path), true
		}
		if why := unfit(op); why != "" {
			d.note("%s %s (%s): %s; left out, so unknown", op.Method, op.Path, op.Name, why)
			continue
		}
		kept = append(kept, op)
	}
	slices.SortStableFunc(kept, func(a, b *Operation) int {
		return strings.Compare(a.Path+" "+a.Method+" "+a.Key+" "+a.Name, b.Path+" "+b.Method+" "+b.Key+" "+b.Name)
	})
	inventory(kept)
	seen := map[string]*Operation{}
	for _, op := range kept {
		op.judge()
		if o.Adjust != nil {
			o.Adjust(op)
		}
		d.enter(op, seen)
	}
	d.write(seen)
}

// enter keeps the strongest of several operations on one request.
func (d *Draft) enter(op *Operation, seen map[string]*Operation) {
	key := op.Method + " " + Shape(op.Path)
	if op.Key != "" {
		key = "key " + op.Key
	}
	old := seen[key]
	if old == nil {
		seen[key] = op
		return
	}
	if action.Stronger(op.Access, old.Access) {
		seen[key], op, old = op, old, op
	}
	if op.Name != old.Name {
		d.note("%s %s: %s and %s are the same request; %s stands for both", op.Method, op.Path, old.Name, op.Name, old.Name)
	}
}

func (d *Draft) write(seen map[string]*Operation) {
	maybe := 0
	for _, op := range seen {
		row := strings.Join(append([]string{op.Name, string(op.Access)}, op.Marks...), " ")
		if slices.Contains(op.Marks, "maybe-read") {
			maybe++
		}
		if op.Key != "" {
			if d.Service.Ops == nil {
				d.Service.Ops = map[string]string{}
			}
			d.Service.Ops[op.Key] = row
			continue
		}
		if d.Service.Paths == nil {
			d.Service.Paths = map[string]map[string]string{}
		}
		if d.Service.Paths[op.Path] == nil {
			d.Service.Paths[op.Path] = map[string]string{}
		}
		d.Service.Paths[op.Path][op.Method] = row
	}
	if maybe > 0 {
		d.note("%d operations may only read (marked maybe-read) and count as writes until somebody says otherwise", maybe)
	}
}

func (d *Draft) note(format string, args ...any) {
	d.Notes = append(d.Notes, fmt.Sprintf(format, args...))
}

// Shape is a path template without its parameters' names: what two templates have
// in common that take the same requests.
func Shape(template string) string {
	var b strings.Builder
	inside := false
	for i, r := range template {
		switch {
		case r == '{':
			inside = true
			b.WriteByte('{')
		case r == '}':
			inside = false
			if template[i-1] == '+' {
				b.WriteByte('+')
			}
			b.WriteByte('}')
		case !inside:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unfit tells why a template cannot be matched, or "".
func unfit(op *Operation) string {
	if op.Key != "" {
		return ""
	}
	plain, query, _ := strings.Cut(op.Path, "?")
	if !strings.HasPrefix(plain, "/") {
		return "the path does not begin with /"
	}
	if strings.ContainsAny(plain, "#;\\ ") || strings.Contains(plain, "//") || strings.ContainsAny(query, "# ") {
		return "the path has characters that are not matched"
	}
	for segment := range strings.SplitSeq(plain[1:], "/") {
		open, end := strings.IndexByte(segment, '{'), strings.LastIndexByte(segment, '}')
		if open < 0 && end < 0 {
			continue
		}
		if end < open || open < 0 || strings.Count(segment, "{") > 1 || strings.Count(segment, "}") > 1 || end == open+1 {
			return "a segment with several parameters"
		}
	}
	if strings.Count(plain, "{") > 12 || strings.Count(plain, "/") > 32 {
		return "too many parameters or segments"
	}
	return ""
}

// hostsOf takes a host out of a server's URL; one with variables is noted.
func (d *Draft) hostOf(raw string) (host, base string) {
	u, err := url.Parse(raw)
	if err != nil || strings.Contains(raw, "{") {
		d.note("the server %q has variables or cannot be read: give --host", raw)
		if _, after, ok := strings.Cut(raw, "://"); ok {
			if i := strings.IndexByte(after, '/'); i >= 0 && !strings.Contains(after[i:], "{") {
				return "", strings.TrimRight(after[i:], "/")
			}
		}
		return "", ""
	}
	return strings.ToLower(u.Hostname()), strings.TrimRight(u.Path, "/")
}
