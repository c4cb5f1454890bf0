package action

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"chaperone/policy"
)

// Service is a SaaS API as catalogues and configurations describe it.
type Service struct {
	Name    string `json:"service" yaml:"service"`
	Source  string `json:"source,omitempty" yaml:"source"`   // package, version and digest that it was made from
	License string `json:"license,omitempty" yaml:"license"` // of the source
	// Hosts are names, or *.suffix for all names below a suffix.
	Hosts []string `json:"hosts,omitempty" yaml:"hosts"`
	// GitHosts speak git's smart HTTP protocol at /{owner}/{repo}.git.
	GitHosts []string `json:"git_hosts,omitempty" yaml:"git_hosts"`
	// Bases are path prefixes under which the paths may stand; "" when absent.
	Bases []string `json:"bases,omitempty" yaml:"bases"`
	// Env are the variables in which clients look for the credential.
	Env []string `json:"env,omitempty" yaml:"env"`
	// Places are where the service takes credentials: bearer, basic, header:NAME, query:KEY.
	Places []string `json:"places,omitempty" yaml:"places"`
	// Handle is the prefix that makes a handle look like the vendor's token.
	Handle string `json:"handle,omitempty" yaml:"handle"`
	// Refusal names the shape in which the service's SDKs expect errors.
	Refusal string `json:"refusal,omitempty" yaml:"refusal"`
	// AllowForeign lets credentials pass that are no handles; AllowCookies lets cookies.
	AllowForeign bool `json:"allow_foreign,omitempty" yaml:"allow_foreign"`
	AllowCookies bool `json:"allow_cookies,omitempty" yaml:"allow_cookies"`
	// Cleartext lets a credential go out over plain http://, for services on a network
	// that is trusted. Without it a request that would is refused.
	Cleartext bool `json:"cleartext,omitempty" yaml:"cleartext"`
	// EncodedSlash admits %2F in path parameters.
	EncodedSlash bool `json:"encoded_slash,omitempty" yaml:"encoded_slash"`
	// Fold names parameters that the service compares without regard to case.
	Fold []string `json:"fold,omitempty" yaml:"fold"`
	// Resources say what an action is on, by the first rule whose parameters it has.
	Resources []ResourceRule `json:"resources,omitempty" yaml:"resources"`
	// Arguments are looked up in the query and in a form or JSON body, for services
	// that name the resource there.
	Arguments []string `json:"arguments,omitempty" yaml:"arguments"`
	// BodyCredential is the argument in which the service would take a credential.
	BodyCredential string `json:"body_credential,omitempty" yaml:"body_credential"`
	// GraphQL are the paths of GraphQL endpoints.
	GraphQL []string `json:"graphql,omitempty" yaml:"graphql"`
	// Paths are templates ("/repos/{owner}/{repo}", "{path+}" for several segments)
	// with, for each method or *, the operation, its access level and marks:
	// "issues/create write".
	Paths map[string]map[string]string `json:"paths,omitempty" yaml:"paths"`
}

// ResourceRule makes a resource of parameters.
type ResourceRule struct {
	Type string `json:"type" yaml:"type"`
	ID   string `json:"id" yaml:"id"` // "{owner}/{repo}"
}

// operation is one row of a catalogue, ready to be handed out.
type operation struct {
	action policy.Action
	marks  []string
}

// rule is a compiled ResourceRule: the parameters at params, joined by seps.
type rule struct {
	kind  string
	names []string
	seps  []string // before each name
}

// levels orders access levels, weakest first.
var levels = map[policy.Access]int{policy.AccessRead: 1, policy.AccessList: 2, policy.AccessWrite: 3, policy.AccessDelete: 4, policy.AccessAdmin: 5}

var (
	nameForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	operationForm = regexp.MustCompile(`^[A-Za-z0-9_.:@/-]+$`)
	hostForm      = regexp.MustCompile(`^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)+$|^[a-z0-9_-]+$`)
)

