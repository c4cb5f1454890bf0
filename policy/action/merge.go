package action

import "maps"

// merge lays an operator's description over a shipped one: what it gives replaces,
// paths one by one.
func (s *Service) merge(over *Service) *Service {
	m := *s
	replace(&m.Hosts, over.Hosts)
	replace(&m.GitHosts, over.GitHosts)
	replace(&m.Bases, over.Bases)
	replace(&m.Env, over.Env)
	replace(&m.Places, over.Places)
	replace(&m.TokensOf, over.TokensOf)
	replace(&m.Fold, over.Fold)
	replace(&m.Resources, over.Resources)
	replace(&m.Arguments, over.Arguments)
	replace(&m.Context, over.Context)
	replace(&m.GraphQL, over.GraphQL)
	replace(&m.MCP, over.MCP)
	replace(&m.JSONRPC, over.JSONRPC)
	replace(&m.Protocols, over.Protocols)
	replace(&m.Query, over.Query)
	m.Batches = both(s.Batches, over.Batches)
	m.Ops = both(s.Ops, over.Ops)
	m.HMAC = both(s.HMAC, over.HMAC)
	m.HTTPSignature = both(s.HTTPSignature, over.HTTPSignature)
	m.Copies = both(s.Copies, over.Copies)
	m.Also = both(s.Also, over.Also)
	m.Aliases = both(s.Aliases, over.Aliases)
	m.GitNested = m.GitNested || over.GitNested
	for _, f := range [...]struct{ to, from *string }{{&m.Handle, &over.Handle}, {&m.Refusal, &over.Refusal}, {&m.BodyCredential, &over.BodyCredential}, {&m.Signing, &over.Signing}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	m.AllowForeign = m.AllowForeign || over.AllowForeign
	m.AllowCookies = m.AllowCookies || over.AllowCookies
	m.Cleartext = m.Cleartext || over.Cleartext
	m.EncodedSlash = m.EncodedSlash || over.EncodedSlash
	m.Paths = map[string]map[string]string{}
	for _, from := range []*Service{s, over} {
		for path, methods := range from.Paths {
			if m.Paths[path] == nil {
				m.Paths[path] = map[string]string{}
			}
			maps.Copy(m.Paths[path], methods)
		}
	}
	m.APIs = maps.Clone(s.APIs)
	for name, api := range over.APIs {
		if old := s.APIs[name]; old != nil {
			api = old.merge(api)
		}
		if m.APIs == nil {
			m.APIs = map[string]*Service{}
		}
		m.APIs[name] = api
	}
	return &m
}

func both(s, over map[string]string) map[string]string {
	if len(over) == 0 {
		return s
	}
	m := maps.Clone(over)
	for k, v := range s {
		if _, given := over[k]; !given {
			m[k] = v
		}
	}
	return m
}

func replace[T any](to *[]T, from []T) {
	if len(from) > 0 {
		*to = from
	}
}
