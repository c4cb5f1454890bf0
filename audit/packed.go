package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// packedSuffix ends the name of a segment that is packed.
const packedSuffix = ".zst"

// frameSize is about how many bytes of lines one frame holds. A line lies whole in
// one frame, so that one record can be read without the others.
const frameSize = 256 << 10

// maxFrame bounds what a frame may say that it unpacks to, in bytes.
const maxFrame = 64 << 20

// The seek table of a packed segment, as Zstandard's seekable format has it
// (facebook/zstd, contrib/seekable_format): a skippable frame behind the others.
const (
	skippableMagic = 0x184D2A5E
	seekableMagic  = 0x8F92EAB1
	seekFooter     = 9
)

// ErrPacked is wrapped when a packed segment cannot be unpacked.
var ErrPacked = errors.New("packed segment is damaged")

// Segment is one file of the log, open for reading. Those that are packed are
// unpacked on the way: offsets and sizes are those of the lines. It is safe for
// concurrent use.
type Segment struct {
	name string
	file *os.File
	size int64
	*packed
}

// packed is what a packed segment has besides.
type packed struct {
	frames []frame

	mu   sync.Mutex
	last int // number of the frame in text
	text []byte
}

// frame is where a frame lies, packed and unpacked.
type frame struct {
	at, from   int64
	size, text int
}

// OpenSegment opens a file of the log.
func OpenSegment(name string) (*Segment, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	s := &Segment{name: name, file: f, size: info.Size()}
	if !IsPacked(name) {
		return s, nil
	}
	if s.packed, err = openPacked(f, info.Size()); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	s.size = 0
	if n := len(s.frames); n > 0 {
		s.size = s.frames[n-1].from + int64(s.frames[n-1].text)
	}
	return s, nil
}

// IsPacked reports whether a file of that name is a packed segment.
func IsPacked(name string) bool { return strings.HasSuffix(name, packedSuffix) }

// Name is the file's.
func (s *Segment) Name() string { return s.name }

// Size is that of the lines, in bytes; a segment that is still written may have grown.
func (s *Segment) Size() int64 { return s.size }

// Sync puts what was written so far on disk.
func (s *Segment) Sync() error { return s.file.Sync() }

// Close releases the file.
func (s *Segment) Close() error {
	return s.file.Close()
}

// ReadAt implements [io.ReaderAt] over the lines.
func (s *Segment) ReadAt(b []byte, at int64) (int, error) {
	if s.packed == nil {
		return s.file.ReadAt(b, at)
	}
	n := 0
	for n < len(b) {
		m, err := s.readFrame(b[n:], at+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// From reads the lines from a byte on.
func (s *Segment) From(at int64) io.Reader { return io.NewSectionReader(s, at, 1<<62-at) }

func openPacked(f io.ReaderAt, size int64) (*packed, error) {
	foot := make([]byte, seekFooter)
	if size < seekFooter {
		return nil, fmt.Errorf("%w: it is too short", ErrPacked)
	}
	if _, err := f.ReadAt(foot, size-seekFooter); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(foot))
	table := n*8 + seekFooter + 8
	if binary.LittleEndian.Uint32(foot[5:]) != seekableMagic || foot[4] != 0 || table > size {
		return nil, fmt.Errorf("%w: it has no seek table", ErrPacked)
	}
	b := make([]byte, table)
	if _, err := f.ReadAt(b, size-table); err != nil {
		return nil, err
	}
	p := &packed{frames: make([]frame, n), last: -1}
	var at, from int64
	for i := range p.frames {
		entry := b[8+8*i:]
		one := frame{at, from, int(binary.LittleEndian.Uint32(entry)), int(binary.LittleEndian.Uint32(entry[4:]))}
		if one.text > maxFrame || one.text == 0 {
			return nil, fmt.Errorf("%w: a frame of %d bytes", ErrPacked, one.text)
		}
		p.frames[i] = one
		at, from = at+int64(one.size), from+int64(one.text)
	}
	if at != size-table {
		return nil, fmt.Errorf("%w: its seek table does not fit", ErrPacked)
	}
	return p, nil
}

// readFrame copies from the frame in which the byte at lies.
func (s *Segment) readFrame(b []byte, at int64) (int, error) {
	if at >= s.size {
		return 0, io.EOF
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.frameOf(at)
	if i != s.last {
		one := s.frames[i]
		raw := make([]byte, one.size)
		if _, err := s.file.ReadAt(raw, one.at); err != nil {
			return 0, err
		}
		text, err := Unsqueeze(raw, maxFrame)
		if err != nil || len(text) != one.text {
			s.last = -1
			return 0, fmt.Errorf("%w: frame %d: %v", ErrPacked, i, err)
		}
		s.text, s.last = text, i
	}
	return copy(b, s.text[at-s.frames[i].from:]), nil
}

func (p *packed) frameOf(at int64) int {
	lo, hi := 0, len(p.frames)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; p.frames[mid].from <= at {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// Pack compresses a segment that has ended, reads it back, and only then removes
// the one that was not packed. Packed segments are read like the others; `zstdcat`
// unpacks them too. It returns the new name.
func Pack(name string) (string, error) {
	to := name + packedSuffix
	before, err := pack(name, to+".part")
	if err != nil {
		os.Remove(to + ".part")
		return "", fmt.Errorf("packing %s: %w", name, err)
	}
	after, err := digest(to + ".part")
	if err == nil && before != after {
		err = ErrPacked
	}
	if err == nil {
		err = os.Rename(to+".part", to)
	}
	if err == nil {
		err = os.Remove(name)
	}
	if err != nil {
		return "", fmt.Errorf("packing %s: %w", name, err)
	}
	return to, nil
}

// pack writes the lines of a segment into a file, on disk, and returns their digest.
func pack(name, to string) (sum [sha256.Size]byte, err error) {
	from, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return sum, err
	}
	p := packer{out: bufio.NewWriter(f), hash: sha256.New()}
	if p.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault)); err == nil {
		err = p.all(bufio.NewReaderSize(from, 64<<10))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(p.hash.Sum(nil)), nil
}

type packer struct {
	out     *bufio.Writer
	encoder *zstd.Encoder
	hash    interface {
		io.Writer
		Sum([]byte) []byte
	}
	text  []byte
	table []byte
}

func (p *packer) all(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		p.text = append(p.text, line...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if len(p.text) >= frameSize || err == io.EOF {
			if werr := p.frame(); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return p.end()
		}
		if err != nil {
			return err
		}
	}
}

func (p *packer) frame() error {
	if len(p.text) == 0 {
		return nil
	}
	p.hash.Write(p.text)
	b := p.encoder.EncodeAll(p.text, nil)
	p.table = binary.LittleEndian.AppendUint32(p.table, uint32(len(b)))
	p.table = binary.LittleEndian.AppendUint32(p.table, uint32(len(p.text)))
	p.text = p.text[:0]
	_, err := p.out.Write(b)
	return err
}

func (p *packer) end() error {
	var b []byte
	b = binary.LittleEndian.AppendUint32(b, skippableMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.table)+seekFooter))
	b = append(b, p.table...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.table)/8))
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint32(b, seekableMagic)
	_, err := p.out.Write(b)
	return errors.Join(err, p.out.Flush())
}

