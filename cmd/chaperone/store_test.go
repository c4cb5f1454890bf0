package main

import (
	"errors"
	"path/filepath"
	"testing"

	"chaperone/store"
	"chaperone/store/bolt"
)

// TestCopyGoesOn copies a store into one where an earlier attempt ended, and after which
// the old one was used: what is there then is what the old one has.
func TestCopyGoesOn(t *testing.T) {
	ctx := t.Context()
	made := func(entries ...string) *bolt.Store {
		db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		for i := 0; i < len(entries); i += 2 {
			if _, err := db.Save(ctx, store.Entry{Name: entries[i], Value: []byte(entries[i+1])}); err != nil {
				t.Fatal(err)
			}
		}
		return db
	}
	from := made("a/same", "1", "a/changed", "new", "a/more", "1")
	to := made(unfinished, "", "a/same", "1", "a/changed", "old", "a/gone", "1")
	if n, err := copyStore(ctx, from, to); n != 3 || err != nil {
		t.Fatalf("%d entries, %v", n, err)
	}
	if err := sameStores(ctx, from, to); err != nil {
		t.Error(err)
	}
	if err := whole(ctx, to); err == nil {
		t.Error("it is whole before it was compared")
	}
	if err := errors.Join(to.Delete(ctx, unfinished), whole(ctx, to)); err != nil {
		t.Error(err)
	}
	if _, err := copyStore(ctx, from, to); err == nil {
		t.Error("a store that is whole was written over")
	}
	if _, err := copyStore(ctx, from, made("a/mine", "1")); err == nil {
		t.Error("a store that is somebody's was written over")
	}
}
