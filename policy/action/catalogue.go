// Package action names the action that a request would perform, by catalogues of
// the services' own operations.
package action

import (
	"errors"
	"net/http"
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
	endpointComposite
	endpointCompositeBatch
	endpointCompositeGraph
	endpointAsana
)

// batchForms are the forms of requests that hold several.
var batchForms = map[string]endpoint{
	"multipart": endpointMultipart, "odata": endpointOData, "composite": endpointComposite,
	"composite-batch": endpointCompositeBatch, "composite-graph": endpointCompositeGraph, "asana": endpointAsana,
}

// specialPath is a template of such a path: "/services/data/{version}/composite".
type specialPath struct {
	segments []string
	endpoint endpoint
}

// endpoint tells who says what is asked at a path.
func (k *compiled) endpoint(path string) endpoint {
	if e := k.special[path]; e != endpointNone {
		return e
	}
	for i := range k.specials {
		if k.specials[i].match(path) {
			return k.specials[i].endpoint
		}
	}
	return endpointNone
}

func (p *specialPath) match(path string) bool {
	path = path[1:]
	for i, want := range p.segments {
		segment, rest, more := strings.Cut(path, "/")
		if segment == "" || !strings.HasPrefix(want, "{") && want != segment || more != (i < len(p.segments)-1) {
			return false
		}
		path = rest
	}
	return true
}

// enter makes a path special.
func (k *compiled) enter(path string, e endpoint) {
	if !strings.Contains(path, "{") {
		k.special[path] = e
		return
	}
	k.specials = append(k.specials, specialPath{strings.Split(strings.TrimPrefix(path, "/"), "/"), e})
}

// compiled is a service, or a part of one, ready to match.
type compiled struct {
	Service // of a part, under the service's name
	owner   *Service
	own     bool // the operator's alone: what it is made with is not known
	part    string
	prefix  string // "calendar." of the part calendar
	entry   *entry
	rules   []*rule
	bases   []string
	fold    map[string]bool
	query   map[string]bool // nil: any key may stand in the query
	special map[string]endpoint
	// specials are those with parameters in their path.
	specials []specialPath

	// filled by entry
	table table
	keyed map[string]*operation
	more  []extra
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
