package proxy

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"chaperone/credential"
)

// maxDecoded bounds what a short compressed answer may grow to when it is looked
// into as a whole, in bytes. A longer one is decoded as it comes.
const maxDecoded = 1 << 20

// Why an answer, or a part of it, could not be searched for the secret that its
// service was sent, as the record says it.
const (
	unsearchedCoding = "coding" // a compression that cannot be undone here, or not of a text
	unsearchedRange  = "range"  // a part of something: the secret may stand across its ends
)

// scrubbing is the search of one answer. Its zero value searches nothing.
type scrubbing struct {
	echo *credential.Echo
	body *credential.EchoReader // where the body is searched as it comes
	read []byte                 // of the body, before the head went out
	err  error                  // that reading came to
}

// search prepares the body of an answer of a service that was sent a secret: it is
// searched as it comes, or at once where the first piece in buf is all of it. Of an answer
// without a secret in it no byte is changed.
func (x *exchange) search(resp *http.Response, buf []byte) {
	s := &x.scrub
	if s.echo == nil {
		return
	}
	if bodiless(x.r.Method, resp.StatusCode) || resp.ContentLength == 0 {
		return
	}
	if resp.StatusCode == http.StatusPartialContent {
		x.rec.Outcome.Unsearched = unsearchedRange
	}
	coding := contentCoding(resp.Header)
	text, short := isText(resp.Header), false
	if resp.ContentLength > 0 && resp.ContentLength <= int64(len(buf)) {
		n, err := resp.Body.Read(buf)
		s.read, s.err = buf[:n], err
		if int64(n) == resp.ContentLength {
			if x.searchWhole(resp, coding) {
				return
			}
			short = true // it goes on decoded, whatever it is
		}
	}
	body := io.Reader(resp.Body)
	if len(s.read) > 0 || s.err != nil {
		body = io.MultiReader(bytes.NewReader(bytes.Clone(s.read)), errorReader{resp.Body, s.err})
		s.read, s.err = nil, nil
	}
	if coding != "" {
		decoded, ok := decoder(coding, body)
		if !ok || !text && !short {
			x.rec.Outcome.Unsearched = unsearchedCoding
			x.passOn(resp, body)
			return
		}
		body = decoded
		undoCoding(resp)
	}
	// What is counted or framed within itself keeps its length.
	s.body = s.echo.Reader(body, resp.ContentLength > 0 || !text)
	x.passOn(resp, s.body)
}

// passOn has the rest of the answer read from body.
func (x *exchange) passOn(resp *http.Response, body io.Reader) {
	resp.Body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
}

// errorReader reads r, unless reading it has come to an error already.
type errorReader struct {
	r   io.Reader
	err error
}

func (e errorReader) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	return e.r.Read(p)
}

// searchValues puts handles for secrets in the values of a field.
func (x *exchange) searchValues(values []string) {
	if x.scrub.echo == nil {
		return
	}
	for i, v := range values {
		clean, n := x.scrub.echo.Text(v)
		if n > 0 {
			values[i] = clean
			x.rec.Outcome.Scrubbed += n
		}
	}
}

// searchWhole searches a body that is at hand as a whole. What came compressed goes
// on as it came if there is nothing in it. It reports false of one that must be
// searched as it is decoded: it grows too long, or holds a secret in front of a fault.
func (x *exchange) searchWhole(resp *http.Response, coding string) bool {
	s := &x.scrub
	plain := s.read
	var fault error
	if coding != "" {
		decoded, ok := decoder(coding, bytes.NewReader(s.read))
		if !ok {
			x.rec.Outcome.Unsearched = unsearchedCoding
			return true
		}
		plain, fault = io.ReadAll(io.LimitReader(decoded, maxDecoded+1))
		if len(plain) > maxDecoded {
			return false
		}
	}
	clean, n := s.echo.Bytes(plain, !isText(resp.Header))
	if n > 0 && fault != nil {
		return false
	}
	if fault != nil {
		x.rec.Outcome.Unsearched = unsearchedCoding
	}
	if n == 0 {
		return true
	}
	x.rec.Outcome.Scrubbed += n
	if coding != "" {
		undoCoding(resp)
	}
	remove(resp.Header, "Content-Length")
	s.read, resp.ContentLength = clean, int64(len(clean))
	return true
}

// searchStream prepares what a service says after a change of protocols. Frames
// count their bytes, so secrets are replaced by as many; one that is split over two
// frames is not found.
func (x *exchange) searchStream(service io.Reader) io.Reader {
	s := &x.scrub
	if s.echo == nil {
		return service
	}
	s.body = s.echo.Reader(service, true)
	return s.body
}

