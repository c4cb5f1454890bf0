package action

import (
	"fmt"
	"slices"
	"strings"
)

// host is one name under which a service answers, or part of it.
type host struct {
	service *compiled
	git     bool
}

// hostPattern is a name with wildcards before its end.
type hostPattern struct {
	labels []string // "*" stands for one
	more   bool     // one or more labels stand in front
	lead   bool     // which are put in front of the path
	host   *host
}

// hosts finds services by name.
type hosts struct {
	exact    map[string]*host
	suffixes map[string]*host          // "example.com" of *.example.com
	patterns map[string][]*hostPattern // by what stands behind the last wildcard
	texts    map[string]*host          // patterns as written
}

func newHosts() hosts {
	return hosts{map[string]*host{}, map[string]*host{}, map[string][]*hostPattern{}, map[string]*host{}}
}

// add enters a name, which belongs to one service only.
func (t *hosts) add(name string, h *host) error {
	if old := t.texts[name]; old != nil {
		a, b := old.service.title(), h.service.title()
		return fmt.Errorf("host %q belongs to %q and %q", name, min(a, b), max(a, b))
	}
	t.texts[name] = h
	suffix, wild := strings.CutPrefix(name, "*.")
	switch {
	case wild && !strings.Contains(suffix, "*"):
		t.suffixes[suffix] = h
	case strings.ContainsAny(name, "*{"):
		t.pattern(name, h)
	default:
		t.exact[name] = h
	}
	return nil
}

func (t *hosts) pattern(name string, h *host) {
	p := &hostPattern{host: h}
	if first, rest, ok := strings.Cut(name, "."); ok && (first == "*" || first[0] == '{') {
		p.more, p.lead, name = true, first != "*", rest
	}
	p.labels = strings.Split(name, ".")
	tail := strings.TrimPrefix(name[strings.LastIndexByte(name, '*')+1:], ".")
	t.patterns[tail] = append(t.patterns[tail], p)
	slices.SortStableFunc(t.patterns[tail], func(a, b *hostPattern) int { return len(b.labels) - len(a.labels) })
}

// find returns the host of a canonical name: by the name itself, else by the
// longest suffix or pattern at a label boundary; with it, what the service takes
// for the first segment of the path, or "".
func (t *hosts) find(name string) (h *host, lead string) {
	if h := t.exact[name]; h != nil {
		return h, ""
	}
	for rest := name; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return nil, ""
		}
		rest = rest[i+1:]
		if h := t.suffixes[rest]; h != nil {
			return h, ""
		}
		for _, p := range t.patterns[rest] {
			if lead, ok := p.match(name); ok {
				return p.host, lead
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
