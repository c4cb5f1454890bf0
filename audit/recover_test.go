package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write appends text to the file behind the log's back.
func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestHalfLineIsTakenBackLater leaves what a failed write leaves whose truncation
// failed as well.
func TestHalfLineIsTakenBackLater(t *testing.T) {
	l := open(t, Options{})
	if err := errors.Join(full(l).Close(), l.Flush()); err != nil {
		t.Fatal(err)
	}
	write(t, l.o.Path, `{"time":"2026`)
	l.failed = errors.New("input/output error")
	if err := errors.Join(full(l).Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	rep, err := Verify(l.o.Path, "")
	if err != nil || rep.Bad != nil || rep.Torn || rep.Lines != 4 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestForeignLinesAreTold(t *testing.T) {
	for name, tt := range map[string]struct {
		text  string
		valid bool // the chain holds after all: the text was set aside
		want  string
	}{
		"whole line": {"{\"seq\":3}\n", false, "somebody else"},
		"half line":  {"{\"seq\":3", true, "half-written"},
	} {
		t.Run(name, func(t *testing.T) {
			now := noon
			var notices []string
			l := open(t, Options{Now: func() time.Time { return now }, Notice: func(m string) { notices = append(notices, m) }})
			if err := errors.Join(full(l).Close(), l.Flush()); err != nil {
				t.Fatal(err)
			}
			write(t, l.o.Path, tt.text)
			now = now.Add(2 * time.Second)
			if err := errors.Join(full(l).Close(), l.Close()); err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(l.o.Path, "")
			if err != nil || (rep.Bad == nil) != tt.valid || !strings.Contains(strings.Join(notices, "\n"), tt.want) {
				t.Errorf("%+v, %v, told %q", rep, err, notices)
			}
		})
	}
}

// TestCloseDoesNotWaitForASync closes a log whose next sync is an hour away.
func TestCloseDoesNotWaitForASync(t *testing.T) {
	l := open(t, Options{Sync: time.Hour})
	r := full(l)
	if err := errors.Join(r.Commit(), r.Close()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waiting")
	}
}

// TestSyncUnderLoad sees that syncs go on, one after the other, while outcomes wait
// for their write.
func TestSyncUnderLoad(t *testing.T) {
	l := open(t, Options{Sync: time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var last *time.Timer
	for syncs := 0; syncs < 5; {
		if ctx.Err() != nil {
			t.Fatalf("%d syncs", syncs)
		}
		r := full(l)
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			t.Fatal(err)
		}
		l.writing.Lock()
		if l.syncing != nil && l.syncing != last {
			last = l.syncing
			syncs++
		}
		l.writing.Unlock()
	}
}

// TestSyncForOthersFails has a disk fail when what looks after the log asks for a sync:
// the log has failed too, as the kernel does not tell it once more. A log that was closed
// over such a failure does not say that all is on disk.
func TestSyncForOthersFails(t *testing.T) {
	l := open(t, Options{})
	if err := errors.Join(full(l).Close(), l.Flush(), l.Save()); err != nil {
		t.Fatal(err)
	}
	_, unsound, err := os.Pipe() // which cannot be synced
	if err != nil {
		t.Fatal(err)
	}
	use := func(f *os.File) (before *os.File) {
		l.writing.Lock()
		defer l.writing.Unlock()
		before, l.file = l.file, f
		return before
	}
	sound := use(unsound)
	if err := l.Save(); !errors.Is(err, ErrLog) || l.Failed() == nil {
		t.Errorf("%v, failed: %v", err, l.Failed())
	}
	use(sound)
	if err := errors.Join(full(l).Close(), l.Flush(), l.Save(), l.Failed()); err != nil {
		t.Errorf("after it: %v", err)
	}
	defer use(unsound).Close()
	if err := l.Close(); err == nil {
		t.Error("closed without a fault")
	}
	if l.Save() == nil {
		t.Error("all is on disk, it says")
	}
}

func TestRemovedAndCutShort(t *testing.T) {
	for name, harm := range map[string]func(string) error{
		"removed":   os.Remove,
		"cut short": func(p string) error { return os.Truncate(p, 10) },
	} {
		t.Run(name, func(t *testing.T) {
			now := noon
			var notices []string
			l := open(t, Options{Now: func() time.Time { return now }, Notice: func(m string) { notices = append(notices, m) }})
			if err := errors.Join(full(l).Close(), l.Flush()); err != nil {
				t.Fatal(err)
			}
			if err := harm(l.o.Path); err != nil {
				t.Fatal(err)
			}
			now = now.Add(2 * time.Second)
			if err := errors.Join(full(l).Close(), l.Close()); err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(l.o.Path, "")
			if err != nil || rep.Lines != 2 || rep.First != 3 || len(notices) != 1 {
				t.Errorf("%+v, %v, told %q", rep, err, notices)
			}
		})
	}
}

func TestDevicesAreLeftAlone(t *testing.T) {
	before, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := Open(Options{Path: os.DevNull}); err == nil {
		l.Close()
		t.Error("a device was taken for a log")
	}
	if after, err := os.Stat(os.DevNull); err != nil || after.Mode() != before.Mode() {
		t.Errorf("its mode is now %v, %v", after.Mode(), err)
	}
	if _, err := os.Stat(os.DevNull + ".lock"); err == nil {
		t.Error("a lock was left beside it")
	}
}

// TestAgeCountsOverRestarts ends a segment at its age although no run lasted so long.
func TestAgeCountsOverRestarts(t *testing.T) {
	now := noon
	o := Options{Path: filepath.Join(t.TempDir(), "decisions.jsonl"), MaxAge: time.Hour, Now: func() time.Time { return now }}
	for range 5 {
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Open(now).Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(25 * time.Minute)
	}
	if segments, err := Segments(o.Path); err != nil || len(segments) != 2 {
		t.Errorf("%v, %v", segments, err)
	}
}
