package http1

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"chaperone/proxy/syntax"
)

// framing follows the framing of one request body, RFC 9112 sections 6 and 7.1.
// The zero framing is closed.
type framing struct {
	state framingState
	left  int64 // bytes of the body or chunk still to come
	digit int   // digits seen of the chunk size
	line  int   // bytes seen of a chunk extension or of the trailers
}

type framingState uint8

const (
	closed      framingState = iota
	counted                  // left bytes follow
	chunkSize                // hexadecimal digits
	chunkExt                 // after ";", ignored by everybody, bounded
	chunkLF                  // LF that ends the size line
	chunkData                // left bytes follow
	chunkCR                  // CR behind the data
	chunkEndLF               // LF behind that
	trailerLine              // first byte of a trailer line, or the CR of the last
	trailerName              // a field name
	trailerText              // its value
	trailerLF                // LF that ends a trailer line
	lastLF                   // LF that ends the body
)

// maxLine bounds a chunk extension, and all trailers together, in bytes.
const maxLine = 4 << 10

func (b *framing) open() bool { return b.state != closed }

// pass notes n bytes of data.
func (b *framing) pass(n int) {
	if b.left -= int64(n); b.left == 0 {
		b.state = b.afterData()
	}
}

// data reports whether what comes next are bytes of the body itself.
func (b *framing) data() bool { return b.state == counted || b.state == chunkData }

// inTrailers reports whether what comes next belongs to the trailers.
func (b *framing) inTrailers() bool { return b.state >= trailerLine && b.state <= trailerLF }

func (b *framing) afterData() framingState {
	if b.state == counted {
		return closed
	}
	return chunkCR
}

// step takes in one byte of chunk framing or of the trailers.
func (b *framing) step(c byte) bool {
	switch b.state {
	case chunkSize:
		return b.size(c)
	case chunkExt:
		if c == '\r' {
			b.state = chunkLF
			return true
		}
		b.line++
		return b.line <= maxLine && syntax.ValueByte.Has(c)
	case chunkLF:
		if b.left == 0 {
			return b.expect(c, '\n', trailerLine)
		}
		return b.expect(c, '\n', chunkData)
	case chunkCR:
		return b.expect(c, '\r', chunkEndLF)
	case chunkEndLF:
		b.digit, b.line = 0, 0
		return b.expect(c, '\n', chunkSize)
	case lastLF:
		return b.expect(c, '\n', closed)
	default:
		return b.trailer(c)
	}
}

// size takes in the chunk size: 1 to 15 hexadecimal digits, then CR or an extension.
func (b *framing) size(c byte) bool {
	switch {
	case '0' <= c && c <= '9':
		c -= '0'
	case 'a' <= c && c <= 'f':
		c -= 'a' - 10
	case 'A' <= c && c <= 'F':
		c -= 'A' - 10
	case b.digit > 0 && c == '\r':
		b.state = chunkLF
		return true
	case b.digit > 0 && c == ';':
		b.state = chunkExt
		return true
	default:
		return false
	}
	b.digit++
	b.left = b.left<<4 | int64(c)
	return b.digit <= 15
}

func (b *framing) trailer(c byte) bool {
	b.line++
	if b.line > maxLine {
		return false
	}
	switch b.state {
	case trailerLine:
		if c == '\r' {
			b.state = lastLF
			return true
		}
		b.state = trailerName
		return syntax.TokenByte.Has(c)
	case trailerName:
		if c == ':' {
			b.state = trailerText
			return true
		}
		return syntax.TokenByte.Has(c)
	case trailerText:
		if c == '\r' {
			b.state = trailerLF
			return true
		}
		return syntax.ValueByte.Has(c)
	default:
		return b.expect(c, '\n', trailerLine)
	}
}

func (b *framing) expect(c, want byte, next framingState) bool {
	b.state = next
	return c == want
}

// ErrFraming is what reading a body returns that breaks the rules of its framing.
var ErrFraming = errors.New("request body is not framed as HTTP/1.1 requires")

// errFinished is what reading a body returns after its request was answered.
var errFinished = errors.New("request was answered before its body was read")

