package action

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chaperone/policy"
)

// ParseBody reads a whole body for policy: JSON, with members that stand twice or
// differ in case only refused, or form fields. It returns nil and BodyUnparsable
// for what it cannot read in exactly one way.
func ParseBody(h http.Header, body []byte) (any, policy.BodyState) {
	switch formOf(h) {
	case jsonForm:
		v, err := parseJSON(body)
		if err != nil {
			return nil, policy.BodyUnparsable
		}
		return v, policy.BodyParsed
	case urlForm:
		fields, err := parseForm(string(body))
		if err != nil {
			return nil, policy.BodyUnparsable
		}
		out := map[string]any{}
		for k, values := range fields {
			list := make([]any, len(values))
			for i, v := range values {
				list[i] = v
			}
			out[k] = list
		}
		return out, policy.BodyParsed
	}
	return nil, policy.BodyUnparsable
}

// maxDepth bounds the nesting of JSON that is looked into.
const maxDepth = 64

// parseJSON decodes one JSON value. go-json-experiment refuses invalid UTF-8 and
// members of one name; members that differ in case only are refused here, since
// some servers take them for one.
func parseJSON(body []byte) (any, error) {
	if depth(body) > maxDepth {
		return nil, fmt.Errorf("%w: JSON nested deeper than %d", ErrAmbiguous, maxDepth)
	}
	var v any
	if err := json.Unmarshal(body, &v, jsontext.AllowDuplicateNames(false)); err != nil {
		return nil, err
	}
	return v, checkCase(v)
}

func depth(b []byte) int {
	most, now, text := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			now++
			most = max(most, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return most
}

func checkCase(v any) error {
	switch v := v.(type) {
	case map[string]any:
		seen := make(map[string]bool, len(v))
		for k, x := range v {
			lower := fold(k)
			if seen[lower] || strings.Contains(k, "\x00") {
				return fmt.Errorf("%w: members that differ in case only, or with a NUL", ErrAmbiguous)
			}
			seen[lower] = true
			if err := checkCase(x); err != nil {
				return err
			}
		}
	case []any:
		for _, x := range v {
			if err := checkCase(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// arguments adds the service's arguments to params, from the query and the body.
// One that is given twice with different values makes the request unclear, and those
// that the operation does not take are passed over, as the service does. It returns why
// the action cannot be known, if so.
func (k *compiled) arguments(r *Request, op *operation, params *[]policy.Param) (why string, err error) {
	found := argumentsFound{k: k, values: map[string]string{}, listed: slices.Contains(k.Protocols, "aws-query")}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return "", fmt.Errorf("%w: the query cannot be read", ErrAmbiguous)
	}
	if err := found.takeAll(query); err != nil {
		return "", err
	}
	switch r.BodyState {
	case policy.BodyAbsent, "":
	case policy.BodyParsed, policy.BodyUnparsable:
		if why, err := found.body(r); why != "" || err != nil {
			return why, err
		}
	default:
		return "body", nil // of another type, compressed, or longer than may be read: what it says is not known
	}
	for _, name := range k.Arguments {
		if !op.takes(name) {
			continue
		}
		if v, ok := found.values[name]; ok {
			*params = append(*params, policy.Param{Name: name, Value: k.value(name, v)})
		}
		for _, v := range found.lists[name] {
			*params = append(*params, policy.Param{Name: name, Value: k.value(name, v)})
		}
	}
	return "", nil
}

// argumentsFound are the values of a service's arguments in one request.
type argumentsFound struct {
	k      *compiled
	values map[string]string
	listed bool                // members of lists are NAME.1, NAME.2 (AWS's query protocol)
	lists  map[string][]string // their values
}

func (f *argumentsFound) take(name, value string) error {
	if list, n, ok := strings.Cut(name, "."); f.listed && ok && n != "" && f.k.argument(list) {
		if f.lists == nil {
			f.lists = map[string][]string{}
		}
		f.lists[list] = append(f.lists[list], value)
		return nil
	}
	if !f.k.argument(name) {
		if loose := fold(looseName(name)); loose != name && f.k.argument(loose) {
			return fmt.Errorf("%w: %s is given in another spelling", ErrAmbiguous, loose)
		}
		return nil
	}
	if name == f.k.BodyCredential {
		return ErrBodyCredential
	}
	if old, ok := f.values[name]; ok && old != value {
		return fmt.Errorf("%w: %s is given twice", ErrAmbiguous, name)
	}
	f.values[name] = value
	return nil
}

func (f *argumentsFound) takeAll(values url.Values) error {
	for name, list := range values {
		for _, v := range list {
			if err := f.take(name, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// argument reports whether a name is one of the service's arguments, or that in
// which it would take a credential.
func (k *compiled) argument(name string) bool {
	return name != "" && name == k.BodyCredential || slices.Contains(k.Arguments, name)
}

// body takes the arguments of a body that was read whole.
func (f *argumentsFound) body(r *Request) (string, error) {
	body := bytes.TrimSpace(r.Body)
	if len(body) == 0 {
		return "", nil
	}
	switch formOf(r.Header) {
	case urlForm:
		if body[0] == '{' || body[0] == '[' {
			return "body", nil // JSON under the form's type: the service may read it as either
		}
		fields, err := parseForm(string(r.Body))
		if err != nil {
			return "", fmt.Errorf("%w: the form cannot be read", ErrAmbiguous)
		}
		return "", f.takeAll(fields)
	case multiForm:
		return f.multipart(r)
	case jsonForm:
		return f.json(r.Body)
	}
	return "body", nil
}

func (f *argumentsFound) multipart(r *Request) (string, error) {
	fields, whole := formParts(r)
	for _, x := range fields {
		if x.file && f.k.argument(x.name) {
			return "body", nil // a file where a word should be
		}
		if err := f.take(x.name, x.value); err != nil {
			return "", err
		}
	}
	if !whole {
		return "body", nil
	}
	return "", nil
}

func (f *argumentsFound) json(body []byte) (string, error) {
	v, err := parseJSON(body)
	if err != nil {
		return "", fmt.Errorf("%w: the JSON body cannot be read in one way", ErrAmbiguous)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return "body", nil
	}
	for name, x := range object {
		s, ok := x.(string)
		if !ok && f.k.argument(name) {
			return "body", nil
		}
		if err := f.take(name, s); err != nil {
			return "", err
		}
	}
	return "", nil
}
