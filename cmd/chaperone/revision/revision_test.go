package revision

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"
)

const one, two = "111111111111", "222222222222"

func TestKeeper(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy")
	k := New(dir)
	if list, err := k.History(); err != nil || len(list) != 0 || k.Pinned() != "" {
		t.Errorf("before anything: %v, %v", list, err)
	}
	files := fstest.MapFS{"chaperone/p.rego": {Data: []byte("package chaperone")}, "cases/a.yaml": {Data: []byte("{}")}, "notes.txt": {Data: []byte("x")}, ".git/x.json": {Data: []byte("{}")}}
	for _, r := range []string{one, two, one} {
		if err := errors.Join(k.Keep(r, files), k.Note(Entry{Revision: r, Time: time.Now(), How: "promote", By: "tester"})); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := k.Files(one)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"chaperone/p.rego": true, "cases/a.yaml": true, "notes.txt": false, ".git/x.json": false} {
		if _, err := fs.Stat(kept, name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if before, err := k.Before(one); before != two || err != nil {
		t.Errorf("before %s: %s, %v", one, before, err)
	}
	if found, err := k.Find("11"); found != one || err != nil {
		t.Errorf("found %s, %v", found, err)
	}
	for _, begin := range []string{"", "3", "../"} {
		if found, err := k.Find(begin); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %s, %v", begin, found, err)
		}
	}
	if err := k.Pin("333333333333"); !errors.Is(err, ErrUnknown) {
		t.Errorf("pinned what is not kept: %v", err)
	}
	if err := k.Pin(two); err != nil || k.Pinned() != two {
		t.Errorf("pinned %q, %v", k.Pinned(), err)
	}
	if err := k.Pin(""); err != nil || k.Pinned() != "" {
		t.Errorf("pinned %q, %v", k.Pinned(), err)
	}
	if err := k.Keep("../../etc", files); !errors.Is(err, ErrUnknown) {
		t.Errorf("a name that leads elsewhere: %v", err)
	}
}

// TestTornHistory passes over a line that a crash left half-written.
func TestTornHistory(t *testing.T) {
	dir := t.TempDir()
	k := New(dir)
	if err := k.Note(Entry{Revision: one}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, historyFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(`{"revision":"2222`)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if list, err := k.History(); err != nil || len(list) != 1 || list[0].Revision != one {
		t.Errorf("%v, %v", list, err)
	}
	if err := k.Note(Entry{Revision: two}); err != nil {
		t.Fatal(err)
	}
	if list, err := k.History(); err != nil || len(list) != 2 || list[1].Revision != two {
		t.Errorf("after it: %v, %v", list, err)
	}
	if _, err := k.Before(one); !errors.Is(err, ErrUnknown) {
		t.Errorf("before the first: %v", err)
	}
}
