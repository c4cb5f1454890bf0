package http1

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"chaperone/proxy/syntax"
)

var (
	errIncomplete = errors.New("answer is shorter than its Content-Length")
	errEnded      = errors.New("answer has ended")
)

// response writes the answer to one request. It fills one buffer with the head
// and as much of the body as fits, so that a short answer is one write. Its
// methods are those of net/http's ResponseWriter, Flusher and Hijacker, for one
// goroutine.
type response struct {
	c      *conn
	header http.Header
	out    []byte
	pooled *[]byte

	mu       sync.Mutex // between the final head, and a 100 set off by a reader of the body
	begun    bool       // the final head was made
	ended    bool       // the last byte went out
	bodiless bool
	chunked  bool
	closes   bool  // no other request will be served
	left     int64 // bytes of a counted body still to be written
	err      error // what writing came to
}

// outSize holds a head with a short body.
const outSize = 8 << 10

var outs = sync.Pool{New: func() any { b := make([]byte, 0, outSize); return &b }}

func (w *response) begin(r *http.Request) {
	w.header = nil
	w.begun, w.ended, w.bodiless, w.chunked, w.left, w.err = false, false, false, false, 0, nil
	w.closes = r.Close
}

func (w *response) drop() {
	if w.pooled != nil {
		*w.pooled = w.out[:0]
		outs.Put(w.pooled)
	}
	w.out, w.pooled = nil, nil
}

// Header returns the fields of the head to be written.
func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header, 8)
	}
	return w.header
}

// Adopt has the fields of h written, which is the caller's no longer, in place of
// those that were set.
func (w *response) Adopt(h http.Header) { w.header = h }

// WriteHeader makes the head. An interim one (RFC 9110 section 15.2) is sent at
// once; the final one goes out with what follows it.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun {
		return
	}
	if w.pooled == nil {
		w.pooled = outs.Get().(*[]byte)
		w.out = (*w.pooled)[:0]
	}
	if status >= 100 && status <= 199 {
		w.line(status)
		w.fields()
		w.out = append(w.out, "\r\n"...)
		w.flush()
		return
	}
	w.begun = true
	w.line(status)
	w.frame(status)
	w.fields()
	if _, ok := w.header["Date"]; !ok {
		w.out = append(w.out, "Date: "...)
		w.out = time.Now().UTC().AppendFormat(w.out, http.TimeFormat)
		w.out = append(w.out, "\r\n"...)
	}
	w.out = append(w.out, "\r\n"...)
}

func (w *response) line(status int) {
	w.out = append(w.out, "HTTP/1.1 "...)
	w.out = strconv.AppendInt(w.out, int64(status), 10)
	w.out = append(w.out, ' ')
	w.out = append(w.out, http.StatusText(status)...)
	w.out = append(w.out, "\r\n"...)
}

// frame decides how the end of the answer is told (RFC 9112 section 6.3), and
// whether the connection goes on.
func (w *response) frame(status int) {
	w.bodiless = w.c.req.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified
	length, counted := w.length()
	switch {
	case status == http.StatusNoContent:
	case counted:
		w.left = length
		w.field("Content-Length", w.header["Content-Length"][0])
	case !w.bodiless:
		w.chunked = true
		w.field("Transfer-Encoding", "chunked")
	}
	w.closes = w.closes || w.c.server.closing.Load() || w.c.server.leaving.Load() ||
		httpguts.HeaderValuesContainsToken(w.header["Connection"], "close") ||
		w.c.body != nil && !w.c.bodyDone.Load() && w.c.body.unread()
	if w.closes {
		w.field("Connection", "close")
	}
}

// length returns the Content-Length that was set, if it is one.
func (w *response) length() (int64, bool) {
	v := w.header["Content-Length"]
	if len(v) != 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[0], 10, 63)
	return int64(n), err == nil
}

// fields writes the fields that were set, except those that frame.
func (w *response) fields() {
	for name, values := range w.header {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Connection":
			continue
		}
		if !syntax.Token(name) { // also the keys that begin with http.TrailerPrefix
			continue
		}
		for _, v := range values {
			w.field(name, v)
		}
	}
}

