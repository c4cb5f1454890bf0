package http1

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"chaperone/proxy/syntax"
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

// Limits of one request head. A sender that exceeds them is refused; nothing is
// allocated in proportion to what it announces.
const (
	MaxHead   = 64 << 10 // bytes of a request line with all fields
	MaxFields = 256      // fields of a head
)

// Head is what is known of a request beyond what [http.Request] tells.
type Head struct {
	// Fault is empty for a clear request. Otherwise the bytes were no clear
	// request, the one at hand stands in for them, and the connection ends after
	// the answer.
	Fault string
	// Spelled holds the field names that are not in canonical form, as sent.
	Spelled []string
}

// message is a request head, taken apart.
type message struct {
	head    Head
	method  string
	target  string
	host    string
	header  http.Header // without Host and Transfer-Encoding
	framing framing     // of the body

	http10  bool
	closes  bool // the sender wants no other exchange
	expects bool // the sender waits for a 100 before its body
	hosts   int
	length  int64 // -1: no Content-Length
	chunked bool
}

// unclear is the request that stands in for bytes which are none, so that their
// refusal takes the same road as every other.
func unclear(fault string) message {
	return message{head: Head{Fault: fault}, method: http.MethodGet, target: "/", host: "invalid", header: http.Header{}, closes: true}
}

// headEnd returns the length of the head at the front of b, or 0 while it is
// not complete. A line that ends in a bare LF, and a head that is too large, are
// faults at once. What it has seen it leaves in from, for the next call.
func headEnd(b []byte, from *int) (int, string) {
	for *from < len(b) {
		i := *from
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
		*from = end + 1
	}
	if len(b) > MaxHead {
		return 0, faultTooLarge
	}
	return 0, ""
}

// parseHead takes a complete head apart, RFC 9112 sections 2 to 6.
func parseHead(b []byte) (message, string) {
	m := message{length: -1}
	if len(b) > MaxHead {
		return m, faultTooLarge
	}
	text := string(b) // everything below is a part of it
	line, rest := cutLine(text)
	if fault := m.requestLine(line); fault != "" {
		return m, fault
	}
	fields := strings.Count(rest, "\n") - 1
	if fields > MaxFields {
		return m, faultTooLarge
	}
	m.header = make(http.Header, fields)
	values := make([]string, fields) // one block for the single values of most fields
	for line, rest = cutLine(rest); line != ""; line, rest = cutLine(rest) {
		if fault := m.field(line, &values); fault != "" {
			return m, fault
		}
	}
	return m, m.conclude()
}

// cutLine splits off the line before the first CRLF. A CR or LF anywhere else is
// left in the line, where the checks of line and field find it.
func cutLine(s string) (line, rest string) {
	i := strings.IndexByte(s, '\n')
	return s[:i-1], s[i+1:]
}

// requestLine checks method SP request-target SP HTTP-version.
func (m *message) requestLine(line string) string {
	method, rest, ok := strings.Cut(line, " ")
	if !ok || len(method) > 32 || !syntax.Token(method) {
		return faultLine
	}
	target, version, ok := strings.Cut(rest, " ")
	if !ok || target == "" {
		return faultLine
	}
	switch version {
	case "HTTP/1.1":
	case "HTTP/1.0":
		m.http10, m.closes = true, true
	case "HTTP/2.0":
		return faultPreface
	default:
		return faultVersion
	}
	if !syntax.All(target, syntax.Visible) || strings.IndexByte(target, '#') >= 0 || !readable(method, target) {
		return faultTarget
	}
	m.method, m.target = method, target
	if m.http10 && method != http.MethodConnect {
		return faultVersion // no persistent framing and no Host to rely on; CONNECT needs neither
	}
	return ""
}

// field checks one field line, files it, and notes what frames the message.
func (m *message) field(line string, values *[]string) string {
	if line[0] == ' ' || line[0] == '\t' {
		return faultFold
	}
	i := strings.IndexByte(line, ':')
	if i <= 0 || !syntax.Token(line[:i]) {
		return faultField
	}
	name, value := line[:i], syntax.Trim(line[i+1:])
	if !syntax.Value(value) {
		return faultField
	}
	if strings.IndexByte(name, '_') >= 0 && framingName(strings.ReplaceAll(name, "_", "-")) {
		return faultField // some servers take it for the one with hyphens
	}
	key := name
	if !canonical(name) {
		key = Canonical(name)
		m.head.Spelled = append(m.head.Spelled, name)
	}
	if fault := m.note(key, value); fault != "" || key == "Host" || key == "Transfer-Encoding" {
		return fault
	}
	if before, ok := m.header[key]; ok {
		m.header[key] = append(before, value)
		return ""
	}
	(*values)[0] = value
	m.header[key] = (*values)[:1:1]
	*values = (*values)[1:]
	return ""
}

