package action

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"chaperone/policy"
)

// maxParts bounds the requests of one batch.
const maxParts = 100

// multipart names the requests inside a request of Google's: parts of type
// application/http, each a whole request to the same service.
func (k *compiled) multipart(r *Request, q *policy.Question) error {
	types := r.Header["Content-Type"]
	if r.Method != http.MethodPost || len(types) != 1 || len(r.Header["Content-Encoding"]) > 0 {
		q.Action = unknown(k.Name, "batch")
		return nil
	}
	kind, params, err := mime.ParseMediaType(types[0])
	whole := r.BodyState == policy.BodyParsed || r.BodyState == policy.BodyUnparsable
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" || !whole {
		q.Action = unknown(k.Name, "batch")
		return nil
	}
	var inner []*Request
	for parts := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"]); ; {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		var one *Request
		if err == nil {
			one, err = readPart(p)
		}
		if err != nil || len(inner) == maxParts {
			q.Action = unknown(k.Name, "batch")
			return nil
		}
		one.Host = r.Host
		inner = append(inner, one)
	}
	return k.all(inner, q)
}

// readPart reads a request as a part holds it: a request line, which may lack the
// version, fields, and a body that names nothing.
func readPart(p *multipart.Part) (*Request, error) {
	odd := fmt.Errorf("%w: a part that is no request", ErrAmbiguous)
	kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
	if err != nil || kind != "application/http" || len(p.Header["Content-Transfer-Encoding"]) > 0 && !strings.EqualFold(p.Header.Get("Content-Transfer-Encoding"), "binary") {
		return nil, odd
	}
	tp := textproto.NewReader(bufio.NewReader(p))
	line, err := tp.ReadLine()
	if err != nil {
		return nil, odd
	}
	words := strings.Split(line, " ")
	if len(words) != 2 && (len(words) != 3 || words[2] != "HTTP/1.1") {
		return nil, odd
	}
	fields, err := tp.ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, odd
	}
	path, query, _ := strings.Cut(words[1], "?")
	if len(fields["Host"]) > 0 || words[0] != strings.ToUpper(words[0]) {
		return nil, odd
	}
	return &Request{Method: words[0], Path: path, RawQuery: query, Header: http.Header(fields), BodyState: policy.BodyUnread}, nil
}

// odata names the requests inside a $batch of Microsoft Graph's.
func (k *compiled) odata(r *Request, q *policy.Question) error {
	q.Action = unknown(k.Name, "batch")
	if r.Method != http.MethodPost || formOf(r.Header) != jsonForm || r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable {
		return nil
	}
	v, err := parseJSON(r.Body)
	if err != nil {
		return nil
	}
	object, _ := v.(map[string]any)
	list, ok := object["requests"].([]any)
	if !ok || len(object) != 1 || len(list) > maxParts {
		return nil
	}
	base := r.Path[:strings.LastIndexByte(r.Path, '/')]
	var inner []*Request
	for _, x := range list {
		one, ok := odataPart(x, base)
		if !ok {
			return nil
		}
		one.Host = r.Host
		inner = append(inner, one)
	}
	return k.all(inner, q)
}

// odataPart reads {id, method, url, headers, body, dependsOn}.
func odataPart(x any, base string) (*Request, bool) {
	object, _ := x.(map[string]any)
	one := &Request{Header: http.Header{}, BodyState: policy.BodyAbsent}
	for name, v := range object {
		text, isText := v.(string)
		switch name {
		case "id", "dependsOn":
		case "body":
			one.BodyState = policy.BodyUnread
		case "method":
			one.Method = text
		case "url":
			var path string
			path, one.RawQuery, _ = strings.Cut(text, "?")
			if !strings.HasPrefix(path, "/") {
				path = "/" + path
			}
			one.Path = base + path
		case "headers":
			fields, ok := v.(map[string]any)
			for field, value := range fields {
				s, _ := value.(string)
				one.Header.Set(field, s)
			}
			isText = ok
		default:
			return nil, false
		}
		if (name == "method" || name == "url" || name == "headers") && !isText {
			return nil, false
		}
	}
	return one, one.Method != "" && one.Path != "" && one.Method == strings.ToUpper(one.Method)
}

// all names every request of a batch. One that is not known, or is a batch itself,
// makes the whole unknown.
func (k *compiled) all(inner []*Request, q *policy.Question) error {
	var acts []policy.Act
	for _, r := range inner {
		for _, check := range [...]func() error{
			func() error { return checkPath(r.Path, k.EncodedSlash) },
			func() error { return checkQuery(r.RawQuery) },
			func() error { return checkOverride(r) },
		} {
			if err := check(); err != nil {
				return err
			}
		}
		var one policy.Question
		if k.special[r.Path] == endpointNone {
			if err := k.rest(r, &one); err != nil {
				return err
			}
		}
		if !one.Action.Known {
			acts = nil
			break
		}
		acts = append(acts, policy.Act{Action: one.Action, Resource: one.Resource})
	}
	why := ""
	if len(acts) == 0 {
		why = "batch"
	}
	k.several(acts, why, q)
	return nil
}
