package action

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

//go:embed catalogue
var shipped embed.FS

// shippedFiles are files that the tests of this package have read whole: their
// operations are read when they are first asked for.
type shippedFiles struct{ fs.FS }

// Shipped returns the catalogue files that come with the program.
func Shipped() fs.FS {
	sub, err := fs.Sub(shipped, "catalogue")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return shippedFiles{sub}
}

// Parse reads one catalogue file. Every fault names the file, its line and the
// operation.
func Parse(file string, b []byte) (*Service, error) {
	s := new(Service)
	if err := json.Unmarshal(b, s, json.RejectUnknownMembers(true)); err != nil {
		return nil, misread(file, b, err)
	}
	s.where = func(api, path, method string) string { return file + ":" + strconv.Itoa(lineOf(b, api, path, method)) }
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// misread adds file and line to an error of the decoder.
func misread(file string, b []byte, err error) error {
	at, where := int64(0), jsontext.Pointer("")
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		at, where = e.ByteOffset, e.JSONPointer
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at, where = e.ByteOffset, e.JSONPointer
	}
	var place strings.Builder
	for token := range where.Tokens() {
		place.WriteString(token + " ")
	}
	return fmt.Errorf("%s:%d: %s%w", file, 1+bytes.Count(b[:min(at, int64(len(b)))], []byte("\n")), place.String(), err)
}

// lineOf returns the line on which the last of words stands as a JSON string, each
// looked for behind the one before.
func lineOf(b []byte, words ...string) int {
	at := 0
	for _, w := range words {
		if w == "" {
			continue
		}
		quoted, err := jsontext.AppendQuote(nil, w)
		if err != nil {
			break
		}
		i := bytes.Index(b[at:], quoted)
		if i < 0 {
			break
		}
		at += i
	}
	return 1 + bytes.Count(b[:at], []byte("\n"))
}

// head is a service whose operations are passed over.
type head struct {
	Service
	Paths jsontext.Value   `json:"paths"`
	Ops   jsontext.Value   `json:"ops"`
	APIs  map[string]*head `json:"apis"`
}

// parseHead reads a shipped file without its operations.
func parseHead(files fs.FS, name string) (*Service, error) {
	b, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, err
	}
	h := new(head)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, misread(name, b, err)
	}
	s := h.Service
	for part, api := range h.APIs {
		if s.APIs == nil {
			s.APIs = map[string]*Service{}
		}
		s.APIs[part] = &api.Service
	}
	s.whole = func() (*Service, error) { return parseFile(files, name) }
	return &s, s.check()
}

func parseFile(files fs.FS, name string) (*Service, error) {
	b, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, err
	}
	return Parse(name, b)
}

// Load reads all catalogue files of files, and lays the operator's services over
// them in their order. It reports every fault, always in the same order.
func Load(files fs.FS, operator []Service) (*Catalogue, error) {
	_, lazy := files.(shippedFiles)
	byName := map[string]*Service{}
	var faults []error
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".json" {
			return err
		}
		read := parseFile
		if lazy {
			read = parseHead
		}
		s, err := read(files, name)
		if err == nil {
			err = lay(byName, s)
		}
		faults = append(faults, err)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading catalogue: %w", err)
	}
	vendors := map[string]bool{}
	for name := range byName {
		vendors[name] = true
	}
	for i := range operator {
		vendors[operator[i].Name] = vendors[operator[i].Name] || vendors[operator[i].Like]
		faults = append(faults, lay(byName, &operator[i]))
	}
	c := &Catalogue{byName: map[string]*Service{}, hosts: newHosts()}
	for _, name := range sorted(byName) {
		faults = append(faults, c.add(byName[name], !vendors[name]))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return c, nil
}

// lay puts a service over one of the same name.
func lay(byName map[string]*Service, s *Service) error {
	old := byName[s.Name]
	if s.Like != "" {
		if old != nil {
			return s.fault("", "", "", fmt.Errorf("like is for a service that is not there yet"))
		}
		if old = byName[s.Like]; old == nil {
			return s.fault("", "", "", fmt.Errorf("like names %q, which is no service", s.Like))
		}
	}
	if old != nil && old.whole != nil {
		var err error
		if old, err = old.whole(); err != nil {
			return err
		}
	}
	if s.Like != "" {
		model := *old
		model.Name, model.Hosts, model.GitHosts, model.APIs, model.OwnHosts = s.Name, nil, nil, nil, false
		old = &model
	}
	if old != nil {
		s = old.merge(s)
	}
	byName[s.Name] = s
	return nil
}

// entry is what a service's parts share: the operations, read once.
type entry struct {
	once  sync.Once
	owner *Service
	own   bool
	parts map[string]*compiled // by name; "" is the service itself
	err   error
}