// check returns all faults of a service, each with its place.
func (s *Service) check() error {
	var faults []error
	add := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("service %q: "+format, append([]any{s.Name}, args...)...))
	}
	if !nameForm.MatchString(s.Name) {
		add("the name is not of the form a-z, 0-9 and -")
	}
	if len(s.Hosts)+len(s.GitHosts) == 0 {
		add("hosts are missing")
	}
	for _, h := range slices.Concat(s.Hosts, s.GitHosts) {
		switch {
		case strings.HasPrefix(h, "*.") && strings.Count(h, ".") < 2:
			add("host %q would cover a whole top-level domain", h)
		case !hostForm.MatchString(h):
			add("host %q is not a lower-case name or *.name", h)
		}
	}
	for _, r := range s.Resources {
		if _, err := compileRule(r); err != nil {
			add("resource %q: %v", r.Type, err)
		}
	}
	for path, methods := range s.Paths {
		if !strings.HasPrefix(path, "/") {
			add("path %q does not begin with /", path)
		}
		for method, row := range methods {
			if _, err := s.operation(row); err != nil {
				add("%s %s: %v", method, path, err)
			}
		}
	}
	return errors.Join(faults...)
}

// operation reads one row.
func (s *Service) operation(row string) (*operation, error) {
	words := strings.Fields(row)
	if len(words) < 2 {
		return nil, fmt.Errorf("%q is not \"operation access …\"", row)
	}
	access := policy.Access(words[1])
	if levels[access] == 0 {
		return nil, fmt.Errorf("access %q is none of read, list, write, delete, admin", words[1])
	}
	if !operationForm.MatchString(words[0]) {
		return nil, fmt.Errorf("operation %q has odd characters", words[0])
	}
	return &operation{action: known(s.Name, words[0], access), marks: words[2:]}, nil
}

// known returns the action of an operation with the patterns that cover it.
func known(service, name string, access policy.Access) policy.Action {
	id := service + ":" + name
	keys := []string{id}
	for rest := name; ; {
		i := strings.LastIndexAny(rest, "/.")
		if i <= 0 {
			break
		}
		keys = append(keys, service+":"+rest[:i+1]+"*")
		rest = rest[:i]
	}
	keys = append(keys, service+":*", "*:*")
	return policy.Action{ID: id, Service: service, Operation: name, Access: access, Known: true, Keys: keys}
}

// unknown returns the action of a request that no catalogue names.
func unknown(service, why string) policy.Action {
	return policy.Action{Service: service, Access: policy.AccessUnknown, Why: why}
}

func compileRule(r ResourceRule) (*rule, error) {
	c := &rule{kind: r.Type}
	rest := r.ID
	for rest != "" {
		i := strings.IndexByte(rest, '{')
		j := strings.IndexByte(rest, '}')
		if i < 0 || j < i {
			return nil, fmt.Errorf("id %q is not made of {parameters}", r.ID)
		}
		c.seps = append(c.seps, rest[:i])
		c.names = append(c.names, rest[i+1:j])
		rest = rest[j+1:]
	}
	if r.Type == "" || len(c.names) == 0 {
		return nil, errors.New("type or id is missing")
	}
	return c, nil
}

// merge lays an operator's description over a shipped one: what it gives replaces,
// paths one by one.
func (s *Service) merge(over *Service) *Service {
	m := *s
	replace(&m.Hosts, over.Hosts)
	replace(&m.GitHosts, over.GitHosts)
	replace(&m.Bases, over.Bases)
	replace(&m.Env, over.Env)
	replace(&m.Places, over.Places)
	replace(&m.Fold, over.Fold)
	replace(&m.Resources, over.Resources)
	replace(&m.Arguments, over.Arguments)
	replace(&m.GraphQL, over.GraphQL)
	for _, f := range [...]struct{ to, from *string }{{&m.Handle, &over.Handle}, {&m.Refusal, &over.Refusal}, {&m.BodyCredential, &over.BodyCredential}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	m.AllowForeign = m.AllowForeign || over.AllowForeign
	m.AllowCookies = m.AllowCookies || over.AllowCookies
	m.Cleartext = m.Cleartext || over.Cleartext
	m.EncodedSlash = m.EncodedSlash || over.EncodedSlash
	m.Paths = map[string]map[string]string{}
	for _, from := range []*Service{s, over} {
		for path, methods := range from.Paths {
			if m.Paths[path] == nil {
				m.Paths[path] = map[string]string{}
			}
			maps.Copy(m.Paths[path], methods)
		}
	}
	return &m
}

func replace[T any](to *[]T, from []T) {
	if len(from) > 0 {
		*to = from
	}
}
