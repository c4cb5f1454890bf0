package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

// ring holds the lines that are not in the log yet, in a file that is mapped into
// memory and shared with the kernel: what is stored there is in the file, whatever
// becomes of the process, and storing it asks no disk. The file is of a fixed size
// and wholly written when it is made, so that a store needs neither a block nor the
// file system's journal, except for a page that the kernel has just saved.
//
// It has two halves. Lines are added to one while the lines of the other go to the
// log; each use of a half is a lap, with a number that no other lap has. A line
// stands there without its chain, behind its lap, length and checksum.
//
// Adding needs Log.mu held, and all else Log.writing; the lap of a half changes
// with both held.
type ring struct {
	path string
	file *os.File
	mem  []byte
	lap  uint64 // the last that began
	used int    // bytes of the half that is open

	warmed [2]time.Time // when all pages of a half were touched

	broken atomic.Pointer[error] // why nothing can be added any more
}

// Measures of a ring, in bytes. Two halves hold the lines of some 4,000 exchanges: of
// four seconds at a thousand a second, for which the disk may not answer.
const (
	ringPage = 4 << 10
	halfSize = 2 << 20
	ringSize = ringPage + 2*halfSize
	entry    = 16 // lap, length, checksum
)

// Where things are in the first page.
const (
	ringMagic = "chaperone decisions ring 1\n"
	bootAt    = 64
	headAt    = 1024 // of the first half; the second's is as far behind

	lapAt    = 0  // number of the lap
	anchorAt = 8  // number and hash of the line in the log when the lap began
	sumAt    = 48 // checksum of those
	doneAt   = 56 // the last lap whose lines are all in the log
	baseAt   = 64 // number that the first of the lap's lines gets; 0: none is written yet
	tipAt    = 72 // number and hash of the line in the log when a lap was last done, and their checksum
)

// Before a half is used its pages are touched, so that it is not a request that waits
// where the kernel has just saved a page: warmPages, which is what most laps take, each
// time, and all of them, for when the disk does not answer and laps are long, when
// warmEvery has passed.
const (
	warmPages = 16
	warmEvery = 250 * time.Millisecond
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is wrapped when a ring holds something that no process left there
// which was merely killed.
var errDamaged = errors.New("the ring is damaged")

// openRing opens the ring at path, which it makes when there is none.
func openRing(path string) (*ring, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeRing(path); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	r := &ring{path: path, file: f}
	if err := r.attach(); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *ring) attach() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := r.file.Chmod(0o600); err != nil {
			return err
		}
	}
	if info.Size() != ringSize {
		return r.check(info.Size())
	}
	if r.mem, err = syscall.Mmap(int(r.file.Fd()), 0, ringSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if err := r.check(ringSize); err != nil {
		r.detach()
		return err
	}
	for i := range 2 {
		syscall.Mlock(r.half(i)[:warmPages*ringPage]) // where the limit allows; it works without
	}
	r.lap = max(r.get(0, lapAt), r.get(1, lapAt))
	return nil
}

// check reports what is wrong with a ring of that size.
func (r *ring) check(size int64) error {
	switch {
	case size != ringSize:
		return fmt.Errorf("%w: %s has %d bytes, not %d", errDamaged, r.path, size, ringSize)
	case string(r.mem[:len(ringMagic)]) != ringMagic:
		return fmt.Errorf("%w: %s does not begin as a ring does", errDamaged, r.path)
	}
	return nil
}

// makeRing writes a whole ring beside path and moves it there.
func makeRing(path string) error {
	b := make([]byte, ringSize)
	copy(b, ringMagic)
	f, err := os.CreateTemp(filepath.Dir(path), "ring-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (r *ring) detach() error {
	err := syscall.Munmap(r.mem)
	r.mem = nil
	return errors.Join(err, r.file.Close())
}

// head returns the head of a half, and half its place for lines.
func (r *ring) head(i int) []byte { return r.mem[headAt*(1+i):][:headAt] }
func (r *ring) half(i int) []byte { return r.mem[ringPage+i*halfSize:][:halfSize] }

func (r *ring) get(i, at int) uint64    { return binary.LittleEndian.Uint64(r.head(i)[at:]) }
func (r *ring) set(i, at int, v uint64) { binary.LittleEndian.PutUint64(r.head(i)[at:], v) }

// guard runs f, in which the ring's memory is written. Where the kernel cannot
// give a page, as when somebody cut the file short, the ring is broken from then on.
func (r *ring) guard(f func()) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if x := recover(); x != nil {
			fault, ok := x.(interface {
				error
				Addr() uintptr
			})
			if !ok {
				panic(x)
			}
			r.fail(fmt.Errorf("storing into it: %w", fault))
		}
	}()
	f()
}

func (r *ring) fail(err error) { r.broken.CompareAndSwap(nil, &err) }

