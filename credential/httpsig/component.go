package httpsig

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dunglas/httpsfv"
	"golang.org/x/net/http/httpguts"
)

// component is a part of the request that is covered (section 2).
type component struct {
	id       string // as it stands in the list and in the base, with its parameters
	name     string // in lower case
	field    string // canonical; empty for what is derived
	arg      string // of ;name= and ;key=
	bytes    bool   // ;bs
	strict   bool   // ;sf
	optional bool
}

// derived are the components of requests that are no fields (section 2.2).
var derived = []string{"@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query", "@query-param"}

// unsteady are fields that are one connection's, are changed on the way, or are made by
// the signature itself: whoever covers one of them could not rely on it.
var unsteady = map[string]string{
	"host": "@authority says it", "cookie": "HTTP/2 divides it", "signature": "it is the signature", "signature-input": "@signature-params has it",
	"accept-encoding": "it is narrowed on the way", "grpc-accept-encoding": "it is left out on the way", "connect-accept-encoding": "it is left out on the way", "traceparent": "it is made on the way",
	"connection": "it is the connection's", "keep-alive": "it is the connection's", "te": "it is the connection's", "trailer": "it is the connection's", "transfer-encoding": "it is the connection's",
	"upgrade": "it is the connection's", "expect": "it is the connection's", "proxy-authorization": "it is the proxy's", "proxy-connection": "it is the proxy's", "sec-websocket-extensions": "it is left out on the way",
}

// parseComponents reads names with spaces between, quoted as the RFC has them or not,
// and with their parameters: @query-param;name="id".
func parseComponents(text string) ([]component, error) {
	list := make([]string, 0, 8)
	for _, word := range words(text) {
		if name, rest, _ := strings.Cut(word, ";"); !strings.HasPrefix(word, `"`) {
			if word = strconv.Quote(strings.ToLower(name)); rest != "" {
				word += ";" + rest
			}
		}
		list = append(list, word)
	}
	parsed, err := httpsfv.UnmarshalList([]string{"(" + strings.Join(list, " ") + ")"})
	if err != nil || len(parsed) != 1 {
		return nil, fmt.Errorf("components %q cannot be read; write names with spaces between, as @method @target-uri content-digest", text)
	}
	inner, ok := parsed[0].(httpsfv.InnerList)
	if !ok {
		return nil, fmt.Errorf("components %q cannot be read", text)
	}
	out := make([]component, 0, len(inner.Items))
	for _, item := range inner.Items {
		c, err := newComponent(item)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// words are divided by spaces outside quotes.
func words(text string) []string {
	inside := false
	return strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			inside = !inside
		}
		return !inside && (r == ' ' || r == '\t')
	})
}

func newComponent(item httpsfv.Item) (component, error) {
	name, ok := item.Value.(string)
	id, err := httpsfv.Marshal(item)
	if !ok || err != nil || name != strings.ToLower(name) {
		return component{}, fmt.Errorf("component %v is not a name in lower case", item.Value)
	}
	c := component{id: id, name: name}
	why, never := unsteady[name]
	switch {
	case never:
		return component{}, fmt.Errorf("component %q cannot be covered: %s", name, why)
	case name[:min(1, len(name))] == "@":
		if !slices.Contains(derived, name) {
			return component{}, fmt.Errorf("component %q is not known; of requests there are %s, and fields", name, strings.Join(derived, ", "))
		}
	case !httpguts.ValidHeaderFieldName(name):
		return component{}, fmt.Errorf("component %q is not the name of a field", name)
	default:
		c.field = http.CanonicalHeaderKey(name)
	}
	return c, c.read(item.Params)
}

// read takes the parameters that a component may have.
func (c *component) read(p *httpsfv.Params) error {
	for _, name := range p.Names() {
		v, _ := p.Get(name)
		text, isText := v.(string)
		switch {
		case name == "name" && c.name == "@query-param" && isText, name == "key" && c.field != "" && isText && text != "":
			c.arg = text
		case name == "bs" && c.field != "" && v == true:
			c.bytes = true
		case name == "sf" && c.field != "" && v == true:
			c.strict = true
		default:
			return fmt.Errorf("component %s: its parameter %s is not known here; there are name of @query-param, key, sf and bs of fields", c.id, name)
		}
	}
	if c.name == "@query-param" && c.arg == "" {
		return fmt.Errorf(`component %s: say which, as @query-param;name="id"`, c.id)
	}
	if c.bytes && (c.arg != "" || c.strict) {
		return fmt.Errorf("component %s: bs excludes key and sf", c.id)
	}
	return nil
}

// dictionaries are fields whose values are dictionaries of RFC 9651. Of others it is
// tried whether they are an item, a list or a dictionary: what can be read as several of
// them is written alike, but for a member that stands there twice.
var dictionaries = []string{"Cache-Control", "Content-Digest", "Repr-Digest", "Want-Content-Digest", "Want-Repr-Digest", "Prefer", "Priority"}

