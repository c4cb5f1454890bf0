package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/credential"
	"chaperone/store"
	"chaperone/store/redis"
)

func (a *app) storeVerbs() *cobra.Command {
	return group("store", "Move what is kept from one store to another", a.storeMigrate())
}

// migrated is what a migration did.
type migrated struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Entries int    `json:"entries"`
}

func (a *app) storeMigrate() *cobra.Command {
	return &cobra.Command{
		Use: "migrate FROM TO", Short: "Copy everything from one store into an empty one, and compare", Args: arguments("FROM", "TO"),
		Long: `Copy agents, humans, sessions, handles and sealed credentials from one store into an empty
one, then read both and compare every entry. When it is interrupted, the same again goes on;
no proxy starts on a copy that was not finished. A store is bolt (the file in the state directory),
bolt:FILE, or a Redis URL as in config.yaml, under the keys redis: there. Stop the proxies that
use either of them first; then set store: to the new one, a new file put in place of chaperone.db
in the state directory. What FROM holds stays.`,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			out, err := migrate(c.Context(), s, args[0], args[1])
			if err != nil {
				return err
			}
			next := "set store: " + out.To
			if file, ok := boltPath(s, out.To); ok && out.To != "bolt" {
				next = fmt.Sprintf("put %s in place of %s and set store: bolt", file, filepath.Join(s.State, boltFile))
			}
			return a.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "copied %d entries and compared all of them; now %s in config.yaml\n", out.Entries, next)
			})
		},
	}
}

// unfinished stands in a store into which another is being copied, until all of it is
// there and compared. No proxy uses such a store.
const unfinished = "migration/unfinished"

// passing entries are of the replicas that run now, and of the copying itself, and are
// not moved.
func passing(name string) bool {
	return strings.HasPrefix(name, "replica/") || strings.HasPrefix(name, "ask/") || name == unfinished
}

// whole returns an error for a store that is the beginning of a copy.
func whole(ctx context.Context, kv store.Store) error {
	switch _, err := kv.Load(ctx, unfinished); {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("reading the store: %w", err)
	}
	return problem.Failure(errors.New("the store is a copy that was not finished"), "run the same `chaperone store migrate FROM TO` again: it goes on where it was interrupted")
}

func migrate(ctx context.Context, s *settings.Settings, from, to string) (migrated, error) {
	if err := distinct(s, from, to); err != nil {
		return migrated{}, err
	}
	key, err := installationKey(ctx, s)
	if err != nil {
		return migrated{}, err
	}
	source, err := openOffline(ctx, s, from, key)
	if err != nil {
		return migrated{}, err
	}
	defer source.Close()
	target, err := openOffline(ctx, s, to, key)
	if err != nil {
		return migrated{}, err
	}
	n, err := copyStore(ctx, source, target)
	if err == nil {
		err = sameStores(ctx, source, target)
	}
	if err == nil {
		err = target.Delete(ctx, unfinished)
	}
	return migrated{From: from, To: to, Entries: n}, errors.Join(err, target.Close())
}

