package proof

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"chaperone/audit"
)

// The tree's leaves are the lines of the log: leaf n is the line with number n+1.
// Hashes of level blockLevel and above are kept in a file, in the order of
// [tlog.StoredHashIndex]; those below are made from the lines when they are needed.
const (
	blockLevel = 4
	blockSize  = 1 << blockLevel
)

var (
	// ErrGone is wrapped when lines that a proof needs are not in the log any more.
	ErrGone = errors.New("lines are not in the log any more")
	// ErrBehind is wrapped when the log has fewer lines than were signed.
	ErrBehind = errors.New("the log is shorter than what was signed")
)

// Tree is the Merkle tree over the lines of a log. It belongs to one goroutine.
type Tree struct {
	path    string // of the log
	file    *os.File
	blocks  int64       // whole blocks whose hashes are in the file
	pending []tlog.Hash // leaves behind them
	fresh   []byte      // hashes that are not in the file yet
	low     map[int64][]tlog.Hash
}

// TreeFile is where the hashes of the log at path are.
func TreeFile(path string) string { return path + ".tree" }

// OpenTree opens the tree of the log at path, to add to it or, where the log is
// another process's, only to read.
func OpenTree(path string, write bool) (*Tree, error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR | os.O_CREATE
	}
	f, err := os.OpenFile(TreeFile(path), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening tree: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening tree: %w", err)
	}
	t := &Tree{path: path, file: f, low: map[int64][]tlog.Hash{}}
	count := info.Size() / tlog.HashSize
	lo, hi := int64(0), count+1 // whole blocks: the most that the file has hashes for
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; storedCount(mid) <= count {
			lo = mid
		} else {
			hi = mid
		}
	}
	t.blocks = lo
	return t, nil
}

// storedCount is how many hashes are in the file for so many blocks.
func storedCount(blocks int64) int64 {
	if blocks == 0 {
		return 0
	}
	return tlog.StoredHashCount(blocks)
}

// Close releases the file. What was not saved is made anew from the log.
func (t *Tree) Close() error { return t.file.Close() }

// Size is how many lines are in the tree.
func (t *Tree) Size() int64 { return t.blocks*blockSize + int64(len(t.pending)) }

// Add adds the next line.
func (t *Tree) Add(line []byte) error { return t.addHash(tlog.RecordHash(line)) }

// addGap stands for a line that was removed before it could be added, so that leaves
// and numbers stay together.
func (t *Tree) addGap() error { return t.addHash(tlog.RecordHash(nil)) }

func (t *Tree) addHash(h tlog.Hash) error {
	t.pending = append(t.pending, h)
	if len(t.pending) < blockSize {
		return nil
	}
	hashes, err := tlog.StoredHashesForRecordHash(t.blocks, subtree(t.pending), tlog.HashReaderFunc(t.readHigh))
	if err != nil {
		t.pending = t.pending[:blockSize-1] // it can be added again
		return fmt.Errorf("adding to tree: %w", err)
	}
	for _, h := range hashes {
		t.fresh = append(t.fresh, h[:]...)
	}
	t.blocks++
	t.pending = t.pending[:0]
	return nil
}

// subtree is the hash over leaves whose number is a power of two.
func subtree(leaves []tlog.Hash) tlog.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	half := len(leaves) / 2
	return tlog.NodeHash(subtree(leaves[:half]), subtree(leaves[half:]))
}

// Save puts the hashes of whole blocks on disk. Call it only for lines that are on
// disk: a tree that knows of more than the log looks as if the log was cut short.
func (t *Tree) Save() error {
	if len(t.fresh) == 0 {
		return nil
	}
	at := storedCount(t.blocks)*tlog.HashSize - int64(len(t.fresh))
	if _, err := t.file.WriteAt(t.fresh, at); err != nil {
		return fmt.Errorf("saving tree: %w", err)
	}
	t.fresh = t.fresh[:0]
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("saving tree: %w", err)
	}
	return nil
}

// Fill adds the leaves behind the last whole block, up to size, from the log. It is
// for a tree that was opened to read.
func (t *Tree) Fill(size int64) error {
	start := t.blocks * blockSize
	if size <= start {
		return nil
	}
	leaves, err := t.leaves(start, size)
	if err != nil {
		return err
	}
	for _, h := range leaves {
		if err := t.addHash(h); err != nil {
			return err
		}
	}
	return nil
}

// leaves reads lines from the log, from one to before another, counted from 0.
func (t *Tree) leaves(from, to int64) ([]tlog.Hash, error) {
	r := audit.NewReader(t.path, uint64(from))
	defer r.Close()
	var leaves []tlog.Hash
	for at := from; at < to; {
		line, seq, err := r.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("reading lines %d to %d: %w", from+1, to, ErrBehind)
		}
		if err != nil {
			return nil, err
		}
		for ; at < int64(seq)-1 && at < to; at++ {
			if from == at {
				return nil, fmt.Errorf("reading lines %d to %d: %w", from+1, to, ErrGone)
			}
			leaves = append(leaves, tlog.RecordHash(nil)) // as addGap has it
		}
		if at < to {
			leaves = append(leaves, tlog.RecordHash(line))
			at++
		}
	}
	return leaves, nil
}

// ReadHashes implements [tlog.HashReader].
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		h, err := t.hash(level, n)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	return hashes, nil
}

func (t *Tree) hash(level int, n int64) (tlog.Hash, error) {
	if level >= blockLevel {
		hashes, err := t.readHigh([]int64{tlog.StoredHashIndex(level-blockLevel, n)})
		if err != nil {
			return tlog.Hash{}, err
		}
		return hashes[0], nil
	}
	first := n << level
	block := first >> blockLevel
	leaves := t.pending
	if block < t.blocks {
		var err error
		if leaves, err = t.block(block); err != nil {
			return tlog.Hash{}, err
		}
	}
	first -= block << blockLevel
	last := first + 1<<level
	if last > int64(len(leaves)) {
		return tlog.Hash{}, fmt.Errorf("reading tree: %w", ErrBehind)
	}
	return subtree(leaves[first:last]), nil
}

// block returns the leaves of a whole block.
func (t *Tree) block(n int64) ([]tlog.Hash, error) {
	if leaves := t.low[n]; leaves != nil {
		return leaves, nil
	}
	leaves, err := t.leaves(n*blockSize, (n+1)*blockSize)
	if err != nil {
		return nil, err
	}
	if len(t.low) > 100 {
		clear(t.low)
	}
	t.low[n] = leaves
	return leaves, nil
}

// readHigh reads hashes of the file, or of what is to go into it.
func (t *Tree) readHigh(indexes []int64) ([]tlog.Hash, error) {
	saved := storedCount(t.blocks) - int64(len(t.fresh))/tlog.HashSize
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= saved {
			at := (index - saved) * tlog.HashSize
			if at+tlog.HashSize > int64(len(t.fresh)) {
				return nil, fmt.Errorf("reading tree: hash %d is not there", index)
			}
			copy(hashes[i][:], t.fresh[at:])
			continue
		}
		if _, err := t.file.ReadAt(hashes[i][:], index*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("reading tree: %w", err)
		}
	}
	return hashes, nil
}

// Root is the hash of the tree of the first size lines.
func (t *Tree) Root(size int64) (tlog.Hash, error) {
	h, err := tlog.TreeHash(size, t)
	if err != nil {
		return h, fmt.Errorf("hashing the log: %w", err)
	}
	return h, nil
}

// missing reports whether an error says that there is no such file.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
