package action

import (
	"bytes"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"chaperone/policy"
)

// part is one part of a multipart body.
type part struct {
	header http.Header
	body   []byte
}

// boundaryForm is what clients write; RFC 2046 section 5.1.1 admits spaces too.
var boundaryForm = regexp.MustCompile(`^[A-Za-z0-9'()+_,./:=?-]{1,70}$`)

// splitParts splits a multipart body of a type in the one way in which every reader
// does: nothing stands before the first part or behind the last, the boundary stands
// at the beginning of lines only, and all lines of a part end alike. It returns the
// parts before the first that is not so, and whether that was all of the body.
func splitParts(h http.Header, kind string, body []byte) (parts []part, whole bool) {
	types := h["Content-Type"]
	if len(types) != 1 || len(h["Content-Encoding"]) > 0 {
		return nil, false
	}
	is, params, err := mime.ParseMediaType(types[0])
	if err != nil || is != kind || !boundaryForm.MatchString(params["boundary"]) || len(params) != 1 {
		return nil, false
	}
	mark := []byte("--" + params["boundary"])
	rest, ok := bytes.CutPrefix(body, mark)
	for ok {
		if tail, last := bytes.CutPrefix(rest, []byte("--")); last {
			return parts, len(parts) > 0 && len(bytes.Trim(tail, "\r\n")) == 0
		}
		var p part
		var end []byte
		p.header, rest, end, ok = partHead(rest)
		at := bytes.Index(rest, mark)
		if !ok || at < len(end) || !bytes.HasSuffix(rest[:at], end) || len(parts) == maxParts {
			break
		}
		p.body, rest = rest[:at-len(end)], rest[at+len(mark):]
		parts = append(parts, p)
	}
	return parts, false
}

// partHead reads the end of a boundary's line and the fields of a part. It returns
// what ends the lines.
func partHead(b []byte) (h http.Header, rest, end []byte, ok bool) {
	end = []byte("\n")
	if bytes.HasPrefix(b, []byte("\r\n")) {
		end = []byte("\r\n")
	}
	if rest, ok = bytes.CutPrefix(b, end); !ok {
		return nil, nil, nil, false
	}
	h, rest, ok = fieldLines(rest, end)
	return h, rest, end, ok
}

// fieldLines reads fields up to an empty line, each field once and on one line.
func fieldLines(b, end []byte) (h http.Header, rest []byte, ok bool) {
	h = http.Header{}
	for {
		line, rest, more := bytes.Cut(b, end)
		if more && len(line) == 0 {
			return h, rest, true
		}
		name, value, colon := strings.Cut(string(line), ":")
		key := http.CanonicalHeaderKey(name)
		if !more || !colon || !fieldName(name) || strings.ContainsFunc(value, control) || len(h[key]) > 0 {
			return nil, nil, false
		}
		h[key] = []string{strings.Trim(value, " \t")}
		b = rest
	}
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == utf8.RuneError }

// fieldName reports whether a name is of letters, digits and hyphens.
func fieldName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return false
		}
	}
	return name != ""
}

// field is one field of a multipart form.
type field struct {
	name, value string
	file        bool
}

// disposition is how clients write the name of a field; what needs an escape or
// RFC 8187 is read differently by different servers, so not at all.
var disposition = regexp.MustCompile(`^form-data; name="([^"\\%\x00-\x1f\x7f]+)"(; filename="[^"\\\x00-\x1f\x7f]*")?$`)

// formParts reads a multipart form. It returns the fields before the first that is
// not written in the common way, and whether those are all.
func formParts(r *Request) (fields []field, whole bool) {
	parts, whole := splitParts(r.Header, "multipart/form-data", r.Body)
	whole = whole && (r.BodyState == policy.BodyParsed || r.BodyState == policy.BodyUnparsable)
	for _, p := range parts {
		m := disposition.FindStringSubmatch(p.header.Get("Content-Disposition"))
		if m == nil || !plainPart(p.header, m[2] != "") {
			return fields, false
		}
		f := field{name: m[1], file: m[2] != ""}
		if !f.file {
			f.value = string(p.body)
		}
		fields = append(fields, f)
	}
	return fields, whole
}

// plainPart reports whether a part's bytes are its value.
func plainPart(h http.Header, file bool) bool {
	for name, v := range h {
		value := strings.ToLower(v[0])
		switch name {
		case "Content-Disposition", "Content-Length":
		case "Content-Transfer-Encoding":
			if value != "binary" && value != "8bit" && value != "7bit" {
				return false
			}
		case "Content-Type":
			if !file && value != "text/plain" && value != "text/plain; charset=utf-8" {
				return false
			}
		default:
			return false
		}
	}
	return true
}
