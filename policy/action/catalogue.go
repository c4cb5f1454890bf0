// Package action names the action that a request would perform, by catalogues of
// the services' own operations.
package action

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"chaperone/policy"
)

var (
	// ErrAmbiguous is wrapped when a request can be read in more than one way, so
	// that what is decided might not be what the service does.
	ErrAmbiguous = errors.New("not one clear request")
	// ErrBodyCredential is wrapped when a body carries a credential.
	ErrBodyCredential = errors.New("the body carries a credential")
)

//go:embed catalogue
var shipped embed.FS

// Shipped returns the catalogue files that come with the program.
func Shipped() fs.FS {
	sub, err := fs.Sub(shipped, "catalogue")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return sub
}

// Catalogue names requests. It is immutable and safe for concurrent use.
type Catalogue struct {
	services []*compiled
	byName   map[string]*compiled
	exact    map[string]*host
	suffixes map[string]*host // "example.com" of *.example.com
}

// host is one name under which a service answers.
type host struct {
	service *compiled
	git     bool
}

// compiled is a service, ready to match.
type compiled struct {
	Service
	table   table
	rules   []*rule
	fold    map[string]bool
	graphql map[string]bool
}

// Load reads all catalogue files of files, and lays the operator's services over
// them. It reports every fault with its file.
func Load(files fs.FS, operator []Service) (*Catalogue, error) {
	byName := map[string]*Service{}
	var faults []error
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".json" {
			return err
		}
		s, err := parseFile(files, name)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
			return nil
		}
		lay(byName, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading catalogue: %w", err)
	}
	for i := range operator {
		lay(byName, &operator[i])
	}
	c := &Catalogue{byName: map[string]*compiled{}, exact: map[string]*host{}, suffixes: map[string]*host{}}
	for _, s := range byName {
		faults = append(faults, c.add(s))
	}
	for _, k := range c.services {
		faults = append(faults, c.addHosts(k))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	slices.SortFunc(c.services, func(a, b *compiled) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

func parseFile(files fs.FS, name string) (*Service, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	s := new(Service)
	if err := dec.Decode(s); err != nil {
		return nil, err
	}
	return s, nil
}

func lay(byName map[string]*Service, s *Service) {
	if old := byName[s.Name]; old != nil {
		s = old.merge(s)
	}
	byName[s.Name] = s
}

func (c *Catalogue) add(s *Service) error {
	if err := s.check(); err != nil {
		return err
	}
	k := &compiled{Service: *s, fold: map[string]bool{}, graphql: map[string]bool{}}
	for _, name := range s.Fold {
		k.fold[name] = true
	}
	for _, p := range s.GraphQL {
		k.graphql[p] = true
	}
	for _, r := range s.Resources {
		compiled, err := compileRule(r)
		if err != nil {
			return err
		}
		k.rules = append(k.rules, compiled)
	}
	if err := k.fill(); err != nil {
		return err
	}
	c.services = append(c.services, k)
	c.byName[s.Name] = k
	return nil
}

// fill builds the table.
func (k *compiled) fill() error {
	bases := k.Bases
	if len(bases) == 0 {
		bases = []string{""}
	}
	var faults []error
	for p, methods := range k.Paths {
		for method, row := range methods {
			op, err := k.operation(row)
			if err != nil {
				return err
			}
			faults = append(faults, k.enter(bases, p, method, op))
		}
	}
	return errors.Join(faults...)
}

// enter puts an operation into the table under every base.
func (k *compiled) enter(bases []string, path, method string, op *operation) error {
	for _, base := range bases {
		if err := k.table.add(base+path, method, op); err != nil {
			return fmt.Errorf("service %q: %w", k.Name, err)
		}
	}
	return nil
}

func (c *Catalogue) addHosts(k *compiled) error {
	var faults []error
	put := func(name string, h *host) {
		m := c.exact
		if suffix, ok := strings.CutPrefix(name, "*."); ok {
			m, name = c.suffixes, suffix
		}
		if old := m[name]; old != nil {
			faults = append(faults, fmt.Errorf("host %q belongs to %q and %q", name, old.service.Name, k.Name))
		}
		m[name] = h
	}
	for _, name := range k.Hosts {
		put(name, &host{service: k})
	}
	for _, name := range k.GitHosts {
		put(name, &host{service: k, git: true})
	}
	return errors.Join(faults...)
}

// host finds the service of a canonical host name: by the name itself, else by the
// longest suffix at a label boundary.
func (c *Catalogue) host(name string) *host {
	if h := c.exact[name]; h != nil {
		return h
	}
	for {
		i := strings.IndexByte(name, '.')
		if i < 0 {
			return nil
		}
		name = name[i+1:]
		if h := c.suffixes[name]; h != nil {
			return h
		}
	}
}

// ServiceFor returns the service of a canonical host name, or nil.
func (c *Catalogue) ServiceFor(name string) *Service {
	if h := c.host(name); h != nil {
		return &h.service.Service
	}
	return nil
}

// Service returns the service of that name, or nil.
func (c *Catalogue) Service(name string) *Service {
	if k := c.byName[name]; k != nil {
		return &k.Service
	}
	return nil
}

// Services returns all services by name.
func (c *Catalogue) Services() []*Service {
	out := make([]*Service, len(c.services))
	for i, k := range c.services {
		out[i] = &k.Service
	}
	return out
}

// Row is one operation of a service, for people.
type Row struct {
	Method string        `json:"method"`
	Path   string        `json:"path"`
	Action string        `json:"action"`
	Access policy.Access `json:"access"`
	Marks  []string      `json:"marks,omitempty"`
}

// Rows returns the operations of a service by path and method.
func (s *Service) Rows() []Row {
	var out []Row
	for p, methods := range s.Paths {
		for method, row := range methods {
			if op, err := s.operation(row); err == nil {
				out = append(out, Row{method, p, op.action.ID, op.action.Access, op.marks})
			}
		}
	}
	slices.SortFunc(out, func(a, b Row) int { return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method) })
	return out
}

// Request is what Classify looks at. Field names are canonical.
type Request struct {
	Method, Host   string // Host is canonical, without port
	Path, RawQuery string // escaped, as they will be sent
	Header         http.Header
	Body           []byte
	BodyState      policy.BodyState
}

// maxBody bounds what is read of a body to name the action, in bytes.
const maxBody = 256 << 10

// NeedsBody returns how many bytes of the body Classify wants to see; 0 when it
// names the action without.
func (c *Catalogue) NeedsBody(r *Request) int {
	h := c.host(r.Host)
	if h == nil {
		return 0
	}
	switch k := h.service; {
	case h.git && strings.HasSuffix(r.Path, "/git-receive-pack"):
		return maxCommands
	case k.graphql[r.Path], len(k.Arguments) > 0 && !h.git && hasArguments(r.Header):
		return maxBody
	}
	if mayOverride(r) {
		return maxBody
	}
	return 0
}

// mayOverride reports whether the body is a form, in which some frameworks look
// for another method.
func mayOverride(r *Request) bool {
	return r.Method == http.MethodPost && formOf(r.Header) == urlForm
}

// Classify fills in the action and resource of q, or its actions when they are
// several. A request that the catalogue does not name gets the unknown action; an
// error means that the request itself is not clear (it wraps [ErrAmbiguous]), or
// carries a credential in its body.
func (c *Catalogue) Classify(r *Request, q *policy.Question) error {
	h := c.host(r.Host)
	if err := checkPath(r.Path, h != nil && h.service.EncodedSlash); err != nil {
		return err
	}
	if err := checkQuery(r.RawQuery); err != nil {
		return err
	}
	if err := checkOverride(r); err != nil {
		return err
	}
	switch {
	case h == nil:
		q.Action = unknown("", "unknown_host")
		return nil
	case mayOverride(r) && r.BodyState == policy.BodyTruncated:
		q.Action = unknown(h.service.Name, "body")
		return nil
	case h.git:
		return h.service.git(r, q)
	case h.service.graphql[r.Path]:
		return h.service.graphQL(r, q)
	}
	return h.service.rest(r, q)
}

// checkOverride refuses requests that ask to be taken for another method: some
// frameworks honour these, and what was decided would not be what is done.
func checkOverride(r *Request) error {
	for _, name := range [...]string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X_http_method_override", "X_http_method", "X_method_override"} {
		if len(r.Header[name]) > 0 {
			return fmt.Errorf("%w: a method override", ErrAmbiguous)
		}
	}
	if overrides(r.RawQuery) || mayOverride(r) && overrides(string(r.Body)) {
		return fmt.Errorf("%w: a method override", ErrAmbiguous)
	}
	return nil
}