// field writes one field. A value cannot end its line.
func (w *response) field(name, value string) {
	w.out = append(w.out, name...)
	w.out = append(w.out, ": "...)
	if syntax.Value(value) {
		w.out = append(w.out, value...)
	} else {
		w.out = append(w.out, strings.Map(printable, value)...)
	}
	w.out = append(w.out, "\r\n"...)
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// sayContinue sends a 100, and reports whether it did: behind an answer that has
// begun there is none.
func (w *response) sayContinue() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun {
		return false
	}
	_, err := w.c.Conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return err == nil
}

// Write writes a part of the body. It returns [http.ErrBodyNotAllowed] where there
// is none, and [http.ErrContentLength] beyond the length that was announced.
func (w *response) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.ended:
		return 0, errEnded
	case len(p) == 0:
		return 0, nil
	case w.bodiless:
		return 0, http.ErrBodyNotAllowed
	case w.chunked:
		w.out = strconv.AppendInt(w.out, int64(len(p)), 16)
		w.out = append(w.out, "\r\n"...)
		w.put(p)
		w.put([]byte("\r\n"))
	case int64(len(p)) > w.left:
		return 0, http.ErrContentLength
	default:
		w.left -= int64(len(p))
		w.put(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// put adds p to what goes out. What does not fit goes out at once, together with what
// is there.
func (w *response) put(p []byte) {
	switch {
	case w.err != nil:
	case len(w.out)+len(p) <= cap(w.out):
		w.out = append(w.out, p...)
	case len(w.out) == 0:
		_, w.err = w.c.Conn.Write(p)
	case len(p) < cap(w.out)/2:
		n := copy(w.out[len(w.out):cap(w.out)], p)
		w.out = w.out[:len(w.out)+n]
		w.flush()
		w.out = append(w.out, p[n:]...)
	default:
		w.err = w.both(p)
		w.out = w.out[:0]
	}
}

// both writes what is there and p, in as few writes as may be.
func (w *response) both(p []byte) error {
	if s, ok := w.c.Conn.(interface{ WriteBoth(head, p []byte) error }); ok {
		return s.WriteBoth(w.out, p)
	}
	n := copy(w.out[len(w.out):cap(w.out)], p)
	if _, err := w.c.Conn.Write(w.out[:len(w.out)+n]); err != nil || n == len(p) {
		return err
	}
	_, err := w.c.Conn.Write(p[n:])
	return err
}

// Flush sends what there is.
func (w *response) Flush() {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	w.flush()
}

func (w *response) flush() {
	if w.err == nil && len(w.out) > 0 {
		_, w.err = w.c.Conn.Write(w.out)
	}
	w.out = w.out[:0]
}

// End sends what is left of the answer, which is whole, before the handler returns, so
// that the agent need not wait for what is done behind it. It returns why that failed.
func (w *response) End() error {
	if w.ended {
		return w.err
	}
	w.ended = true
	if !w.begun {
		if w.header["Content-Length"] == nil {
			w.Header()["Content-Length"] = []string{"0"}
		}
		w.WriteHeader(http.StatusOK)
	}
	if w.chunked {
		w.out = append(w.out, "0\r\n"...)
		w.trailers()
		w.out = append(w.out, "\r\n"...)
	}
	w.flush()
	w.drop()
	return w.err
}

// finish ends the answer and reports whether another may follow.
func (w *response) finish() bool {
	w.End()
	if !w.bodiless && w.left > 0 && w.err == nil {
		w.err = errIncomplete
	}
	return w.err == nil && !w.closes
}

// trailers writes what was set under [http.TrailerPrefix].
func (w *response) trailers() {
	for name, values := range w.header {
		name, ok := strings.CutPrefix(name, http.TrailerPrefix)
		if !ok || !syntax.Token(name) {
			continue
		}
		for _, v := range values {
			w.field(name, v)
		}
	}
}

// Close cuts the connection, and with it the exchange. Unlike all else here it may be
// called from any goroutine and more than once.
func (w *response) Close() error {
	w.c.cancel()
	return w.c.Conn.Close()
}

// Hijack hands the connection over, with what the agent sent early still to be
// read from it. The reader and writer are over the same connection.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.begun {
		return nil, nil, errors.New("hijacking after the answer began")
	}
	w.drop()
	nc := w.c.hijack()
	return nc, bufio.NewReadWriter(bufio.NewReaderSize(nc, 16), bufio.NewWriterSize(nc, 512)), nil
}
