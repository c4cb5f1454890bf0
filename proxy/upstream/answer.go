package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"chaperone/proxy/syntax"
)

// Limits of an answer's head and of its trailers, in bytes and fields.
const (
	maxAnswerHead   = 1 << 20
	maxAnswerFields = 2000
)

// head is the head of an answer, its field names spelled as the service spells them.
type head struct {
	status  int
	minor   int // of HTTP/1.x
	header  http.Header
	length  int64 // -1: not given
	chunked bool
	closing bool     // the connection ends with this answer
	keep    bool     // HTTP/1.0 says that it does not
	trailer []string // announced, canonical
}

func protocolError(what string) error { return fmt.Errorf("%w: %s", ErrProtocol, what) }

// readHead reads one head, RFC 9112 sections 2 to 6, to the letter: what two
// readers could take apart in two ways is refused.
func readHead(br *bufio.Reader) (*head, error) {
	block, err := readBlock(br)
	if err != nil {
		return nil, err
	}
	line, rest, _ := strings.Cut(block, "\r\n")
	h := &head{length: -1}
	if err := h.statusLine(line); err != nil {
		return nil, err
	}
	n := strings.Count(rest, "\n")
	if n > maxAnswerFields {
		return nil, protocolError("the answer has too many fields")
	}
	h.header = make(http.Header, n)
	values := make([]string, 0, n)
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := field(line)
		if !ok {
			return nil, protocolError("a field of the answer is malformed")
		}
		if err := h.framing(name, value); err != nil {
			return nil, err
		}
		if old := h.header[name]; old != nil {
			h.header[name] = append(old, value)
			continue
		}
		values = append(values, value)
		h.header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	h.closing = h.closing || h.minor == 0 && !h.keep
	if h.chunked && h.length >= 0 {
		return nil, protocolError("the answer has a length beside transfer-encoding")
	}
	return h, nil
}

// readBlock reads up to an empty line and returns what stands before it. Every
// line must end in CRLF.
func readBlock(br *bufio.Reader) (string, error) {
	have, _ := br.Peek(br.Buffered()) // cannot fail
	if n := wholeBlock(have); n > 0 {
		block := string(have[:n-2])
		_, err := br.Discard(n)
		return block, err
	}
	var b []byte
	for {
		line, err := br.ReadSlice('\n')
		if len(b)+len(line) > maxAnswerHead {
			return "", protocolError("the head of the answer is too large")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			b = append(b, line...)
			continue
		}
		if err != nil {
			if err == io.EOF && len(b)+len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		whole := len(b) == 0 || b[len(b)-1] == '\n'
		if whole && len(line) == 2 && line[0] == '\r' {
			return string(b), nil
		}
		b = append(b, line...)
		if len(b) < 2 || b[len(b)-2] != '\r' {
			return "", protocolError("a line of the answer does not end in CRLF")
		}
	}
}

// blockAtHand reports whether [readBlock] need not wait.
func blockAtHand(br *bufio.Reader) bool {
	have, _ := br.Peek(br.Buffered()) // cannot fail
	return wholeBlock(have) > 0
}

// wholeBlock returns the length of the lines at the front of b up to an empty one, with
// it, if all are there and end in CRLF; else 0.
func wholeBlock(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 1 || b[at+i-1] != '\r' || at+i+1 > maxAnswerHead {
			return 0
		}
		at += i + 1
		if i == 1 {
			return at
		}
	}
}

