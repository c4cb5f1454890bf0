package revision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/store"
	"chaperone/store/bolt"
)

// boards opens two on one store.
func boards(t *testing.T) (a, b *Board) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	a, b = NewBoard(db), NewBoard(db)
	v, err := store.OpenView(t.Context(), store.ViewOptions{Feed: db, Consumers: []store.Consumer{a}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return a, b
}

func standing(n int) Standing {
	return Standing{Entry: Entry{Revision: fmt.Sprintf("%012d", n), Time: time.Unix(int64(n), 0).UTC(), How: "promote", By: "tester"}, Pinned: true, Replica: "r_1"}
}

func TestBoard(t *testing.T) {
	a, b := boards(t)
	ctx := t.Context()
	files := fstest.MapFS{"chaperone/p.rego": {Data: []byte("package chaperone")}}
	if a.Standing().Revision != "" {
		t.Error("a policy stands that nobody promoted")
	}
	if err := b.Put(ctx, files, standing(1)); err != nil {
		t.Fatal(err)
	}
	await(t, a, standing(1))
	got, err := a.Files(ctx, standing(1).Revision)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := fs.ReadFile(got, "chaperone/p.rego"); string(text) != "package chaperone" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := a.Files(ctx, "ffffffffffff"); !errors.Is(err, ErrUnknown) {
		t.Errorf("files that nobody put there: %v", err)
	}

	// b does not know of what a puts there, and must not put another over it.
	if err := a.Put(ctx, files, standing(2)); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(ctx, files, standing(3)); !errors.Is(err, ErrMeanwhile) {
		t.Errorf("over one that it does not know of: %v", err)
	}
	if a.Standing() != standing(2) {
		t.Errorf("%+v stands", a.Standing())
	}
}

// await waits until a board was told of a policy.
func await(t *testing.T, b *Board, want Standing) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for b.Standing() != want {
		select {
		case <-b.Changed():
		case <-ctx.Done():
			t.Fatalf("%+v stands", b.Standing())
		}
	}
}

func TestBoardHistory(t *testing.T) {
	a, _ := boards(t)
	files := fstest.MapFS{"p.rego": {Data: []byte("package chaperone")}}
	for n := range keptEntries + 3 {
		if err := a.Record(t.Context(), files, standing(n).Entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Record(t.Context(), files, standing(5).Entry); err != nil {
		t.Errorf("recorded again: %v", err)
	}
	list, err := a.History(t.Context())
	if err != nil || len(list) != keptEntries || list[0] != standing(3).Entry {
		t.Errorf("%d entries, %v, the first is %+v", len(list), err, list[0])
	}
	for n, want := range map[int]error{2: ErrUnknown, 3: nil} {
		if _, err := a.Files(t.Context(), standing(n).Revision); !errors.Is(err, want) {
			t.Errorf("files of %d: %v", n, err)
		}
	}
	if missing := Missing(list, list[1:]); len(missing) != 1 || missing[0] != list[0] {
		t.Errorf("%+v are missing", missing)
	}
}

func TestBoardTooLarge(t *testing.T) {
	a, _ := boards(t)
	noise := make([]byte, 2*store.MaxValue)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	if err := a.Put(t.Context(), fstest.MapFS{"data.json": {Data: noise}}, standing(1)); !errors.Is(err, ErrLarge) || a.Standing().Revision != "" {
		t.Errorf("%v, %+v stands", err, a.Standing())
	}
}

// What was lost with the store can be put there again.
func TestBoardEmptied(t *testing.T) {
	a, _ := boards(t)
	files := fstest.MapFS{"p.rego": {Data: []byte("package chaperone")}}
	if err := a.Put(t.Context(), files, standing(1)); err != nil {
		t.Fatal(err)
	}
	if err := a.store.Delete(t.Context(), standingName); err != nil {
		t.Fatal(err)
	}
	await(t, a, standing(1))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	err := a.Put(ctx, files, standing(2))
	for ; errors.Is(err, ErrMeanwhile); err = a.Put(ctx, files, standing(2)) { // until it heard of it
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it never hears of it")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	await(t, a, standing(2))
}

// TestWithdraw takes down what stands: who comes later finds nothing. Where nothing
// stands that is no fault.
func TestWithdraw(t *testing.T) {
	a, b := boards(t)
	ctx := t.Context()
	if err := b.Withdraw(ctx); err != nil {
		t.Error(err)
	}
	files := fstest.MapFS{"chaperone/p.rego": {Data: []byte("package chaperone")}}
	if err := b.Put(ctx, files, standing(1)); err != nil {
		t.Fatal(err)
	}
	await(t, a, standing(1))
	if err := b.Withdraw(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Load(ctx, standingName); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it stands still: %v", err)
	}
}
