package action

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"chaperone/policy"
)

// maxParts bounds the requests of one batch.
const maxParts = 100

// batch names the requests inside a request. What is not read whole, and a request
// inside that has no name, makes all of it unknown.
func (k *compiled) batch(e endpoint, r *Request, q *policy.Question) error {
	q.Action = unknown(k.Name, "batch")
	if r.Method != http.MethodPost || r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable {
		return nil
	}
	var inner []*Request
	var ok bool
	if e == endpointMultipart {
		inner, ok = multipartBatch(r)
	} else {
		inner, ok = jsonBatch(e, r)
	}
	if !ok || len(inner) == 0 || len(inner) > maxParts {
		return nil
	}
	return k.all(inner, q)
}

// all names every request of a batch.
func (k *compiled) all(inner []*Request, q *policy.Question) error {
	var acts []policy.Act
	for _, r := range inner {
		if err := checkClear(r, k.EncodedSlash); err != nil {
			return fmt.Errorf("inside a batch: %w", err)
		}
		if k.endpoint(r.Path) != endpointNone {
			return nil // a batch in a batch, or what a body says that is not looked into
		}
		var one policy.Question
		if err := k.rest(r, &one); err != nil {
			return fmt.Errorf("inside a batch: %w", err)
		}
		switch {
		case !one.Action.Known:
			return nil
		case len(one.Actions) > 0:
			acts = append(acts, one.Actions...)
		default:
			acts = append(acts, policy.Act{Action: one.Action, Resource: one.Resource})
		}
	}
	k.several(acts, "", q)
	return nil
}

// multipartBatch reads a batch of Google's: parts of type application/http, each a
// whole request to the same service.
func multipartBatch(r *Request) ([]*Request, bool) {
	parts, whole := splitParts(r.Header, "multipart/mixed", r.Body)
	if !whole {
		return nil, false
	}
	var inner []*Request
	for _, p := range parts {
		kind, _, err := mime.ParseMediaType(p.header.Get("Content-Type"))
		coding := strings.ToLower(p.header.Get("Content-Transfer-Encoding"))
		if err != nil || kind != "application/http" || coding != "" && coding != "binary" && coding != "8bit" && coding != "7bit" {
			return nil, false
		}
		one, ok := readPart(p.body, r.Host)
		if !ok {
			return nil, false
		}
		inner = append(inner, one)
	}
	return inner, true
}

// readPart reads a request as a part holds it: a request line, which may lack the
// version and name the host, fields, and a body.
func readPart(b []byte, host string) (*Request, bool) {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	end := []byte("\n")
	if trimmed, crlf := bytes.CutSuffix(line, []byte("\r")); crlf {
		line, end = trimmed, []byte("\r\n")
	}
	words := strings.Split(string(line), " ")
	if len(words) != 2 && (len(words) != 3 || words[2] != "HTTP/1.1") {
		return nil, false
	}
	one := &Request{Method: words[0], Host: host, Header: http.Header{}, BodyState: policy.BodyAbsent}
	one.Path, one.RawQuery, _ = strings.Cut(strings.TrimPrefix(words[1], "https://"+host), "?")
	if ok && len(rest) > 0 && !bytes.Equal(rest, end) {
		if !bytes.Contains(rest, append(end, end...)) && !bytes.HasPrefix(rest, end) {
			rest = append(append(bytes.Clone(rest), end...), end...) // fields without an end
		}
		if one.Header, rest, ok = fieldLines(rest, end); !ok {
			return nil, false
		}
		if len(bytes.TrimSpace(rest)) > 0 {
			one.Body, one.BodyState = rest, policy.BodyParsed
		}
	}
	return one, len(one.Header["Host"]) == 0 && plainMethod(one.Method)
}

// plainMethod reports whether a method is written as servers compare it.
func plainMethod(m string) bool {
	for i := range len(m) {
		if m[i] < 'A' || m[i] > 'Z' {
			return false
		}
	}
	return m != ""
}

