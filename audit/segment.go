package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// lockFile takes the lock that says who writes the log. The kernel lets go of it
// when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}

// resume opens the current segment behind its last whole line and finds the end
// of the chain, in it or in the segment before.
func (l *Log) resume() error {
	f, err := openSegment(l.o.Path)
	if err != nil {
		return err
	}
	size, err := l.setTornAside(f)
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size, l.started = f, size, begun(f, l.o.Now())
	segments, err := Segments(l.o.Path)
	if err != nil {
		f.Close()
		return err
	}
	for _, path := range slices.Backward(segments) {
		last, err := lastLine(path)
		if err != nil {
			f.Close()
			return err
		}
		if last == nil {
			continue
		}
		var n struct {
			Seq uint64 `json:"seq"`
		}
		if err := json.Unmarshal(last, &n); err != nil {
			f.Close()
			return fmt.Errorf("the last line of %s is damaged: move the file away to start a new log, and keep it", path)
		}
		l.tip = tip{n.Seq, sha256.Sum256(last)}
		break
	}
	return nil
}

func openSegment(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no file", path) // a device, whose mode is not ours to change
	case err == nil && info.Mode().Perm()&0o077 != 0:
		err = f.Chmod(0o600)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// setTornAside moves what follows the last newline, which a power cut leaves, to
// a file beside the log. It returns the size of what is whole.
func (l *Log) setTornAside(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	whole, torn, err := tail(f, size)
	if err != nil || len(torn) == 0 {
		return size, err
	}
	aside := fmt.Sprintf("%s.torn-%s", l.o.Path, l.o.Now().UTC().Format("20060102T150405.000000"))
	if err := os.WriteFile(aside, torn, 0o600); err != nil {
		return 0, err
	}
	l.o.Notice(fmt.Sprintf("the last line of the decision log was half-written and is now in %s", aside))
	return whole, f.Truncate(whole)
}

// tail returns where the last newline of f ends and what follows it.
func tail(f io.ReaderAt, size int64) (whole int64, rest []byte, err error) {
	const step = 64 << 10
	for at := size; at > 0; {
		n := min(step, at)
		at -= n
		b := make([]byte, n)
		if _, err := f.ReadAt(b, at); err != nil {
			return 0, nil, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return at + int64(i) + 1, append(b[i+1:], rest...), nil
		}
		rest = append(b, rest...)
	}
	return 0, rest, nil
}

// lastLine returns the last whole line of a segment without its newline, or nil.
func lastLine(path string) ([]byte, error) {
	f, err := OpenSegment(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	whole, _, err := tail(f, f.Size())
	if err != nil || whole == 0 {
		return nil, err
	}
	_, line, err := tail(f, whole-1)
	return line, err
}

// rotate ends the segment: it gets the number of its first line as part of its
// name, and a new file takes its place. The chain goes on.
func (l *Log) rotate() error {
	first, err := firstSeq(l.file)
	if err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(l.o.Path, segmentName(l.o.Path, first)); err != nil {
		return err
	}
	f, err := openSegment(l.o.Path)
	if err != nil {
		return err
	}
	l.file.Close()
	l.file, l.size, l.started = f, 0, l.o.Now()
	return l.prune()
}

// begun is when a segment began: the time of its first line, unless that is in the
// future or there is none. So its age counts over restarts.
func begun(f *os.File, now time.Time) time.Time {
	line, err := readLine(bufio.NewReader(io.NewSectionReader(f, 0, 1<<62)))
	if err != nil {
		return now
	}
	if e, err := Parse(line); err == nil && e.Time.Before(now) {
		return e.Time
	}
	return now
}

func (l *Log) prune() error {
	if l.o.Keep == 0 {
		return nil
	}
	segments, err := Segments(l.o.Path)
	for err == nil && len(segments) > l.o.Keep+1 {
		err = os.Remove(segments[0])
		segments = segments[1:]
	}
	return err
}

// stillThere notices that the file was removed, replaced or cut short by somebody
// else. The log then goes on in a new file at its path, where Verify finds the gap.
func (l *Log) stillThere() error {
	there, err := os.Stat(l.o.Path)
	mine, merr := l.file.Stat()
	if err == nil && merr == nil && os.SameFile(there, mine) {
		if mine.Size() < l.size {
			l.changed("the decision log was cut short by somebody else; log verify shows where")
			whole, _, err := tail(l.file, mine.Size())
			if err != nil {
				return err
			}
			l.size = whole
			return l.file.Truncate(whole)
		}
		if mine.Size() > l.size {
			return l.longer()
		}
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := openSegment(l.o.Path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.changed("the decision log was removed or replaced by somebody else; it goes on in a new file")
	l.file.Close()
	l.file, l.size, l.started = f, info.Size(), l.o.Now()
	return nil
}

// changed tells that somebody changed the log. It is called with writing held.
func (l *Log) changed(message string) {
	l.o.Notice(message)
	l.altered = append(l.altered, message)
}

// longer deals with bytes behind the last line that this log wrote. After a write
// that failed they are what it could not take back; else they are somebody else's.
func (l *Log) longer() error {
	if l.failed != nil {
		return l.file.Truncate(l.size)
	}
	size, err := l.setTornAside(l.file)
	if err != nil {
		return err
	}
	l.changed("somebody else wrote to the decision log; log verify shows where")
	l.size = size
	return nil
}

func firstSeq(f io.ReaderAt) (uint64, error) {
	var n struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.NewDecoder(io.NewSectionReader(f, 0, 1<<30)).Decode(&n); err != nil {
		return 0, fmt.Errorf("reading the first line: %w", err)
	}
	return n.Seq, nil
}

func segmentName(path string, first uint64) string {
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s-%012d%s", strings.TrimSuffix(path, ext), first, ext)
}

// Segments returns the files of the log at path, oldest first, the current one last.
// Those that ended may be packed. No segment is missing because the log was rotated
// meanwhile.
func Segments(path string) ([]string, error) {
	var seen []string
	for {
		before, err := os.Stat(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		names, err := ended(path)
		if err != nil {
			return nil, err
		}
		now, err := os.Stat(path)
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return nil, err
		case before != nil && now != nil && os.SameFile(before, now):
			return append(names, path), nil
		case before == nil && now == nil && seen != nil && slices.Equal(names, seen):
			return names, nil
		}
		seen = append([]string{}, names...)
	}
}

// ended lists the segments that have ended, oldest first.
func ended(path string) ([]string, error) {
	ext := filepath.Ext(path)
	pattern := escapeGlob(strings.TrimSuffix(path, ext)) + "-" + strings.Repeat("[0-9]", 12) + escapeGlob(ext)
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	packed, err := filepath.Glob(pattern + packedSuffix)
	if err != nil {
		return nil, err
	}
	names = append(names, packed...)
	slices.Sort(names)
	// Where a segment is there packed and not, packing was cut short or is about to end.
	return slices.CompactFunc(names, func(a, b string) bool { return Stem(a) == Stem(b) }), nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
