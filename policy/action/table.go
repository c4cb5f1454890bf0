package action

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Limits of a path that can be matched.
const (
	maxParams   = 12
	maxSegments = 32
)

// table finds the operation of a method and path: a trie by segment, in which a
// literal beats a pattern ("{id}:cancel"), which beats a parameter, which beats a
// parameter of several segments; a dead end backs up. Look-ups do not allocate.
type table struct {
	root       node
	conditions map[string]bool // query keys by which templates are told apart
}

type node struct {
	literals map[string]*node
	folded   map[string]bool // literals in lower case
	patterns []pattern       // longest fixed part first
	param    *node
	rest     *node // one or more segments
	leaves   []leaf
	link     *link
}

// link makes a node stand for another: /repositories/{id} for /repos/{owner}/{repo}.
type link struct {
	to      *node
	names   []string // of the parameters up to here
	instead int      // how many of the other's parameters they stand for
}

type pattern struct {
	prefix, suffix string
	next           *node
}

// leaf is a method of a template. Parameters have names of their own in each: the
// same position may be called otherwise elsewhere.
type leaf struct {
	method string   // "*": any
	need   []string // query keys, key=value, or @header, that must be there
	params []string
	op     *operation
	path   string

	others bool // the template has another method
}

// match is what a look-up is for, and what it found.
type match struct {
	method, path string
	query        string
	header       http.Header
	disguised    bool     // a segment is a literal but for its case
	seen         [4]*node // templates that are not looked for again
	saw          int      // how many
	through      *node    // when some were seen: the parameter of several segments that the first had

	leaf   *leaf
	node   *node // of leaf
	link   *link
	rest   *node // the parameter of several segments on the way there
	n      int
	values [maxParams]string // escaped
}

// add puts an operation under its template.
func (t *table) add(path, method string, op *operation) error {
	var need []string
	full := path
	if plain, conditions, ok := strings.Cut(path, "?"); ok {
		path, need = plain, strings.Split(conditions, "&")
		t.note(need)
	}
	n, params, err := t.place(path)
	if err != nil {
		return err
	}
	if len(params) > maxParams || strings.Count(path, "/") > maxSegments {
		return fmt.Errorf("more than %d parameters or %d segments", maxParams, maxSegments)
	}
	for _, l := range n.leaves {
		if l.method == method && slices.Equal(l.need, need) && l.op.action.ID != op.action.ID {
			return fmt.Errorf("%s and %s (%s) are the same request", op.action.ID, l.op.action.ID, l.path)
		}
	}
	n.leaves = append(n.leaves, leaf{method: method, need: need, params: params, op: op, path: full})
	slices.SortStableFunc(n.leaves, func(a, b leaf) int { return len(b.need) - len(a.need) })
	for i := range n.leaves {
		for j := range n.leaves {
			n.leaves[i].others = n.leaves[i].others || n.leaves[j].method != n.leaves[i].method
		}
	}
	return nil
}

// note remembers the query keys of a template.
func (t *table) note(need []string) {
	for _, n := range need {
		if key, _, _ := strings.Cut(n, "="); !strings.HasPrefix(n, "@") {
			if t.conditions == nil {
				t.conditions = map[string]bool{}
			}
			t.conditions[key] = true
		}
	}
}

// place returns the node of a path with its parameters.
func (t *table) place(path string) (n *node, params []string, err error) {
	n = &t.root
	several := false
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		open, end := strings.IndexByte(segment, '{'), strings.LastIndexByte(segment, '}')
		if open < 0 {
			n = n.literal(segment)
			continue
		}
		if end < open || strings.Count(segment, "{") > 1 {
			return nil, nil, fmt.Errorf("the segment %q has more than one parameter", segment)
		}
		name := segment[open+1 : end]
		switch {
		case open > 0 || end < len(segment)-1:
			n = n.pattern(segment[:open], segment[end+1:])
		case strings.HasSuffix(name, "+"):
			name = name[:len(name)-1]
			if several {
				return nil, nil, errors.New("two parameters take several segments, so that a path can be cut in two ways")
			}
			several = true
			n = child(&n.rest)
		default:
			n = child(&n.param)
		}
		params = append(params, name)
	}
	return n, params, nil
}

func child(n **node) *node {
	if *n == nil {
		*n = &node{}
	}
	return *n
}

// alias makes a path stand for another that has operations.
func (t *table) alias(path, of string) error {
	n, names, err := t.place(path)
	if err != nil {
		return err
	}
	to, params, err := t.place(of)
	switch {
	case err != nil:
		return err
	case n == to || n.link != nil || len(to.literals) == 0 && len(to.leaves) == 0 && to.param == nil:
		return fmt.Errorf("%s can stand for no paths below %s", path, of)
	}
	n.link = &link{to, names, len(params)}
	return nil
}

func (n *node) literal(s string) *node {
	if n.literals == nil {
		n.literals, n.folded = map[string]*node{}, map[string]bool{}
	}
	n.folded[fold(s)] = true
	if n.literals[s] == nil {
		n.literals[s] = &node{}
	}
	return n.literals[s]
}

func (n *node) pattern(prefix, suffix string) *node {
	for _, p := range n.patterns {
		if p.prefix == prefix && p.suffix == suffix {
			return p.next
		}
	}
	next := &node{}
	n.patterns = append(n.patterns, pattern{prefix, suffix, next})
	slices.SortStableFunc(n.patterns, func(a, b pattern) int {
		return len(b.prefix) + len(b.suffix) - len(a.prefix) - len(a.suffix)
	})
	return next
}

