package action

import (
	"net/url"
	"slices"
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
	for more := true; more; {
		var before, name, value string
		before, template, more = strings.Cut(template, "{")
		out.WriteString(before)
		if !more {
			break
		}
		name, template, _ = strings.Cut(template, "}")
		clear := true
		switch name[0] {
		case '@':
			value, query, clear, given = sourceField(r.Header.Values(name[1:]))
		case '?':
			value, clear, given = sourceKey(r.RawQuery, name[1:])
		default:
			i := slices.IndexFunc(params, func(p policy.Param) bool { return p.Name == name })
			if given = true; i >= 0 {
				value = url.PathEscape(params[i].Value)
			}
		}
		if !given || !clear {
			return "", "", given
		}
		out.WriteString(value)
	}
	path = out.String()
	if checkPath(path, true) != nil || checkQuery(query) != nil {
		return "", "", true
	}
	return path, query, true
}

// sourceField reads a field that names a source, as S3's x-amz-copy-source does:
// BUCKET/KEY in the encoding of URLs, perhaps with a query.
func sourceField(list []string) (value, query string, clear, given bool) {
	if len(list) == 0 {
		return "", "", false, false
	}
	value, query, _ = strings.Cut(strings.TrimPrefix(list[0], "/"), "?")
	// A plus may be a space, and a colon makes it an ARN.
	return plainSlashes(value), query, len(list) == 1 && !strings.ContainsAny(value, "+:"), true
}

// sourceKey reads a key of the query that names a source.
func sourceKey(query, key string) (value string, clear, given bool) {
	values, err := url.ParseQuery(query)
	list := values[key]
	if err != nil || len(list) != 1 {
		return "", false, err != nil || len(list) > 0
	}
	return strings.ReplaceAll(url.PathEscape(list[0]), "%2F", "/"), true, true
}
