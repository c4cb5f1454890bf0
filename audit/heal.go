package audit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// bootFile names a number that is another after each start of the machine (Linux,
// random(4)).
const bootFile = "/proc/sys/kernel/random/boot_id"

func boot() string {
	b, err := os.ReadFile(bootFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ringPath is where the ring of the log at path is.
func ringPath(path string) string { return path + ".ring" }

// useRing enters what the last process left in the ring, and begins to use it. A
// ring that cannot be made is told; decisions then wait for the log's disk.
func (l *Log) useRing() error {
	path := ringPath(l.o.Path)
	_, err := os.Stat(path)
	there := err == nil
	if !there && l.o.Sync < 0 {
		return nil // every decision waits for the disk as it is
	}
	r, err := openRing(path)
	if err != nil {
		if there {
			return l.unusable(err)
		}
		l.o.Notice(fmt.Sprintf("%s cannot be made, so each decision waits for the log's disk: %v", path, err))
		return nil
	}
	if err := l.heal(r); err != nil {
		r.detach()
		return l.unusable(err)
	}
	if l.o.Sync < 0 {
		return r.detach()
	}
	l.adopt(r)
	return nil
}

// unusable says what to do about a ring that may hold lines and cannot be read.
func (l *Log) unusable(err error) error {
	if !errors.Is(err, errDamaged) {
		return err
	}
	return fmt.Errorf("%w; it may hold decisions that the last process did not enter: move %s away to start without them, and keep it", err, ringPath(l.o.Path))
}

func (l *Log) adopt(r *ring) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.guard(func() { copy(r.mem[bootAt:][:64], fmt.Sprintf("%-64s", boot())) })
	l.ring, l.busy = r, [2]bool{}
	l.turn()
}

// Pending returns how many lines the ring of the log at path holds that may not be in
// the file. While a log is open they will be in a moment; [Log.Flush] makes sure.
func Pending(path string) (int, error) {
	b, err := os.ReadFile(ringPath(path))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading ring: %w", err)
	}
	r := &ring{path: ringPath(path), mem: b}
	if err := r.check(int64(len(b))); err != nil {
		return 0, err
	}
	halfs, err := r.left()
	n := 0
	for _, i := range halfs {
		lines, lerr := r.lines(i)
		n, err = n+len(lines), errors.Join(err, lerr)
	}
	return n, err
}

// Enter brings what the ring of the log at path holds into the file. No process may
// have the log open.
func Enter(path string) error {
	l, err := Open(Options{Path: path, Sync: -1})
	if err != nil {
		return err
	}
	return l.Close()
}

// left returns the halves that hold lines, oldest first.
func (r *ring) left() (halfs []int, err error) {
	for i := range 2 {
		open, err := r.began(i)
		if err != nil {
			return nil, err
		}
		if open {
			halfs = append(halfs, i)
		}
	}
	slices.SortFunc(halfs, func(a, b int) int { return cmp.Compare(r.get(a, lapAt), r.get(b, lapAt)) })
	return halfs, nil
}

// heal enters into the log what a ring holds and the log does not. It can be done
// again should the process be killed meanwhile.
func (l *Log) heal(r *ring) error {
	halfs, err := r.left()
	if err != nil {
		return err
	}
	var texts [][]byte
	for _, i := range halfs {
		more, err := r.lines(i)
		if err != nil && !l.restarted(r, err) {
			return err
		}
		texts = append(texts, more...)
	}
	if len(texts) > 0 {
		if err := l.enter(r, halfs, texts); err != nil {
			return err
		}
	}
	for _, i := range halfs {
		r.done(i, l.tip)
	}
	return nil
}

// restarted reports whether the machine was started since the ring was written: the
// disk may then have some of its pages as they were, and others not.
func (l *Log) restarted(r *ring, err error) bool {
	then, now := strings.TrimRight(string(r.mem[bootAt:][:64]), " \x00"), boot()
	if now == "" || then == now {
		return false
	}
	l.o.Notice(fmt.Sprintf("decisions of the last moments before the machine stopped are lost: %v", err))
	return true
}

