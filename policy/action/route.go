package action

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"chaperone/policy"
)

// maxBody bounds what is read of a body to name the action, in bytes.
const maxBody = 256 << 10

// NeedsBody returns how many bytes of the body Classify wants to see; 0 when it
// names the action without.
func (c *Catalogue) NeedsBody(r *Request) int {
	h, lead := c.hosts.find(r.Host, r.Path)
	if h == nil {
		return 0
	}
	k := h.service
	if h.git && (!h.api || gitPath(r.Path)) {
		return gitBody(r)
	}
	kind := formOf(r.Header)
	switch {
	case r.Path != "" && k.endpoint(r.Path) != endpointNone, len(k.Protocols) > 0 && kind == urlForm:
		return maxBody
	case len(k.Arguments) > 0 && (kind == jsonForm || kind == urlForm || kind == multiForm):
		return maxBody
	case (mayOverride(r) || k.own && jsonPost(r)) && k.ready() && checkPath(r.Path, true) == nil:
		m := match{query: r.RawQuery, header: r.Header}
		if k.route(k.under(lead, r), &m) && m.leaf.others {
			return maxBody
		}
	}
	return 0
}

// Classify fills in the action and resource of q, or its actions when they are
// several. A request that the catalogue does not name gets the unknown action; an
// error means that the request itself is not clear (it wraps [ErrAmbiguous]), or
// carries a credential in its body.
func (c *Catalogue) Classify(r *Request, q *policy.Question) error {
	h, lead := c.hosts.find(r.Host, r.Path)
	if err := checkClear(r, h != nil && h.service.EncodedSlash); err != nil {
		return err
	}
	switch {
	case h == nil:
		q.Action = unknown("", "unknown_host")
		return nil
	case h.git && (!h.api || gitPath(r.Path)):
		return h.service.git(r, q)
	case !h.service.ready():
		q.Action = unknown(h.service.Name, "catalogue")
		return nil
	}
	return h.service.classify(r, lead, q)
}

// checkClear returns an error that wraps [ErrAmbiguous] unless path, query, type and
// method can be read in one way only.
func checkClear(r *Request, encodedSlash bool) error {
	if err := checkPath(r.Path, encodedSlash); err != nil {
		return err
	}
	if err := checkQuery(r.RawQuery); err != nil {
		return err
	}
	if len(r.Header["Content-Type"]) > 1 {
		return fmt.Errorf("%w: Content-Type is given twice", ErrAmbiguous)
	}
	return checkOverride(r)
}

// classify names the action by what tells it at this path.
func (k *compiled) classify(r *Request, lead string, q *policy.Question) error {
	if e := k.endpoint(r.Path); e != endpointNone {
		err := k.byBody(e, r, q)
		if err == nil && q.Action.Known {
			k.with(r, q)
		}
		return err
	}
	r = k.under(lead, r)
	if k.Signing != "" || len(k.Protocols) > 0 {
		return k.aws(r, q)
	}
	return k.rest(r, q)
}

// byBody names the action at a path where the body says it.
func (k *compiled) byBody(e endpoint, r *Request, q *policy.Question) error {
	switch e {
	case endpointGraphQL:
		return k.graphQL(r, q)
	case endpointMCP:
		return k.mcp(r, q)
	case endpointJSONRPC:
		return k.jsonRPC(r, q)
	}
	return k.batch(e, r, q)
}

// under puts what a host's name says in front of the path, as the service does: a
// bucket.
func (k *compiled) under(lead string, r *Request) *Request {
	if lead == "" {
		return r
	}
	one := *r
	one.Path = "/" + lead
	if r.Path != "/" {
		one.Path += r.Path
	}
	return &one
}

// route finds the operation of a request by method and path, under one of the bases.
func (k *compiled) route(r *Request, m *match) bool {
	for _, base := range k.bases {
		path, ok := strings.CutPrefix(r.Path, base)
		if !ok || path == "" || path[0] != '/' {
			continue
		}
		m.path, m.method = path, r.Method
		if k.table.find(m) {
			return true
		}
		m.method = http.MethodGet
		if r.Method == http.MethodHead && k.table.find(m) {
			return true
		}
	}
	return false
}