// undoCoding says that the body is not compressed any more. As nginx's gunzip has
// it, a strong validator becomes a weak one, and parts cannot be asked for.
func undoCoding(resp *http.Response) {
	h := resp.Header
	for name, values := range h {
		switch {
		case strings.EqualFold(name, "Content-Encoding"), strings.EqualFold(name, "Content-Length"), strings.EqualFold(name, "Accept-Ranges"),
			strings.EqualFold(name, "Content-Md5"), strings.EqualFold(name, "Content-Digest"):
			delete(h, name)
		case strings.EqualFold(name, "Etag") && len(values) == 1 && !strings.HasPrefix(values[0], "W/"):
			h[name] = []string{"W/" + values[0]}
		}
	}
	resp.ContentLength = -1
}

// contentCoding returns how a body is compressed, in lower case, or "".
func contentCoding(h http.Header) string {
	v := strings.ToLower(strings.TrimSpace(strings.Join(field(h, "Content-Encoding"), ",")))
	if v == "identity" {
		return ""
	}
	return v
}

// decoder undoes one compression, as it comes.
func decoder(coding string, r io.Reader) (io.Reader, bool) {
	switch coding {
	case "gzip", "x-gzip":
		return &late{open: func() (io.Reader, error) { return gzip.NewReader(r) }}, true
	case "deflate":
		return &late{open: func() (io.Reader, error) { return inflate(r) }}, true
	case "br":
		return brotli.NewReader(r), true
	case "zstd":
		return &late{open: func() (io.Reader, error) {
			d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20)) // RFC 9659
			if err != nil {
				return nil, err
			}
			return d, nil
		}}, true
	}
	return nil, false
}

// inflate reads deflate as RFC 9110 section 8.4.1.2 has it, in a zlib wrapping, and
// as some send it, without.
func inflate(r io.Reader) (io.Reader, error) {
	head := make([]byte, 2)
	n, err := io.ReadFull(r, head)
	if err != nil {
		return nil, err
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	if head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(r)
	}
	return flate.NewReader(r), nil
}

// late opens a reader when it is first read, so that no answer waits for its body.
type late struct {
	open func() (io.Reader, error)
	r    io.Reader
}

func (l *late) Read(p []byte) (int, error) {
	if l.r == nil {
		r, err := l.open()
		if err != nil {
			return 0, err
		}
		l.r = r
	}
	return l.r.Read(p)
}

// isText reports whether a body can become shorter or longer without harm to what
// is around the change. Others count their bytes within themselves.
func isText(h http.Header) bool {
	t, _, _ := strings.Cut(strings.ToLower(strings.Join(field(h, "Content-Type"), ",")), ";")
	t = strings.TrimSpace(t)
	switch t {
	case "application/json", "application/xml", "application/javascript", "application/x-www-form-urlencoded",
		"application/x-ndjson", "application/jsonl", "application/graphql-response+json", "application/problem+json":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}

// codings are those that can be undone. A service that was sent a secret is not told
// of others.
var codings = [...]string{"gzip", "x-gzip", "deflate", "br", "zstd", "identity", "*"}

// askReadable takes out of a request that carries a secret what would have the
// answer come in a form that cannot be looked into.
func (x *exchange) askReadable() {
	if x.scrub.echo = x.presented.Echo(); x.scrub.echo == nil { // interim answers come before the answer
		return
	}
	narrow(x.out.Header)
	for _, name := range [...]string{"Grpc-Accept-Encoding", "Connect-Accept-Encoding"} { // of messages within the body
		delete(x.out.Header, name)
	}
	if x.out.Upgrade { // compression of frames, RFC 7692: the service need not take the offer
		delete(x.out.Header, "Sec-Websocket-Extensions")
	}
}

// narrow takes out of Accept-Encoding what could not be undone.
func narrow(h http.Header) {
	values := h["Accept-Encoding"]
	if len(values) == 0 {
		return
	}
	var kept []string
	all := 0
	for _, v := range values {
		for offer := range strings.SplitSeq(v, ",") {
			all++
			name, _, _ := strings.Cut(offer, ";")
			if slices.Contains(codings[:], strings.ToLower(strings.TrimSpace(name))) {
				kept = append(kept, strings.TrimSpace(offer))
			}
		}
	}
	switch {
	case len(kept) == all:
	case len(kept) == 0:
		h["Accept-Encoding"] = []string{"identity"}
	default:
		h["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
	}
}
