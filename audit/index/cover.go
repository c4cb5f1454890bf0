package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chaperone/audit"
)

// piece is a stretch of the log, with its index file or without.
type piece struct {
	segment uint64 // number of its first line
	from    int64
	to      int64  // 0: to the end
	file    string // empty: the lines are read
}

// cover lists the stretches of the log at path, in their order: those that have a
// sound index file, and the gaps between them. Without a key all is a gap.
func cover(path string, c *checker) ([]piece, error) {
	segments, err := audit.Segments(path)
	if err != nil {
		return nil, err
	}
	var all []piece
	for _, name := range segments {
		s, number, err := openNumbered(path, name)
		again := errors.Is(err, fs.ErrNotExist) // rotated, packed or pruned meanwhile
		if name == path && !again {
			again = moved(path, segments)
		}
		if again {
			if err == nil {
				s.Close()
			}
			return cover(path, c)
		}
		if errors.Is(err, errEmpty) {
			continue
		}
		if err != nil {
			return nil, err
		}
		pieces, err := coverSegment(path, s, number, c)
		s.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, pieces...)
	}
	return all, nil
}

// moved reports whether segments have ended since the log was listed.
func moved(path string, before []string) bool {
	now, err := audit.Segments(path)
	return err == nil && (len(now) != len(before) || len(now) > 1 && audit.Stem(now[len(now)-2]) != audit.Stem(before[len(before)-2]))
}

func coverSegment(path string, s *audit.Segment, number uint64, c *checker) ([]piece, error) {
	files, err := filesOf(path, number)
	if err != nil {
		return nil, err
	}
	var pieces []piece
	at := int64(0)
	for _, f := range files {
		if c.key == nil || f.from < at {
			continue
		}
		if f.to, err = c.sound(s, f); err != nil {
			c.notice(err.Error() + "; its lines are read instead")
			continue
		}
		if pieces, err = fill(pieces, s, number, at, f.from); err != nil {
			return nil, err
		}
		pieces = append(pieces, f)
		at = f.to
	}
	return fill(pieces, s, number, at, s.Size())
}

// checker checks index files.
type checker struct {
	key    Verifier // nil: no file is used
	notice func(string)
	known  map[string]int64 // how far files reach that were checked before; may be nil
}

// sound checks an index file against its segment and returns how far it reaches.
func (c *checker) sound(s *audit.Segment, p piece) (int64, error) {
	if to, ok := c.known[p.file]; ok {
		return to, nil
	}
	f, err := openFile(p.file, c.key)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if h := f.part.head; h.Segment != p.segment || h.From != p.from || !h.fits(s) {
		return 0, fmt.Errorf("%w: %s is not of these lines", ErrUnsound, filepath.Base(p.file))
	}
	if c.known != nil {
		c.known[p.file] = f.part.To
	}
	return f.part.To, nil
}

// fill adds the stretches of a gap.
func fill(pieces []piece, s *audit.Segment, number uint64, at, end int64) ([]piece, error) {
	for at < end {
		to, err := lineEnd(s, min(at+stretch, end))
		if err != nil {
			return nil, err
		}
		if at+stretch >= end {
			to = end
		}
		pieces = append(pieces, piece{segment: number, from: at, to: to})
		at = to
	}
	return pieces, nil
}

// lineEnd returns where the line ends in which a byte lies, or the segment's end.
func lineEnd(s *audit.Segment, at int64) (int64, error) {
	if at >= s.Size() {
		return s.Size(), nil
	}
	line, err := s.Line(at)
	if err != nil {
		return s.Size(), nil // a half-written line is the last
	}
	return at + int64(len(line)) + 1, nil
}

// filesOf lists the index files of a segment in their order, by their names.
func filesOf(path string, segment uint64) ([]piece, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(Dir(path)), fmt.Sprintf("%012d-*.idx", segment)))
	if err != nil {
		return nil, err
	}
	var files []piece
	for _, name := range names {
		p := piece{segment: segment, file: name}
		var number uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "%d-%d.idx", &number, &p.from); err != nil || number != segment {
			continue
		}
		files = append(files, p)
	}
	slices.SortFunc(files, func(a, b piece) int { return int(min(max(a.from-b.from, -1), 1)) })
	return files, nil
}