// distinct checks that both are stores, that the first is there, and that they are two.
func distinct(s *settings.Settings, from, to string) error {
	var files [2]os.FileInfo
	var servers [2]redis.Address
	for i, text := range []string{from, to} {
		file, ok := boltPath(s, text)
		if !ok && !redis.IsAddress(text) {
			return problem.Misuse(fmt.Sprintf("%q is no store", text), "write bolt, bolt:FILE or redis://HOST:PORT")
		}
		var err error
		if ok {
			files[i], err = os.Stat(file)
		} else {
			servers[i], err = redis.ParseAddress(text)
		}
		if errors.Is(err, fs.ErrNotExist) && i == 0 {
			return problem.Failure(fmt.Errorf("there is no store in %s", file), "see state: in config.yaml, or name the file: bolt:FILE")
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	servers[0].User = servers[1].User
	if from == to || files[0] != nil && files[1] != nil && os.SameFile(files[0], files[1]) || servers[0].Hosts != nil && reflect.DeepEqual(servers[0], servers[1]) {
		return problem.Misuse("FROM and TO are the same store", "see `chaperone store migrate --help`")
	}
	return nil
}

// openOffline opens a store that no proxy may use meanwhile.
func openOffline(ctx context.Context, s *settings.Settings, text string, key credential.Key) (store.Store, error) {
	kv, err := openStore(ctx, s, text, key)
	if errors.Is(err, store.ErrInUse) {
		return nil, problem.Failure(err, "stop the `chaperone serve` that uses it first")
	}
	return kv, err
}

// copyStore copies everything into a store that has nothing, or has what an earlier
// attempt copied. It returns how many entries there are.
func copyStore(ctx context.Context, from, to store.Store) (int, error) {
	entries, err := movable(ctx, from)
	if err != nil {
		return 0, err
	}
	there, err := beginCopy(ctx, to)
	if err != nil {
		return 0, err
	}
	err = store.Together(entries, func(e store.Entry) error {
		old := there[e.Name]
		if old.Version != 0 && same(old, e) {
			return nil
		}
		_, err := to.Save(ctx, store.Entry{Name: e.Name, Value: e.Value, Version: old.Version, Expires: e.Expires})
		return err
	})
	for _, e := range entries {
		delete(there, e.Name)
	}
	for name := range there { // it is over in FROM since the earlier attempt
		err = errors.Join(err, to.Delete(ctx, name))
	}
	if ctx.Err() != nil {
		return 0, problem.Failure(errors.New("interrupted; the new store is not finished"), "run the same again: it goes on")
	}
	if err != nil {
		return 0, problem.Failure(fmt.Errorf("writing the new store: %w", err), "mend that and run the same again: it goes on where it was interrupted")
	}
	return len(entries), nil
}

// movable reads all that is to be moved from a store that nobody uses.
func movable(ctx context.Context, from store.Store) ([]store.Entry, error) {
	if err := whole(ctx, from); err != nil {
		return nil, fmt.Errorf("reading the old store: %w", err)
	}
	var entries []store.Entry
	for e, err := range from.Scan(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("reading the old store: %w", err)
		}
		if strings.HasPrefix(e.Name, "replica/") {
			return nil, problem.Failure(errors.New("a proxy uses the old store; nothing was copied"), "stop all replicas first, and wait a minute after one that was killed")
		}
		if !passing(e.Name) {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 {
		return nil, problem.Failure(errors.New("the old store has nothing to copy"), "see that FROM names the right file, server and database, and redis.prefix; a store that is empty needs no migration")
	}
	return entries, nil
}

// beginCopy marks an empty store as one into which another is copied, or returns what an
// earlier attempt has copied into it.
func beginCopy(ctx context.Context, to store.Store) (map[string]store.Entry, error) {
	there := map[string]store.Entry{}
	begun := false
	for e, err := range to.Scan(ctx, "") {
		switch {
		case err != nil:
			return nil, fmt.Errorf("reading the new store: %w", err)
		case e.Name == unfinished:
			begun = true
		case passing(e.Name):
			return nil, problem.Failure(errors.New("a proxy uses the new store; nothing was copied"), "stop it first")
		default:
			there[e.Name] = e
		}
	}
	if begun {
		return there, nil
	}
	if len(there) > 0 {
		return nil, problem.Failure(errors.New("the new store is not empty; nothing was copied"), "name another: another file, database or redis.prefix")
	}
	if _, err := to.Save(ctx, store.Entry{Name: unfinished}); err != nil {
		return nil, fmt.Errorf("writing the new store: %w", err)
	}
	return there, nil
}

// same reports whether two stores hold the same under a name.
func same(a, b store.Entry) bool { return bytes.Equal(a.Value, b.Value) && a.Expires.Equal(b.Expires) }

// sameStores reads both again and compares what they hold.
func sameStores(ctx context.Context, a, b store.Store) error {
	left := map[string]store.Entry{}
	for e, err := range a.Scan(ctx, "") {
		if err != nil {
			return fmt.Errorf("comparing: %w", err)
		}
		if !passing(e.Name) {
			left[e.Name] = e
		}
	}
	for e, err := range b.Scan(ctx, "") {
		if err != nil {
			return fmt.Errorf("comparing: %w", err)
		}
		if passing(e.Name) {
			continue
		}
		if was, ok := left[e.Name]; !ok || !same(was, e) {
			return fmt.Errorf("comparing: %s is not the same in both stores", e.Name)
		}
		delete(left, e.Name)
	}
	for name, e := range left {
		if _, err := a.Load(ctx, name); errors.Is(err, store.ErrNotFound) {
			continue // its time was over meanwhile
		}
		return fmt.Errorf("comparing: %s is missing in the new store (it ends %v)", name, e.Expires)
	}
	return nil
}
