package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Reader reads the lines of a log one after the other, over segments that have
// ended, packed or not, and the current one while it grows. It belongs to one
// goroutine.
type Reader struct {
	path    string
	last    uint64 // number of the last line that was read
	segment *Segment
	number  uint64 // of the segment's first line, 0: not known yet
	at      int64  // byte behind what is in buf
	buf     []byte
	rest    []byte // of buf, not read yet
	cut     bool   // the current segment became shorter than what was read of it
}

// NewReader returns a reader of the lines whose number is above after.
func NewReader(path string, after uint64) *Reader { return &Reader{path: path, last: after} }

// Last is the number of the last line that was read.
func (r *Reader) Last() uint64 { return r.last }

// Cut reports, once each time, that the current segment became shorter than what had
// been read of it: somebody cut it short.
func (r *Reader) Cut() bool {
	cut := r.cut
	r.cut = false
	return cut
}

// Close releases the file.
func (r *Reader) Close() {
	if r.segment != nil {
		r.segment.Close()
		r.segment = nil
	}
}

// Next returns the next line, without its newline and good until the next call, and
// its number. It returns [io.EOF] where there is none yet: a later call goes on. A
// number that does not follow the one before says that lines were removed.
func (r *Reader) Next() ([]byte, uint64, error) {
	for {
		line, err := r.line()
		if err == io.EOF {
			moved, merr := r.move()
			if merr != nil {
				return nil, 0, fmt.Errorf("reading %s: %w", r.path, merr)
			}
			if !moved {
				return nil, 0, io.EOF
			}
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reading %s: %w", r.path, err)
		}
		seq, err := Number(line)
		if err != nil {
			return nil, 0, fmt.Errorf("reading %s: %w", r.segment.Name(), err)
		}
		if r.number == 0 {
			r.number = seq
		}
		if seq <= r.last {
			continue
		}
		r.last = seq
		return line, seq, nil
	}
}

// line takes the next whole line of the segment.
func (r *Reader) line() ([]byte, error) {
	if r.segment == nil {
		return nil, io.EOF
	}
	for {
		if i := bytes.IndexByte(r.rest, '\n'); i >= 0 {
			line := r.rest[:i]
			r.rest = r.rest[i+1:]
			return line, nil
		}
		n := copy(r.buf, r.rest)
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, max(len(r.buf), 64<<10))...)
		}
		m, err := r.segment.ReadAt(r.buf[n:], r.at)
		r.at += int64(m)
		r.rest = r.buf[:n+m]
		if m == 0 {
			if err == nil {
				err = io.EOF
			}
			return nil, err
		}
	}
}

// move goes on to the next file where there is one.
func (r *Reader) move() (bool, error) {
	if r.segment != nil && r.segment.Name() == r.path {
		same, size := r.segment.stillAt(r.path)
		if same && size >= r.at {
			return false, nil
		}
		r.cut = r.cut || same && size >= 0
		if !same { // it may have grown between the last look and its end
			n, err := r.segment.ReadAt(make([]byte, 1), r.at)
			if n > 0 || err != nil && err != io.EOF {
				return n > 0, err
			}
		}
	}
	name, number, err := r.following()
	if err != nil || name == "" {
		return false, err
	}
	s, err := OpenSegment(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // renamed, packed or pruned since: the next call looks again
	}
	if err != nil {
		return false, err
	}
	if name == r.path && !r.current(s) {
		s.Close()
		return true, nil
	}
	r.Close()
	r.segment, r.number, r.at, r.rest = s, number, 0, nil
	return true, nil
}

// current reports whether s is the current segment and the next line is in no other:
// between the look and the opening the log may have been rotated.
func (r *Reader) current(s *Segment) bool {
	name, _, err := r.following()
	same, _ := s.stillAt(r.path)
	return err == nil && name == r.path && same
}

