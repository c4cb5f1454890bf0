package action

import (
	"fmt"
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
	method string // "*": any
	params []string
	op     *operation
	path   string
}

// match is what a look-up found.
type match struct {
	leaf   *leaf
	n      int
	values [maxParams]string // escaped
}

// add puts an operation under its template.
func (t *table) add(path, method string, op *operation) error {
	n := &t.root
	var params []string
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		open, end := strings.IndexByte(segment, '{'), strings.LastIndexByte(segment, '}')
		if open < 0 {
			n = n.literal(segment)
			continue
		}
		if end < open || strings.Count(segment, "{") > 1 {
			return fmt.Errorf("%s: the segment %q has more than one parameter", path, segment)
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
		return fmt.Errorf("%s: more than %d parameters or %d segments", path, maxParams, maxSegments)
	}
	for i := range n.leaves {
		if n.leaves[i].method == method && n.leaves[i].op.action.ID != op.action.ID {
			return fmt.Errorf("%s %s: %s and %s (%s) are the same request", method, path, op.action.ID, n.leaves[i].op.action.ID, n.leaves[i].path)
		}
	}
	n.leaves = append(n.leaves, leaf{method, params, op, path})
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
		if l := &n.leaves[i]; l.method == method || l.method == "*" {
			m.leaf = l
			return true
		}
	}
	return false
}
