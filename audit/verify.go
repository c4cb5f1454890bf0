package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Report is what [Verify] found.
type Report struct {
	Lines    uint64 `json:"lines"`
	Segments int    `json:"segments"`
	First    uint64 `json:"first_seq"`
	Last     uint64 `json:"last_seq"`
	Head     string `json:"head"` // hash of the last line; note it down elsewhere to find a truncated end later
	Torn     bool   `json:"torn"` // the last line is half-written, as a power cut leaves it
	Bad      *Fault `json:"bad,omitempty"`
}

// Fault is the first place at which the chain does not hold.
type Fault struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Seq  uint64 `json:"seq"`
	What string `json:"what"`
}

// Error says it in words.
func (f *Fault) Error() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.What) }

// Verify follows the chain through all segments of the log at path. It finds a
// line that was changed, removed, inserted or moved, and names the first; lines
// cut off at the very end it cannot miss, unless they are compared with a head
// that was noted down elsewhere: pass it, or the empty string.
func Verify(path, head string) (Report, error) { return VerifyEach(path, head, nil) }

// Visitor is given each line whose link in the chain holds: where it stands, its
// number, and itself.
type Visitor func(at Fault, line []byte)

// VerifyEach is Verify that shows each line to a visitor. It begins anew, with another
// one, where the log was rotated meanwhile.
func VerifyEach(path, head string, begin func() Visitor) (Report, error) {
	for {
		segments, err := Segments(path)
		if err != nil {
			return Report{}, fmt.Errorf("verifying %s: %w", path, err)
		}
		report, err := verify(path, head, segments, begin)
		if err == nil && report.Bad == nil {
			return report, nil
		}
		// A log that was rotated meanwhile looks as if lines were missing.
		now, lerr := Segments(path)
		if lerr != nil || slices.Equal(now, segments) {
			return report, err
		}
	}
}

func verify(path, head string, segments []string, begin func() Visitor) (Report, error) {
	if len(segments) == 0 {
		return Report{}, fmt.Errorf("verifying %s: %w", path, os.ErrNotExist)
	}
	c := chain{head: head, seen: head == ""}
	if begin != nil {
		c.visit = begin()
	}
	c.Segments = len(segments)
	for _, name := range segments {
		if err := c.segment(name); err != nil {
			return c.Report, fmt.Errorf("verifying %s: %w", name, err)
		}
		if c.Bad != nil {
			return c.Report, nil
		}
		c.Torn = c.Torn || torn(name)
	}
	if !c.seen {
		c.Bad = &Fault{filepath.Base(path), int(c.Lines), c.Last, "the head that was noted down is not in the log: its end was cut off, or all of it was rewritten"}
	}
	return c.Report, nil
}

// chain is how far Verify has come.
type chain struct {
	Report
	prev [sha256.Size]byte
	head string
	seen bool

	visit Visitor
}

func (c *chain) segment(name string) error {
	n := 0
	for line, err := range lines(name) {
		if err != nil {
			return err
		}
		n++
		if what := c.link(line); what != "" {
			c.Bad = &Fault{filepath.Base(name), n, c.Last + 1, what}
			return nil
		}
		if c.visit != nil {
			c.visit(Fault{File: filepath.Base(name), Line: n, Seq: c.Last}, line)
		}
	}
	return nil
}

// link checks one line and returns what is wrong with it.
func (c *chain) link(line []byte) string {
	var l struct {
		Seq  uint64 `json:"seq"`
		Prev string `json:"prev"`
	}
	if err := json.Unmarshal(line, &l); err != nil || l.Seq == 0 {
		return "the line is not a record"
	}
	if c.Lines == 0 && c.First == 0 {
		c.First, c.Last = l.Seq, l.Seq-1
		if p, err := hex.DecodeString(l.Prev); err == nil && l.Seq > 1 {
			copy(c.prev[:], p) // older segments were pruned: what they were cannot be told
		}
	}
	switch {
	case l.Seq > c.Last+1:
		return fmt.Sprintf("%d records before this one were removed (number %d follows %d)", l.Seq-c.Last-1, l.Seq, c.Last)
	case l.Seq < c.Last+1:
		return fmt.Sprintf("the record was inserted or moved (number %d follows %d)", l.Seq, c.Last)
	case l.Prev != hex.EncodeToString(c.prev[:]):
		return fmt.Sprintf("record %d was changed: its hash is not what the next one says", c.Last)
	}
	c.prev = sha256.Sum256(line)
	c.Head = hex.EncodeToString(c.prev[:])
	c.seen = c.seen || c.Head == c.head
	c.Last = l.Seq
	c.Lines++
	return ""
}

// torn reports whether a segment ends without a newline.
func torn(name string) bool {
	f, err := OpenSegment(name)
	if err != nil {
		return false
	}
	defer f.Close()
	if f.Size() == 0 {
		return false
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], f.Size()-1)
	return err == nil && last[0] != '\n'
}