// rest names an action by method and path. An encoded slash may be one of the path to
// the service: where that makes it another operation, both must be allowed.
func (k *compiled) rest(r *Request, q *policy.Question) error {
	err := k.byPath(r, q)
	if err != nil || !k.EncodedSlash || !q.Action.Known {
		return err
	}
	other := *r
	if other.Path = plainSlashes(r.Path); other.Path == r.Path {
		return nil
	}
	var also policy.Question
	if err := k.byPath(&other, &also); err != nil || also.Action.Why == "no_route" {
		return err
	}
	acts := actsOf(q)
	for _, a := range actsOf(&also) {
		same := func(b policy.Act) bool {
			return a.Action.ID == b.Action.ID && a.Action.Access == b.Action.Access && a.Resource.ID == b.Resource.ID
		}
		if !slices.ContainsFunc(acts, same) {
			acts = append(acts, a)
		}
	}
	k.several(acts, also.Action.Why, q)
	return nil
}

// actsOf lists the actions of a question, also when it is one.
func actsOf(q *policy.Question) []policy.Act {
	if len(q.Actions) > 0 {
		return q.Actions
	}
	return []policy.Act{{Action: q.Action, Resource: q.Resource}}
}

func (k *compiled) byPath(r *Request, q *policy.Question) error {
	err := k.named(r, q)
	if err != nil || !q.Action.Known {
		return err
	}
	k.with(r, q)
	if len(k.Copies) > 0 {
		k.source(r, q)
	}
	return nil
}

// named names the operation alone, without what it copies.
func (k *compiled) named(r *Request, q *policy.Question) error {
	m := match{query: r.RawQuery, header: r.Header}
	if !k.route(r, &m) {
		q.Action = unknown(k.Name, "no_route")
		return nil
	}
	var first policy.Act
	why, err := k.act(r, &m, &first)
	if why == "" && err == nil && m.rest != nil {
		why, err = k.otherwise(r, &m, first, q)
	}
	if why != "" {
		q.Action, q.Actions = unknown(k.Name, why), nil
		return err
	}
	q.Action, q.Resource = first.Action, first.Resource
	if more := k.besides(&first); len(more) > 0 && len(q.Actions) == 0 {
		q.Actions = append([]policy.Act{first}, more...)
	}
	return err
}

// besides are the acts on what a request names in other arguments than those of its
// resource: of a channel and a file, the service takes one, so both must be allowed.
func (k *compiled) besides(a *policy.Act) []policy.Act {
	var more []policy.Act
	if len(k.Arguments) == 0 {
		return nil
	}
	for _, rule := range k.rules {
		argued := slices.ContainsFunc(rule.names, k.argument) && !slices.ContainsFunc(rule.names, func(n string) bool { return slices.Contains(k.Context, n) })
		if keys := rule.apply(a.Resource.Params); argued && keys != nil && keys[0] != a.Resource.ID {
			more = append(more, policy.Act{Action: a.Action, Resource: policy.Resource{Type: rule.kind, ID: keys[0], Params: a.Resource.Params, Keys: keys}})
		}
	}
	return more
}

// otherwise adds the other operations that a path would be if its parameter of several
// segments took more of them ("branches/{branch+}/protection", "branches/{branch+}").
// Which one it is, the service decides, so all must be allowed; where none changes
// anything, that with more literals stands for all.
func (k *compiled) otherwise(r *Request, m *match, first policy.Act, q *policy.Question) (why string, err error) {
	through := m.rest
	for m.saw < len(m.seen) {
		m.seen[m.saw], m.through = m.node, through
		m.saw++
		if !k.table.find(m) {
			if m.disguised {
				return "no_route", nil
			}
			return "", nil
		}
		var one policy.Act
		if why, err = k.act(r, m, &one); why != "" || err != nil {
			return why, err
		}
		if !Stronger(first.Action.Access, policy.AccessList) && !Stronger(one.Action.Access, policy.AccessList) {
			continue
		}
		if len(q.Actions) == 0 {
			q.Actions = append(q.Actions, first)
		}
		q.Actions = append(q.Actions, one)
	}
	return "path", nil
}

