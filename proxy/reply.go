package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"chaperone/proxy/http1"
)

// countingReader passes a body on and counts it. It is read by the goroutine
// that sends and asked by the one that closes the record.
type countingReader struct {
	r     io.Reader
	n     atomic.Int64
	end   func() error // called once at EOF; its error ends the body in the place of that
	fault atomic.Pointer[error]
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	if err == io.EOF && c.end != nil {
		if fault := c.end(); fault != nil {
			c.fault.Store(&fault)
			return n, fault
		}
		c.end = nil
	}
	return n, err
}

// refused is why the body may not end as it does, or nil.
func (c *countingReader) refused() error {
	if fault := c.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// informational passes an interim answer on. 100 is net/http's to send: it does
// so when the body is first read, which the service's own 100 sets off.
func (x *exchange) informational(code int, h http.Header) error {
	if code == http.StatusContinue || x.out.Upgrade {
		return nil
	}
	dst := x.w.Header()
	stripAnswer(h)
	x.searchFields(h)
	for k, v := range h {
		dst[http1.Canonical(k)] = v
	}
	x.w.WriteHeader(code)
	clear(dst)
	return nil
}

// reply passes the service's answer on to the agent as it comes.
func (x *exchange) reply(resp *http.Response) error {
	defer resp.Body.Close()
	x.rec.Outcome.Status = resp.StatusCode
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return x.switchProtocols(resp)
	}
	if x.duties != nil {
		if err := x.obligeAnswer(resp); err != nil {
			return err
		}
	}
	if err := x.keepHandouts(resp); err != nil {
		return err
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	x.search(resp, *buf)
	x.answerHead(resp)
	err := x.answerBody(resp, *buf)
	x.rec.Outcome.Scrubbed += x.scrub.body.Found()
	if err != nil {
		x.note(err)
		panic(http.ErrAbortHandler) // the agent must not take half an answer for a whole one
	}
	x.searchFields(resp.Trailer)
	for name, values := range resp.Trailer {
		if httpguts.ValidTrailerHeader(name) {
			x.w.Header()[http.TrailerPrefix+name] = values
		}
	}
	return nil
}

func (x *exchange) answerHead(resp *http.Response) {
	stripAnswer(resp.Header)
	h := x.answerFields(resp.Header)
	// net/http would add these of its own accord; the agent gets what the service said.
	for _, name := range [...]string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil
		}
	}
	x.answerLength(h, resp)
	h["Chaperone-Decision"] = []string{"allow; id=" + x.rec.ID}
	for name := range resp.Trailer {
		if httpguts.ValidTrailerHeader(name) {
			h.Add("Trailer", name)
		}
	}
	x.w.WriteHeader(resp.StatusCode)
	x.started = true
	x.replied = time.Now()
}

// answerFields hands the service's fields to the agent's side and returns them as
// they stand there.
func (x *exchange) answerFields(from http.Header) http.Header {
	w, adopts := x.w.(interface{ Adopt(http.Header) })
	h := from
	if !adopts {
		h = x.w.Header()
	}
	for k, v := range from {
		name := answerName(k)
		if adopts && name == k {
			continue
		}
		h[name] = append(h[name], v...) // two spellings of one name are one field
		if adopts {
			delete(from, k)
		}
	}
	if adopts {
		w.Adopt(h)
	}
	return h
}

// answerLength sets Content-Length to what is known to come, or removes it.
func (x *exchange) answerLength(h http.Header, resp *http.Response) {
	told := resp.ContentLength > 0 || resp.ContentLength == 0 && !bodiless(x.r.Method, resp.StatusCode)
	if !told || resp.StatusCode == http.StatusNoContent || len(resp.Trailer) > 0 {
		delete(h, "Content-Length")
		return
	}
	if len(h["Content-Length"]) != 1 { // else it is what the length was read from
		h["Content-Length"] = []string{strconv.FormatInt(resp.ContentLength, 10)}
	}
}

// bodiless reports whether an answer has no body whatever its fields say (RFC
// 9112 section 6.3).
func bodiless(method string, status int) bool {
	return method == http.MethodHead || status == http.StatusNotModified
}

// answerName is the key under which net/http's server looks for the fields that
// it has a hand in; all others keep the service's spelling.
func answerName(k string) string {
	switch len(k) {
	case len("Date"), len("Content-Type"), len("Content-Length"), len("Connection"):
		switch c := http1.Canonical(k); c {
		case "Date", "Content-Type", "Content-Length", "Connection", "Set-Cookie":
			return c
		}
	}
	return k
}

// stripAnswer removes the fields that end at this hop, and Alt-Svc, which would
// lead the agent past the proxy.
func stripAnswer(h http.Header) {
	for name, values := range h {
		if n := len(name); n > 2 && n < 7 || n > 7 && n < 10 || n > 10 && n < 16 {
			continue // none of those below
		}
		switch http1.Canonical(name) {
		case "Connection":
			removeNominated(h, values)
			delete(h, name)
		case "Keep-Alive", "Transfer-Encoding", "Trailer", "Upgrade", "Te", "Alt-Svc", "Chaperone-Decision",
			"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Proxy-Authentication-Info":
			delete(h, name)
		}
	}
}

