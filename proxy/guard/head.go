package guard

import (
	"bytes"
	"net/textproto"
	"strings"
)

// The faults of a head, as the refusal and the record name them.
const (
	faultLine      = "request line"
	faultEnding    = "line ending"
	faultTarget    = "request target"
	faultVersion   = "protocol version"
	faultField     = "header field"
	faultFold      = "folded header field"
	faultHost      = "host field"
	faultLength    = "content length"
	faultCoding    = "transfer encoding"
	faultTooLarge  = "head too large"
	faultPreface   = "http/2 without tls"
	faultExpect    = "expect field"
	faultConflicts = "content length beside transfer encoding"
)

// message is what parseHead learns.
type message struct {
	body      body
	takesOver bool // a CONNECT or an upgrade: what follows may not be HTTP
	spelled   []string

	http10  bool
	connect bool
	hosts   int
	length  int64 // -1: no Content-Length
	chunked bool
	upgrade bool
}

// headEnd returns the length of the head at the front of b, or 0 while it is
// not complete. A line that ends in a bare LF, and a head that is too large,
// are faults at once.
func headEnd(b []byte) (int, string) {
	for i := 0; i < len(b); {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			break
		}
		end := i + j
		if end == 0 || b[end-1] != '\r' {
			return 0, faultEnding
		}
		if end-1 == i {
			if i == 0 {
				return 0, faultLine // an empty line before the request line
			}
			return end + 1, ""
		}
		i = end + 1
	}
	if len(b) > MaxHead {
		return 0, faultTooLarge
	}
	return 0, ""
}

// parseHead checks a complete head, RFC 9112 sections 2 to 6.
func parseHead(b []byte) (message, string) {
	m := message{length: -1}
	if len(b) > MaxHead {
		return m, faultTooLarge
	}
	line, rest := cutLine(b)
	if fault := m.requestLine(line); fault != "" {
		return m, fault
	}
	for n := 0; ; n++ {
		line, rest = cutLine(rest)
		if len(line) == 0 {
			break
		}
		if n == MaxFields {
			return m, faultTooLarge
		}
		if fault := m.field(line); fault != "" {
			return m, fault
		}
	}
	return m, m.conclude()
}

// cutLine splits off the line before the first CRLF. A CR or LF anywhere else is
// left in the line, where the checks of line and field find it.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	return b[:i-1], b[i+1:]
}

// requestLine checks method SP request-target SP HTTP-version.
func (m *message) requestLine(line []byte) string {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(method) == 0 || len(method) > 32 || !all(method, token) {
		return faultLine
	}
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(target) == 0 {
		return faultLine
	}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		m.http10 = true
	case "HTTP/2.0":
		return faultPreface
	default:
		return faultVersion
	}
	if !all(target, visible) || bytes.IndexByte(target, '#') >= 0 || !readable(target) {
		return faultTarget
	}
	m.connect = string(method) == "CONNECT"
	if m.http10 && !m.connect {
		return faultVersion // no persistent framing and no Host to rely on; CONNECT needs neither
	}
	return ""
}

// field checks one field line and notes those that frame the message.
func (m *message) field(line []byte) string {
	if line[0] == ' ' || line[0] == '\t' {
		return faultFold
	}
	i := bytes.IndexByte(line, ':')
	if i <= 0 || !all(line[:i], token) {
		return faultField
	}
	name, value := line[:i], bytes.Trim(line[i+1:], " \t")
	if !all(value, fieldByte) {
		return faultField
	}
	if bytes.IndexByte(name, '_') >= 0 && framingName(bytes.ReplaceAll(name, []byte("_"), []byte("-"))) {
		return faultField // some servers take it for the one with hyphens
	}
	if !canonical(name) {
		m.spelled = append(m.spelled, string(name))
	}
	return m.framing(name, value)
}

func framingName(name []byte) bool {
	return equal(name, "content-length") || equal(name, "transfer-encoding")
}

func (m *message) framing(name, value []byte) string {
	switch len(name) {
	case 4:
		if equal(name, "host") {
			m.hosts++
			if !all(value, hostByte) {
				return faultHost
			}
		}
	case 6:
		if equal(name, "expect") && !equal(value, "100-continue") {
			return faultExpect
		}
	case 7:
		if equal(name, "upgrade") && equal(value, "websocket") {
			m.upgrade = true
		}
	case 14:
		if equal(name, "content-length") {
			return m.contentLength(value)
		}
	case 17:
		if equal(name, "transfer-encoding") {
			if m.chunked || !equal(value, "chunked") {
				return faultCoding
			}
			m.chunked = true
		}
	}
	return ""
}

// contentLength takes digits only, once, within what an int64 holds.
func (m *message) contentLength(value []byte) string {
	if m.length >= 0 || len(value) == 0 || len(value) > 18 {
		return faultLength
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return faultLength
		}
		n = n*10 + int64(c-'0')
	}
	m.length = n
	return ""
}

// conclude checks what can be said only of the whole head.
func (m *message) conclude() string {
	switch {
	case m.hosts > 1, m.hosts == 0 && !m.http10:
		return faultHost
	case m.chunked && m.length >= 0:
		return faultConflicts
	case m.http10 && m.chunked:
		return faultCoding
	case m.connect && (m.chunked || m.length > 0):
		return faultLength // CONNECT has no body, RFC 9110 section 9.3.6
	case m.chunked:
		m.body = body{state: chunkSize}
	case m.length > 0:
		m.body = body{state: counted, left: m.length}
	default:
		m.takesOver = m.connect || m.upgrade
	}
	return ""
}

func equal(b []byte, lower string) bool { return strings.EqualFold(string(b), lower) }

// canonical reports whether name is spelled as net/http spells it.
func canonical(name []byte) bool {
	upper := true
	for _, c := range name {
		if upper && 'a' <= c && c <= 'z' || !upper && 'A' <= c && c <= 'Z' {
			return false
		}
		upper = c == '-'
	}
	return true
}

// Canonical returns the key under which net/http files a field name.
func Canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

func all(b []byte, class func(byte) bool) bool {
	for _, c := range b {
		if !class(c) {
			return false
		}
	}
	return true
}

// readable reports whether net/http can take a request target apart: it answers
// what it cannot by itself, and no record would be made. Who is meant is judged
// later.
func readable(target []byte) bool {
	if _, rest, ok := bytes.Cut(target, []byte("://")); ok && target[0] != '/' {
		end := bytes.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if !all(rest[:end], hostByte) {
			return false
		}
		target = rest[end:]
	}
	path, _, _ := bytes.Cut(target, []byte("?"))
	for i := range path {
		if path[i] == '%' && (i+2 >= len(path) || !hexadecimal(path[i+1]) || !hexadecimal(path[i+2])) {
			return false
		}
	}
	return true
}

func hexadecimal(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// hostByte is what host and port are written in.
func hostByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_:[]", c) >= 0 && c != 0
}

// token is tchar of RFC 9110 section 5.6.2.
func token(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 && c != 0
}

func visible(c byte) bool { return c > ' ' && c < 0x7f }

// fieldByte is what a field value may hold: visible bytes, obs-text, space and tab.
func fieldByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
