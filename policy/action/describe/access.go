package describe

import (
	"slices"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
)

// Words splits a name or path into lower-case words, also at changes of case.
func Words(s string) []string {
	var out []string
	start := -1
	flush := func(end int) {
		if start >= 0 {
			out = append(out, strings.ToLower(s[start:end]))
		}
		start = -1
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		upper := 'A' <= c && c <= 'Z'
		if !upper && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			flush(i)
			continue
		}
		if upper && start >= 0 {
			before, after := s[i-1], byte(0)
			if i+1 < len(s) {
				after = s[i+1]
			}
			if before < 'A' || before > 'Z' || 'a' <= after && after <= 'z' {
				flush(i)
			}
		}
		if start < 0 {
			start = i
		}
	}
	flush(len(s))
	return out
}

// Set makes a set of the words of a text.
func Set(s string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		m[w] = true
	}
	return m
}

// vocabulary are the words that levels are told by. They are made anew for each
// use, since nothing mutable is kept by the package.
type vocabulary struct{ admin, read, one, remove, gone, lasting, secret, expensive map[string]bool }

func newVocabulary() *vocabulary {
	return &vocabulary{
		// who may do what: permissions, members, keys, hooks, secrets, policies
		admin: Set(`admin administrators collaborators collaborator permissions permission member members memberships membership
			invitations invitation invites invite hooks hook webhook webhooks keys key secrets secret credentials credential protection
			rulesets ruleset roles role policies policy grants grant installations installation sso saml scim owners transfer visibility
			oauth apps certificates restrictions enforce acl acls token tokens delegates forwarding apikey apikeys iam authorization
			rolebindings clusterroles clusterrolebindings serviceaccounts oidc idps mfa factors`),
		read: Set(`get retrieve check download search find lookup list describe count compare info history query read head view show
			freebusy fetch scan batchget lookup aggregate preview render estimate`),
		remove: Set(`delete remove destroy purge terminate deregister abort erase trash archive wipe drop revoke clear obliterate`),
		gone:   Set(`delete remove destroy purge erase wipe obliterate`),
		one: Set(`get describe retrieve head download export view show read check test count compare preview generate render status
			fetch lookup validate`),
		lasting: Set(`keys key apikeys apikey token tokens secret secrets hook hooks webhook webhooks subscriptions watch schedule schedules
			scheduled cron invitation invitations invite invites apps oauth credential credentials certificates delegates forwarding`),
		secret: Set(`keys key apikeys apikey token tokens secret secrets credential credentials password passwords invitations invites invite
			certificates privatekey accesskey accesskeys`),
		expensive: Set(`completions generations generatecontent streamgeneratecontent embeddings embedcontent batchembedcontents inference
			predict invokemodel converse runinstances runtasks droplets clusters synthesize transcriptions translations finetuning`),
	}
}

// Infer tells a level from method, path and name alone. It errs upwards: a POST is
// a write whatever it is called, and what touches who may do what is admin.
func Infer(method, path, name string) policy.Access {
	return infer(newVocabulary(), method, path, name, false)
}

func infer(v *vocabulary, method, path, name string, verbOnly bool) policy.Access {
	lead := verbOf(name)
	switch {
	case verbOnly && v.read[lead] || method == "GET" || method == "HEAD" || method == "OPTIONS":
		if strings.HasSuffix(path, "}") || v.one[lead] && (verbOnly || !plural(name)) {
			return policy.AccessRead
		}
		return policy.AccessList
	case touchesRights(v, path, name):
		return policy.AccessAdmin
	case method == "DELETE" || v.remove[lead] || slices.ContainsFunc(lastWords(name), func(w string) bool { return v.gone[w] }):
		return policy.AccessDelete
	}
	return policy.AccessWrite
}

// touchesRights reports whether the fixed parts of a path, or a name, speak of who
// may do what.
func touchesRights(v *vocabulary, path, name string) bool {
	if slices.Contains(Words(name), "count") {
		return false // counting tokens makes none
	}
	path = fixed(path)
	for _, w := range append(Words(path), Words(name)...) {
		if v.admin[w] {
			return true
		}
	}
	path = strings.TrimRight(path, "/ ")
	return strings.HasSuffix(path, "/accounts") // accounts themselves, not what belongs to one
}

