package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"sync"
	"time"

	"chaperone/proxy/syntax"
)

// wholeBody is the largest body that is read and sent in one write with its head,
// in bytes; a larger one is sent by a goroutine while the answer is awaited, since
// a service may answer before it has read everything.
const wholeBody = 16 << 10

// continueWait is how long the service's 100 is waited for before the body is sent
// all the same (RFC 9110 section 10.1.1).
const continueWait = time.Second

var heads = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// roundTrip carries out one exchange over HTTP/1.1. A bodyless exchange on an idle
// connection starts no goroutine: hand-overs are what costs a proxy its latency.
func (c *Client) roundTrip(ctx context.Context, r *Request) (*http.Response, error) {
	to := origin{r.Scheme, r.Host, r.Port, r.Certificate}
	out := heads.Get().(*bytes.Buffer)
	defer heads.Put(out)
	out.Reset()
	whole, err := r.writeHead(out)
	if err != nil {
		return nil, err
	}
	if k := c.idle.take(to); k != nil {
		resp, err := c.exchange(ctx, k, r, out.Bytes(), whole)
		if err == nil || !errors.Is(err, errStale) || !r.repeatable() {
			return resp, err
		}
	}
	k, err := c.open(ctx, to)
	if err != nil {
		return nil, err
	}
	return c.exchange(ctx, k, r, out.Bytes(), whole)
}

// errStale is wrapped when a connection that had been idle ended before a byte of
// the answer came.
var errStale = errors.New("idle connection had ended")

// repeatable reports whether a request may be sent again when nobody knows whether
// it arrived (RFC 9110 section 9.2.2). One with a body never is: it has been read.
func (r *Request) repeatable() bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return r.Body == nil || r.ContentLength == 0
	}
	return false
}

// writeHead writes the head, and behind it the body when that is small and its
// length is known. It reports whether that was everything. The request was checked.
func (r *Request) writeHead(b *bytes.Buffer) (whole bool, err error) {
	b.WriteString(r.Method)
	b.WriteByte(' ')
	b.WriteString(r.sentPath())
	if r.RawQuery != "" {
		b.WriteByte('?')
		b.WriteString(r.RawQuery)
	}
	b.WriteString(" HTTP/1.1\r\n")
	writeField(b, "Host", r.HostHeader)
	for name, values := range r.Header {
		if skipped(name) {
			continue
		}
		for _, v := range values {
			writeField(b, name, v)
		}
	}
	hasBody := r.Body != nil && r.ContentLength != 0
	switch {
	case hasBody && r.ContentLength < 0:
		writeField(b, "Transfer-Encoding", "chunked")
		for name := range r.Trailer {
			writeField(b, "Trailer", name)
		}
	case hasBody, r.ContentLength == 0 && takesBody(r.Method):
		writeField(b, "Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	if r.Upgrade {
		writeField(b, "Connection", "Upgrade")
		writeField(b, "Upgrade", "websocket")
	}
	if r.ExpectContinue && hasBody {
		writeField(b, "Expect", "100-continue")
	}
	b.WriteString("\r\n")
	if !hasBody {
		return true, nil
	}
	if r.ContentLength < 0 || r.ContentLength > wholeBody || r.ExpectContinue {
		return false, nil
	}
	if _, err := io.CopyN(b, r.Body, r.ContentLength); err != nil {
		return false, fmt.Errorf("%w: the request body ended early: %w", ErrCanceled, err)
	}
	return true, nil
}

// check refuses what would end a line of the head, or the head, early.
func (r *Request) check() error {
	if !syntax.Token(r.Method) || r.Path == "" || !plainTarget(r.sentPath()) || !plainTarget(r.RawQuery) || !plainTarget(r.HostHeader) {
		return protocolError("the request line or the host is malformed")
	}
	for name, values := range r.Header {
		if !syntax.Token(name) {
			return protocolError("a field name of the request is malformed")
		}
		for _, v := range values {
			if !syntax.Value(v) {
				return protocolError("a field value of the request holds a control byte")
			}
		}
	}
	for name := range r.Trailer {
		if !syntax.Token(name) {
			return protocolError("a trailer name of the request is malformed")
		}
	}
	return nil
}

// takesBody reports whether a method without a body says so with a length of zero
// (RFC 9110 section 8.6).
func takesBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// skipped are the fields that this package writes itself.
func skipped(name string) bool {
	switch len(name) {
	case 4, 14, 17, 10, 7, 6:
		switch http.CanonicalHeaderKey(name) {
		case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Trailer", "Expect":
			return true
		}
	}
	return false
}

// exchange sends a request on k and reads the head of its answer. The connection
// is k's until the body has ended.
func (c *Client) exchange(ctx context.Context, k *conn, r *Request, out []byte, whole bool) (*http.Response, error) {
	stop := context.AfterFunc(ctx, k.cut)
	var up *upload
	resp, err := func() (*http.Response, error) {
		if _, err := k.Write(out); err != nil {
			return nil, k.stale(err)
		}
		if !whole {
			up = startUpload(k, r)
		}
		h, err := c.awaitHead(k, r, up)
		if err != nil {
			return nil, err
		}
		return c.answer(k, r, h, up, stop)
	}()
	if err != nil {
		up.skip()
		stop()
		k.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return resp, err
}

// stale marks an error that came before the first byte of an answer, on a connection
// that had been idle. A service that is only slow is not gone.
func (c *conn) stale(err error) error {
	if !c.used || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", errStale, err)
}

// awaitHead reads interim answers, which are passed on, and then the final head.
func (c *Client) awaitHead(k *conn, r *Request, up *upload) (*head, error) {
	if c.o.HeaderTimeout > 0 {
		if err := k.SetReadDeadline(time.Now().Add(c.o.HeaderTimeout)); err != nil {
			return nil, err
		}
	}
	if _, err := k.br.Peek(1); err != nil {
		return nil, k.stale(err)
	}
	for interim := 0; ; interim++ {
		h, err := readHead(k.br)
		if err != nil {
			return nil, err
		}
		if h.status == http.StatusContinue {
			up.proceed()
		}
		if h.status == http.StatusSwitchingProtocols || h.status >= 200 {
			up.skip()
			if c.o.HeaderTimeout > 0 {
				err = k.SetReadDeadline(time.Time{})
			}
			return h, err
		}
		if interim == 100 {
			return nil, protocolError("too many interim answers")
		}
		if r.On1xx != nil {
			if err := r.On1xx(h.status, h.header); err != nil {
				return nil, err
			}
		}
	}
}

// answer makes the response of a head.
func (c *Client) answer(k *conn, r *Request, h *head, up *upload, stop func() bool) (*http.Response, error) {
	b := &body{
		client: c, k: k, up: up, stop: stop, closing: h.closing, kind: h.kindOf(r.Method), left: h.length, r: k.br,
		resp: http.Response{StatusCode: h.status, ProtoMajor: 1, ProtoMinor: h.minor, Header: h.header, ContentLength: h.length},
	}
	resp := &b.resp
	if h.status == http.StatusSwitchingProtocols {
		if !r.Upgrade {
			return nil, protocolError("the service switches protocols unasked")
		}
		resp.Body = switched{k, stop}
		return resp, nil
	}
	if h.chunked {
		resp.ContentLength = -1
		resp.Trailer = make(http.Header, len(h.trailer))
		for _, name := range h.trailer {
			resp.Trailer[name] = nil
		}
	} else if b.kind == noBody && h.length < 0 {
		resp.ContentLength = 0
	}
	resp.Body = b
	b.begin()
	return resp, nil
}

// upload sends a body while the answer is awaited. The nil *upload has nothing to send.
type upload struct {
	mu    sync.Mutex
	done  bool          // everything was sent
	ready chan struct{} // closed when it is known whether the body is wanted
	vain  bool          // it is not: the service gave its answer, or is gone; set before ready is closed
	once  sync.Once
}

func startUpload(k *conn, r *Request) *upload {
	u := &upload{ready: make(chan struct{})}
	if !r.ExpectContinue {
		u.proceed()
	}
	go func() {
		select {
		case <-u.ready:
		case <-time.After(continueWait):
		}
		if u.unwanted() || send(k, r) != nil {
			return // the reader finds the connection ended, or an answer that says why
		}
		u.mu.Lock()
		u.done = true
		u.mu.Unlock()
	}()
	return u
}

// proceed lets the body go: the service said 100, or was not asked to.
func (u *upload) proceed() {
	if u != nil {
		u.once.Do(func() { close(u.ready) })
	}
}

// skip keeps a body back that still waits for its 100 (RFC 9110 section 10.1.1).
func (u *upload) skip() {
	if u != nil {
		u.once.Do(func() {
			u.mu.Lock()
			u.vain = true
			u.mu.Unlock()
			close(u.ready)
		})
	}
}

func (u *upload) unwanted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.vain
}

func (u *upload) finished() bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.done
}

