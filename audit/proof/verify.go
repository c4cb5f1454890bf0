package proof

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"chaperone/audit"
)

// Report is what [Verify] found.
type Report struct {
	audit.Report
	// Checkpoints are those that the log was held against, by their size.
	Checkpoints []int64 `json:"checkpoints,omitzero"`
	// Signed is how many of the first lines a checkpoint vouches for.
	Signed int64 `json:"signed,omitzero"`
}

// VerifyOptions say what to hold a log against.
type VerifyOptions struct {
	Path        string
	Head        string   // hash of a line that must be in it; may be empty
	Key         *Public  // nil: only the chain is followed
	Checkpoints []string // files, besides the newest beside the log
}

// Verify follows the chain through the whole log, and holds the lines against the
// tree beside it and against signed checkpoints. It names the first line at which
// something was changed, removed, put in, moved or cut off; where only the tree tells,
// the few lines among which it is.
func Verify(o VerifyOptions) (Report, error) {
	v := verifier{o: o}
	if o.Key != nil {
		if err := v.load(); err != nil {
			return Report{}, err
		}
		defer v.close()
	}
	chain, err := audit.VerifyEach(o.Path, o.Head, v.begin)
	r := Report{Report: chain}
	if err != nil {
		return r, err
	}
	if v.err != nil {
		return r, v.err
	}
	v.judge(&r)
	return r, nil
}

type verifier struct {
	o    VerifyOptions
	want []*Checkpoint // by size
	kept *Tree         // beside the log; nil: none

	tree    *Tree // of the lines as they are read
	last    audit.Fault
	roots   map[int64]tlog.Hash
	changed *audit.Fault // the first block that is not as the tree beside the log has it
	err     error
}

// load reads the checkpoints and the tree.
func (v *verifier) load() error {
	names := v.o.Checkpoints
	if _, err := os.Stat(checkpointFile(v.o.Path)); err == nil {
		names = append(slices.Clone(names), checkpointFile(v.o.Path))
	}
	for _, name := range names {
		c, err := LoadCheckpoint(name, v.o.Key)
		if err != nil {
			return err
		}
		v.want = append(v.want, c)
	}
	slices.SortFunc(v.want, func(a, b *Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	kept, err := OpenTree(v.o.Path, false)
	if err != nil && !missing(err) {
		return err
	}
	v.kept = kept
	return nil
}

func (v *verifier) close() {
	if v.kept != nil {
		v.kept.Close()
	}
}

func (v *verifier) begin() audit.Visitor {
	if v.o.Key == nil {
		return func(audit.Fault, []byte) {}
	}
	v.tree, v.roots, v.changed, v.err = nil, map[int64]tlog.Hash{}, nil, nil
	return v.visit
}

// visit adds a line to a tree of its own. Of lines that were pruned the tree beside
// the log is believed: checkpoints show whether that was right.
func (v *verifier) visit(at audit.Fault, line []byte) {
	if v.err != nil {
		return
	}
	n := int64(at.Seq) - 1
	if v.tree == nil {
		v.tree = &Tree{path: v.o.Path, low: map[int64][]tlog.Hash{}}
		if blocks := (n + blockSize - 1) / blockSize; n > 0 && v.kept != nil && blocks <= v.kept.blocks {
			v.tree.file, v.tree.blocks = v.kept.file, blocks
		} else if n > 0 {
			v.err = fmt.Errorf("verifying %s: the log begins with line %d, and %s does not know those before: %w", v.o.Path, at.Seq, TreeFile(v.o.Path), ErrGone)
			return
		}
	}
	if n < v.tree.Size() {
		return // in a block that begins with lines that were pruned
	}
	if n%blockSize == 0 {
		v.last = at
	}
	if v.err = v.tree.Add(line); v.err != nil {
		return
	}
	v.compare()
	for _, c := range v.want {
		if c.Size == v.tree.Size() {
			v.roots[c.Size], v.err = v.tree.Root(c.Size)
		}
	}
}

// compare holds a block that has just become whole against the tree beside the log.
func (v *verifier) compare() {
	if len(v.tree.pending) > 0 || v.kept == nil || v.changed != nil || v.tree.blocks > v.kept.blocks {
		return
	}
	at := []int64{tlog.StoredHashIndex(0, v.tree.blocks-1)}
	mine, err := v.tree.readHigh(at)
	theirs, kerr := v.kept.readHigh(at)
	if err != nil || kerr != nil || mine[0] == theirs[0] {
		return
	}
	f := v.last
	f.What = fmt.Sprintf("of lines %d to %d at least one is not what it was when the tree was made, and the chain was made to fit", f.Seq, f.Seq+blockSize-1)
	v.changed = &f
}

// judge holds what was found against the checkpoints.
func (v *verifier) judge(r *Report) {
	if r.Bad != nil || v.tree == nil {
		return
	}
	for _, c := range v.want {
		root, reached := v.roots[c.Size]
		switch {
		case c.Size > int64(r.Last):
			r.Bad = &audit.Fault{File: v.last.File, Line: v.last.Line, Seq: r.Last + 1,
				What: fmt.Sprintf("%d lines were signed, and the log ends with line %d: its end was cut off", c.Size, r.Last)}
		case !reached && c.Size < int64(r.First):
			continue // all that it vouches for was pruned
		case root != c.Root:
			r.Bad = v.between(r.Signed, c.Size)
		default:
			r.Signed = c.Size
			r.Checkpoints = append(r.Checkpoints, c.Size)
			continue
		}
		return
	}
	if v.changed != nil {
		r.Bad = v.changed
	}
}

// between says where lines were changed that one checkpoint vouches for and the one
// before does not.
func (v *verifier) between(from, to int64) *audit.Fault {
	if v.changed != nil && int64(v.changed.Seq) <= to {
		return v.changed
	}
	if v.kept != nil { // what is whole in both trees is as it was
		if same := min(v.kept.blocks, v.tree.blocks) * blockSize; v.changed == nil && same > from && same < to {
			from = same
		}
	}
	return &audit.Fault{File: v.last.File, Line: v.last.Line, Seq: uint64(from) + 1,
		What: fmt.Sprintf("of lines %d to %d at least one is not what was signed, and the chain was made to fit", from+1, to)}
}
