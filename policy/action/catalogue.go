// Package action names the action that a request would perform, by catalogues of
// the services' own operations.
package action

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
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

// Catalogue names requests. It is immutable and safe for concurrent use; the
// operations of a shipped service are read when it is first asked for.
type Catalogue struct {
	services []*Service // by name
	byName   map[string]*Service
	hosts    hosts
}

// endpoint is a path at which the body says what is asked.
type endpoint uint8

const (
	endpointNone endpoint = iota
	endpointGraphQL
	endpointMCP
	endpointJSONRPC
	endpointMultipart
	endpointOData
)

// compiled is a service, or a part of one, ready to match.
type compiled struct {
	Service // of a part, under the service's name
	owner   *Service
	part    string
	prefix  string // "calendar." of the part calendar
	entry   *entry
	rules   []*rule
	fold    map[string]bool
	query   map[string]bool // nil: any key may stand in the query
	special map[string]endpoint

	// filled by entry
	table table
	keyed map[string]*operation
}

// title names a service and its part, for people.
func (k *compiled) title() string {
	if k.part == "" {
		return k.Name
	}
	return k.Name + " " + k.part
}

// Knows reports whether any service answers at a canonical host name.
func (c *Catalogue) Knows(name string) bool {
	p, _ := c.hosts.place(name)
	return p != nil
}

// ServiceFor returns the service that answers at a canonical host name and an
// escaped path, or nil.
func (c *Catalogue) ServiceFor(name, path string) *Service {
	if h, _ := c.hosts.find(name, path); h != nil {
		return h.service.owner
	}
	return nil
}

// Service returns the service of that name, or nil.
func (c *Catalogue) Service(name string) *Service { return c.byName[name] }

// Services returns all services by name.
func (c *Catalogue) Services() []*Service { return slices.Clone(c.services) }

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
	h, _ := c.hosts.find(r.Host, r.Path)
	if h == nil {
		return 0
	}
	switch k := h.service; {
	case h.git && strings.HasSuffix(r.Path, "/git-receive-pack"):
		return maxCommands
	case k.special[r.Path] != endpointNone, len(k.Protocols) > 0 && formOf(r.Header) == urlForm, len(k.Arguments) > 0 && !h.git && hasArguments(r.Header):
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
	h, lead := c.hosts.find(r.Host, r.Path)
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
	case !h.service.ready():
		q.Action = unknown(h.service.Name, "catalogue")
		return nil
	}
	return h.service.classify(r, lead, q)
}

// classify names the action by what tells it at this path.
func (k *compiled) classify(r *Request, lead string, q *policy.Question) error {
	if len(k.special) > 0 {
		switch k.special[r.Path] {
		case endpointGraphQL:
			return k.graphQL(r, q)
		case endpointMCP:
			return k.mcp(r, q)
		case endpointJSONRPC:
			return k.jsonRPC(r, q)
		case endpointMultipart:
			return k.multipart(r, q)
		case endpointOData:
			return k.odata(r, q)
		}
	}
	if len(k.Protocols) > 0 {
		return k.aws(r, q)
	}
	if lead != "" {
		one := *r
		one.Path = "/" + lead + r.Path
		r = &one
	}
	return k.rest(r, q)
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
	m := match{query: r.RawQuery, header: r.Header}
	if !k.table.find(r.Method, r.Path, &m) && (r.Method != http.MethodHead || !k.table.find(http.MethodGet, r.Path, &m)) {
		q.Action = unknown(k.Name, "no_route")
		return nil
	}
	if k.query != nil && !k.understood(m.leaf, r.RawQuery) {
		q.Action = unknown(k.Name, "query")
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