// act is what was found, on its resource. It returns why that is not certain, if so.
func (k *compiled) act(r *Request, m *match, a *policy.Act) (why string, err error) {
	l := m.leaf
	switch {
	case (k.query != nil || k.table.conditions != nil) && !k.understood(l, r.RawQuery):
		return "query", nil
	case l.others && overrideHidden(r, l.op.uploads):
		return "body", nil
	case l.others && k.own && jsonPost(r):
		if why, err := overrideInJSON(r, l.op.uploads); why != "" || err != nil {
			return why, err
		}
	}
	names := l.params
	if m.link != nil {
		names = slices.Concat(m.link.names, l.params[m.link.instead:])
	}
	params := make([]policy.Param, m.n, m.n+len(k.Arguments))
	for i := range params {
		params[i] = policy.Param{Name: names[i], Value: k.value(names[i], unescape(m.values[i]))}
	}
	if len(k.Arguments) > 0 {
		if why, err := k.arguments(r, l.op, &params); why != "" || err != nil {
			return why, err
		}
	}
	a.Action, a.Resource = l.op.action, k.resource(params)
	return "", nil
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
		if keys := rule.apply(params); keys != nil {
			r.Type, r.ID, r.Keys = rule.kind, keys[0], keys
			return r
		}
	}
	for i := len(params) - 1; i >= 0; i-- {
		if p := &params[i]; len(k.Context) == 0 || !slices.Contains(k.Context, p.Name) {
			r.Type, r.ID, r.Keys = p.Name, p.Value, resourceKeys(p.Value)
			break
		}
	}
	return r
}

var anyResource = []string{"*"}

// resourceKeys returns the patterns that cover an id, exact first.
func resourceKeys(id string) []string {
	if strings.IndexByte(id, '/') < 0 {
		return []string{id, "*"}
	}
	var b strings.Builder
	b.Grow(3*len(id) + 8)
	b.WriteString(id)
	return keysOf(&b)
}

// keysOf returns what b holds, an id, with the patterns that cover it: acme/web,
// acme/*, *. They share one string.
func keysOf(b *strings.Builder) []string {
	n := b.Len()
	slashes := 0
	for end := n; ; slashes++ {
		if end = strings.LastIndexByte(b.String()[:end], '/'); end <= 0 {
			break
		}
		b.WriteString(b.String()[:end+1])
		b.WriteByte('*')
	}
	text := b.String()
	keys := append(make([]string, 0, slashes+2), text[:n])
	for end, rest := n, text[n:]; ; {
		if end = strings.LastIndexByte(text[:end], '/'); end <= 0 {
			return append(keys, "*")
		}
		keys, rest = append(keys, rest[:end+2]), rest[end+2:]
	}
}

// apply makes an id of the rule's parameters and returns the patterns that cover it,
// or nil when one of them is not there.
func (r *rule) apply(params []policy.Param) []string {
	var values [maxParams]string
	size := 0
	for i, name := range r.names {
		at := slices.IndexFunc(params, func(p policy.Param) bool { return p.Name == name })
		if at < 0 || params[at].Value == "" {
			return nil
		}
		values[i] = params[at].Value
		size += len(r.seps[i]) + len(values[i])
	}
	if len(r.names) == 1 && r.seps[0] == "" {
		return resourceKeys(values[0])
	}
	var b strings.Builder
	b.Grow(3*size + 8)
	for i := range r.names {
		b.WriteString(r.seps[i])
		b.WriteString(values[i])
	}
	return keysOf(&b)
}
