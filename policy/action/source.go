package action

import (
	"net/url"
	"strings"

	"chaperone/policy"
)

// source adds the action that reads what a request copies: the service does it in one
// step, by a credential that may read more than the agent. Both must be allowed.
func (k *compiled) source(r *Request, q *policy.Question) {
	acts := actsOf(q)
	for _, a := range acts {
		reader, template, ok := strings.Cut(k.Copies[a.Action.Operation], " ")
		if !ok {
			continue
		}
		path, query, given := sourcePath(template, r, a.Resource.Params)
		if !given {
			continue
		}
		var read policy.Question
		if path != "" {
			one := Request{Method: "GET", Host: r.Host, Path: path, RawQuery: query, BodyState: policy.BodyAbsent}
			if k.named(&one, &read) != nil {
				read = policy.Question{}
			}
		}
		if read.Action.Operation != reader { // also where it has no name
			q.Action, q.Resource, q.Actions = unknown(k.Name, "source"), policy.Resource{}, nil
			return
		}
		acts = append(acts, actsOf(&read)...)
	}
	k.several(acts, "", q)
}

// sourcePath fills a template of [Service.Copies]. It returns "" for what readers may
// take for different paths, and false when the request has no such field or key.
func sourcePath(template string, r *Request, params []policy.Param) (path, query string, given bool) {
	var out strings.Builder
	for {
		before, rest, more := strings.Cut(template, "{")
		out.WriteString(before)
		if !more {
			break
		}
		name, behind, _ := strings.Cut(rest, "}")
		template = behind
		switch {
		case name[0] == '@':
			list := r.Header.Values(name[1:])
			if len(list) == 0 {
				return "", "", false
			}
			value, q, _ := strings.Cut(strings.TrimPrefix(list[0], "/"), "?")
			if len(list) > 1 || strings.ContainsAny(value, "+:") { // a plus may be a space, a colon makes it an ARN
				return "", "", true
			}
			out.WriteString(plainSlashes(value))
			query = q
		case name[0] == '?':
			values, err := url.ParseQuery(r.RawQuery)
			if list := values[name[1:]]; err != nil || len(list) > 1 {
				return "", "", true
			} else if len(list) == 0 {
				return "", "", false
			}
			out.WriteString(strings.ReplaceAll(url.PathEscape(values.Get(name[1:])), "%2F", "/"))
		default:
			for _, p := range params {
				if p.Name == name {
					out.WriteString(url.PathEscape(p.Value))
				}
			}
		}
	}
	path = out.String()
	if checkPath(path, true) != nil || checkQuery(query) != nil {
		return "", "", true
	}
	return path, query, true
}
