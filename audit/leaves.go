package audit

import (
	"crypto/sha256"
	"errors"
	"os"
	"sync"
)

// Leaf is the hash of a line as a leaf of a Merkle tree: SHA-256 over a zero byte and
// the line without its newline (RFC 6962 section 2.1).
type Leaf = [sha256.Size]byte

// maxLeaves bounds the leaves that wait for whoever builds the tree: 2 MiB of them.
const maxLeaves = 1 << 16

// leaves are those of the last lines that were written, for a tree that need not read
// the file back: what it is built of is then what was decided, whatever became of the
// file meanwhile.
type leaves struct {
	mu    sync.Mutex
	first uint64 // number of the line of the first of all
	all   []Leaf
}

// put adds the leaves of lines from number first on.
func (v *leaves) put(first uint64, fresh []Leaf) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.first+uint64(len(v.all)) != first || len(v.all)+len(fresh) > maxLeaves {
		v.first, v.all = first, v.all[:0] // whoever missed some reads them from the file
	}
	v.all = append(v.all, fresh...)
}

// Leaves appends to into the leaves of the lines behind number after, and forgets them.
// It returns the number of the first line whose leaf it has: those from after to before
// that are to be read from the file first, and none is given while there are such. It has
// none unless [Options.Leaves] is set. It is safe for concurrent use.
func (l *Log) Leaves(after uint64, into []Leaf) (all []Leaf, first uint64) {
	v := &l.leaves
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.first > after+1 {
		return into, v.first
	}
	known := min(after+1-v.first, uint64(len(v.all)))
	into = append(into, v.all[known:]...)
	v.first, v.all = v.first+uint64(len(v.all)), v.all[:0]
	return into, after + 1
}

// leaf makes the leaf of a line that is about to be written.
func (l *Log) leaf(line []byte) {
	if !l.o.Leaves {
		return
	}
	l.hasher.Reset()
	l.hasher.Write(leafMark)
	l.hasher.Write(line)
	l.fresh = append(l.fresh, Leaf(l.hasher.Sum(l.sum[:0])))
}

var leafMark = []byte{0}

// Look looks whether the file is still what was written to it, and returns in words what
// somebody did to it since the last time. A log that is written to looks by itself once a
// second.
func (l *Log) Look() (altered []string, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.file != nil && l.failed == nil {
		l.checked = l.o.Now()
		err = l.stillThere()
	}
	altered, l.altered = l.altered, nil
	return altered, err
}

// Save puts on disk what is in the file, as Close does. Those who write meanwhile are not
// held up. Where it fails the log has failed, as by a sync of its own: the kernel tells of
// what it lost only once.
func (l *Log) Save() error {
	l.writing.Lock()
	f, err := l.file, l.unsaved
	l.writing.Unlock()
	if f == nil {
		return err
	}
	return l.sync(f)
}

// sync puts on disk what is in f, which is the current segment or was.
func (l *Log) sync(f *os.File) error {
	err := f.Sync()
	if err == nil {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.file == f {
		return l.fail(err)
	}
	if errors.Is(err, os.ErrClosed) {
		return l.unsaved // it was synced before it was closed
	}
	return err
}
