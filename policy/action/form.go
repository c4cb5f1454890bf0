package action

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"chaperone/policy"
)

// form is what a body's fields say it is.
type form uint8

const (
	otherForm form = iota // nothing here looks into it, and no service takes it for a form
	jsonForm
	urlForm
	multiForm // multipart/form-data
	bareForm  // without a type: some frameworks (Rack) take a POST's for a form
	oddForm   // a form to a reader who is not strict, or compressed
)

// formOf tells the form of a body. Two types, a parameter that changes how bytes
// are read, or a compression make it another form, which nothing here looks into.
func formOf(h http.Header) form {
	types := h["Content-Type"]
	if len(types) == 0 {
		return bareForm
	}
	if f := usualForm(types[0]); f != otherForm && len(types) == 1 && len(h["Content-Encoding"]) == 0 {
		return f
	}
	kind, params, err := mime.ParseMediaType(types[0])
	charset := params["charset"]
	plain := err == nil && len(types) == 1 && len(h["Content-Encoding"]) == 0 && (charset == "" || strings.EqualFold(charset, "utf-8"))
	switch {
	case plain && (kind == "application/json" || strings.HasSuffix(kind, "+json") || strings.HasPrefix(kind, "application/x-amz-json-1.")):
		return jsonForm
	case plain && kind == "application/x-www-form-urlencoded":
		return urlForm
	case plain && kind == "multipart/form-data":
		return multiForm
	case mentionsForm(types):
		return oddForm
	}
	return otherForm
}

// usualForm tells the form of the types that clients write, without taking them apart.
func usualForm(t string) form {
	switch t {
	case "application/json", "application/json; charset=utf-8", "application/json; charset=UTF-8", "application/json;charset=utf-8", "application/vnd.api+json":
		return jsonForm
	case "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8", "application/x-www-form-urlencoded; charset=UTF-8":
		return urlForm
	}
	return otherForm
}

// mentionsForm reports whether a reader that looks at the beginning of a type, or
// anywhere in it, might find a form.
func mentionsForm(types []string) bool {
	for _, t := range types {
		if t = strings.ToLower(t); strings.Contains(t, "form") || strings.Contains(t, "multipart/") {
			return true
		}
	}
	return false
}

// mayOverride reports whether the body might be a form, in which some frameworks
// look for another method. They do so for POST only.
func mayOverride(r *Request) bool {
	if r.Method != http.MethodPost || r.BodyState == policy.BodyAbsent {
		return false
	}
	switch formOf(r.Header) {
	case urlForm, multiForm, bareForm, oddForm:
		return true
	}
	return false
}

// checkOverride refuses requests that ask to be taken for another method: some
// frameworks honour these, and what was decided would not be what is done.
func checkOverride(r *Request) error {
	for name := range r.Header {
		if len(name) >= len("X-Http-Method") && name[0]|' ' == 'x' && overridingField(name) {
			return fmt.Errorf("%w: a method override", ErrAmbiguous)
		}
	}
	if overrides(r.RawQuery) {
		return fmt.Errorf("%w: a method override", ErrAmbiguous)
	}
	if !mayOverride(r) {
		return nil
	}
	found := false
	switch formOf(r.Header) {
	case urlForm, bareForm:
		found = overrides(string(r.Body))
	case multiForm:
		fields, _ := formParts(r)
		for _, f := range fields {
			found = found || overriding(f.name)
		}
	}
	if found {
		return fmt.Errorf("%w: a method override", ErrAmbiguous)
	}
	return nil
}

// jsonPost reports whether the body is JSON, in which Laravel looks for another method as
// it does in a form. No vendor of the catalogue does.
func jsonPost(r *Request) bool {
	if r.Method != http.MethodPost || r.BodyState == policy.BodyAbsent {
		return false
	}
	for _, t := range r.Header["Content-Type"] {
		if mentions(t, "json") { // it looks no closer
			return true
		}
	}
	return false
}