// add compiles a service with its parts and enters their hosts.
func (c *Catalogue) add(s *Service, own bool) error {
	if err := s.check(); err != nil {
		return err
	}
	e := &entry{owner: s, own: own, parts: map[string]*compiled{}}
	faults := []error{c.addPart(e, "", s)}
	for _, name := range sorted(s.APIs) {
		faults = append(faults, c.addPart(e, name, s.APIs[name]))
	}
	if s.whole == nil {
		faults = append(faults, e.fill())
	}
	c.services = append(c.services, s)
	c.byName[s.Name] = s
	return errors.Join(faults...)
}

func (c *Catalogue) addPart(e *entry, name string, s *Service) error {
	k := &compiled{Service: *s, owner: e.owner, own: e.own, part: name, entry: e, fold: map[string]bool{}, special: map[string]endpoint{}}
	k.Name = e.owner.Name
	if name != "" {
		k.prefix = name + "."
		k.Resources = slices.Concat(s.Resources, e.owner.Resources)
		k.Also = both(e.owner.Also, s.Also)
	}
	e.parts[name] = k
	for _, f := range slices.Concat(s.Fold, e.owner.Fold) {
		k.fold[f] = true
	}
	k.endpoints()
	for _, r := range k.Resources {
		compiled, err := compileRule(r)
		if err != nil {
			return err
		}
		k.rules = append(k.rules, compiled)
	}
	if len(s.Query) > 0 {
		k.query = map[string]bool{}
		for _, q := range s.Query {
			k.query[q] = true
		}
	}
	var faults []error
	for _, h := range s.Hosts {
		faults = append(faults, c.hosts.add(h, &host{service: k, api: true}))
	}
	for _, h := range s.GitHosts {
		faults = append(faults, c.hosts.add(h, &host{service: k, git: true}))
	}
	return errors.Join(faults...)
}

// endpoints enters the paths at which the body says what is asked.
func (k *compiled) endpoints() {
	for _, p := range k.GraphQL {
		k.enter(p, endpointGraphQL)
	}
	for _, p := range k.MCP {
		k.enter(p, endpointMCP)
	}
	for _, p := range k.JSONRPC {
		k.enter(p, endpointJSONRPC)
	}
	for _, p := range sorted(k.Batches) {
		k.enter(p, batchForms[k.Batches[p]])
	}
}

// fill reads the operations of a service and all its parts.
func (e *entry) fill() error {
	s := e.owner
	if s.whole != nil {
		var err error
		if s, err = s.whole(); err != nil {
			return err
		}
	}
	var faults []error
	patterns := map[string]string{}
	for _, name := range sorted(e.parts) {
		from := s
		if name != "" {
			from = s.APIs[name]
		}
		faults = append(faults, e.parts[name].fill(s, from, patterns))
	}
	return errors.Join(faults...)
}

// ready reports whether the operations are there, and reads them the first time.
func (k *compiled) ready() bool {
	e := k.entry
	e.once.Do(func() {
		if e.owner.whole != nil {
			e.err = e.fill()
		}
	})
	return e.err == nil
}

// fill builds the table. Strings that many operations have are kept once.
func (k *compiled) fill(root, from *Service, patterns map[string]string) error {
	if k.bases = from.Bases; len(k.bases) == 0 {
		k.bases = []string{""}
	}
	k.keyed = make(map[string]*operation, len(from.Ops))
	for key, row := range from.Ops {
		op, err := k.compile(row, patterns)
		if err != nil {
			return root.fault(k.part, key, "", err)
		}
		k.keyed[key] = op
	}
	if err := k.extras(patterns); err != nil {
		return root.fault(k.part, "", "", err)
	}
	var faults []error
	for _, p := range sorted(from.Paths) {
		for _, method := range sorted(from.Paths[p]) {
			op, err := k.compile(from.Paths[p][method], patterns)
			if err == nil {
				err = k.table.add(p, method, op)
			}
			if err != nil {
				faults = append(faults, root.fault(k.part, p, method, err))
			}
		}
	}
	for _, p := range sorted(from.Aliases) {
		if err := k.table.alias(p, from.Aliases[p]); err != nil {
			faults = append(faults, root.fault(k.part, p, "", err))
		}
	}
	return errors.Join(faults...)
}

// compile reads a row of the part.
func (k *compiled) compile(row string, patterns map[string]string) (*operation, error) {
	op, err := k.Service.operation(strings.TrimSpace(k.prefix + row))
	if err != nil {
		return nil, err
	}
	for i, key := range op.action.Keys[1:] {
		if old, ok := patterns[key]; ok {
			key = old
		}
		patterns[key] = key
		op.action.Keys[i+1] = key
	}
	return op, nil
}
