package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/cmd/chaperone/problem"
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

// TestCatchUpWithoutFiles takes over what is in force where the files of an older policy
// are gone from the store, as when a replica ended while it forgot them.
func TestCatchUpWithoutFiles(t *testing.T) {
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	board := revision.NewBoard(db)
	files := fstest.MapFS{"chaperone/p.rego": {Data: []byte("package chaperone")}}
	old := revision.Entry{Revision: "000000000001", Time: time.Unix(1, 0)}
	now := revision.Entry{Revision: "000000000002", Time: time.Unix(2, 0)}
	err = errors.Join(board.Record(t.Context(), files, old), board.Record(t.Context(), files, now))
	if err = errors.Join(err, db.Delete(t.Context(), "policyfiles/"+old.Revision)); err != nil {
		t.Fatal(err)
	}
	r := &road{shared: &shared{board: board}}
	k := revision.New(t.TempDir())
	if err := r.catchUp(t.Context(), k, now); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Files(now.Revision); err != nil {
		t.Error(err)
	}
	if list, err := k.History(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if err := errors.Join(db.Delete(t.Context(), "policyfiles/"+now.Revision), r.catchUp(t.Context(), revision.New(t.TempDir()), now)); !errors.Is(err, revision.ErrUnknown) {
		t.Errorf("what is in force is gone: %v", err)
	}
}

// TestPromotedDeniesWhatIsGone names the promoted policy, and not that of policy.path,
// where it denies what config.yaml does not name any more.
func TestPromotedDeniesWhatIsGone(t *testing.T) {
	s := settings.Default()
	s.State = t.TempDir()
	files := fstest.MapFS{"chaperone/grants.yaml": {Data: []byte("grants: {agents: {bot: {deny: [{actions: [mine:things/get]}]}}}\n")}}
	for _, name := range []string{"chaperone/decision.rego", "chaperone/lib/lib.rego"} {
		b, err := rego.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: b}
	}
	engine, err := loadEngine(files, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	k := keeper(s)
	if err := errors.Join(k.Keep(engine.Revision(), files), k.Pin(engine.Revision())); err != nil {
		t.Fatal(err)
	}
	catalogue, err := loadCatalogue(s)
	if err != nil {
		t.Fatal(err)
	}
	_, err = denied(s, engine, catalogue)
	if err == nil || !strings.Contains(problem.Of(err).Hint, "policy check --policy "+filepath.Join(s.State, "policy", engine.Revision())) {
		t.Errorf("%v, %+v", err, problem.Of(err))
	}
}