// following finds the file in which the next line is.
func (r *Reader) following() (string, uint64, error) {
	segments, err := Segments(r.path)
	if err != nil {
		return "", 0, err
	}
	best, bestNumber := "", uint64(0)
	for _, name := range segments {
		if name == r.path {
			if best == "" {
				best, bestNumber = name, 0
			}
			break
		}
		n, err := SegmentNumber(r.path, name)
		if err != nil || r.segment != nil && n <= r.number {
			continue
		}
		if best == "" || r.segment == nil && n <= r.last+1 {
			best, bestNumber = name, n
		}
	}
	if r.segment == nil && r.startsIn(segments) {
		return r.path, 0, nil
	}
	return best, bestNumber, nil
}

// startsIn reports whether the next line is, or will be, in the current segment.
func (r *Reader) startsIn(segments []string) bool {
	if len(segments) == 0 || segments[len(segments)-1] != r.path || r.last == 0 {
		return false
	}
	s, err := OpenSegment(r.path)
	if err != nil {
		return false
	}
	defer s.Close()
	line, err := s.Line(0)
	if err != nil {
		return false
	}
	n, err := Number(line)
	return err == nil && n <= r.last+1
}

// stillAt reports whether the segment's file is the one at a path, and its size; -1
// where that cannot be told.
func (s *Segment) stillAt(path string) (bool, int64) {
	there, err := os.Stat(path)
	mine, merr := s.file.Stat()
	if err != nil || merr != nil {
		return err != nil && !errors.Is(err, fs.ErrNotExist), -1
	}
	return os.SameFile(there, mine), mine.Size()
}

// SegmentNumber is the number of the first line of a segment that has ended, from
// its name.
func SegmentNumber(path, name string) (uint64, error) {
	ext := filepath.Ext(path)
	text := strings.TrimPrefix(Stem(name), strings.TrimSuffix(path, ext)+"-")
	return strconv.ParseUint(strings.TrimSuffix(text, ext), 10, 64)
}

// Number is the number that a line carries.
func Number(line []byte) (uint64, error) {
	const tail = len(`,"prev":"`) + 64 + len(`"}`)
	if end := len(line) - tail; end > 0 && bytes.HasPrefix(line[end:], []byte(`,"prev":"`)) {
		start := end
		for start > 0 && line[start-1] >= '0' && line[start-1] <= '9' {
			start--
		}
		if n, err := strconv.ParseUint(string(line[start:end]), 10, 64); err == nil && bytes.HasSuffix(line[:start], []byte(`,"seq":`)) {
			return n, nil
		}
	}
	var l struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(line, &l); err != nil || l.Seq == 0 {
		return 0, errors.New("a line is not a record")
	}
	return l.Seq, nil
}

// Prev is the hash of the line before, in hexadecimal, that a line carries.
func Prev(line []byte) (string, bool) {
	const mark, size = `,"prev":"`, 2 * sha256.Size
	if end := len(line) - size - len(`"}`); end > len(mark) && bytes.HasSuffix(line[:end], []byte(mark)) && bytes.HasSuffix(line, []byte(`"}`)) {
		return string(line[end:][:size]), true
	}
	var l struct {
		Prev string `json:"prev"`
	}
	err := json.Unmarshal(line, &l)
	return l.Prev, err == nil
}

// LastNumber is the number of the last line of the log at path, 0 where it has none.
func LastNumber(path string) (uint64, error) {
	segments, err := Segments(path)
	for i := len(segments) - 1; i >= 0 && err == nil; i-- {
		line, lerr := lastLine(segments[i])
		if errors.Is(lerr, fs.ErrNotExist) {
			return LastNumber(path)
		}
		if lerr != nil {
			return 0, lerr
		}
		if line != nil {
			return Number(line)
		}
	}
	return 0, err
}

// Sync puts on disk what the current file holds.
func (r *Reader) Sync() error {
	if r.segment == nil {
		return nil
	}
	return r.segment.Sync()
}
