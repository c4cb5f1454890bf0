package action

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chaperone/policy"
)

// form is what a body's fields say it is.
type form uint8

const (
	otherForm form = iota
	jsonForm
	urlForm
)

// formOf tells the form of a body. Two types, a parameter that changes how bytes
// are read, or a compression make it another form, which nothing here looks into.
func formOf(h http.Header) form {
	types := h["Content-Type"]
	if len(types) != 1 || len(h["Content-Encoding"]) > 0 {
		return otherForm
	}
	kind, params, err := mime.ParseMediaType(types[0])
	if err != nil {
		return otherForm
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return otherForm
	}
	switch {
	case kind == "application/json", strings.HasSuffix(kind, "+json"), strings.HasPrefix(kind, "application/x-amz-json-1."):
		return jsonForm
	case kind == "application/x-www-form-urlencoded":
		return urlForm
	}
	return otherForm
}

func hasArguments(h http.Header) bool { return formOf(h) != otherForm }

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
			lower := strings.ToLower(k)
			if seen[lower] {
				return fmt.Errorf("%w: members that differ in case only", ErrAmbiguous)
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

func parseForm(s string) (url.Values, error) {
	if err := checkFormBytes(s); err != nil {
		return nil, err
	}
	return url.ParseQuery(s)
}

func checkFormBytes(s string) error {
	if strings.ContainsAny(s, ";\x00") {
		return fmt.Errorf("%w: form with a semicolon or NUL", ErrAmbiguous)
	}
	return nil
}

// arguments adds the service's arguments to params, from the query and the body.
// One that is given twice with different values makes the request unclear. It
// returns why the action cannot be known, if so.
func (k *compiled) arguments(r *Request, params *[]policy.Param) (why string, err error) {
	found := map[string]string{}
	take := func(name, value string) error {
		if name == k.BodyCredential && name != "" {
			return ErrBodyCredential
		}
		if !slices.Contains(k.Arguments, name) {
			return nil
		}
		if old, ok := found[name]; ok && old != value {
			return fmt.Errorf("%w: %s is given twice", ErrAmbiguous, name)
		}
		found[name] = value
		return nil
	}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return "", fmt.Errorf("%w: the query cannot be read", ErrAmbiguous)
	}
	if err := takeAll(query, take); err != nil {
		return "", err
	}
	if r.BodyState != policy.BodyAbsent && r.BodyState != "" && formOf(r.Header) == otherForm {
		return "body", nil // multipart, compressed, another type: the service may find arguments in it
	}
	switch r.BodyState {
	case policy.BodyAbsent, "":
	case policy.BodyParsed, policy.BodyUnparsable:
		if why, err := k.bodyArguments(r, take); why != "" || err != nil {
			return why, err
		}
	default:
		return "body", nil // longer than may be read: what it says is not known
	}
	for _, name := range k.Arguments {
		if v, ok := found[name]; ok {
			*params = append(*params, policy.Param{Name: name, Value: k.value(name, v)})
		}
	}
	return "", nil
}

func takeAll(values url.Values, take func(name, value string) error) error {
	for name, list := range values {
		for _, v := range list {
			if err := take(name, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *compiled) bodyArguments(r *Request, take func(name, value string) error) (string, error) {
	body := bytes.TrimSpace(r.Body)
	if len(body) == 0 {
		return "", nil
	}
	switch formOf(r.Header) {
	case urlForm:
		if body[0] == '{' {
			return "body", nil // JSON under the form's type: the service may read it as either
		}
		fields, err := parseForm(string(r.Body))
		if err != nil {
			return "", fmt.Errorf("%w: the form cannot be read", ErrAmbiguous)
		}
		return "", takeAll(fields, take)
	case jsonForm:
		v, err := parseJSON(r.Body)
		if err != nil {
			return "", fmt.Errorf("%w: the JSON body cannot be read in one way", ErrAmbiguous)
		}
		object, ok := v.(map[string]any)
		if !ok {
			return "body", nil
		}
		for name, x := range object {
			s, ok := x.(string)
			if !ok && (slices.Contains(k.Arguments, name) || name == k.BodyCredential) {
				return "body", nil
			}
			if err := take(name, s); err != nil {
				return "", err
			}
		}
	}
	return "", nil
}
