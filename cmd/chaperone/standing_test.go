package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"

	"chaperone/cmd/chaperone/revision"
	"chaperone/cmd/chaperone/settings"
	"chaperone/rego"
	"chaperone/store"
	"chaperone/store/bolt"
)

// TestPromotedAlone promotes on a proxy whose file was copied from the store of replicas:
// what stood there must not decide again where the file is copied back.
func TestPromotedAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, boltFile)
	db, err := bolt.Open(file, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := revision.Standing{Entry: revision.Entry{Revision: "000000000001"}, Pinned: true, Replica: "r_1"}
	err = revision.NewBoard(db).Put(t.Context(), fstest.MapFS{"chaperone/p.rego": {Data: []byte("package chaperone")}}, old)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s := settings.Default()
	s.State, s.Admin, s.Log.Path = dir, filepath.Join(dir, "a.sock"), filepath.Join(dir, "decisions.jsonl")
	r, err := assemble(t.Context(), s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if _, err := r.enforce(t.Context(), rego.FS, revision.Entry{How: "promote", By: "tester"}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := r.shared.kv.Load(t.Context(), "policy/standing"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it stands still: %v", err)
	}
}
