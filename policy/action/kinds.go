package action

import (
	"regexp"
	"slices"
	"strings"

	"chaperone/policy"
)

// Kind is one action of a service with the resource that it may be on.
type Kind struct {
	ID         string
	Access     policy.Access
	Resource   string   // type of its resource, empty when it has none
	Parts      int      // parts between slashes of the resource's id; 0: none or any number
	Parameters []string // names under which the resource shows its parameters
}

var parameter = regexp.MustCompile(`\{([^{}+]+)\+?\}`)

// Kinds returns the actions of a service and its parts. It reads them anew each time.
func (s *Service) Kinds() []Kind {
	if s.whole != nil {
		whole, err := s.whole()
		if err != nil {
			return nil // a shipped file: the tests read them all
		}
		s = whole
	}
	out := s.kinds(s.Name, "", s)
	for _, name := range sorted(s.APIs) {
		out = append(out, s.APIs[name].kinds(s.Name, name+".", s)...)
	}
	if len(s.TokensOf) > 0 {
		a := s.Trade()
		out = append(out, Kind{ID: a.ID, Access: a.Access, Resource: "resource"})
	}
	return out
}

// Traded is the operation of a token endpoint that the proxy carries out by itself: a
// library gets the handle back that it sent there. No catalogue gives it to a request
// that is forwarded.
const Traded = "handle/trade"

// Trade is that operation as an action of the service. It reads, whatever the endpoint
// itself would do: nobody gets what was not theirs.
func (s *Service) Trade() policy.Action { return known(s.Name, Traded, policy.AccessRead) }

func (s *Service) kinds(service, prefix string, whole *Service) []Kind {
	rules := s.Resources
	if len(rules) == 0 {
		rules = whole.Resources
	}
	var out []Kind
	for _, r := range s.rows(service, prefix, "") {
		k := Kind{ID: r.Action, Access: r.Access}
		if r.Key != "" { // named by its body, as are its parameters
			k.Resource = "resource"
			out = append(out, k)
			continue
		}
		for _, m := range parameter.FindAllStringSubmatch(r.Path, -1) {
			k.Parameters = append(k.Parameters, m[1])
		}
		k.Parameters = append(k.Parameters, s.Arguments...)
		k.on(rules, strings.Contains(r.Path, "+}"))
		out = append(out, k)
	}
	if len(s.GitHosts) > 0 { // as [compiled.git] names them
		repository := Kind{Resource: "repository", Parts: 2, Parameters: []string{"owner", "repo", "ref"}}
		for id, access := range map[string]policy.Access{"git/fetch": policy.AccessRead, "git/push": policy.AccessWrite, "git/push ": policy.AccessDelete, "git/push-options": policy.AccessAdmin,
			"git/lfs/download": policy.AccessRead, "git/lfs/upload": policy.AccessWrite, "git/lfs/list-locks": policy.AccessList, "git/lfs/verify-locks": policy.AccessRead, "git/lfs/lock": policy.AccessWrite, "git/lfs/unlock": policy.AccessWrite} {
			k := repository
			k.ID, k.Access = service+":"+strings.TrimSpace(id), access
			out = append(out, k)
		}
	}
	return out
}

// on finds the first rule whose parameters the action has.
func (k *Kind) on(rules []ResourceRule, several bool) {
	has := map[string]bool{}
	for _, p := range k.Parameters {
		has[p] = true
	}
	for _, rule := range rules {
		all := true
		for _, m := range parameter.FindAllStringSubmatch(rule.ID, -1) {
			all = all && has[m[1]]
		}
		if !all {
			continue
		}
		k.Resource, k.Parts = rule.Type, strings.Count(rule.ID, "/")+1
		if several {
			k.Parts = 0
		}
		return
	}
	if n := len(k.Parameters); n > 0 { // as [compiled.resource] does without a rule
		k.Resource, k.Parts = k.Parameters[n-1], 1
		if several {
			k.Parts = 0
		}
	}
}

// Known returns a known action by its parts, with the patterns that cover it. It does
// not look whether there is one of that name.
func Known(service, operation string, access policy.Access) policy.Action {
	return known(service, operation, access)
}

// ResourceKeys returns the patterns that cover the resource of an id, exact first; an
// empty id is no resource.
func ResourceKeys(id string) []string {
	if id == "" {
		return slices.Clone(anyResource)
	}
	return resourceKeys(id)
}

// Find returns the kinds of an action by its id, one for each access level.
func (c *Catalogue) Find(id string) []Kind {
	service, _, _ := strings.Cut(id, ":")
	s := c.Service(service)
	if s == nil {
		return nil
	}
	return slices.DeleteFunc(s.Kinds(), func(k Kind) bool { return k.ID != id })
}
