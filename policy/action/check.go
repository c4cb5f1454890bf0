package action

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

var (
	nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	partForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]*$`)
	copyForm = regexp.MustCompile(`^[A-Za-z0-9_.:@/-]+ /([^ {}]|\{[@?]?[^ {}@?]+\})+$`)
	hostForm = regexp.MustCompile(`^((\*|\{[A-Za-z]+\})\.)?[a-z0-9_-]+(\.([a-z0-9_-]+|\*))*(/[A-Za-z0-9_.~-]+)*$`)
)

// plainOperation reports whether a name holds nothing but what grants can be
// written with.
func plainOperation(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("_.:@/-", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// check returns all faults of a service in one order, each with its place.
func (s *Service) check() error {
	c := &checker{root: s}
	if !nameForm.MatchString(s.Name) {
		c.fault("", "", "", "the name is not of the form a-z, 0-9 and -")
	}
	hosts := len(s.Hosts) + len(s.GitHosts)
	for _, name := range sorted(s.APIs) {
		api := s.APIs[name]
		switch {
		case !partForm.MatchString(name):
			c.fault(name, "", "", "the name of the part is not of the form a-z, 0-9, _, . and -")
		case api == nil || len(api.Hosts) == 0:
			c.fault(name, "", "", "hosts are missing")
		case len(api.APIs)+len(api.Env)+len(api.Places)+len(api.GitHosts) > 0 || api.Name != "" || api.Handle != "":
			c.fault(name, "", "", "a part has no name, parts, credentials or git hosts of its own")
		default:
			hosts += len(api.Hosts)
			c.part(name, api)
		}
	}
	if hosts == 0 && !s.OwnHosts {
		c.fault("", "", "", "hosts are missing")
	}
	c.part("", s)
	return errors.Join(c.faults...)
}

// checker gathers the faults of a service.
type checker struct {
	root   *Service
	faults []error
}

func (c *checker) fault(api, path, method, format string, args ...any) {
	c.faults = append(c.faults, c.root.fault(api, path, method, fmt.Errorf(format, args...)))
}

// fault is an error with the place of an operation: the file and line where the
// service was read from one, and the service.
func (s *Service) fault(api, path, method string, err error) error {
	where := fmt.Sprintf("service %q: ", s.Name)
	if s.where != nil {
		where = s.where(api, path, method) + ": " + where
	}
	if api != "" {
		where += "part " + api + ": "
	}
	if path != "" {
		where += strings.TrimSpace(method+" "+path) + ": "
	}
	return fmt.Errorf("%s%w", where, err)
}

// part checks the service itself, or one of its parts.
func (c *checker) part(api string, s *Service) {
	for _, h := range slices.Concat(s.Hosts, s.GitHosts) {
		if why := hostFlaw(h); why != "" {
			c.fault(api, "", h, "host %q %s", h, why)
		}
	}
	for _, r := range s.Resources {
		if _, err := compileRule(r); err != nil {
			c.fault(api, "", r.Type, "resource %q: %w", r.Type, err)
		}
	}
	for _, p := range s.Protocols {
		if p != "aws-json" && p != "aws-query" && p != "aws-cbor" {
			c.fault(api, "", p, "protocol %q is none of aws-json, aws-query, aws-cbor", p)
		}
	}
	for _, name := range sorted(s.Copies) {
		if !copyForm.MatchString(s.Copies[name]) {
			c.fault(api, name, "", "copies: %q is not \"OPERATION /path/{parameter}\"", s.Copies[name])
		}
	}
	for _, key := range sorted(s.Also) {
		_, err := s.operation(s.Also[key])
		switch {
		case !alsoForm.MatchString(key):
			c.fault(api, key, "", "also: %q is not \"@FIELD\" or \"?KEY\", perhaps behind an operation", key)
		case err != nil:
			c.fault(api, key, "", "%w", err)
		}
	}
	for _, p := range sorted(s.Batches) {
		if batchForms[s.Batches[p]] == endpointNone {
			c.fault(api, "", p, "batches of form %q: only %s are known", s.Batches[p], strings.Join(sorted(batchForms), ", "))
		}
	}
	for _, key := range sorted(s.Ops) {
		if _, err := s.operation(s.Ops[key]); err != nil {
			c.fault(api, key, "", "%w", err)
		}
	}
	for _, path := range sorted(s.Paths) {
		if !strings.HasPrefix(path, "/") {
			c.fault(api, "", path, "path %q does not begin with /", path)
		}
		for _, method := range sorted(s.Paths[path]) {
			if _, err := s.operation(s.Paths[path][method]); err != nil {
				c.fault(api, path, method, "%w", err)
			}
		}
	}
}

// hostFlaw tells what is wrong with a host of a catalogue: its form, or that its
// wildcard reaches names of many owners, by the list of public suffixes.
func hostFlaw(h string) string {
	if !hostForm.MatchString(h) {
		return "is not a lower-case name or *.name, or one with the beginning of a path"
	}
	h, _, _ = strings.Cut(h, "/")
	at := strings.LastIndexAny(h, "*}")
	if at < 0 {
		return ""
	}
	tail := strings.TrimPrefix(h[at+1:], ".")
	suffix, icann := publicsuffix.PublicSuffix(tail)
	if !strings.Contains(tail, ".") || icann && suffix == tail {
		return "would cover a whole top-level domain or public suffix"
	}
	return ""
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