// fixed is a path without its parameters.
func fixed(path string) string {
	for {
		i := strings.IndexByte(path, '{')
		j := strings.IndexByte(path, '}')
		if i < 0 || j < i {
			return path
		}
		path = path[:i] + " " + path[j+1:]
	}
}

// verbOf is the first word of the last part of a name.
func verbOf(name string) string {
	if w := lastWords(name); len(w) > 0 {
		return w[0]
	}
	return ""
}

// plural reports whether a name that begins with a verb speaks of several things:
// getAllUsers.
func plural(name string) bool {
	w := lastWords(name)
	if len(w) < 2 {
		return false
	}
	last := w[len(w)-1]
	return strings.HasSuffix(last, "s") && !strings.HasSuffix(last, "ss") && last != "status" && last != "settings"
}

// lastWords are the words of the last part of a name.
func lastWords(name string) []string {
	return Words(name[strings.LastIndexAny(name, "/.:")+1:])
}

// judge sets the level: the stronger of what is published and what is inferred. A
// POST reads only where its verb and what is published agree on it.
func (op *Operation) judge() {
	v := newVocabulary()
	op.Access = infer(v, op.Method, op.Path, op.Name, op.Verb)
	if op.single {
		op.Access = policy.AccessRead
	}
	lead := verbOf(op.Name)
	looks := op.Published == policy.AccessRead || op.Published == policy.AccessList
	switch {
	case looks && op.Method == "POST" && !op.Verb && op.Access == policy.AccessWrite && v.read[lead]:
		op.Access = op.Published
	case op.Verb && op.Published == "" && action.Stronger(policy.AccessWrite, op.Access):
		op.Access = policy.AccessWrite
		op.Marks = append(op.Marks, "maybe-read")
	case op.Published != "" && action.Stronger(op.Published, op.Access):
		op.Access = op.Published
	case op.Method == "POST" && op.Access == policy.AccessWrite && v.read[lead]:
		op.Marks = append(op.Marks, "maybe-read")
	}
	if !action.Stronger(op.Access, policy.AccessList) {
		op.looks()
		if op.about(v.secret) {
			op.mark(action.MarkSensitive)
		}
	}
	if action.Stronger(op.Access, policy.AccessList) && op.Access != policy.AccessDelete && op.Method != "DELETE" && !v.remove[lead] {
		op.markEffects(v)
	}
}

// looks takes away what only changes leave.
func (op *Operation) looks() {
	op.Marks = slices.DeleteFunc(op.Marks, func(m string) bool {
		name, _, _ := strings.Cut(m, "=")
		return name == action.MarkCreates || name == "undo" || name == "undeletable" || name == action.MarkDeletes
	})
}

// about reports whether the fixed parts of the path, or the name, hold one of words.
func (op *Operation) about(words map[string]bool) bool {
	for _, w := range append(Words(fixed(op.Path)), Words(op.Name)...) {
		if words[w] {
			return true
		}
	}
	return false
}

// markEffects marks what outlives the session that made it, and what costs.
func (op *Operation) markEffects(v *vocabulary) {
	lasting, costs := op.about(v.lasting), op.about(v.expensive)
	for _, w := range strings.FieldsFunc(strings.ToLower(fixed(op.Path)+"/"+op.Name), func(r rune) bool { return strings.ContainsRune("/.: _-", r) }) {
		costs = costs || v.expensive[w]
	}
	if lasting && !slices.Contains(Words(op.Name), "count") {
		op.mark("lasting")
	}
	if costs {
		op.mark("expensive")
	}
}

func (op *Operation) mark(m string) {
	if !slices.Contains(op.Marks, m) {
		op.Marks = append(op.Marks, m)
	}
}

// NameOf names an operation after its path, where the description does not.
func NameOf(method, path string) string {
	var parts []string
	for segment := range strings.SplitSeq(strings.Trim(fixed(path), "/"), "/") {
		if p := plainOperation(strings.TrimSpace(segment)); p != "" {
			parts = append(parts, p)
		}
	}
	verb := map[string]string{"GET": "list", "POST": "create", "PUT": "replace", "PATCH": "update", "DELETE": "delete"}[method]
	if verb == "" {
		verb = strings.ToLower(method)
	}
	if method == "GET" && strings.HasSuffix(path, "}") {
		verb = "get"
	}
	return strings.Join(append(parts, verb), "/")
}

func stronger(a, b policy.Access) policy.Access {
	if action.Stronger(b, a) {
		return b
	}
	return a
}