// enter writes those of the texts that are not in the log.
func (l *Log) enter(r *ring, halfs []int, texts [][]byte) error {
	first := l.tip.seq + 1
	for _, i := range halfs {
		if base := r.get(i, baseAt); base != 0 {
			first = min(first, base)
		}
	}
	known, err := l.since(first, r.anchor(halfs[0]))
	if err != nil {
		return err
	}
	for _, i := range halfs {
		r.note(i, first)
	}
	l.out, l.fresh = l.out[:0], l.fresh[:0]
	entered := 0
	for _, text := range texts {
		if !known[string(text[:len(text)-1])] {
			l.chain(text)
			entered++
		}
	}
	if entered == 0 {
		return nil
	}
	if err := errors.Join(l.write(), l.file.Sync()); err != nil {
		return err
	}
	l.o.Notice(fmt.Sprintf("%d lines that the last process left in %s were entered", entered, r.path))
	return nil
}

// since returns the lines of the log from number first on, without their chains. The
// line that anchor says must be in the log, else the ring belongs to another.
func (l *Log) since(first uint64, anchor tip) (known map[string]bool, err error) {
	known = map[string]bool{}
	found := anchor.seq == 0
	from := first
	if !found {
		from = min(from, anchor.seq)
	}
	segments, err := Segments(l.o.Path)
	for _, path := range slices.Backward(segments) {
		oldest := uint64(0)
		for line, err := range lines(path) {
			if err != nil {
				return nil, err
			}
			text, seq := unchained(line)
			if oldest == 0 {
				oldest = seq
			}
			if seq == anchor.seq {
				found = found || anchor == tip{seq, sha256.Sum256(line)}
			}
			if seq >= first {
				known[string(text)] = true
			}
		}
		if oldest != 0 && oldest <= from {
			break
		}
	}
	if err == nil && !found {
		err = fmt.Errorf("%w: %s belongs to another decision log, whose line %d is not in this one", errDamaged, ringPath(l.o.Path), anchor.seq)
	}
	return known, err
}

// unchained returns a line of the log as it stands in the ring, without its closing
// brace, and its number.
func unchained(line []byte) ([]byte, uint64) {
	i := bytes.LastIndex(line, []byte(`,"seq":`))
	if i < 0 {
		return line, 0
	}
	var n struct {
		Seq uint64 `json:"seq"`
	}
	if json.Unmarshal(append([]byte{'{'}, line[i+1:]...), &n) != nil {
		return line, 0
	}
	return line[:i], n.Seq
}

// ringThere looks whether the ring is still the file at its path, and whole.
func (l *Log) ringThere() {
	if l.ring == nil || l.ring.broken.Load() != nil {
		return
	}
	there, err := os.Stat(l.ring.path)
	mine, merr := l.ring.file.Stat()
	if err == nil && merr == nil && os.SameFile(there, mine) && mine.Size() == ringSize {
		return
	}
	l.ring.fail(errors.New("it was removed, replaced or cut short by somebody else"))
}

// mendRing puts another ring in the place of one that is broken, once all of its
// lines are in the log. Until then decisions wait for the disk.
func (l *Log) mendRing() {
	if l.ring == nil {
		return
	}
	reason := l.ring.broken.Load()
	if reason == nil || !l.leaveRing() {
		return
	}
	path := l.ring.path
	l.o.Notice(fmt.Sprintf("%s is made anew: %v", path, *reason))
	l.ring.detach()
	l.ring = nil
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		l.o.Notice(fmt.Sprintf("%s cannot be removed, so each decision waits for the log's disk: %v", path, err))
		return
	}
	if err := l.useRing(); err != nil {
		l.o.Notice(fmt.Sprintf("each decision waits for the log's disk: %v", err))
	}
}

// leaveRing has no line added to the ring from here on. It reports false while lines
// are in it.
func (l *Log) leaveRing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active = -1
	return l.queue.halfs == [2]bool{} && l.busy == [2]bool{}
}
