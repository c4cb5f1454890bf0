package proof

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"chaperone/audit"
)

// Log is a log that this process writes, as [audit.Log].
type Log interface {
	Leaves(after uint64, into []audit.Leaf) (all []audit.Leaf, first uint64)
	Save() error
}

// NotaryOptions say how a [Notary] works.
type NotaryOptions struct {
	Path string // of the log
	Key  *Key
	// Every and Lines: a checkpoint is due when either has passed since the last one
	// and there are new lines.
	Every time.Duration
	Lines int64
	// Elsewhere are folders outside of the state directory into which checkpoints go too.
	Elsewhere []string
	// Log is what writes the log, where that is this process. Where it is nil every line is
	// read from the files.
	Log Log
	// Altered is told in words when the log was changed under the notary's eyes.
	Altered func(message string)
}

// Notary adds the lines of a log to its tree as they come, and signs checkpoints. It
// belongs to one goroutine.
type Notary struct {
	o      NotaryOptions
	tree   *Tree
	reader *audit.Reader
	stale  bool // the reader is not where the tree is
	leaves []audit.Leaf
	prev   [sha256.Size]byte
	knows  bool // prev is the hash of the line before
	signed int64
	at     time.Time
	broken error
	more   bool
}

// NewNotary opens the tree of a log. It returns [ErrRolledBack] where the log does not
// continue what was signed last: then nothing is signed until a person has looked.
func NewNotary(o NotaryOptions) (*Notary, error) {
	tree, err := OpenTree(o.Path, true)
	if err != nil {
		return nil, err
	}
	n := &Notary{o: o, tree: tree, at: time.Now()}
	if err := n.resume(); err != nil {
		tree.Close()
		return nil, err
	}
	return n, nil
}

// resume checks that log and tree continue the newest checkpoint.
func (n *Notary) resume() error {
	last, err := LoadCheckpoint(checkpointFile(n.o.Path), &n.o.Key.Public)
	if err != nil && !missing(err) {
		return err
	}
	lines, err := audit.LastNumber(n.o.Path)
	if err != nil {
		return fmt.Errorf("looking at the log's end: %w", err)
	}
	signed := int64(0)
	if last != nil {
		signed = last.Size
	}
	if int64(lines) < signed {
		return fmt.Errorf("%w: %d lines were signed, and it has %d", ErrRolledBack, signed, lines)
	}
	// The tree may know of lines that a power cut took, or be behind: it is brought to
	// what was signed, and goes on from there.
	n.tree.cut(min(n.tree.blocks, int64(lines)/blockSize))
	n.reader = audit.NewReader(n.o.Path, uint64(n.tree.Size()))
	for n.tree.Size() < signed {
		if ok, err := n.next(); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("%w: %d lines were signed, and %d can be read", ErrRolledBack, signed, n.tree.Size()))
		}
	}
	if signed > 0 {
		root, err := n.tree.Root(signed)
		if err != nil {
			return err
		}
		if root != last.Root {
			return fmt.Errorf("%w: the first %d lines are not those that were signed", ErrRolledBack, signed)
		}
	}
	n.signed = signed
	return nil
}

// cut takes blocks off the end.
func (t *Tree) cut(blocks int64) {
	t.blocks = blocks
	t.pending = t.pending[:0]
}

// Close releases the tree.
func (n *Notary) Close() error {
	n.reader.Close()
	return n.tree.Close()
}

// atOnce bounds the lines of one look, which then takes about a second.
const atOnce = 200_000

// Size is how many lines are in the tree.
func (n *Notary) Size() int64 { return n.tree.Size() }

// More reports whether the last look, or what was added since, left lines for the next.
func (n *Notary) More() bool { return n.more }

// Add adds what has come, of what is to be read from files at most so many lines, and
// signs nothing.
func (n *Notary) Add(most int) error {
	if n.broken != nil {
		return n.broken
	}
	if n.o.Log == nil {
		return n.read(most, math.MaxInt64)
	}
	leaves, first := n.o.Log.Leaves(uint64(n.tree.Size()), n.leaves[:0])
	n.leaves = leaves
	if last := int64(first) - 1; n.tree.Size() < last {
		return n.catchUp(most, last)
	}
	n.more, n.stale = false, true
	for _, leaf := range leaves {
		if err := n.tree.addHash(tlog.Hash(leaf)); err != nil {
			return err
		}
	}
	return nil
}

