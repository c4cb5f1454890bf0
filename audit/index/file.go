package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"chaperone/audit"
)

// ErrUnsound is wrapped when an index file is damaged, was changed, or is not of
// the log beside it.
var ErrUnsound = errors.New("index is not sound")

// Signer signs what an index says.
type Signer interface {
	Sign(msg []byte) ([]byte, error)
}

// Verifier checks what a [Signer] signed.
type Verifier interface {
	Verify(msg, sig []byte) bool
}

// magic begins an index file.
const magic = "chaperone index\n"

// maxHead bounds the head of an index file, in bytes.
const maxHead = 1 << 20

// maxBlob bounds what one column unpacks to, in bytes.
const maxBlob = 256 << 20

// blob is where one column lies in the file.
type blob struct {
	Name string `json:"name"`
	At   int64  `json:"at"` // behind the head
	Size int64  `json:"size"`
	Sum  string `json:"sum"`
}

const (
	timesBlob   = "times"
	placesBlob  = "places"
	orphansBlob = "orphans"
)

// Dir is where the index of the log at path is.
func Dir(path string) string { return path + ".index" }

func fileName(path string, segment uint64, from int64) string {
	return filepath.Join(Dir(path), fmt.Sprintf("%012d-%012d.idx", segment, from))
}

// Write puts a part into its file, whole or not at all.
func (p *Part) Write(path string, signer Signer) error {
	if err := os.MkdirAll(Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	b, err := p.encode(signer)
	if err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	name := fileName(path, p.Segment, p.From)
	f, err := os.CreateTemp(Dir(path), "part-*")
	if err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("writing index: %w", err)
	}
	return nil
}

// encode lays out a file: magic, length of the head, head, length of the signature,
// signature, columns.
func (p *Part) encode(signer Signer) ([]byte, error) {
	var body []byte
	h := p.head
	h.Blobs = nil
	add := func(name string, raw []byte) {
		b := audit.Squeeze(raw)
		sum := sha256.Sum256(b)
		h.Blobs = append(h.Blobs, blob{name, int64(len(body)), int64(len(b)), hex.EncodeToString(sum[:])})
		body = append(body, b...)
	}
	for i, c := range p.columns {
		add(columnNames[i], c.encode())
	}
	add(timesBlob, deltas(p.times))
	add(placesBlob, p.places())
	var orphans []byte
	for _, o := range p.orphans {
		orphans = appendText(orphans, o.ID)
		orphans = binary.AppendUvarint(orphans, uint64(o.At))
	}
	add(orphansBlob, orphans)
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	sig, err := signer.Sign(text)
	if err != nil {
		return nil, err
	}
	b := []byte(magic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(sig)))
	b = append(b, sig...)
	return append(b, body...), nil
}

func (c *column) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(c.texts)))
	for _, t := range c.texts {
		b = appendText(b, t)
	}
	width := c.width()
	for _, code := range c.codes {
		for i := range width {
			b = append(b, byte(code>>(8*i)))
		}
	}
	return b
}

// width is how many bytes a code takes: none where all rows are empty.
func (c *column) width() int {
	switch n := len(c.texts); {
	case n == 1:
		return 0
	case n <= 1<<8:
		return 1
	case n <= 1<<16:
		return 2
	}
	return 4
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func deltas(values []int64) []byte {
	var b []byte
	last := int64(0)
	for _, v := range values {
		b = binary.AppendVarint(b, v-last)
		last = v
	}
	return b
}

// places encodes where the lines of the rows are, and which are several.
func (p *Part) places() []byte {
	b := deltas(p.at)
	for i, end := range p.ended {
		gap := int64(0)
		if end >= 0 {
			gap = end - p.at[i]
		}
		if gap <<= 1; p.multi[i] {
			gap |= 1
		}
		b = binary.AppendVarint(b, gap)
	}
	return b
}

// file is an index file of which columns are loaded as they are needed.
type file struct {
	*os.File
	body int64
	part *Part
}

// openFile reads and checks the head of an index file.
func openFile(name string, key Verifier) (*file, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	o := &file{File: f, part: new(Part)}
	if err := o.readHead(key); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: %v", ErrUnsound, filepath.Base(name), err)
	}
	return o, nil
}

func (f *file) readHead(key Verifier) error {
	r := io.NewSectionReader(f, 0, 1<<40)
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(r, start); err != nil || string(start) != magic {
		return errors.New("it is no index")
	}
	text, err := sized(r)
	if err != nil {
		return err
	}
	sig, err := sized(r)
	if err != nil {
		return err
	}
	if !key.Verify(text, sig) {
		return errors.New("its signature is not this installation's")
	}
	if err := json.Unmarshal(text, &f.part.head); err != nil {
		return err
	}
	if h := &f.part.head; h.Version != version || h.Rows < 0 || h.Rows > maxBlob || h.To <= h.From {
		return errors.New("it is of another version")
	}
	f.body, err = r.Seek(0, io.SeekCurrent)
	return err
}