var errEmpty = errors.New("segment is empty")

// openNumbered opens a file of the log and returns the number of its first line: from
// its name, or for the current one from the line.
func openNumbered(path, name string) (*audit.Segment, uint64, error) {
	s, err := audit.OpenSegment(name)
	if err != nil {
		return nil, 0, err
	}
	if name != path {
		n, err := audit.SegmentNumber(path, name)
		if err != nil {
			s.Close()
		}
		return s, n, err
	}
	n := uint64(0)
	line, err := s.Line(0)
	if err != nil {
		err = errEmpty
	} else {
		n, err = audit.Number(line)
	}
	if err != nil {
		s.Close()
	}
	return s, n, err
}

// open opens the segment with a number, under whatever name it has by now.
func open(path string, segment uint64) (*audit.Segment, error) {
	for range 10 {
		segments, err := audit.Segments(path)
		if err != nil {
			return nil, err
		}
		for _, name := range segments {
			if n, err := audit.SegmentNumber(path, name); name != path && (err != nil || n != segment) {
				continue
			}
			s, n, err := openNumbered(path, name)
			if err != nil {
				continue // renamed, packed or pruned since: look again
			}
			if n == segment {
				return s, nil
			}
			s.Close()
		}
	}
	return nil, fmt.Errorf("segment %d of %s was removed meanwhile: %w", segment, path, fs.ErrNotExist)
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// Key signs and checks index files.
type Key interface {
	Signer
	Verifier
}

// Maker keeps the index of a log up to date. It belongs to one goroutine.
type Maker struct {
	path string
	key  Key
	checker
	seen  []string // the log's files when all of them were indexed as far as can be
	reach int64    // how far the current one is
}

// NewMaker returns a maker for the log at path. It checks each file that it finds once.
func NewMaker(path string, key Key) *Maker {
	return &Maker{path: path, key: key, checker: checker{key, func(string) {}, map[string]int64{}}}
}

// Due reports, at little cost, whether there may be something to do for [Maker.Update].
func (m *Maker) Due() bool {
	segments, err := audit.Segments(m.path)
	if err != nil || !slices.Equal(segments, m.seen) {
		return true
	}
	info, err := os.Stat(m.path)
	return err == nil && info.Size()-m.reach >= stretch
}

// Update writes the index files that are missing: of segments that have ended, and
// of the current one for each full stretch. Files that are not sound are replaced.
// It returns how many it wrote.
func (m *Maker) Update() (written int, err error) {
	m.seen, m.reach = nil, 0
	segments, err := audit.Segments(m.path)
	if err != nil {
		return 0, err
	}
	pieces, err := cover(m.path, &m.checker)
	if err != nil {
		return 0, err
	}
	reach := int64(0)
	for _, p := range pieces {
		if reach = p.to; p.file != "" {
			continue
		}
		ok, err := update(m.path, p, m.key)
		if err != nil {
			return written, err
		}
		if ok {
			written++
		} else {
			reach = p.from
		}
	}
	m.seen, m.reach = segments, reach
	return written, forget(m.path, pieces)
}

func update(path string, p piece, signer Signer) (bool, error) {
	s, err := open(path, p.segment)
	if err != nil {
		return false, err
	}
	defer s.Close()
	if s.Name() == path && p.to-p.from < stretch {
		return false, nil // it grows
	}
	part, err := Build(s, p.segment, p.from, p.to-p.from)
	if err != nil || part == nil {
		return false, err
	}
	return true, part.Write(path, signer)
}

// forget removes index files of segments that are no more.
func forget(path string, pieces []piece) error {
	names, err := filepath.Glob(filepath.Join(escapeGlob(Dir(path)), "*.idx"))
	for _, name := range names {
		var number uint64
		if _, serr := fmt.Sscanf(filepath.Base(name), "%d-", &number); serr != nil {
			continue
		}
		if len(pieces) > 0 && number < pieces[0].segment {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}