// catchUp reads lines up to number last, which were written before their leaves were
// kept, or before so many others that they were not. They are in the files, unless
// somebody took them away.
func (n *Notary) catchUp(most int, last int64) error {
	if err := n.read(most, last); err != nil || n.more {
		return err
	}
	n.more = true
	return n.gap(uint64(last) + 1)
}

// read adds lines from the files: at most so many, and until the tree has size of them.
func (n *Notary) read(most int, size int64) error {
	if n.stale {
		n.reader.Close()
		n.reader, n.stale, n.knows = audit.NewReader(n.o.Path, uint64(n.tree.Size())), false, false
	}
	n.more = true
	for ; most > 0 && n.tree.Size() < size; most-- {
		ok, err := n.next()
		if err != nil {
			return err
		}
		if n.more = ok; !ok {
			break
		}
		if n.tree.Size()%breath == 0 {
			runtime.Gosched()
		}
	}
	return nil
}

// Look adds what has come and signs where that is due, or now when asked. It returns
// the checkpoint if it made one.
func (n *Notary) Look(now bool) (*Checkpoint, error) {
	if err := n.Add(atOnce); err != nil {
		return nil, err
	}
	fresh := n.tree.Size() - n.signed
	due := now || n.o.Lines > 0 && fresh >= n.o.Lines || n.o.Every > 0 && time.Since(n.at) >= n.o.Every
	if fresh == 0 || !due {
		return nil, nil
	}
	if err := n.save(); err != nil { // what is signed must outlive a power cut
		return nil, fmt.Errorf("signing checkpoint: %w", err)
	}
	c, err := sign(n.tree, n.o.Key)
	if err != nil {
		return nil, err
	}
	if err := n.tree.Save(); err != nil {
		return nil, err
	}
	n.signed, n.at = c.Size, time.Now()
	return c, keepCheckpoint(c, n.o.Path, n.o.Elsewhere)
}

func (n *Notary) save() error {
	if n.o.Log != nil {
		return n.o.Log.Save()
	}
	return n.reader.Sync()
}

// breath is after how many lines requests that wait for a processor go first: a few
// milliseconds. On a thread of its own each time hands the processor over twice.
const breath = 2048

// next adds one line, if there is one. It tells where the chain does not hold.
func (n *Notary) next() (bool, error) {
	line, seq, err := n.reader.Next()
	if n.reader.Cut() {
		n.o.Altered(fmt.Sprintf("the log was cut short: lines up to %d are not in the log any more", n.tree.Size()))
	}
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := n.gap(seq); err != nil {
		return false, err
	}
	if prev, ok := audit.Prev(line); ok && n.knows && prev != hex.EncodeToString(n.prev[:]) {
		n.o.Altered(fmt.Sprintf("line %d was changed after it was written, or line %d was put in", seq-1, seq))
	}
	n.prev, n.knows = sha256.Sum256(line), true
	if err := n.tree.Add(line); err != nil {
		n.stale = true // it is read once more
		return false, err
	}
	return true, nil
}

// gap stands for the lines that are missing before number seq.
func (n *Notary) gap(seq uint64) error {
	gap := int64(seq) - 1 - n.tree.Size()
	if gap <= 0 {
		return nil
	}
	if gap > maxGap {
		n.broken = fmt.Errorf("%w: number %d follows %d", ErrRolledBack, seq, n.tree.Size())
		return n.broken
	}
	n.o.Altered(fmt.Sprintf("lines %d to %d are not in the log any more", n.tree.Size()+1, seq-1))
	n.knows = false
	for range gap {
		if err := n.tree.addGap(); err != nil {
			return err
		}
	}
	return nil
}

// maxGap bounds the lines that may be missing at once.
const maxGap = 10_000_000