// jsonBatch reads a batch that is a JSON object with a list of requests.
func jsonBatch(e endpoint, r *Request) ([]*Request, bool) {
	if formOf(r.Header) != jsonForm || r.RawQuery != "" {
		return nil, false
	}
	v, err := parseJSON(r.Body)
	object, ok := v.(map[string]any)
	if err != nil || !ok {
		return nil, false
	}
	// what urls of its requests begin with
	above, _, _ := cutLast(r.Path)
	b := &batchReader{host: r.Host}
	switch e {
	case endpointOData: // Microsoft Graph: relative to the version
		b.base, b.member = above, "requests"
	case endpointComposite: // Salesforce: whole paths
		b.member, b.beside = "compositeRequest", []string{"allOrNone", "collateSubrequests"}
	case endpointCompositeGraph:
		return b.graphs(object)
	case endpointCompositeBatch: // relative to /services/data
		at := strings.Index(r.Path, "/data/")
		if at < 0 {
			return nil, false
		}
		b.base, b.member, b.beside = r.Path[:at+len("/data")], "batchRequests", []string{"haltOnError"}
	case endpointAsana:
		if object, ok = object["data"].(map[string]any); !ok {
			return nil, false
		}
		b.base, b.member = above, "actions"
	}
	return b.list(object)
}

func cutLast(path string) (above, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// batchReader reads lists of requests in JSON.
type batchReader struct {
	host, base string
	member     string   // that holds the list
	beside     []string // members that change nothing about which requests there are
}

func (b *batchReader) graphs(object map[string]any) ([]*Request, bool) {
	list, ok := object["graphs"].([]any)
	if !ok || len(object) != 1 {
		return nil, false
	}
	b.member, b.beside = "compositeRequest", []string{"graphId"}
	var inner []*Request
	for _, x := range list {
		graph, ok := x.(map[string]any)
		more, whole := b.list(graph)
		if !ok || !whole {
			return nil, false
		}
		inner = append(inner, more...)
	}
	return inner, true
}

func (b *batchReader) list(object map[string]any) ([]*Request, bool) {
	list, ok := object[b.member].([]any)
	known := 1
	for _, name := range b.beside {
		if _, given := object[name]; given {
			known++
		}
	}
	if !ok || len(object) != known || len(list) > maxParts {
		return nil, false
	}
	inner := make([]*Request, 0, len(list))
	for _, x := range list {
		one, ok := b.request(x)
		if !ok {
			return nil, false
		}
		inner = append(inner, one)
	}
	return inner, true
}

// request reads {method, url, headers, body} under the names that vendors use. A
// member that is not known may change what is asked.
func (b *batchReader) request(x any) (*Request, bool) {
	object, ok := x.(map[string]any)
	one := &Request{Host: b.host, Header: http.Header{}, BodyState: policy.BodyAbsent}
	fields := 0
	for name, v := range object {
		text, isText := v.(string)
		switch name {
		case "id", "dependsOn", "referenceId":
			continue
		case "body", "richInput", "data":
			body, err := json.Marshal(v)
			one.Body, one.BodyState = body, policy.BodyParsed
			ok = ok && err == nil
			continue
		case "method":
			one.Method = text
			if b.member == "actions" {
				one.Method = strings.ToUpper(text)
			}
		case "url", "relative_path":
			ok = ok && b.target(one, text)
		case "headers", "httpHeaders":
			isText = inner(one.Header, v)
		default:
			return nil, false
		}
		ok = ok && isText
		fields++
	}
	if one.BodyState == policy.BodyParsed && len(one.Header["Content-Type"]) == 0 {
		one.Header.Set("Content-Type", "application/json") // it is a JSON value
	}
	return one, ok && fields >= 2 && one.Path != "" && plainMethod(one.Method)
}

// target sets path and query. A reference to another answer (Salesforce: @{ref.id})
// becomes anything.
func (b *batchReader) target(one *Request, text string) bool {
	if one.Path != "" || strings.Contains(text, "@{") {
		return false
	}
	one.Path, one.RawQuery, _ = strings.Cut(text, "?")
	if !strings.HasPrefix(one.Path, "/") {
		one.Path = "/" + one.Path
	}
	one.Path = b.base + one.Path
	return true
}

// inner sets the fields of a request inside a batch.
func inner(h http.Header, v any) bool {
	fields, ok := v.(map[string]any)
	for name, value := range fields {
		text, isText := value.(string)
		ok = ok && isText
		h.Set(name, text)
	}
	return ok
}