func framingName(name string) bool {
	return strings.EqualFold(name, "content-length") || strings.EqualFold(name, "transfer-encoding")
}

// note takes in the fields that say how the message is framed, to whom it goes and
// what comes after it.
func (m *message) note(key, value string) string {
	switch key {
	case "Host":
		m.hosts++
		m.host = value
		if !syntax.All(value, syntax.HostByte) {
			return faultHost
		}
	case "Expect":
		if !strings.EqualFold(value, "100-continue") {
			return faultExpect
		}
		m.expects = true
	case "Connection":
		m.closes = m.closes || httpguts.HeaderValuesContainsToken([]string{value}, "close")
	case "Content-Length":
		return m.contentLength(value)
	case "Transfer-Encoding":
		if m.chunked || !strings.EqualFold(value, "chunked") {
			return faultCoding
		}
		m.chunked = true
	}
	return ""
}

// contentLength takes digits only, once, within what an int64 holds.
func (m *message) contentLength(value string) string {
	if m.length >= 0 || value == "" || len(value) > 18 {
		return faultLength
	}
	var n int64
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return faultLength
		}
		n = n*10 + int64(value[i]-'0')
	}
	m.length = n
	return ""
}

// conclude checks what can be said only of the whole head.
func (m *message) conclude() string {
	connect := m.method == http.MethodConnect
	switch {
	case m.hosts > 1, m.hosts == 0 && !m.http10:
		return faultHost
	case m.chunked && m.length >= 0:
		return faultConflicts
	case m.http10 && m.chunked:
		return faultCoding
	case connect && (m.chunked || m.length > 0):
		return faultLength // CONNECT has no body, RFC 9110 section 9.3.6
	case m.chunked:
		m.framing = framing{state: chunkSize}
	case m.length > 0:
		m.framing = framing{state: counted, left: m.length}
	}
	return ""
}

// url is the target of a CONNECT for those who read it there, and else nil: the
// target is to be read as it came, from RequestURI.
func (m *message) url() *url.URL {
	if m.method != http.MethodConnect || m.head.Fault != "" {
		return nil
	}
	return &url.URL{Host: m.target}
}

// announced returns the names that the Trailer field announces, without values
// (RFC 9110 section 6.6.2).
func (m *message) announced() http.Header {
	fields := m.header["Trailer"]
	if fields == nil {
		return nil
	}
	names := http.Header{}
	for name := range strings.SplitSeq(strings.Join(fields, ","), ",") {
		if name = strings.Trim(name, " \t"); syntax.Token(name) {
			names[Canonical(name)] = nil
		}
	}
	return names
}

// canonical reports whether name is spelled as net/http spells it.
func canonical(name string) bool {
	upper := true
	for i := range len(name) {
		c := name[i]
		if upper && 'a' <= c && c <= 'z' || !upper && 'A' <= c && c <= 'Z' {
			return false
		}
		upper = c == '-'
	}
	return true
}

// Canonical returns the key under which net/http files a field name.
func Canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// readable reports whether a request target has one of the forms of RFC 9112
// section 3.2, with escapes that can be undone. Who is meant is judged later.
func readable(method, target string) bool {
	if method == http.MethodConnect {
		return syntax.All(target, syntax.HostByte)
	}
	if target[0] != '/' && target != "*" {
		_, rest, ok := strings.Cut(target, "://")
		if !ok {
			return false
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if !syntax.All(rest[:end], syntax.HostByte) {
			return false
		}
		target = rest[end:]
	}
	path, _, _ := strings.Cut(target, "?")
	for i := range len(path) {
		if path[i] == '%' && (i+2 >= len(path) || !hexadecimal(path[i+1]) || !hexadecimal(path[i+2])) {
			return false
		}
	}
	return true
}

func hexadecimal(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