func sized(r io.Reader) ([]byte, error) {
	var n uint32
	if err := binary.Read(r, binary.LittleEndian, &n); err != nil {
		return nil, err
	}
	if n > maxHead {
		return nil, errors.New("its head is too long")
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// fits reports whether the part was made of this segment: its last line is the
// segment's, where it should be.
func (h *head) fits(s *audit.Segment) bool {
	line, err := s.Line(h.LastAt)
	if err != nil || h.LastAt+int64(len(line))+1 != h.To {
		return false
	}
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:]) == h.Last
}

// blob unpacks one column's bytes.
func (f *file) blob(name string) ([]byte, error) {
	i := slices.IndexFunc(f.part.Blobs, func(b blob) bool { return b.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%w: column %s is missing", ErrUnsound, name)
	}
	at := f.part.Blobs[i]
	if at.Size < 0 || at.Size > maxBlob {
		return nil, fmt.Errorf("%w: column %s is too large", ErrUnsound, name)
	}
	b := make([]byte, at.Size)
	if _, err := f.ReadAt(b, f.body+at.At); err != nil {
		return nil, fmt.Errorf("%w: column %s: %v", ErrUnsound, name, err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != at.Sum {
		return nil, fmt.Errorf("%w: column %s was changed", ErrUnsound, name)
	}
	raw, err := audit.Unsqueeze(b, maxBlob)
	if err != nil {
		return nil, fmt.Errorf("%w: column %s: %v", ErrUnsound, name, err)
	}
	return raw, nil
}

// column loads one column.
func (f *file) column(i int) error {
	if f.part.columns[i] != nil {
		return nil
	}
	raw, err := f.blob(columnNames[i])
	if err != nil {
		return err
	}
	r := bytes.NewReader(raw)
	n, err := binary.ReadUvarint(r)
	if err != nil || n == 0 || n > uint64(len(raw)) {
		return fmt.Errorf("%w: column %s", ErrUnsound, columnNames[i])
	}
	c := &column{texts: make([]string, n)}
	for j := range c.texts {
		if c.texts[j], err = readText(r); err != nil {
			return fmt.Errorf("%w: column %s", ErrUnsound, columnNames[i])
		}
	}
	codes, width := raw[len(raw)-r.Len():], c.width()
	if len(codes) != width*f.part.Rows {
		return fmt.Errorf("%w: column %s", ErrUnsound, columnNames[i])
	}
	c.codes = unfold(codes, width, f.part.Rows)
	if len(c.codes) > 0 && slices.Max(c.codes) >= uint32(n) {
		return fmt.Errorf("%w: column %s", ErrUnsound, columnNames[i])
	}
	f.part.columns[i] = c
	return nil
}

func unfold(b []byte, width, rows int) []uint32 {
	codes := make([]uint32, rows)
	switch width {
	case 1:
		for i := range codes {
			codes[i] = uint32(b[i])
		}
	case 2:
		for i := range codes {
			codes[i] = uint32(binary.LittleEndian.Uint16(b[2*i:]))
		}
	case 4:
		for i := range codes {
			codes[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
	}
	return codes
}

func readText(r *bytes.Reader) (string, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > uint64(r.Len()) {
		return "", ErrUnsound
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

// loadTimes loads the times of the rows.
func (f *file) loadTimes() error {
	raw, err := f.blob(timesBlob)
	if err == nil && f.part.times == nil {
		f.part.times, _, err = sums(raw, f.part.Rows)
	}
	return err
}

// loadPlaces loads where the rows' lines are.
func (f *file) loadPlaces() error {
	if f.part.at != nil {
		return nil
	}
	raw, err := f.blob(placesBlob)
	if err != nil {
		return err
	}
	at, rest, err := sums(raw, f.part.Rows)
	if err != nil {
		return err
	}
	ended, multi := make([]int64, len(at)), make([]bool, len(at))
	for i := range at {
		gap, n := binary.Varint(rest)
		if n <= 0 {
			return fmt.Errorf("%w: places", ErrUnsound)
		}
		rest = rest[n:]
		ended[i], multi[i] = at[i]+gap>>1, gap&1 == 1
		if gap>>1 == 0 {
			ended[i] = -1
		}
	}
	f.part.at, f.part.ended, f.part.multi = at, ended, multi
	return nil
}

func sums(b []byte, rows int) ([]int64, []byte, error) {
	values := make([]int64, rows)
	last := int64(0)
	for i := range values {
		d, n := binary.Varint(b)
		if n <= 0 {
			return nil, nil, fmt.Errorf("%w: it ends early", ErrUnsound)
		}
		last += d
		values[i], b = last, b[n:]
	}
	return values, b, nil
}

// loadOrphans loads the outcomes without a decision.
func (f *file) loadOrphans() error {
	raw, err := f.blob(orphansBlob)
	if err != nil {
		return err
	}
	f.part.orphans = nil
	for r := bytes.NewReader(raw); r.Len() > 0; {
		id, err := readText(r)
		if err != nil {
			return err
		}
		at, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("%w: orphans", ErrUnsound)
		}
		f.part.orphans = append(f.part.orphans, orphan{id, int64(at)})
	}
	return nil
}