// overrideInJSON refuses a JSON body that names another method, and tells why it is not
// known whether one does.
func overrideInJSON(r *Request, uploads bool) (why string, err error) {
	if formOf(r.Header) != jsonForm || r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable {
		if uploads {
			return "", nil
		}
		return "body", nil
	}
	if !bytes.Contains(bytes.ToLower(r.Body), []byte("method")) && bytes.IndexByte(r.Body, '\\') < 0 {
		return "", nil
	}
	v, err := parseJSON(r.Body)
	if err != nil {
		return "body", nil // servers read it in more than one way, or not at all
	}
	object, _ := v.(map[string]any)
	for name := range object {
		if overriding(name) {
			return "", fmt.Errorf("%w: a method override", ErrAmbiguous)
		}
	}
	return "", nil
}

// overridingField reports whether a field is X-HTTP-Method-Override, X-HTTP-Method
// or X-Method-Override; behind CGI an underscore is a hyphen.
func overridingField(name string) bool {
	switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
	case "x-http-method-override", "x-http-method", "x-method-override":
		return true
	}
	return false
}

// overrideHidden reports whether the body is a form in which a method override may
// stand unseen: too long to be read whole, compressed, or not of the strict kind. An
// operation that is known to take files may have them in a multipart body.
func overrideHidden(r *Request, uploads bool) bool {
	if !mayOverride(r) || uploads && multipartOnly(r.Header) {
		return false
	}
	switch formOf(r.Header) {
	case oddForm:
		return true
	case multiForm:
		_, whole := formParts(r)
		return !whole
	}
	return r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable
}

// quotedByPython is how Google's apitools (gsutil) write a boundary: in quotes that RFC
// 2045 does not know.
var quotedByPython = regexp.MustCompile(`^multipart/related; boundary='=*[0-9]+=*'$`)

// multipartOnly reports whether a body is multipart to every reader, and not compressed.
func multipartOnly(h http.Header) bool {
	types := h["Content-Type"]
	if len(types) != 1 || len(h["Content-Encoding"]) > 0 {
		return false
	}
	if quotedByPython.MatchString(types[0]) {
		return true
	}
	kind, params, err := mime.ParseMediaType(types[0])
	return err == nil && strings.HasPrefix(kind, "multipart/") && params["boundary"] != ""
}

// overrides reports whether a form or query has a parameter that overrides the method.
func overrides(form string) bool {
	if !mentions(form, "method") && !mentions(form, "$httpheaders") && !mentions(form, "%") {
		return false
	}
	for pair := range strings.SplitSeq(form, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil && overriding(plain) {
			return true
		}
	}
	return false
}

// mentions reports whether s contains a lower-case word in any case.
func mentions(s, word string) bool {
	for i := 0; i+len(word) <= len(s); i++ {
		if s[i]|' ' == word[0]|' ' && strings.EqualFold(s[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// overriding reports whether a parameter's name overrides the method: _method
// (Rails, Laravel, Symfony), _HttpMethod (Salesforce), and the fields' names.
func overriding(name string) bool {
	if len(name) > 64 {
		return false
	}
	switch strings.ToLower(name) {
	case "$httpmethod", "$httpheaders": // Google's front end, for browsers
		return true
	}
	switch strings.ToLower(strings.TrimLeft(strings.ReplaceAll(looseName(name), "-", "_"), "$")) {
	case "_method", "_httpmethod", "_http_method", "x_http_method_override", "x_http_method", "x_method_override", "http_method_override":
		return true
	}
	return false
}

// looseName is what PHP makes of a parameter's name: leading spaces go, what stands
// behind a NUL or a bracket goes, dots and spaces are underscores.
func looseName(name string) string {
	name = strings.TrimLeft(name, " ")
	name, _, _ = strings.Cut(name, "\x00")
	if i := strings.IndexByte(name, '['); i > 0 {
		name = name[:i]
	}
	return strings.NewReplacer(".", "_", " ", "_", "[", "_").Replace(name)
}

// fold maps names that differ in case only to one, by Unicode's simple folding as
// readers of JSON in Go use it: "ſ" is s, and the Kelvin sign k.
func fold(s string) string {
	ascii := true
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			ascii = false
			break
		}
	}
	if ascii {
		return s
	}
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return unicode.ToLower(least)
	}, s)
}

func parseForm(s string) (url.Values, error) {
	if strings.ContainsAny(s, ";\x00") {
		return nil, fmt.Errorf("%w: form with a semicolon or NUL", ErrAmbiguous)
	}
	return url.ParseQuery(s)
}
