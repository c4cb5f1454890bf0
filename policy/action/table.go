package action

import (
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
type table struct{ root node }

type node struct {
	literals map[string]*node
	patterns []pattern // longest fixed part first
	param    *node
	rest     *node // one or more segments
	leaves   []leaf
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
}

// match is what a look-up found.
type match struct {
	leaf   *leaf
	n      int
	values [maxParams]string // escaped
	query  string
	header http.Header
}

// add puts an operation under its template.
func (t *table) add(path, method string, op *operation) error {
	n := &t.root
	var params, need []string
	full := path
	if plain, conditions, ok := strings.Cut(path, "?"); ok {
		path, need = plain, strings.Split(conditions, "&")
	}
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		open, end := strings.IndexByte(segment, '{'), strings.LastIndexByte(segment, '}')
		if open < 0 {
			n = n.literal(segment)
			continue
		}
		if end < open || strings.Count(segment, "{") > 1 {
			return fmt.Errorf("the segment %q has more than one parameter", segment)
		}
		name := segment[open+1 : end]
		switch {
		case open > 0 || end < len(segment)-1:
			n = n.pattern(segment[:open], segment[end+1:])
		case strings.HasSuffix(name, "+"):
			name = name[:len(name)-1]
			if n.rest == nil {
				n.rest = &node{}
			}
			n = n.rest
		default:
			if n.param == nil {
				n.param = &node{}
			}
			n = n.param
		}
		params = append(params, name)
	}
	if len(params) > maxParams || strings.Count(path, "/") > maxSegments {
		return fmt.Errorf("more than %d parameters or %d segments", maxParams, maxSegments)
	}
	for _, l := range n.leaves {
		if l.method == method && slices.Equal(l.need, need) && l.op.action.ID != op.action.ID {
			return fmt.Errorf("%s and %s (%s) are the same request", op.action.ID, l.op.action.ID, l.path)
		}
	}
	n.leaves = append(n.leaves, leaf{method, need, params, op, full})
	slices.SortStableFunc(n.leaves, func(a, b leaf) int { return len(b.need) - len(a.need) })
	return nil
}

func (n *node) literal(s string) *node {
	if n.literals == nil {
		n.literals = map[string]*node{}
	}
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

// find looks up a path that has passed checkPath. It returns false when no
// template fits; m.leaf stays nil when one does, and has not that method.
func (t *table) find(method, path string, m *match) bool {
	m.leaf, m.n = nil, 0
	return t.root.walk(method, path[1:], 0, m)
}

func (n *node) walk(method, path string, depth int, m *match) bool {
	segment, rest, more := strings.Cut(path, "/")
	if depth >= maxSegments {
		return false
	}
	if next := n.literals[segment]; next != nil && next.follow(method, rest, more, depth, m) {
		return true
	}
	if segment == "" {
		return false
	}
	for i := range n.patterns {
		p := &n.patterns[i]
		if len(segment) <= len(p.prefix)+len(p.suffix) || !strings.HasPrefix(segment, p.prefix) || !strings.HasSuffix(segment, p.suffix) {
			continue
		}
		if p.next.bind(method, segment[len(p.prefix):len(segment)-len(p.suffix)], rest, more, depth, m) {
			return true
		}
	}
	if n.param != nil && n.param.bind(method, segment, rest, more, depth, m) {
		return true
	}
	return n.rest != nil && n.rest.several(method, path, depth, m)
}

// several tries a parameter of one segment, then of two, and so on, so that a
// literal behind it wins over a longer value.
func (n *node) several(method, path string, depth int, m *match) bool {
	for end := 0; ; end++ {
		i := strings.IndexByte(path[end:], '/')
		if i < 0 {
			return n.bind(method, path, "", false, depth, m)
		}
		end += i
		if n.bind(method, path[:end], path[end+1:], true, depth, m) {
			return true
		}
	}
}

func (n *node) bind(method, value, rest string, more bool, depth int, m *match) bool {
	if m.n == maxParams {
		return false
	}
	m.values[m.n] = value
	m.n++
	if n.follow(method, rest, more, depth, m) {
		return true
	}
	m.n--
	return false
}

func (n *node) follow(method, rest string, more bool, depth int, m *match) bool {
	if more {
		return n.walk(method, rest, depth+1, m)
	}
	for i := range n.leaves {
		if l := &n.leaves[i]; (l.method == method || l.method == "*") && (len(l.need) == 0 || m.has(l.need)) {
			m.leaf = l
			return true
		}
	}
	return false
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

// understood reports whether every key of the query is one by which the operation
// was found, or one that is known to change nothing about which it is; each once.
func (k *compiled) understood(l *leaf, query string) bool {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if pair == "" {
			continue
		}
		if plain, err := url.QueryUnescape(key); err != nil || plain != key || seen[key] {
			return false
		}
		seen[key] = true
		if !k.query[key] && !slices.Contains(l.need, key) && !slices.Contains(l.need, key+"="+value) && !strings.HasPrefix(strings.ToLower(key), "x-amz-") {
			return false
		}
	}
	return true
}
