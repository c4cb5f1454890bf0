package bolt

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"chaperone/store"
)

// emptied makes a file of some 13 MiB of which little is alive, and returns the entries
// of that and what the file's last change was.
func emptied(t *testing.T, path string) (alive []store.Entry, last uint64) {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 64 {
		e, err := s.Save(t.Context(), store.Entry{Name: fmt.Sprintf("k/%d", i), Value: make([]byte, 200<<10), Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if i%16 == 0 {
			alive = append(alive, e)
			continue
		}
		if err := s.Delete(t.Context(), e.Name); err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return alive, m.Seq
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	return info.Size()
}

// grown makes emptied's file large: it reuses what is free, so that all of it is
// written at once first.
func grown(t *testing.T, path string) {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 64 {
		if _, err := s.Save(t.Context(), store.Entry{Name: fmt.Sprintf("old/%d", i), Value: make([]byte, 200<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 64 {
		if err := s.Delete(t.Context(), fmt.Sprintf("old/%d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompact opens a file that is mostly free: it becomes small, and says the same.
// What an attempt that a crash ended has left does no harm.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "s"), path); err != nil {
		t.Fatal(err)
	}
	alive, last := emptied(t, path)
	grown(t, path)
	if err := os.WriteFile(filepath.Join(dir, "s"+beside), []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := size(t, path)
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if after := size(t, path); before < compactFrom || after > before/4 {
		t.Errorf("%d bytes became %d", before, after)
	}
	for _, want := range alive {
		if e, err := s.Load(t.Context(), want.Name); err != nil || e.Version != want.Version || len(e.Value) != len(want.Value) || !e.Expires.Equal(want.Expires) {
			t.Errorf("%s: version %d, expires %v, %v", want.Name, e.Version, e.Expires, err)
		}
	}
	e, err := s.Save(t.Context(), store.Entry{Name: "new"})
	if err != nil || e.Version <= last+128 {
		t.Errorf("after change %d and 128 more came %d, %v", last, e.Version, err)
	}
	if _, err := Open(path, Options{Wait: 10 * time.Millisecond}); err == nil {
		t.Error("the new file is not locked")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+beside)); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestCompactIsNotNeeded opens a file that is mostly free and cannot be written anew.
func TestCompactIsNotNeeded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	alive, _ := emptied(t, path)
	grown(t, path)
	if err := os.MkdirAll(filepath.Join(path+beside, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := size(t, path)
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if size(t, path) != before {
		t.Error("the file was written all the same")
	}
	if _, err := s.Load(t.Context(), alive[0].Name); err != nil {
		t.Error(err)
	}
}

// TestReplacedWhileWaiting waits for a file that is written anew meanwhile: the old one,
// whose lock comes free, has no name any more, and what goes there is lost.
func TestReplacedWhileWaiting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	old, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), filled(t), 0o600); err != nil {
		t.Fatal(err)
	}
	var second Store
	got := make(chan error, 1)
	go func() { got <- second.acquire(path, time.Minute) }()
	for waiting := false; !waiting; { // until it has the old file open
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil || len(fds) == 0 {
			t.Skip("needs /proc")
		}
		n := 0
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); to == path {
				n++
			}
		}
		waiting = n == 2
	}
	if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	defer second.db.Close()
	second.now = time.Now
	if _, err := second.Load(t.Context(), "k/0"); err != nil {
		t.Errorf("the old file was opened: %v", err)
	}
}

// TestCompactKeepsTheOwner has root open a file that is another user's and mostly free:
// who owns it opens it next.
func TestCompactKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), "s")
	emptied(t, path)
	grown(t, path)
	if err := os.Chown(path, 1234, 1235); err != nil {
		t.Skip(err)
	}
	before := size(t, path)
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if is := info.Sys().(*syscall.Stat_t); is.Uid != 1234 || is.Gid != 1235 || info.Size() >= before {
		t.Errorf("%d bytes became %d, of %d:%d", before, info.Size(), is.Uid, is.Gid)
	}
}
