package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// snapshot copies log and ring as they are, which is what a kill leaves, and returns
// the path of the copy. The writer must be held.
func snapshot(t *testing.T, l *Log) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	for _, suffix := range []string{"", ".ring"} {
		b, err := os.ReadFile(l.o.Path + suffix)
		if err == nil {
			err = os.WriteFile(path+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// commit commits n records called name-0, name-1, ….
func commit(t *testing.T, l *Log, name string, n int) {
	t.Helper()
	for i := range n {
		r := full(l)
		r.ID = fmt.Sprintf("%s-%d", name, i)
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// ids returns the ids in the log, which must verify, in order.
func ids(t *testing.T, path string) string {
	t.Helper()
	var all []string
	for e, err := range Events(path) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.ID)
	}
	if rep, err := Verify(path, ""); err != nil || rep.Bad != nil || rep.Torn {
		t.Errorf("%+v, %v", rep, err)
	}
	return strings.Join(all, " ")
}

// TestRingIsEntered kills, as far as files can tell, at each point between a commit
// and the end of the write that brings it into the log.
func TestRingIsEntered(t *testing.T) {
	l := open(t, Options{})
	commit(t, l, "a", 2)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	l.writing.Lock()
	commit(t, l, "b", 3)
	stages := map[string]string{"only in the ring": snapshot(t, l)}
	b := l.take() // the steps of flush
	for i, in := range b.halfs {
		if in {
			l.ring.note(i, l.tip.seq+1)
		}
	}
	commit(t, l, "c", 1)
	stages["being written"] = snapshot(t, l)
	l.out = l.out[:0]
	for _, line := range b.lines {
		l.chain(line.text.Bytes())
	}
	whole := l.out
	l.out = whole[:len(whole)*2/3]
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	stages["half-written"] = snapshot(t, l)
	l.out = whole[len(whole)*2/3:]
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	stages["written"] = snapshot(t, l)
	l.finish(b, nil)
	stages["done"] = snapshot(t, l)
	l.writing.Unlock()
	for stage, path := range stages {
		want := "a-0 a-1 b-0 b-1 b-2 c-0"
		if stage == "only in the ring" {
			want = "a-0 a-1 b-0 b-1 b-2"
		}
		for _, again := range []string{"", ", again"} {
			open(t, Options{Path: path}).Close()
			if got := ids(t, path); got != want {
				t.Errorf("%s%s: %s, want %s", stage, again, got, want)
			}
		}
	}
}

// TestRingThatCannotBeTrusted opens logs whose rings were damaged by more than a kill.
func TestRingThatCannotBeTrusted(t *testing.T) {
	l := open(t, Options{})
	commit(t, l, "a", 2)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	l.writing.Lock()
	commit(t, l, "b", 3)
	path := snapshot(t, l)
	l.writing.Unlock()
	log, _ := os.ReadFile(path)
	ring, _ := os.ReadFile(path + ".ring")
	change := func(old, new string) func(log, ring []byte) ([]byte, []byte) {
		return func(log, ring []byte) ([]byte, []byte) {
			if !bytes.Contains(ring, []byte(old)) {
				t.Fatalf("%s is not in the ring", old)
			}
			return log, bytes.Replace(ring, []byte(old), []byte(new), 1)
		}
	}
	for name, tc := range map[string]struct {
		harm func(log, ring []byte) ([]byte, []byte)
		want string // of the error, or the ids
	}{
		"nothing":              {func(log, ring []byte) ([]byte, []byte) { return log, ring }, "a-0 a-1 b-0 b-1 b-2"},
		"last line torn":       {change("b-2", "b-x"), "a-0 a-1 b-0 b-1"},
		"middle line changed":  {change("b-1", "b-x"), "line 2 of half"},
		"cut short":            {func(log, ring []byte) ([]byte, []byte) { return log, ring[:len(ring)-1] }, "bytes, not"},
		"not a ring":           {change("chaperone", "chaperons"), "does not begin as a ring does"},
		"log removed":          {func(_, ring []byte) ([]byte, []byte) { return nil, ring }, "belongs to another decision log"},
		"log cut short":        {func(log, ring []byte) ([]byte, []byte) { return log[:bytes.IndexByte(log, '\n')+1], ring }, "belongs to another decision log"},
		"head of a half":       {func(log, ring []byte) ([]byte, []byte) { ring[2*headAt+anchorAt]++; return log, ring }, "the head of half"},
		"machine was started":  {func(log, ring []byte) ([]byte, []byte) { ring[bootAt]++; return change("b-1", "b-x")(log, ring) }, "a-0 a-1 b-0 b-2"},
		"nothing left, no log": {func(_, ring []byte) ([]byte, []byte) { return nil, make([]byte, 0) }, "bytes, not"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "decisions.jsonl")
			log, ring := tc.harm(bytes.Clone(log), bytes.Clone(ring))
			if err := errors.Join(os.WriteFile(path, log, 0o600), os.WriteFile(path+".ring", ring, 0o600)); err != nil {
				t.Fatal(err)
			}
			l, err := Open(Options{Path: path})
			if err != nil {
				if !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "move "+path+".ring away") {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				if after, _ := os.ReadFile(path + ".ring"); !bytes.Equal(after, ring) {
					t.Error("the ring was changed")
				}
				return
			}
			l.Close()
			if got := ids(t, path); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// TestRingFull stops the writer: decisions go on until the ring is full, and are then
// refused; none that was taken is lost.
func TestRingFull(t *testing.T) {
	t.Parallel()
	l := open(t, Options{})
	l.writing.Lock()
	taken := 0
	began := time.Now()
	for {
		err := full(l).Commit()
		if err == nil {
			taken++
			continue
		}
		if !errors.Is(err, ErrLog) || time.Since(began) < endurance {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		break
	}
	l.writing.Unlock()
	if err := errors.Join(full(l).Commit(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if rep, err := Verify(l.o.Path, ""); err != nil || rep.Bad != nil || rep.Lines != uint64(taken+1) || taken < 1000 {
		t.Errorf("%+v, %v; %d decisions were taken", rep, err, taken)
	}
}

// TestRingHarmed harms the ring of a log that is open. Decisions wait for the disk
// until there is another.
func TestRingHarmed(t *testing.T) {
	for name, harm := range map[string]func(string) error{
		"removed":   os.Remove,
		"cut short": func(p string) error { return os.Truncate(p, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			now := noon
			var notices []string
			l := open(t, Options{Now: func() time.Time { return now }, Notice: func(m string) { notices = append(notices, m) }})
			commit(t, l, "a", 1)
			if err := errors.Join(l.Flush(), harm(l.o.Path+".ring")); err != nil {
				t.Fatal(err)
			}
			commit(t, l, "b", 1)
			l.writing.Lock()
			now = now.Add(2 * time.Second)
			l.writing.Unlock()
			commit(t, l, "c", 1)
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			l.writing.Lock()
			commit(t, l, "d", 1) // in another ring
			path := snapshot(t, l)
			l.writing.Unlock()
			open(t, Options{Path: path}).Close()
			if got := ids(t, path); got != "a-0 b-0 c-0 d-0" || len(notices) != 1 {
				t.Errorf("%s, told %q", got, notices)
			}
		})
	}
}

// FuzzRing opens rings with foreign bytes in them: they are refused or entered, and
// what is entered holds.
func FuzzRing(f *testing.F) {
	l, err := Open(Options{Path: filepath.Join(f.TempDir(), "decisions.jsonl")})
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	l.writing.Lock()
	defer l.writing.Unlock()
	for range 3 {
		if err := full(l).Commit(); err != nil {
			f.Fatal(err)
		}
	}
	base, err := os.ReadFile(l.ring.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte("x"))
	f.Add(uint32(ringPage+entry), []byte("{}"))
	f.Add(uint32(headAt+lapAt), []byte{2})
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		path := filepath.Join(t.TempDir(), "decisions.jsonl")
		b := bytes.Clone(base)
		copy(b[int(at)%len(b):], change)
		if err := os.WriteFile(path+".ring", b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Path: path})
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Fatal(err)
			}
			return
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if rep, err := Verify(path, ""); err != nil || rep.Bad != nil || rep.Lines > 3 {
			t.Fatalf("%+v, %v", rep, err)
		}
	})
}
