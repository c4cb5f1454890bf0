package action

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"chaperone/policy"
)

// alsoForm is a key of [Service.Also]: a field or a key of the query, perhaps behind the
// one operation for which it counts.
var alsoForm = regexp.MustCompile(`^(?:[A-Za-z0-9_.:/-]+ )?(?:@[A-Za-z0-9-]+\*?|\?[A-Za-z0-9_-]+)$`)

// extra is an operation that a request performs beside its own, by a field or a key of
// the query.
type extra struct {
	of     string // the operation that it comes with; any when empty
	field  string // canonical, or the beginning of one
	begins bool
	key    string // of the query
	op     *operation
}

// extras reads [Service.Also] of the service, and of one of its parts.
func (k *compiled) extras(patterns map[string]string) error {
	for _, key := range sorted(k.Also) {
		op, err := k.compile(k.Also[key], patterns)
		if err != nil {
			return err
		}
		x := extra{op: op}
		condition := key
		if of, rest, found := strings.Cut(key, " "); found {
			x.of, condition = k.prefix+of, rest
		}
		if x.key, _ = strings.CutPrefix(condition, "?"); condition[0] == '@' {
			x.key = ""
			x.field, x.begins = strings.CutSuffix(condition[1:], "*")
			x.field = http.CanonicalHeaderKey(x.field)
		}
		k.more = append(k.more, x)
	}
	return nil
}

// with adds to a question what fields and keys of the query make the service do beside.
func (k *compiled) with(r *Request, q *policy.Question) {
	if len(k.more) == 0 {
		return
	}
	acts := actsOf(q)
	n := len(acts)
	for i := range k.more {
		x := &k.more[i]
		if !x.asked(r) {
			continue
		}
		for j := range n {
			if a := &acts[j]; (x.of == "" || x.of == a.Action.Operation) && a.Action.ID != x.op.action.ID {
				acts = append(acts, policy.Act{Action: x.op.action, Resource: a.Resource})
			}
		}
	}
	if len(acts) > n {
		k.several(acts, "", q)
	}
}

// asked reports whether a request has the field or the key, in any spelling.
func (x *extra) asked(r *Request) bool {
	switch {
	case x.begins:
		for name := range r.Header {
			if len(name) >= len(x.field) && strings.EqualFold(name[:len(x.field)], x.field) {
				return true
			}
		}
		return false
	case x.field != "":
		return len(r.Header[x.field]) > 0
	case !mentions(r.RawQuery, x.key) && !strings.Contains(r.RawQuery, "%"):
		return false
	}
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err != nil || strings.EqualFold(looseName(plain), x.key) {
			return true
		}
	}
	return false
}