// maxDiscard bounds what is read of a body that nobody wanted, so that another
// request can follow on the connection, in bytes; discardTime bounds how long.
const (
	maxDiscard  = 256 << 10
	discardTime = 5 * time.Second
)

// body is the body of the request that is being served. One goroutine at a time
// reads; finish may be called beside it.
type body struct {
	c *conn
	r *http.Request

	mu       sync.Mutex // held while somebody reads
	framing  framing
	expects  bool // the agent waits for a 100
	touched  bool
	ended    error
	trailers []byte // as they came
}

// Read returns the bytes of the body without their framing.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended != nil {
		return 0, b.ended
	}
	if len(p) == 0 {
		return 0, nil
	}
	b.touched = true
	if b.expects && !b.c.w.sayContinue() {
		b.ended = errFinished // the agent need not send it any more
		return 0, b.ended
	}
	b.expects = false
	for {
		if n, more := b.take(p); n > 0 || !more {
			return n, b.ended
		}
		if b.framing.data() {
			n, err := b.c.Conn.Read(p[:min(int64(len(p)), b.framing.left)])
			if n > 0 {
				b.framing.pass(n)
				b.conclude()
				return n, b.ended
			}
			b.broken(err)
			return 0, b.ended
		}
		if err := b.c.fill(); err != nil {
			b.broken(err)
			return 0, b.ended
		}
	}
}

// take hands out what has been read from the connection already, and reports
// whether more has to be.
func (b *body) take(p []byte) (n int, more bool) {
	c := b.c
	for c.r < c.e && b.framing.open() {
		if b.framing.data() {
			if n == len(p) {
				return n, false
			}
			k := int(min(int64(min(len(p)-n, c.e-c.r)), b.framing.left))
			copy(p[n:], c.buf[c.r:c.r+k])
			n += k
			c.r += k
			b.framing.pass(k)
			continue
		}
		in := c.buf[c.r]
		if b.framing.inTrailers() {
			b.trailers = append(b.trailers, in)
		}
		if !b.framing.step(in) {
			b.ended = ErrFraming
			return n, false
		}
		c.r++
	}
	b.conclude()
	return n, b.ended == nil
}

// broken ends a body that the agent does not go on with.
func (b *body) broken(err error) {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	b.ended = err
}

// conclude ends a body that is complete.
func (b *body) conclude() {
	if b.framing.open() || b.ended != nil {
		return
	}
	b.ended = io.EOF
	for line := range strings.SplitSeq(string(b.trailers), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if _, announced := b.r.Trailer[Canonical(name)]; ok && announced {
			b.r.Trailer.Add(name, strings.Trim(value, " \t"))
		}
	}
	b.c.bodyDone.Store(true)
}

// Close ends the body: nothing more can be read.
func (b *body) Close() error { return nil }

// unread reports whether nothing was read of the body, and so much of it, or
// nobody knows how much, is to come that no other request can follow.
func (b *body) unread() bool {
	if !b.mu.TryLock() {
		return false // it is being sent on
	}
	defer b.mu.Unlock()
	return !b.touched && (b.expects || b.framing.state != counted || b.framing.left > maxDiscard)
}

// finish ends the reading of the body, and reports whether another request may
// follow behind it. With keep it reads away a short rest of it.
func (b *body) finish(keep bool) bool {
	if b.c.bodyDone.Load() {
		return true
	}
	if !b.mu.TryLock() { // somebody is waiting for the agent: wake them
		b.c.SetReadDeadline(longAgo)
		b.mu.Lock()
		keep = false
	}
	defer b.mu.Unlock()
	if b.ended != nil || !keep || b.expects || b.framing.state != counted || b.framing.left > maxDiscard {
		if b.ended == nil {
			b.ended = errFinished
		}
		return false
	}
	b.c.SetReadDeadline(time.Now().Add(discardTime))
	ok := b.discard()
	b.c.SetReadDeadline(time.Time{})
	b.ended = errFinished
	return ok
}

// discard reads a counted body away.
func (b *body) discard() bool {
	c := b.c
	for b.framing.left > 0 {
		if c.r == c.e {
			if c.fill() != nil {
				return false
			}
		}
		k := min(int64(c.e-c.r), b.framing.left)
		c.r += int(k)
		b.framing.left -= k
	}
	return true
}
