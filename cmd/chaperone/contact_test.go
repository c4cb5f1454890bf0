package main

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chaperone/store"
	"chaperone/store/bolt"
	"chaperone/store/replica"
)

// failing is a store that fails as it is told to.
type failing struct {
	store.Feed
	mu          sync.Mutex
	read, write error
}

func (f *failing) fail(read, write error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read, f.write = read, write
}

func (f *failing) now() (read, write error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read, f.write
}

func (f *failing) Changes(ctx context.Context, after store.Mark, wait time.Duration) ([]store.Change, error) {
	if err, _ := f.now(); err != nil {
		return nil, err
	}
	return f.Feed.Changes(ctx, after, wait)
}

func (f *failing) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	if _, err := f.now(); err != nil && !(e.Must && err == store.ErrFull) {
		return store.Entry{}, err
	}
	return f.Feed.Save(ctx, e)
}

// TestContact has a store fail in each way, for a while and for longer than store_stale:
// when everything is refused, whether others are taken for gone, and what operators read.
func TestContact(t *testing.T) {
	const limit = 10 * time.Second
	for name, tc := range map[string]struct {
		read, write error
		refuses     bool
		lines       []string
	}{
		"nothing":           {lines: []string{}},
		"cannot be read":    {read: store.ErrUnavailable, refuses: true, lines: []string{"trouble with the store", "everything is refused", "takes changes again"}},
		"takes nothing":     {write: store.ErrRefused, refuses: true, lines: []string{"trouble with the store", "everything is refused", "takes changes again"}},
		"neither":           {read: store.ErrRefused, write: store.ErrRefused, refuses: true, lines: []string{"trouble with the store", "everything is refused", "takes changes again"}},
		"takes nothing new": {write: store.ErrFull, lines: []string{"the store is full", "takes changes again"}},
		"its own fault":     {write: replica.ErrTwin, lines: []string{"cannot make itself known"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), bolt.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				kv := &failing{Feed: db}
				var out bytes.Buffer
				sh := &shared{born: time.Now(), kv: kv}
				sh.contact = &contact{logger: slog.New(slog.NewTextHandler(&out, nil)), sh: sh, limit: limit}
				defer sh.contact.close()
				sh.registry = replica.New(replica.Options{Store: kv, Now: time.Now, Self: func() replica.Status { return replica.Status{ID: "a"} }, Told: sh.contact.told})
				v, err := store.OpenView(t.Context(), store.ViewOptions{Feed: kv, Consumers: []store.Consumer{sh.registry}, Lost: sh.contact.followed})
				if err != nil {
					t.Fatal(err)
				}
				defer v.Close()
				sh.view.Store(v)
				if err := sh.registry.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				defer sh.registry.Close(t.Context())
				stale := func(when string, want bool) {
					t.Helper()
					synctest.Wait()
					if err := sh.stale(limit); (err != nil) != want {
						t.Errorf("%s: %v, and it refuses is %v", when, err, want)
					}
				}
				time.Sleep(time.Minute)
				stale("before", false)
				kv.fail(tc.read, tc.write)
				time.Sleep(limit - 2*time.Second)
				stale("for a while", false)
				if sh.deaf() != tc.refuses {
					t.Errorf("others cannot be heard is %v", sh.deaf())
				}
				time.Sleep(5 * time.Second)
				stale("for long", tc.refuses)
				kv.fail(nil, nil)
				time.Sleep(2 * time.Second)
				stale("just back", tc.refuses)
				time.Sleep(backPause)
				stale("back", false)
				if sh.deaf() || sh.age() > 2*time.Second {
					t.Errorf("back it is %v old, deaf: %v", sh.age(), sh.deaf())
				}
				for _, line := range tc.lines {
					if strings.Count(out.String(), line) != 1 {
						t.Errorf("no line, or more than one, says %q", line)
					}
				}
				if got := strings.Count(out.String(), "\n"); got != len(tc.lines) {
					t.Errorf("operators read %d lines, want %d:\n%s", got, len(tc.lines), out.String())
				}
			})
		})
	}
}