// digest unpacks a file whole.
func digest(name string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return sum, err
	}
	s := &Segment{name: name, file: f}
	if s.packed, err = openPacked(f, info.Size()); err != nil {
		f.Close()
		return sum, err
	}
	defer s.Close()
	h := sha256.New()
	for i, one := range s.frames {
		s.size = one.from + int64(one.text)
		text := make([]byte, one.text)
		if _, err := s.ReadAt(text, one.from); err != nil {
			return sum, fmt.Errorf("frame %d: %w", i, err)
		}
		h.Write(text)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Stem is the name of a segment as it was before it was packed.
func Stem(name string) string { return strings.TrimSuffix(name, packedSuffix) }

// Line reads the line that begins at a byte of a segment, without its newline.
func (s *Segment) Line(at int64) ([]byte, error) {
	b := make([]byte, 0, 2<<10)
	for {
		if len(b) == cap(b) {
			b = append(b, make([]byte, cap(b))...)[:len(b)]
		}
		n, err := s.ReadAt(b[len(b):cap(b)], at+int64(len(b)))
		if i := bytes.IndexByte(b[len(b):len(b)+n], '\n'); i >= 0 {
			return b[:len(b)+i], nil
		}
		b = b[:len(b)+n]
		if err != nil {
			return nil, err
		}
	}
}

// Squeeze compresses bytes as segments are.
func Squeeze(b []byte) []byte {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err) // of the options alone
	}
	return e.EncodeAll(b, nil)
}

// Unsqueeze undoes [Squeeze]; what it gives is at most limit bytes long.
func Unsqueeze(b []byte, limit int) ([]byte, error) {
	if len(b) == 0 {
		return nil, nil // what nothing is squeezed to
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, err
	}
	if h.FrameContentSize > uint64(limit) {
		return nil, fmt.Errorf("%w: it says that it is %d bytes long", ErrPacked, h.FrameContentSize)
	}
	d, ok := unpackers.Get().(*zstd.Decoder)
	if !ok {
		return nil, ErrPacked
	}
	defer unpackers.Put(d)
	text, err := d.DecodeAll(b, make([]byte, 0, h.FrameContentSize)) // not every small frame says its size
	if err == nil && len(text) > limit {
		err = fmt.Errorf("%w: it is %d bytes long", ErrPacked, len(text))
	}
	return text, err
}

// unpackers are costly to make and hold nothing of what they unpacked.
var unpackers = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return nil
	}
	return d
}}
