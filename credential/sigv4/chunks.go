package sigv4

import (
	"bufio"
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"chaperone/credential/internal/secret"
)

// MaxChunk bounds one chunk of a signed stream, in bytes: its signature stands before
// it, so it is held until it has come whole.
const MaxChunk = 16 << 20

// ErrChunk is wrapped when a signed stream is not of its form.
var ErrChunk = errors.New("a chunk of the signed stream cannot be read")

// Resigned reads a stream of signed chunks, verifies each with the key that the agent
// has, and gives it on under the key that the service knows
// (docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html). The length of the
// stream does not change.
type Resigned struct {
	s        *Signature
	in       *bufio.Reader
	from, to chain
	trailer  bool
	out      bytes.Buffer
	err      error // what Read returns once out is empty
}

// chain is one key's signatures, each over the one before.
type chain struct {
	key  []byte
	last string
}

// Resign returns a stream under the signatures of another key. The signatures of the
// head are what the chains begin with.
func (s *Signature) ResignChunks(body io.Reader, from, to secret.Secret, newHead string) *Resigned {
	return &Resigned{
		s: s, in: bufio.NewReaderSize(body, 64<<10), trailer: s.Payload == ChunksTrailer,
		from: chain{s.signingKey(from), s.Value}, to: chain{s.signingKey(to), newHead},
	}
}

// Read implements [io.Reader].
func (c *Resigned) Read(p []byte) (int, error) {
	for c.out.Len() == 0 {
		if c.err != nil {
			return 0, c.err
		}
		c.err = c.next()
	}
	return c.out.Read(p)
}

// next gives one chunk on. It returns io.EOF behind the last.
func (c *Resigned) next() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	size, signature, ok := strings.Cut(line, ";chunk-signature=")
	n, err := strconv.ParseUint(size, 16, 32)
	if !ok || err != nil || n > MaxChunk {
		return fmt.Errorf("%w: its size", ErrChunk)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return fmt.Errorf("%w: it ends early", ErrChunk)
	}
	fresh, err := c.both("AWS4-HMAC-SHA256-PAYLOAD", signature, Hash(nil)+"\n"+Hash(data))
	if err != nil {
		return err
	}
	c.out.WriteString(size + ";chunk-signature=" + fresh + "\r\n")
	c.out.Write(data)
	if n == 0 {
		return c.end()
	}
	if err := c.blank(); err != nil {
		return err
	}
	c.out.WriteString("\r\n")
	return nil
}

// end gives on what is behind the last chunk: an empty line, or trailers with a
// signature of their own.
func (c *Resigned) end() error {
	if !c.trailer {
		if err := c.blank(); err != nil {
			return err
		}
		c.out.WriteString("\r\n")
		return c.over()
	}
	var fields []string
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		name, value, ok := strings.Cut(line, ":")
		switch {
		case line == "":
			return fmt.Errorf("%w: the trailers have no signature", ErrChunk)
		case !ok || len(fields) > 16:
			return fmt.Errorf("%w: its trailers", ErrChunk)
		case name == "x-amz-trailer-signature":
			return c.endSigned(fields, value)
		}
		fields = append(fields, name+":"+strings.TrimSpace(value)+"\n")
		c.out.WriteString(line + "\r\n")
	}
}

func (c *Resigned) endSigned(fields []string, signature string) error {
	slices.Sort(fields)
	fresh, err := c.both("AWS4-HMAC-SHA256-TRAILER", signature, Hash([]byte(strings.Join(fields, ""))))
	if err != nil {
		return err
	}
	c.out.WriteString("x-amz-trailer-signature:" + fresh + "\r\n")
	if err := c.blank(); err != nil {
		return err
	}
	c.out.WriteString("\r\n")
	return c.over()
}

// over makes sure that nothing stands behind the end.
func (c *Resigned) over() error {
	if _, err := c.in.Peek(1); err != io.EOF {
		return fmt.Errorf("%w: something stands behind the last one", ErrChunk)
	}
	return io.EOF
}

// both verifies a signature of one key and returns the other's over the same.
func (c *Resigned) both(kind, given, of string) (string, error) {
	if subtle.ConstantTimeCompare([]byte(c.from.sign(c.s, kind, of)), []byte(given)) != 1 {
		return "", ErrMismatch
	}
	return c.to.sign(c.s, kind, of), nil
}

func (k *chain) sign(s *Signature, kind, of string) string {
	k.last = hex.EncodeToString(sum(k.key, kind+"\n"+s.stamp+"\n"+s.scope()+"\n"+k.last+"\n"+of))
	return k.last
}

// maxLine bounds a line between chunks, in bytes.
const maxLine = 4 << 10

// line reads a line without its end.
func (c *Resigned) line() (string, error) {
	b, err := c.in.ReadSlice('\n')
	if err != nil || len(b) > maxLine || len(b) < 2 || b[len(b)-2] != '\r' {
		return "", fmt.Errorf("%w: a line between chunks", ErrChunk)
	}
	return string(b[:len(b)-2]), nil
}

func (c *Resigned) blank() error {
	line, err := c.line()
	if err == nil && line != "" {
		err = fmt.Errorf("%w: it is longer than its size", ErrChunk)
	}
	return err
}
