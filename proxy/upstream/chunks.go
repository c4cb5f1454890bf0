package upstream

import (
	"bufio"
	"bytes"
	"io"
	"sync"
)

// maxOverhead bounds what the framing of a body may take beyond what its chunks excuse,
// in bytes: chunks of one byte with long extensions would keep the proxy busy for nothing.
const maxOverhead = 16 << 10

// chunks reads a chunked body up to its last chunk (RFC 9112 section 7.1). Unlike
// net/http's it returns what has come and never waits for the rest of a chunk, which a
// service may be making still.
type chunks struct {
	br       *bufio.Reader
	wide     *bufio.Reader // lies over that of the connection, and is br then; nil: not needed
	much     bool          // comes at once
	small    bool          // is the chunk: a large one is read past all buffers
	left     int64         // bytes of the chunk still to come
	behind   bool          // its CRLF is
	overhead int
	err      error // sticky
}

// Read waits for the first byte only.
func (c *chunks) Read(p []byte) (n int, err error) {
	for c.err == nil {
		if c.left == 0 {
			if n > 0 && !c.lineAtHand() {
				return n, nil
			}
			c.err = c.next()
			continue
		}
		if len(p) == 0 || n > 0 && c.br.Buffered() == 0 {
			return n, nil
		}
		if c.much && c.small && c.br.Buffered() == 0 {
			c.widen()
		}
		m, err := c.br.Read(p[:min(int64(len(p)), c.left)])
		n, p = n+m, p[m:]
		c.much = c.much || m+c.br.Buffered() > muchAtOnce
		c.left -= int64(m)
		c.behind = c.left == 0
		c.err = cutShort(err)
	}
	return n, c.err
}

// muchAtOnce is what most of the connection's buffer holds, in bytes: who fills it sends
// more than events as they come.
const muchAtOnce = 3 << 10

const smallChunk = 16 << 10

// wides are for bodies of which much comes in chunks that are small: what is at hand goes
// on in one piece.
var wides = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 32<<10) }}

// widen is called while the connection's own buffer is empty.
func (c *chunks) widen() {
	if c.wide != nil {
		return
	}
	c.wide = wides.Get().(*bufio.Reader)
	c.wide.Reset(c.br)
	c.br = c.wide
}

// release gives the wide buffer back, and returns how many bytes behind the body were in
// it. Nothing is read from c any more.
func (c *chunks) release() (behind int) {
	if c.wide == nil {
		return 0
	}
	behind = c.wide.Buffered()
	c.wide.Reset(nil)
	wides.Put(c.wide)
	c.wide, c.br, c.err = nil, nil, io.ErrClosedPipe
	return behind
}

// lineAtHand reports whether the next chunk's size can be read without waiting.
func (c *chunks) lineAtHand() bool {
	have, _ := c.br.Peek(c.br.Buffered()) // cannot fail
	if c.behind {
		have = have[min(2, len(have)):]
	}
	return bytes.IndexByte(have, '\n') >= 0
}

// next reads the size of the next chunk; io.EOF says that it was the last.
func (c *chunks) next() error {
	if c.behind {
		end, err := c.br.Peek(2)
		if err != nil {
			return cutShort(err)
		}
		if string(end) != "\r\n" {
			return protocolError("a chunk of the answer does not end where it says")
		}
		c.br.Discard(2)
		c.behind = false
	}
	line, err := c.br.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return protocolError("the size of a chunk is too long")
	}
	if err != nil {
		return cutShort(err)
	}
	size, ok := chunkSize(line)
	if !ok {
		return protocolError("the size of a chunk is no number")
	}
	c.overhead = max(c.overhead+len(line)-16-2*int(min(size, maxOverhead)), 0)
	if c.overhead > maxOverhead {
		return protocolError("the chunks of the answer are mostly framing")
	}
	c.small = size <= smallChunk
	if c.left = size; size == 0 {
		return io.EOF
	}
	return nil
}

// chunkSize reads 1 to 15 hexadecimal digits, behind which may be white space and an
// extension, which nobody reads.
func chunkSize(line []byte) (size int64, ok bool) {
	line, ok = bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.IndexByte(line, '\r') >= 0 {
		return 0, false
	}
	line, _, _ = bytes.Cut(line, []byte{';'})
	line = bytes.TrimRight(line, " \t")
	if len(line) == 0 || len(line) > 15 {
		return 0, false
	}
	for _, b := range line {
		switch {
		case '0' <= b && b <= '9':
			b -= '0'
		case 'a' <= b && b <= 'f':
			b -= 'a' - 10
		case 'A' <= b && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		size = size<<4 | int64(b)
	}
	return size, true
}

// cutShort is the error of a body that ends before it said.
func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