// strictly is the value of a structured field as it is written strictly (section 2.1.1).
func (c *component) strictly(values []string) (string, bool, error) {
	var parsed httpsfv.StructuredFieldValue
	dictionary, err := httpsfv.UnmarshalDictionary(values)
	parsed = dictionary
	if !slices.Contains(dictionaries, c.field) {
		if list, lerr := httpsfv.UnmarshalList(values); lerr == nil {
			parsed, err = list, nil
		}
		if item, ierr := httpsfv.UnmarshalItem(values); ierr == nil {
			parsed, err = item, nil
		}
	}
	if err != nil {
		return "", false, fmt.Errorf("%w: %s, for the field is no structured one", ErrMissing, c.id)
	}
	text, err := httpsfv.Marshal(parsed)
	return text, err == nil, err
}

// value is the component's line in the base. It is false where the request has none.
func (c *component) value(r *Request) (string, bool, error) {
	switch c.name {
	case "@method":
		return r.Method, true, nil
	case "@scheme":
		return strings.ToLower(r.Scheme), true, nil
	case "@authority":
		return authority(r), true, nil
	case "@target-uri":
		return strings.ToLower(r.Scheme) + "://" + authority(r) + target(r), true, nil
	case "@request-target":
		return target(r), true, nil
	case "@path":
		return path(r), true, nil
	case "@query":
		return "?" + r.RawQuery, true, nil
	case "@query-param":
		return c.queryParam(r)
	case "content-length":
		if r.ContentLength > 0 || r.ContentLength == 0 && (r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH") {
			return strconv.FormatInt(r.ContentLength, 10), true, nil
		}
		return "", false, nil
	}
	values := r.Header[c.field]
	if len(values) == 0 {
		return "", false, nil
	}
	return c.ofField(values)
}

// ofField is the value of a field (section 2.1).
func (c *component) ofField(values []string) (string, bool, error) {
	if c.arg != "" {
		d, err := httpsfv.UnmarshalDictionary(values)
		if err != nil {
			return "", false, fmt.Errorf("%w: %s, for the field is no dictionary", ErrMissing, c.id)
		}
		m, ok := d.Get(c.arg)
		if !ok {
			return "", false, nil
		}
		text, err := member(m)
		return text, err == nil, err
	}
	if c.strict {
		return c.strictly(values)
	}
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = strings.Trim(v, " \t")
		if c.bytes {
			parts[i] = ":" + base64.StdEncoding.EncodeToString([]byte(parts[i])) + ":"
		}
	}
	text := strings.Join(parts, ", ")
	if strings.ContainsAny(text, "\r\n") {
		return "", false, fmt.Errorf("%w: %s, for it holds a line break", ErrMissing, c.id)
	}
	return text, true, nil
}

// member is one member of a dictionary alone (section 2.1.2).
func member(m httpsfv.Member) (text string, err error) {
	switch m := m.(type) {
	case httpsfv.Item:
		text, err = httpsfv.Marshal(m)
	case httpsfv.InnerList:
		text, err = httpsfv.Marshal(httpsfv.List{m})
	default:
		err = errors.New("a member of another type")
	}
	return text, err
}

// queryParam is one parameter of the query, which must stand there once (section 2.2.8).
func (c *component) queryParam(r *Request) (string, bool, error) {
	text, n := "", 0
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err != nil || pair == "" || encodeParam(name) != c.arg {
			continue
		}
		plain, err := url.QueryUnescape(value)
		if err != nil {
			return "", false, fmt.Errorf("%w: %s, for it cannot be read", ErrMissing, c.id)
		}
		text, n = encodeParam(plain), n+1
	}
	if n > 1 {
		return "", false, fmt.Errorf("%w: %s, for it stands %d times", ErrMissing, c.id, n)
	}
	return text, n == 1, nil
}

// encodeParam encodes all but what forms leave as it is
// (url.spec.whatwg.org/#application-x-www-form-urlencoded-percent-encode-set).
func encodeParam(s string) string { return paramEncoding.Replace(url.QueryEscape(s)) }

var paramEncoding = strings.NewReplacer("+", "%20", "%2A", "*", "~", "%7E")

// authority is the host without the scheme's own port (section 2.2.3).
func authority(r *Request) string {
	host := strings.ToLower(r.Host)
	if strings.EqualFold(r.Scheme, "https") {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

func path(r *Request) string {
	if r.Path == "" {
		return "/"
	}
	return r.Path
}

func target(r *Request) string {
	if r.RawQuery == "" {
		return path(r)
	}
	return path(r) + "?" + r.RawQuery
}