// overrides reports whether a form or query has a parameter _method.
func overrides(form string) bool {
	if !strings.Contains(form, "method") {
		return false
	}
	for pair := range strings.SplitSeq(form, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil && plain == "_method" {
			return true
		}
	}
	return false
}

// rest names an action by method and path.
func (k *compiled) rest(r *Request, q *policy.Question) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var m match
	if !k.table.find(method, r.Path, &m) {
		q.Action = unknown(k.Name, "no_route")
		return nil
	}
	q.Action = m.leaf.op.action
	params := make([]policy.Param, m.n, m.n+len(k.Arguments))
	for i := range params {
		name := m.leaf.params[i]
		params[i] = policy.Param{Name: name, Value: k.value(name, unescape(m.values[i]))}
	}
	if len(k.Arguments) > 0 {
		why, err := k.arguments(r, &params)
		if err != nil {
			return err
		}
		if why != "" {
			q.Action = unknown(k.Name, why)
			return nil
		}
	}
	q.Resource = k.resource(params)
	return nil
}

func (k *compiled) value(name, v string) string {
	if k.fold[name] {
		return strings.ToLower(v)
	}
	return v
}

// resource makes a resource of parameters: by the first rule that has all of its
// own, else of the last parameter.
func (k *compiled) resource(params []policy.Param) policy.Resource {
	r := policy.Resource{Params: params, Keys: anyResource}
	for _, rule := range k.rules {
		if id, ok := rule.apply(params); ok {
			r.Type, r.ID = rule.kind, id
			r.Keys = resourceKeys(id)
			return r
		}
	}
	if n := len(params); n > 0 {
		r.Type, r.ID = params[n-1].Name, params[n-1].Value
		r.Keys = resourceKeys(r.ID)
	}
	return r
}

var anyResource = []string{"*"}

// resourceKeys returns the patterns that cover an id, exact first.
func resourceKeys(id string) []string {
	keys := make([]string, 0, 4)
	keys = append(keys, id)
	for rest := id; ; {
		i := strings.LastIndexByte(rest, '/')
		if i <= 0 {
			return append(keys, "*")
		}
		keys = append(keys, rest[:i+1]+"*")
		rest = rest[:i]
	}
}

func (r *rule) apply(params []policy.Param) (string, bool) {
	var b strings.Builder
	for i, name := range r.names {
		at := slices.IndexFunc(params, func(p policy.Param) bool { return p.Name == name })
		if at < 0 || params[at].Value == "" {
			return "", false
		}
		if len(r.names) == 1 && r.seps[0] == "" {
			return params[at].Value, true
		}
		b.WriteString(r.seps[i])
		b.WriteString(params[at].Value)
	}
	return b.String(), true
}