// begin opens half i for another lap. The log ends with the line that tip says.
func (r *ring) begin(i int, t tip) {
	r.used = 0
	r.lap++
	r.guard(func() {
		h := r.head(i)
		binary.LittleEndian.PutUint64(h[sumAt:], 0) // killed from here on, the lap never was
		r.set(i, baseAt, 0)
		r.set(i, lapAt, r.lap)
		putTip(h[anchorAt:], t)
		binary.LittleEndian.PutUint32(h[sumAt:], crc32.Checksum(h[:sumAt], castagnoli)|1)
	})
}

// add puts a line behind those of half i, which is open. It reports false when
// there is no room.
func (r *ring) add(i int, text []byte, sum uint32) bool {
	size := (entry + len(text) + 7) &^ 7
	if r.broken.Load() != nil || r.used+size > halfSize {
		return false
	}
	r.guard(func() {
		p := r.half(i)[r.used:]
		copy(p[entry:], text)
		binary.LittleEndian.PutUint64(p, r.lap)
		binary.LittleEndian.PutUint32(p[8:], uint32(len(text)))
		binary.LittleEndian.PutUint32(p[12:], crc32.Update(sum, castagnoli, p[:12]))
	})
	r.used += size
	return r.broken.Load() == nil
}

// note says, before the lines of half i are written, what number the first gets.
func (r *ring) note(i int, seq uint64) { r.guard(func() { r.set(i, baseAt, seq) }) }

// done says that the lines of half i are in the log, which ends with the line that
// tip says.
func (r *ring) done(i int, t tip) {
	r.guard(func() {
		h := r.head(i)[tipAt:]
		binary.LittleEndian.PutUint32(h[tipSize:], 0)
		putTip(h, t)
		binary.LittleEndian.PutUint32(h[tipSize:], crc32.Checksum(h[:tipSize], castagnoli)|1)
		r.set(i, doneAt, r.get(i, lapAt))
	})
}

// warm touches the pages of half i, which holds nothing.
func (r *ring) warm(i int) {
	pages := warmPages
	if now := time.Now(); now.Sub(r.warmed[i]) >= warmEvery {
		r.warmed[i], pages = now, halfSize/ringPage
	}
	r.guard(func() {
		r.set(i, doneAt, r.get(i, lapAt))
		h := r.half(i)
		for p := range pages {
			h[p*ringPage] = 0
		}
	})
}

// anchor returns the last line that the log is known to have had: the one behind
// which the lap of half i began, or the one at the end of a lap that was done since.
func (r *ring) anchor(i int) tip {
	t := tipOf(r.head(i)[anchorAt:])
	for k := range 2 {
		h := r.head(k)[tipAt:]
		if binary.LittleEndian.Uint32(h[tipSize:]) != crc32.Checksum(h[:tipSize], castagnoli)|1 {
			continue
		}
		if d := tipOf(h); d.seq > t.seq {
			t = d
		}
	}
	return t
}

const tipSize = 8 + sha256.Size

func putTip(b []byte, t tip) {
	binary.LittleEndian.PutUint64(b, t.seq)
	copy(b[8:], t.hash[:])
}

func tipOf(b []byte) tip {
	t := tip{seq: binary.LittleEndian.Uint64(b)}
	copy(t.hash[:], b[8:])
	return t
}

// began reports whether the lap of half i began, and is not done.
func (r *ring) began(i int) (bool, error) {
	h := r.head(i)
	sum := binary.LittleEndian.Uint32(h[sumAt:])
	if sum == 0 {
		return false, nil
	}
	if sum != crc32.Checksum(h[:sumAt], castagnoli)|1 {
		return false, fmt.Errorf("%w: the head of half %d in %s was changed", errDamaged, i+1, r.path)
	}
	return r.get(i, doneAt) != r.get(i, lapAt), nil
}

// lines returns the lines of half i. The last may be half-written, as a process
// leaves it that is killed: it was promised to nobody. Other damage is an error,
// beside which the lines around it are returned.
func (r *ring) lines(i int) (all [][]byte, err error) {
	p, lap := r.half(i), r.get(i, lapAt)
	for len(p) > entry {
		text, ok := line1(p, lap)
		if ok {
			all = append(all, text)
			p = p[(entry+len(text)+7)&^7:]
			continue
		}
		next := nextLine(p[8:], lap)
		if next == nil {
			return all, err
		}
		err = fmt.Errorf("%w: line %d of half %d in %s was changed", errDamaged, len(all)+1, i+1, r.path)
		p = next
	}
	return all, err
}

// nextLine returns p from the next line of the lap on, or nil.
func nextLine(p []byte, lap uint64) []byte {
	for ; len(p) > entry; p = p[8:] {
		if _, ok := line1(p, lap); ok {
			return p
		}
	}
	return nil
}

// line1 returns the line at the start of p, if one of the lap is there.
func line1(p []byte, lap uint64) ([]byte, bool) {
	n := binary.LittleEndian.Uint32(p[8:])
	if binary.LittleEndian.Uint64(p) != lap || int64(n) > int64(len(p)-entry) {
		return nil, false
	}
	text := p[entry:][:n]
	sum := crc32.Update(crc32.Checksum(text, castagnoli), castagnoli, p[:12])
	return text, sum == binary.LittleEndian.Uint32(p[12:])
}
