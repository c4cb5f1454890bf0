package action

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// host is one name under which a service answers, or part of it.
type host struct {
	service *compiled
	api     bool // at the paths of its catalogue
	git     bool // at the paths of git
	text    string
}

// place is a name with who answers there: one service for all of it, and others
// under paths of their own, longest first.
type place struct {
	all   *host
	under []claim
}

type claim struct {
	prefix string // "/calendar"
	host   *host
}

// at returns who answers at a path, or nil.
func (p *place) at(path string) *host {
	for i := range p.under {
		if rest, ok := strings.CutPrefix(path, p.under[i].prefix); ok && (rest == "" || rest[0] == '/') {
			return p.under[i].host
		}
	}
	return p.all
}

// enter adds a service to those of a name.
func (p *place) enter(prefix string, h *host) {
	if prefix == "" {
		p.all = h
		return
	}
	p.under = append(p.under, claim{prefix, h})
	slices.SortFunc(p.under, func(a, b claim) int {
		return cmp.Or(len(b.prefix)-len(a.prefix), strings.Compare(a.prefix, b.prefix))
	})
}

// hostPattern is a name with wildcards before its end.
type hostPattern struct {
	labels []string // "*" stands for one
	more   bool     // one or more labels stand in front
	lead   bool     // which are put in front of the path
	text   string
	place  *place
}

// hosts finds services by name.
type hosts struct {
	exact    map[string]*place
	suffixes map[string]*place         // "example.com" of *.example.com
	patterns map[string][]*hostPattern // by what stands behind the last wildcard
	texts    map[string]*host          // patterns as written
}

func newHosts() hosts {
	return hosts{map[string]*place{}, map[string]*place{}, map[string][]*hostPattern{}, map[string]*host{}}
}

// add enters a name, or a name with the beginning of a path, which belongs to one
// service only.
func (t *hosts) add(text string, h *host) error {
	old := t.texts[text]
	if old != nil && old.service == h.service && old.git != h.git {
		old.api, old.git = true, true
		return nil
	}
	if old != nil {
		a, b := old.service.title(), h.service.title()
		return fmt.Errorf("host %q belongs to %q and %q", text, min(a, b), max(a, b))
	}
	t.texts[text], h.text = h, text
	name, prefix, under := strings.Cut(text, "/")
	if under {
		prefix = "/" + prefix
	}
	suffix, wild := strings.CutPrefix(name, "*.")
	switch {
	case wild && !strings.Contains(suffix, "*"):
		placeOf(t.suffixes, suffix).enter(prefix, h)
	case strings.ContainsAny(name, "*{"):
		t.pattern(name).enter(prefix, h)
	default:
		placeOf(t.exact, name).enter(prefix, h)
	}
	return nil
}

func placeOf(m map[string]*place, name string) *place {
	if m[name] == nil {
		m[name] = &place{}
	}
	return m[name]
}

// pattern returns the place of a name with wildcards.
func (t *hosts) pattern(text string) *place {
	p, name := &hostPattern{text: text, place: &place{}}, text
	if first, rest, ok := strings.Cut(name, "."); ok && (first == "*" || first[0] == '{') {
		p.more, p.lead, name = true, first != "*", rest
	}
	p.labels = strings.Split(name, ".")
	tail := strings.TrimPrefix(name[strings.LastIndexByte(name, '*')+1:], ".")
	for _, old := range t.patterns[tail] {
		if old.text == text {
			return old.place
		}
	}
	t.patterns[tail] = append(t.patterns[tail], p)
	slices.SortStableFunc(t.patterns[tail], func(a, b *hostPattern) int { return len(b.labels) - len(a.labels) })
	return p.place
}

// find returns the host of a canonical name that answers at a path: by the name
// itself, else by the longest suffix or pattern at a label boundary; with it, what
// the service takes for the first segment of the path, or "".
func (t *hosts) find(name, path string) (h *host, lead string) {
	p, lead := t.place(name)
	if p == nil {
		return nil, ""
	}
	return p.at(path), lead
}

func (t *hosts) place(name string) (p *place, lead string) {
	if p := t.exact[name]; p != nil {
		return p, ""
	}
	for rest := name; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return nil, ""
		}
		rest = rest[i+1:]
		if p := t.suffixes[rest]; p != nil {
			return p, ""
		}
		for _, p := range t.patterns[rest] {
			if lead, ok := p.match(name); ok {
				return p.place, lead
			}
		}
	}
}

// match compares label by label from the end.
func (p *hostPattern) match(name string) (lead string, ok bool) {
	for i := len(p.labels) - 1; i >= 0; i-- {
		at := strings.LastIndexByte(name, '.')
		if label := name[at+1:]; label == "" || p.labels[i] != "*" && p.labels[i] != label {
			return "", false
		}
		switch {
		case at < 0 && (i > 0 || p.more):
			return "", false
		case at < 0:
			return "", true
		}
		name = name[:at]
	}
	if !p.more || name == "" {
		return "", false
	}
	if !p.lead {
		name = ""
	}
	return name, true
}