var uploads = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// send copies the body as it comes, with a chunk for each piece where its length is
// not known. A body that ends early closes the connection, so that the service does
// not take a part for the whole. A service that takes no more does not: its answer
// may be on the way.
func send(k *conn, r *Request) error {
	s := &sink{k: k}
	err := s.send(r)
	if err != nil && !s.refused {
		k.abort()
	}
	return err
}

// sink writes to a connection and remembers whether that failed.
type sink struct {
	k       *conn
	refused bool
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.k.Write(p)
	s.refused = s.refused || err != nil
	return n, err
}

func (s *sink) send(r *Request) error {
	buf := uploads.Get().(*[]byte)
	defer uploads.Put(buf)
	if r.ContentLength >= 0 {
		n, err := io.CopyBuffer(s, struct{ io.Reader }{io.LimitReader(r.Body, r.ContentLength)}, *buf)
		if err == nil && n != r.ContentLength {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	w := httputil.NewChunkedWriter(&coalesced{to: s})
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r.Body}, *buf)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return err
	}
	var end bytes.Buffer
	for name, values := range r.Trailer {
		for _, v := range values {
			if syntax.Token(name) && syntax.Value(v) {
				writeField(&end, name, v)
			}
		}
	}
	end.WriteString("\r\n")
	_, err = s.Write(end.Bytes())
	return err
}

// coalesced gathers the three writes of a chunk (size, data, line end) into one.
type coalesced struct {
	to   io.Writer
	held []byte
}

func (c *coalesced) Write(p []byte) (int, error) {
	c.held = append(c.held, p...)
	if len(p) == 2 && string(p) == "\r\n" || string(c.held) == "0\r\n" {
		_, err := c.to.Write(c.held)
		c.held = c.held[:0]
		if err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
