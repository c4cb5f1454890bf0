package oblige

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// errFormFields is wrapped when a form cannot be changed as it is obliged to.
var errFormFields = errors.New("editing a form")

// pair is one field of a form as it came, and where it stands: metadata[agent] at
// /metadata/agent.
type pair struct {
	raw   string
	path  []string
	value string
}

// ApplyForm returns the changed form (application/x-www-form-urlencoded, by the URL
// Standard, section 5). What is removed or masked goes with all that stands below it,
// and however often it is there. All else is kept as it is spelled. What is no text
// cannot be set in a form.
func (e *Edit) ApplyForm(form []byte) ([]byte, error) {
	pairs, err := parsePairs(string(form))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFormFields, err)
	}
	kept := pairs[:0]
	for _, p := range pairs {
		if php := inPHP(p.path); php != nil && (below(e.Remove, php) || below(e.Mask, php) || below(e.places(), php)) {
			return nil, fmt.Errorf("%w: %s may be read as %s", errFormFields, pointer(p.path), pointer(php))
		}
		if below(e.Remove, p.path) {
			continue
		}
		if below(e.Mask, p.path) {
			p.raw = name(p.raw) + "=" + url.QueryEscape("[masked]")
		}
		for n := range p.path {
			if other := e.respelled(pointer(p.path[:n+1])); other != "" {
				return nil, fmt.Errorf("%w: %s stands there as %s", errFormFields, other, pointer(p.path[:n+1]))
			}
		}
		kept = append(kept, p)
	}
	for _, at := range e.places() {
		if kept, err = e.place(kept, at); err != nil {
			return nil, fmt.Errorf("%w: %s %w", errFormFields, at, err)
		}
	}
	out := make([]string, len(kept))
	for i, p := range kept {
		out[i] = p.raw
	}
	return []byte(strings.Join(out, "&")), nil
}

// place sets what is to be at a pointer, or adds to it.
func (e *Edit) place(pairs []pair, at string) ([]pair, error) {
	value, add := e.Set[at], e.append[at]
	if e.labels[at] != "" {
		return nil, errors.New("is no list: a form has none")
	}
	text := strings.TrimLeft(add, "\n")
	if add == "" {
		v, err := plain(value)
		if err != nil {
			return nil, err
		}
		text = v
	}
	var there []int
	for i, p := range pairs {
		if below([]string{at}, p.path) {
			there = append(there, i)
		}
	}
	if len(there) == 0 {
		return append(pairs, newPair(at, text)), nil
	}
	if add == "" {
		pairs[there[0]] = newPair(at, text)
		after := pairs[there[0]+1:]
		more := slices.DeleteFunc(after, func(p pair) bool { return below([]string{at}, p.path) })
		return pairs[:len(pairs)-len(after)+len(more)], nil
	}
	if p := &pairs[there[0]]; len(there) == 1 && pointer(p.path) == at {
		p.raw = name(p.raw) + "=" + url.QueryEscape(p.value+add)
		return pairs, nil
	}
	return nil, errors.New("is no single text")
}

// plain is the text of what is to be set.
func plain(v jsontext.Value) (string, error) {
	switch v.Kind() {
	case '"':
		b, err := jsontext.AppendUnquote(nil, v)
		return string(b), err
	case '0', 't', 'f':
		return string(v), nil
	}
	return "", errors.New("is no text, number or truth value, which is all that a form has")
}

func newPair(at, text string) pair {
	var parts []string
	for part := range strings.SplitSeq(at[1:], "/") {
		parts = append(parts, strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
	}
	spelled := parts[0]
	for _, part := range parts[1:] {
		spelled += "[" + part + "]"
	}
	return pair{raw: url.QueryEscape(spelled) + "=" + url.QueryEscape(text), path: parts, value: text}
}

func parsePairs(form string) ([]pair, error) {
	var out []pair
	if strings.Contains(form, ";") { // to some frameworks it separates fields
		return nil, errors.New("a semicolon may be read in more than one way")
	}
	for raw := range strings.SplitSeq(form, "&") {
		if raw == "" {
			continue
		}
		key, value, _ := strings.Cut(raw, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			return nil, err
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, err
		}
		path, err := nested(key)
		if err != nil {
			return nil, err
		}
		out = append(out, pair{raw, path, value})
	}
	return out, nil
}

// maxNested bounds the parts of a field's name; PHP takes 64.
const maxNested = 64

// nested takes metadata[a][] apart, as frameworks do. A name that they may read in
// different ways is an error.
func nested(key string) ([]string, error) {
	first, rest, found := strings.Cut(key, "[")
	path := []string{first}
	if strings.ContainsAny(first, "]\x00") || strings.TrimSpace(first) != first || first == "" {
		return nil, fmt.Errorf("the field %q may be read in more than one way", key)
	}
	for found {
		part, after, closed := strings.Cut(rest, "]")
		if !closed || after != "" && after[0] != '[' || strings.ContainsAny(part, "[\x00") {
			return nil, fmt.Errorf("the field %q may be read in more than one way", key)
		}
		if path = append(path, part); len(path) > maxNested {
			return nil, errors.New("a field is nested too deep")
		}
		_, rest, found = strings.Cut(after, "[")
	}
	return path, nil
}

// inPHP is how PHP reads a name that it cannot have for a variable: dots and spaces at
// its first level are underscores. nil: as it stands.
func inPHP(path []string) []string {
	if !strings.ContainsAny(path[0], ". ") {
		return nil
	}
	return append([]string{strings.NewReplacer(".", "_", " ", "_").Replace(path[0])}, path[1:]...)
}

func name(raw string) string {
	n, _, _ := strings.Cut(raw, "=")
	return n
}

// below reports whether a pattern covers a path or one above it.
func below(patterns []string, path []string) bool {
	for n := 1; n <= len(path); n++ {
		if matchesAny(patterns, path[:n]) {
			return true
		}
	}
	return false
}