// find looks up a path that has passed checkPath. It returns false when no template
// with the method fits, or when a segment is a literal but for its case where another
// may stand: to some services it is the literal, and to others a name.
func (t *table) find(m *match) bool {
	m.leaf, m.link, m.rest, m.n, m.disguised = nil, nil, nil, 0, false
	return t.root.walk(m.path[1:], 0, m) && !m.disguised
}

func (n *node) walk(path string, depth int, m *match) bool {
	segment, rest, more := strings.Cut(path, "/")
	if depth >= maxSegments {
		return false
	}
	if next := n.literals[segment]; next != nil && next.follow(rest, more, depth, m) {
		return true
	}
	if segment == "" {
		return false
	}
	if n.literals[segment] == nil && n.folded[fold(segment)] {
		m.disguised = true
		return false
	}
	for i := range n.patterns {
		p := &n.patterns[i]
		if len(segment) <= len(p.prefix)+len(p.suffix) || !strings.HasPrefix(segment, p.prefix) || !strings.HasSuffix(segment, p.suffix) {
			continue
		}
		if p.next.bind(segment[len(p.prefix):len(segment)-len(p.suffix)], rest, more, depth, m) {
			return true
		}
	}
	if n.param != nil && n.param.bind(segment, rest, more, depth, m) {
		return true
	}
	return n.rest != nil && n.rest.several(path, depth, m)
}

// several tries a parameter of one segment, then of two, and so on, so that a
// literal behind it wins over a longer value.
func (n *node) several(path string, depth int, m *match) bool {
	m.rest = n
	if n.cut(path, depth, m) {
		return true
	}
	m.rest = nil
	return false
}

func (n *node) cut(path string, depth int, m *match) bool {
	for end := 0; ; end++ {
		i := strings.IndexByte(path[end:], '/')
		if i < 0 {
			return n.bind(path, "", false, depth, m)
		}
		end += i
		if n.bind(path[:end], path[end+1:], true, depth, m) {
			return true
		}
	}
}

func (n *node) bind(value, rest string, more bool, depth int, m *match) bool {
	if m.n == maxParams {
		return false
	}
	m.values[m.n] = value
	m.n++
	if n.follow(rest, more, depth, m) {
		return true
	}
	m.n--
	return false
}

func (n *node) follow(rest string, more bool, depth int, m *match) bool {
	if more && n.walk(rest, depth+1, m) {
		return true
	}
	if !more && m.fresh(n) && n.offer(m) {
		return true
	}
	if n.link == nil || m.link != nil {
		return false
	}
	m.link = n.link
	if n.link.to.follow(rest, more, depth, m) {
		return true
	}
	m.link = nil
	return false
}

// offer takes the first leaf of a node that has the method, and whose conditions hold.
func (n *node) offer(m *match) bool {
	for i := range n.leaves {
		if l := &n.leaves[i]; (l.method == m.method || l.method == "*") && (len(l.need) == 0 || m.has(l.need)) {
			m.leaf, m.node = l, n
			return true
		}
	}
	return false
}

// fresh reports whether a template has not been seen. Of those that come after the
// first, only one counts whose parameter of several segments is the same, but takes
// more of them: elsewhere a literal goes before a parameter in every service.
func (m *match) fresh(n *node) bool {
	return m.saw == 0 || m.rest == m.through && !slices.Contains(m.seen[:m.saw], n)
}

// has reports whether the query and header fulfil all conditions.
func (m *match) has(need []string) bool {
	for _, n := range need {
		if field, ok := strings.CutPrefix(n, "@"); ok {
			if len(m.header[http.CanonicalHeaderKey(field)]) == 0 {
				return false
			}
			continue
		}
		name, want, valued := strings.Cut(n, "=")
		if value, ok := queryValue(m.query, name); !ok || valued && value != want {
			return false
		}
	}
	return true
}

// queryValue returns the first value of a key that is written without escapes.
func queryValue(query, name string) (string, bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if key, value, _ := strings.Cut(pair, "="); key == name {
			return value, true
		}
	}
	return "", false
}

// understood reports whether the query cannot hide by which operation the request
// is: keys by which templates are told apart stand once, plainly, in their own
// spelling. A service that lists its keys (Service.Query) takes no others, each once.
func (k *compiled) understood(l *leaf, query string) bool {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if pair == "" {
			continue
		}
		tells := k.table.conditions[fold(key)] || k.table.conditions[key]
		plain, err := url.QueryUnescape(key)
		switch {
		case err != nil || plain != key, seen[key] && (tells || k.query != nil):
			return false
		case tells && !k.table.conditions[key], tells && strings.ContainsAny(value, "%+"):
			return false
		case k.query != nil && !k.allowed(l, key, value):
			return false
		}
		seen[key] = true
	}
	return true
}

// allowed reports whether a key may stand in the query of an operation.
func (k *compiled) allowed(l *leaf, key, value string) bool {
	return k.query[key] || slices.Contains(l.need, key) || slices.Contains(l.need, key+"="+value) || signatureKeys[strings.ToLower(key)]
}

// signatureKeys stand in the query of an address that AWS signed. Fields may stand there
// too, as x-amz-copy-source, which make it another operation: those have no name.
var signatureKeys = map[string]bool{
	"x-amz-algorithm": true, "x-amz-credential": true, "x-amz-date": true, "x-amz-expires": true, "x-amz-signedheaders": true,
	"x-amz-signature": true, "x-amz-security-token": true, "x-amz-content-sha256": true, "x-amz-user-agent": true,
	"x-amz-checksum-mode": true, "x-amz-checksum-algorithm": true, "x-amz-sdk-checksum-algorithm": true,
	"x-amz-checksum-crc32": true, "x-amz-checksum-crc32c": true, "x-amz-checksum-crc64nvme": true, "x-amz-checksum-sha1": true,
	"x-amz-checksum-sha256": true, "x-amz-expected-bucket-owner": true,
}
