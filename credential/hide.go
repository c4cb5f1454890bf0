package credential

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// Hidden stands where a request carries its credential in the path or the body, in
// all that is looked at, recorded and decided about.
const Hidden = "HANDLE"

// MaxHead is how much of a body is looked into for a credential, in bytes.
const MaxHead = 64 << 10

// Inside is what a request carries in its path or its body in the place of a
// credential, taken out before anybody looks at them.
type Inside struct {
	place Place
	text  string // decoded
	begin int    // of what stands there, quotes included
	end   int
	form  bool // of the body: a form, else JSON
}

// HidePath takes out what stands in the path where a service takes credentials. The
// path that it returns has [Hidden] in its place.
func (p *Places) HidePath(path string) (shown string, in *Inside) {
	for _, at := range p.path {
		begin, end, ok := matchPath(at.name, path)
		if !ok || path[begin:end] == Hidden {
			continue
		}
		return path[:begin] + Hidden + path[end:], &Inside{place: at, text: path[begin:end], begin: begin, end: end}
	}
	return path, nil
}

// matchPath matches a pattern with the beginning of a path, segment by segment, and
// returns where its last star stands.
func matchPath(pattern, path string) (begin, end int, ok bool) {
	at := 0
	for segment := range strings.SplitSeq(pattern[1:], "/") {
		if at >= len(path) || path[at] != '/' {
			return 0, 0, false
		}
		at++
		rest := path[at:]
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			rest = rest[:i]
		}
		before, after, starred := strings.Cut(segment, "*")
		switch {
		case !starred && rest != segment:
			return 0, 0, false
		case starred && (len(rest) <= len(before)+len(after) || !strings.HasPrefix(rest, before) || !strings.HasSuffix(rest, after)):
			return 0, 0, false
		case starred:
			begin, end, ok = at+len(before), at+len(rest)-len(after), true
		}
		at += len(rest)
	}
	return begin, end, ok
}

// InBody reports whether the service takes credentials in bodies of the request's
// type. Only then is a body looked into.
func (p *Places) InBody(h http.Header) bool { return len(p.body) > 0 && bodyForm(h) != "" }

// bodyForm is "form" or "json", or nothing for bodies that are not looked into.
func bodyForm(h http.Header) string {
	if len(h["Content-Type"]) != 1 || len(h["Content-Encoding"]) > 0 {
		return ""
	}
	kind, _, err := mime.ParseMediaType(h["Content-Type"][0])
	switch {
	case err != nil:
		return ""
	case kind == "application/x-www-form-urlencoded":
		return "form"
	case kind == "application/json", strings.HasSuffix(kind, "+json"):
		return "json"
	}
	return ""
}

// HideBody takes out what stands in the beginning of a body where the service takes
// credentials. A field that stands twice is returned twice.
func (p *Places) HideBody(h http.Header, head []byte) (shown []byte, in []*Inside) {
	if bodyForm(h) == "form" {
		in = p.inForm(head)
	} else {
		in = p.inJSON(head)
	}
	last := 0
	for _, x := range in {
		shown = append(append(shown, head[last:x.begin]...), hiddenIn(x)...)
		last = x.end
	}
	return append(shown, head[last:]...), in
}

func hiddenIn(x *Inside) string {
	if x.form {
		return Hidden
	}
	return `"` + Hidden + `"`
}

func (p *Places) inForm(head []byte) (in []*Inside) {
	for at := 0; at < len(head); {
		pair := head[at:]
		if i := bytes.IndexByte(pair, '&'); i >= 0 {
			pair = pair[:i]
		}
		key, value, given := bytes.Cut(pair, []byte("="))
		begin := at + len(key) + 1
		at += len(pair) + 1
		name, err := url.QueryUnescape(string(key))
		if err != nil || !given || !p.has(Place{KindBody, name}) {
			continue
		}
		text, err := url.QueryUnescape(string(value))
		if err != nil {
			text = string(value)
		}
		in = append(in, &Inside{Place{KindBody, name}, text, begin, begin + len(value), true})
	}
	return in
}

// inJSON walks over the members of an object. A nested member is named with dots.
func (p *Places) inJSON(head []byte) (in []*Inside) {
	d := json.NewDecoder(bytes.NewReader(head))
	w := walk{d: d, head: head, found: func(path, text string, begin, end int) {
		if p.has(Place{KindBody, path}) {
			in = append(in, &Inside{Place{KindBody, path}, text, begin, end, false})
		}
	}}
	w.value("", 0) // an end or an error is where the looking ends
	return in
}

// walk goes over JSON that may be cut off at any byte.
type walk struct {
	d     *json.Decoder
	head  []byte
	found func(path, text string, begin, end int)
}

// maxNested bounds how deep a credential may stand.
const maxNested = 8

func (w *walk) value(path string, depth int) error {
	t, err := w.d.Token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case string:
		end := int(w.d.InputOffset())
		w.found(path, t, quoteBefore(w.head, end), end)
	case json.Delim:
		return w.inside(t, path, depth)
	}
	return nil
}

func (w *walk) inside(open json.Delim, path string, depth int) error {
	if depth == maxNested {
		return io.ErrShortBuffer
	}
	for w.d.More() {
		below := path + "[]"
		if open == '{' {
			name, err := w.d.Token()
			if err != nil {
				return err
			}
			below, _ = name.(string)
			if path != "" {
				below = path + "." + below
			}
		}
		if err := w.value(below, depth+1); err != nil {
			return err
		}
	}
	_, err := w.d.Token()
	return err
}

// quoteBefore returns where the string begins whose last quote is before end.
func quoteBefore(b []byte, end int) int {
	for i := end - 2; i >= 0; i-- {
		if b[i] != '"' {
			continue
		}
		slashes := 0
		for j := i - 1; j >= 0 && b[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
	return 0
}

// replaced is a body's head with secrets in the place of what was found in it, from
// the first to the last.
func replaced(head []byte, in []*Inside, secret func(*Inside) (string, error)) ([]byte, error) {
	var out []byte
	last := 0
	for _, x := range in {
		text, err := secret(x)
		if err != nil {
			return nil, err
		}
		written := []byte(url.QueryEscape(text))
		if !x.form {
			if written, err = json.Marshal(text); err != nil {
				return nil, err
			}
		}
		out = append(append(out, head[last:x.begin]...), written...)
		last = x.end
	}
	return append(out, head[last:]...), nil
}