// statusLine reads HTTP/1.x SP status SP reason.
func (h *head) statusLine(line string) error {
	version, rest, ok := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	if !ok || len(code) != 3 || version != "HTTP/1.1" && version != "HTTP/1.0" || !syntax.Value(reason) {
		return protocolError("the status line is malformed")
	}
	for _, c := range []byte(code) {
		if c < '0' || c > '9' {
			return protocolError("the status is no number")
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 || h.status > 599 {
		return protocolError("the status is out of range")
	}
	h.minor = int(version[7] - '0')
	return nil
}

// field splits a line into name and value. Folded lines have no name.
func field(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	if !ok || !syntax.Token(name) {
		return "", "", false
	}
	value = syntax.Trim(value)
	return name, value, syntax.Value(value)
}

// framing notes the fields that say where the answer ends.
func (h *head) framing(name, value string) error {
	switch len(name) {
	case len("Content-Length"):
		if strings.EqualFold(name, "Content-Length") {
			return h.contentLength(value)
		}
	case len("Transfer-Encoding"):
		if strings.EqualFold(name, "Transfer-Encoding") {
			if h.chunked || !strings.EqualFold(value, "chunked") || h.minor == 0 {
				return protocolError("the transfer-encoding is not plain chunked")
			}
			h.chunked = true
		}
	case len("Connection"):
		if strings.EqualFold(name, "Connection") {
			h.connection(value)
		}
	case len("Trailer"):
		if strings.EqualFold(name, "Trailer") {
			for t := range strings.SplitSeq(value, ",") {
				h.trailer = append(h.trailer, http.CanonicalHeaderKey(strings.TrimSpace(t)))
			}
		}
	}
	return nil
}

func (h *head) connection(value string) {
	for option := range strings.SplitSeq(value, ",") {
		switch strings.ToLower(strings.TrimSpace(option)) {
		case "close":
			h.closing = true
		case "keep-alive":
			h.keep = true
		}
	}
}

// contentLength takes digits only; a second field must say the same.
func (h *head) contentLength(value string) error {
	if value == "" || len(value) > 18 {
		return protocolError("the content-length is no number")
	}
	var n int64
	for _, c := range []byte(value) {
		if c < '0' || c > '9' {
			return protocolError("the content-length is no number")
		}
		n = n*10 + int64(c-'0')
	}
	if h.length >= 0 && h.length != n {
		return protocolError("the answer has two lengths")
	}
	h.length = n
	return nil
}

// body is an answer with its body. It gives the connection back when it has ended
// well, and closes it otherwise.
type body struct {
	resp    http.Response
	client  *Client
	k       *conn
	up      *upload
	stop    func() bool // ends the watch over the request's context
	r       io.Reader   // what of the connection is the body
	chunks  *chunks     // nil: it is not chunked
	left    int64       // for counted bodies
	kind    bodyKind
	closing bool  // the connection ends with this answer
	err     error // sticky
}

type bodyKind uint8

const (
	noBody bodyKind = iota
	counted
	chunked
	untilClose
)

// kindOf tells how the body of an answer is framed (RFC 9112 section 6.3).
func (h *head) kindOf(method string) bodyKind {
	switch {
	case method == http.MethodHead, h.status < 200, h.status == http.StatusNoContent, h.status == http.StatusNotModified:
		return noBody
	case h.chunked:
		return chunked
	case h.length == 0:
		return noBody
	case h.length > 0:
		return counted
	}
	return untilClose
}

func (b *body) begin() {
	switch b.kind {
	case noBody:
		b.end(io.EOF, true)
	case chunked:
		b.chunks = &chunks{br: b.k.br}
		b.r = b.chunks
	}
}

// Read returns what is at hand and waits only for the first byte.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.kind == counted && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	switch b.kind {
	case counted:
		if b.left -= int64(n); b.left == 0 {
			b.end(io.EOF, true)
			return n, io.EOF
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	case chunked:
		if err == io.EOF && n > 0 && !blockAtHand(b.chunks.br) {
			return n, nil // what has come does not wait for the trailers
		}
		if err == io.EOF {
			err = b.readTrailers()
		}
	}
	if err != nil {
		b.end(err, err == io.EOF && b.kind == chunked)
	}
	return n, err
}

// readTrailers reads what follows the last chunk.
func (b *body) readTrailers() error {
	block, err := readBlock(b.chunks.br)
	if err != nil {
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(block, "\r\n"), "\r\n") {
		if line == "" {
			continue
		}
		name, value, ok := field(line)
		if !ok {
			return protocolError("a trailer of the answer is malformed")
		}
		name = http.CanonicalHeaderKey(name)
		b.resp.Trailer[name] = append(b.resp.Trailer[name], value)
	}
	return io.EOF
}

func (b *body) end(err error, reuse bool) {
	b.err = err
	behind := b.k.br.Buffered()
	if b.chunks != nil {
		behind += b.chunks.release()
	}
	alive := b.stop() // false: the context has ended and closes the connection
	if reuse && alive && !b.closing && b.up.finished() && behind == 0 {
		b.client.idle.put(b.k)
	} else {
		b.k.Close()
	}
	b.k = nil
}

// Close gives the connection up unless the body has been read to its end.
func (b *body) Close() error {
	if b.err == nil {
		b.end(http.ErrBodyReadAfterClose, false)
	}
	return nil
}

// switched is the connection behind a 101, with what came along with it.
type switched struct {
	*conn
	stop func() bool
}

func (s switched) Read(p []byte) (int, error) { return s.br.Read(p) }

func (s switched) Close() error {
	s.stop()
	return s.conn.Close()
}

// plainTarget reports whether s can stand in a request line: no byte in it ends a
// part of the line or the line (RFC 9112 section 3).
func plainTarget(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// writeField writes one field line.
func writeField(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	b.WriteString(": ")
	b.WriteString(value)
	b.WriteString("\r\n")
}
