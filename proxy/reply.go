package proxy

import (
	"errors"
	"io"
	"maps"
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
	x.takeFields(h)
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
	x.scrub.echo = x.presented.Echo()
	odd := x.takeFields(resp.Header)
	x.search(resp, *buf)
	x.answerHead(resp, odd)
	err := x.answerBody(resp, *buf)
	x.rec.Outcome.Scrubbed += x.scrub.body.Found()
	if err != nil {
		x.note(err)
		panic(http.ErrAbortHandler) // the agent must not take half an answer for a whole one
	}
	for _, values := range resp.Trailer {
		x.searchValues(values)
	}
	for name, values := range resp.Trailer {
		if httpguts.ValidTrailerHeader(name) {
			x.w.Header()[http.TrailerPrefix+name] = values
		}
	}
	x.end()
	return nil
}

// end sends the last of the answer, where nothing that is done behind it counts for the
// agent's next request.
func (x *exchange) end() {
	w, ends := x.w.(interface{ End() error })
	if !ends || x.duties != nil {
		return
	}
	if w.End() != nil {
		x.note(x.because(errAgentGone))
		panic(http.ErrAbortHandler)
	}
}

func (x *exchange) answerHead(resp *http.Response, odd []string) {
	h := x.answerFields(resp.Header, odd)
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
// they stand there. Those of odd stand under the key that net/http's server looks for.
func (x *exchange) answerFields(from http.Header, odd []string) http.Header {
	for _, name := range odd {
		values := from[name]
		delete(from, name)
		name = http1.Canonical(name)
		from[name] = append(from[name], values...) // two spellings of one name are one field
	}
	if w, ok := x.w.(interface{ Adopt(http.Header) }); ok {
		w.Adopt(from)
		return from
	}
	h := x.w.Header()
	maps.Copy(h, from)
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

// takeFields makes fields of the service's those that the agent gets: the ones that end
// at this hop go, and handles stand in the place of secrets. It returns the names of
// those that net/http's server has a hand in and does not know in this spelling; all
// others keep the service's.
func (x *exchange) takeFields(h http.Header) (odd []string) {
	var nominated []string
	for name, values := range h {
		if endsHere(name) {
			if strings.EqualFold(name, "Connection") {
				nominated = append(nominated, values...)
			}
			delete(h, name)
			continue
		}
		x.searchValues(values)
		switch len(name) {
		case len("Date"), len("Set-Cookie"), len("Content-Type"), len("Content-Length"):
			if c := http1.Canonical(name); c != name && (c == "Date" || c == "Set-Cookie" || c == "Content-Type" || c == "Content-Length") {
				odd = append(odd, name)
			}
		}
	}
	removeNominated(h, nominated)
	return odd
}

// endsHere reports whether a field of an answer ends at this hop (RFC 9110 section
// 7.6.1), is the proxy's own to say, or, as Alt-Svc, would lead the agent past it.
func endsHere(name string) bool {
	var any [3]string
	switch len(name) {
	case len("Te"):
		any = [3]string{"Te"}
	case len("Upgrade"):
		any = [3]string{"Upgrade", "Trailer", "Alt-Svc"}
	case len("Connection"):
		any = [3]string{"Connection", "Keep-Alive"}
	case len("Proxy-Connection"):
		any = [3]string{"Proxy-Connection"}
	case len("Transfer-Encoding"):
		any = [3]string{"Transfer-Encoding"}
	case len("Proxy-Authenticate"):
		any = [3]string{"Proxy-Authenticate", "Chaperone-Decision"}
	case len("Proxy-Authorization"):
		any = [3]string{"Proxy-Authorization"}
	case len("Proxy-Authentication-Info"):
		any = [3]string{"Proxy-Authentication-Info"}
	default:
		return false
	}
	return strings.EqualFold(name, any[0]) || strings.EqualFold(name, any[1]) || strings.EqualFold(name, any[2])
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
	errStopped    = errors.New("the proxy stops")
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
	x.scrub.echo = x.presented.Echo()
	x.takeFields(resp.Header)
	from := x.searchStream(service)
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
