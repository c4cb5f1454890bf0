package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
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
one, then read both and compare every entry. A store is bolt (the file in the state directory),
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

// passing entries are of the replicas that run now, and are not moved.
func passing(name string) bool {
	return strings.HasPrefix(name, "replica/") || strings.HasPrefix(name, "ask/")
}

func migrate(ctx context.Context, s *settings.Settings, from, to string) (migrated, error) {
	if from == to {
		return migrated{}, problem.Misuse("FROM and TO are the same store", "see `chaperone store migrate --help`")
	}
	for _, text := range []string{from, to} {
		if _, ok := boltPath(s, text); !ok && !redis.IsAddress(text) {
			return migrated{}, problem.Misuse(fmt.Sprintf("%q is no store", text), "write bolt, bolt:FILE or redis://HOST:PORT")
		}
	}
	key, err := installationKey(ctx, s)
	if err != nil {
		return migrated{}, err
	}
	source, err := openStore(ctx, s, from, key)
	if err != nil {
		return migrated{}, err
	}
	defer source.Close()
	target, err := openStore(ctx, s, to, key)
	if err != nil {
		return migrated{}, err
	}
	n, err := copyStore(ctx, source, target)
	if err == nil {
		err = sameStores(ctx, source, target)
	}
	return migrated{From: from, To: to, Entries: n}, errors.Join(err, target.Close())
}

// copyStore copies everything into a store that has nothing.
func copyStore(ctx context.Context, from, to store.Store) (int, error) {
	for e, err := range to.Scan(ctx, "") {
		if err != nil {
			return 0, fmt.Errorf("reading the new store: %w", err)
		}
		if !passing(e.Name) {
			return 0, problem.Failure(errors.New("the new store is not empty; nothing was copied"), "name another: another file, database or redis.prefix")
		}
		return 0, problem.Failure(errors.New("a proxy uses the new store; nothing was copied"), "stop it first")
	}
	n := 0
	for e, err := range from.Scan(ctx, "") {
		if err != nil {
			return n, fmt.Errorf("reading the old store: %w", err)
		}
		if strings.HasPrefix(e.Name, "replica/") {
			return n, problem.Failure(errors.New("a proxy uses the old store"), "stop all replicas first, and wait a minute after one that was killed; empty the new store before the next attempt")
		}
		if passing(e.Name) {
			continue
		}
		if _, err := to.Save(ctx, store.Entry{Name: e.Name, Value: e.Value, Expires: e.Expires}); err != nil {
			return n, fmt.Errorf("writing the new store: %w", err)
		}
		n++
	}
	return n, nil
}

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
		was, ok := left[e.Name]
		if !ok || !bytes.Equal(was.Value, e.Value) || !was.Expires.Equal(e.Expires) {
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
