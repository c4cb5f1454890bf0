// Package index answers questions about the decision log fast: columns of what
// people select and group by, one file for each stretch of a segment.
//
// An index is a hint. Each file is signed, tells which lines it was made of, and is
// left aside where it does not fit them: then the lines themselves are read. It can
// always be made anew from the log, to the byte.
package index

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"

	"chaperone/audit"
)

// stretch is about how many bytes of lines one part covers.
const stretch = 32 << 20

// Part is the index of one stretch of a segment. Rows are its decisions, and alarms
// that belong to no request, in the order of the lines.
type Part struct {
	head
	columns [columns]*column // nil: not loaded
	times   []int64          // microseconds since 1970
	at      []int64          // byte of the segment at which the row's line begins
	ended   []int64          // byte at which the outcome's line begins; -1: not in this part
	multi   []bool           // the request is several, or has several credentials
	orphans []orphan
}

// orphan is an outcome whose decision stands before the part.
type orphan struct {
	ID string
	At int64
}

// head says what a part was made of.
type head struct {
	Version int    `json:"version"`
	Segment uint64 `json:"segment"` // number of the segment's first line
	From    int64  `json:"from"`    // bytes of it
	To      int64  `json:"to"`
	Lines   int    `json:"lines"`
	LastAt  int64  `json:"last_at"` // byte at which the last line begins
	Last    string `json:"last"`    // hash of it, which by the chain is one of all before it
	Rows    int    `json:"rows"`
	Since   int64  `json:"since"`   // time of the earliest row
	Until   int64  `json:"until"`   // and of the latest
	Several bool   `json:"several"` // a row is several requests
	Blobs   []blob `json:"blobs"`
}

// version of the files. Those of another are made anew.
const version = 1

// column holds texts as numbers: 0 is none.
type column struct {
	texts []string // texts[0] is empty
	codes []uint32
	known map[string]uint32
	last  uint32
}

func newColumn() *column { return &column{texts: []string{""}, known: map[string]uint32{}} }

func (c *column) code(text []byte) uint32 {
	if len(text) == 0 {
		return 0
	}
	if c.texts[c.last] == string(text) {
		return c.last
	}
	code, ok := c.known[string(text)]
	if !ok {
		code = uint32(len(c.texts))
		s := string(text)
		c.texts = append(c.texts, s)
		c.known[s] = code
	}
	c.last = code
	return code
}

// Build reads the lines of a segment from a byte on, at most about limit bytes
// (0: all that is whole), and indexes them. It returns nil where there is no line.
func Build(s *audit.Segment, number uint64, from, limit int64) (*Part, error) {
	b := builder{Part: &Part{head: head{Version: version, Segment: number, From: from, To: from}}, open: map[string]int{}}
	for i := range b.columns {
		b.columns[i] = newColumn()
	}
	r := bufio.NewReaderSize(s.From(from), 256<<10)
	for limit == 0 || b.To-from < limit {
		line, err := readLine(r)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("indexing %s: %w", s.Name(), err)
		}
		if !b.add(line) {
			return nil, fmt.Errorf("indexing %s: %w at byte %d", s.Name(), ErrLine, b.To)
		}
		if b.Lines%breath == 0 {
			runtime.Gosched()
		}
	}
	if b.Lines == 0 {
		return nil, nil
	}
	last := sha256.Sum256(b.last)
	b.Last = hex.EncodeToString(last[:])
	b.Rows = len(b.at)
	return b.Part, nil
}

// breath is after how many lines requests that wait for a processor go first: a few
// milliseconds. On a thread of its own each time hands the processor over twice.
const breath = 2048

// ErrLine is wrapped when a line of the log is no event.
var ErrLine = errors.New("the line is no event")

// readLine returns the next whole line with its newline.
func readLine(r *bufio.Reader) ([]byte, error) {
	b, err := r.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return b, err
	}
	long := append([]byte(nil), b...)
	for err == bufio.ErrBufferFull {
		b, err = r.ReadSlice('\n')
		long = append(long, b...)
	}
	return long, err
}

type builder struct {
	*Part
	entry entry
	open  map[string]int // rows whose outcome is not there yet
	last  []byte         // the last line
}

func (b *builder) add(line []byte) bool {
	text := line[:len(line)-1]
	e := &b.entry
	if !e.read(text) {
		return false
	}
	switch string(e.event) {
	case "decision":
		b.row(e)
		b.open[string(e.id)] = len(b.at) - 1
	case "alarm":
		if len(e.text[methodColumn]) == 0 {
			b.row(e)
		} else if row, ok := b.open[string(e.id)]; ok { // raised after the decision was written
			c := b.columns[alarmColumn]
			c.codes[row] = c.code(e.text[alarmColumn])
		}
	case "outcome":
		b.outcome(e)
	}
	b.last = append(b.last[:0], text...)
	b.LastAt = b.To
	b.To += int64(len(line))
	b.Lines++
	return true
}

func (b *builder) row(e *entry) {
	if len(b.times) == 0 || e.time < b.Since {
		b.Since = e.time
	}
	if len(b.times) == 0 || e.time > b.Until {
		b.Until = e.time
	}
	for i := range e.text {
		c := b.columns[i]
		c.codes = append(c.codes, c.code(e.text[i]))
	}
	b.times = append(b.times, e.time)
	b.at = append(b.at, b.To)
	b.ended = append(b.ended, -1)
	b.multi = append(b.multi, e.multi)
	b.Several = b.Several || e.multi
}

func (b *builder) outcome(e *entry) {
	row, ok := b.open[string(e.id)]
	if !ok {
		b.orphans = append(b.orphans, orphan{string(e.id), b.To})
		return
	}
	delete(b.open, string(e.id))
	b.ended[row] = b.To
	for _, i := range [...]int{errorColumn, statusColumn} {
		b.columns[i].codes[row] = b.columns[i].code(e.text[i])
	}
}