// removeNominated deletes the fields that Connection names.
func removeNominated(h http.Header, values []string) {
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			if !strings.EqualFold(name, "close") && !strings.EqualFold(name, "keep-alive") {
				remove(h, name)
			}
		}
	}
}

// remove deletes a field however it is spelled.
func remove(h http.Header, name string) {
	for k := range h {
		if strings.EqualFold(k, name) {
			delete(h, k)
		}
	}
}

// copyBuffers are for one piece of a body, largeBuffers for the pieces of one that is
// large: what goes on in one write.
var (
	copyBuffers  = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
)

var (
	errServiceCut = errors.New("service ended its answer early")
	errAgentGone  = errors.New("agent went away")
)

// answerBody copies the body through buf. What has come is sent on when nothing more
// is at hand, so that events, lines and slow downloads arrive as they are made.
func (x *exchange) answerBody(resp *http.Response, buf []byte) error {
	left := resp.ContentLength // negative: unknown
	piece, err := x.scrub.read, x.scrub.err
	large := false
	for {
		left -= int64(len(piece))
		if werr := x.passPiece(piece, err == nil && left != 0 && len(piece) < len(buf)); werr != nil {
			return werr
		}
		if err == io.EOF && x.r.Context().Err() == nil {
			return nil
		}
		if err != nil {
			return x.cause(err)
		}
		if !large && len(piece) == len(buf) {
			more := largeBuffers.Get().(*[]byte)
			defer largeBuffers.Put(more)
			buf, large = *more, true
		}
		var n int
		n, err = resp.Body.Read(buf)
		piece = buf[:n]
	}
}

// passPiece sends one piece of the body on. With pause, nothing more is at hand.
func (x *exchange) passPiece(piece []byte, pause bool) error {
	if len(piece) == 0 {
		return nil
	}
	if x.meter != nil {
		if err := x.meter.spend(int64(len(piece))); err != nil {
			return err
		}
	}
	if _, err := x.w.Write(piece); err != nil {
		return x.because(errAgentGone)
	}
	x.received += int64(len(piece))
	if pause {
		x.flush()
	}
	return nil
}

// cause tells apart who ended an exchange.
func (x *exchange) cause(err error) error {
	if why := x.barred(); why != nil {
		return why
	}
	if x.r.Context().Err() != nil {
		return errAgentGone
	}
	return errors.Join(errServiceCut, err)
}

func (x *exchange) flush() {
	if f, ok := x.w.(http.Flusher); ok {
		f.Flush()
	}
}

// switchProtocols joins agent and service after a WebSocket handshake.
func (x *exchange) switchProtocols(resp *http.Response) error {
	service, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return errServiceCut
	}
	conn, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return errAgentGone
	}
	defer conn.Close()
	x.started = true
	both := newSocket(conn, service, x.s.parting)
	both.why = x.barred
	both.sever = func() {
		x.harden()
		conn.Close()
		service.Close()
	}
	defer x.s.taken.add(both)()
	stripAnswer(resp.Header)
	from := x.searchStream(resp, service)
	resp.Header["Connection"] = []string{"Upgrade"}
	resp.Header["Upgrade"] = []string{"websocket"}
	resp.Header["Chaperone-Decision"] = []string{"allow; id=" + x.rec.ID}
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	resp.Header.Write(rw)
	rw.WriteString("\r\n")
	if err := rw.Flush(); err != nil {
		return errAgentGone
	}
	x.replied = time.Now()
	x.soften(both)
	defer x.harden()
	out, in := both.join(conn, service, from)
	x.rec.Outcome.Scrubbed += x.scrub.body.Found()
	x.received += out
	x.sent.n.Add(in)
	if err := x.barred(); err != nil {
		x.note(err)
	}
	return nil
}

// splice copies both ways until either side ends, and returns the bytes that
// went to a and to b. An orderly end of one direction is passed on before. What b
// says is read from fromB.
func splice(a net.Conn, b io.ReadWriteCloser, fromB io.Reader) (toA, toB int64) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		toB, _ = io.Copy(struct{ io.Writer }{b}, a)
		closeWrite(b)
	}()
	toA, _ = io.Copy(struct{ io.Writer }{a}, fromB)
	closeWrite(a)
	a.SetReadDeadline(time.Now().Add(lingering))
	<-done
	b.Close()
	return toA, toB
}

// lingering is how long one direction may go on after the other has ended.
const lingering = 10 * time.Second

func closeWrite(c any) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
		return
	}
	if cl, ok := c.(io.Closer); ok {
		cl.Close()
	}
}
