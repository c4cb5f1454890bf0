package ship

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"chaperone/audit"
)

// cursor is what a sink remembers.
type cursor struct {
	Seq  uint64 `json:"seq"`  // the last line that was taken
	From uint64 `json:"from"` // from here on are decisions whose outcome has not come
	// Marks are where it was before, oldest first; the last is where it is.
	Marks []mark `json:"marks,omitzero"`
	// Clean is whether the sink was closed in order, so that all that was sent arrived.
	Clean bool `json:"clean,omitzero"`
}

// mark is where a sink was at a moment, and the hash of the line there.
type mark struct {
	Seq  uint64    `json:"seq"`
	From uint64    `json:"from"`
	At   time.Time `json:"at"`
	Hash string    `json:"hash"` // empty: not known
}

// Marks are so far apart, and so many are kept: more than [resendTime] in all.
const (
	markEvery = 5 * time.Second
	maxMarks  = 24
)

// forgetful is a target that gets no receipts.
type forgetful interface {
	// Window is for how long what was sent may be lost when the other end goes away.
	Window() time.Duration
	// Listening reports whether the other end is there.
	Listening() bool
}

// load reads the cursor. Where lines that were sent are not in the log any more, as
// after a power cut, the sink goes back to where the log is still as it was: their
// numbers are given to others. Where the target has no receipts and was not closed in
// order it goes back by its window.
func (s *Sink) load() error {
	b, err := os.ReadFile(s.o.Cursor)
	if errors.Is(err, fs.ErrNotExist) {
		if s.o.FromNow {
			last, err := audit.LastNumber(s.o.Path)
			s.at = cursor{Seq: last, From: last}
			return errors.Join(err, s.save()) // at the next start now is this moment still
		}
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &s.at); err != nil {
		s.at = cursor{}
		s.o.Notice(fmt.Sprintf("sink %s: its cursor %s cannot be read (%v): it begins with the first line of the log, and sends twice what it had sent", s.o.Name, s.o.Cursor, err))
		return nil
	}
	if f, ok := s.o.Target.(forgetful); ok && !s.at.Clean {
		s.back(f.Window())
	}
	return s.still()
}

// back goes back by a time before the sink ended.
func (s *Sink) back(window time.Duration) {
	marks := s.at.Marks
	if len(marks) == 0 {
		return
	}
	until := marks[len(marks)-1].At.Add(-window)
	for len(marks) > 1 && !marks[len(marks)-1].At.Before(until) {
		marks = marks[:len(marks)-1]
	}
	s.to(marks)
}

// to makes the last of some marks where the sink is.
func (s *Sink) to(marks []mark) {
	last := marks[len(marks)-1]
	s.at = cursor{Seq: last.Seq, From: min(s.at.From, last.From), Marks: marks}
}

// still goes back to where the log is as it was when it was sent.
func (s *Sink) still() error {
	was := s.at.Seq
	for marks := s.at.Marks; len(marks) > 0; marks = marks[:len(marks)-1] {
		same, err := s.same(&marks[len(marks)-1])
		if err != nil {
			return err
		}
		if same {
			s.to(marks)
			break
		}
		s.at.Seq, s.at.From, s.at.Marks = 0, 0, nil // should none be left
	}
	last, err := audit.LastNumber(s.o.Path)
	if err != nil {
		return err
	}
	s.at.Seq, s.at.From = min(s.at.Seq, last), min(s.at.From, last)
	if s.at.Seq < was && last < was {
		s.o.Notice(fmt.Sprintf("sink %s: lines %d to %d were sent and are not in the log any more, as after a power cut: it goes on behind line %d", s.o.Name, last+1, was, s.at.Seq))
	}
	return nil
}

// same reports whether the log has the line of a mark, or has pruned it.
func (s *Sink) same(m *mark) (bool, error) {
	if m.Seq == 0 {
		return true, nil
	}
	r := audit.NewReader(s.o.Path, m.Seq-1)
	defer r.Close()
	line, seq, err := r.Next()
	if err != nil {
		return false, nil // not there, or no record: what came before it may be
	}
	return seq > m.Seq || seq == m.Seq && (m.Hash == "" || hash(line) == m.Hash), nil
}

func hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// move notes that everything up to a line was taken.
func (s *Sink) move(last uint64, now time.Time) {
	for len(s.order) > 0 && s.open[s.order[0].id] == nil {
		s.order = s.order[1:]
	}
	from := last
	if len(s.order) > 0 {
		from = s.order[0].seq - 1
	}
	m := mark{last, from, now, hash(s.line)}
	marks := s.at.Marks
	if len(marks) == 0 {
		marks = []mark{{Seq: s.at.Seq, From: s.at.From}} // where it began
	}
	if n := len(marks); n > 1 && marks[n-1].At.Sub(marks[n-2].At).Abs() < markEvery {
		marks[n-1] = m
	} else {
		marks = append(marks, m)
	}
	s.at = cursor{Seq: last, From: from, Marks: marks[max(len(marks)-maxMarks, 0):]}
}

// save puts the cursor on disk, whole or not at all.
func (s *Sink) save() error {
	b, err := json.Marshal(s.at)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.o.Cursor), 0o700); err != nil {
		return err
	}
	next := s.o.Cursor + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.o.Cursor)
}
