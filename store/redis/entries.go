package redis

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"chaperone/store"
)

// digits is a moment in unix nanoseconds, always of the same length, so that later
// is greater as text. Zero is never.
func digits(t time.Time) string {
	switch {
	case t.IsZero():
		return "0"
	case t.Year() >= 2262: // beyond what 63 bits hold
		return strconv.FormatInt(math.MaxInt64, 10)
	case t.Unix() <= 0:
		return fmt.Sprintf("%019d", 1)
	}
	return fmt.Sprintf("%019d", t.UnixNano())
}

// decode takes apart what is kept of an entry.
func (s *Store) decode(field string, raw []byte) (store.Entry, error) {
	e, name, err := s.unseal(field, raw)
	e.Name = string(name)
	return e, err
}

// unseal is decode with the name apart. It opens raw in its place, and both name and
// value are parts of it.
func (s *Store) unseal(field string, raw []byte) (e store.Entry, name []byte, err error) {
	version, rest, _ := bytes.Cut(raw, []byte(" "))
	expires, sealed, _ := bytes.Cut(rest, []byte(" "))
	v, err := strconv.ParseUint(string(version), 10, 64)
	if err != nil {
		return e, nil, errDamaged
	}
	ns, err := strconv.ParseInt(string(expires), 10, 64)
	if err != nil {
		return e, nil, errDamaged
	}
	e.Version = v
	if ns != 0 {
		e.Expires = time.Unix(0, ns)
	}
	name, e.Value, err = s.seal.open(sealed, field)
	return e, name, err
}

func (s *Store) expired(e *store.Entry) bool {
	return !e.Expires.IsZero() && !s.Now().Before(e.Expires)
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, name string) (store.Entry, error) {
	keys, field, err := s.place(name)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return store.Entry{}, named(name, err)
	}
	raw, err := s.db.HGet(ctx, keys[0], field).Bytes()
	if err != nil {
		return store.Entry{}, named(name, told(err))
	}
	e, err := s.decode(field, raw)
	if err == nil && s.expired(&e) {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Entry{}, named(name, err)
	}
	return e, nil
}

// Save implements [store.Store].
func (s *Store) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	keys, field, err := s.place(e.Name)
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = ctx.Err()
	case len(e.Value) > store.MaxValue:
		err = store.ErrTooLarge
	}
	if err != nil {
		return store.Entry{}, named(e.Name, err)
	}
	must := ""
	if e.Must {
		must = "must"
	}
	if err := s.permitted(ctx); err != nil {
		return store.Entry{}, named(e.Name, err)
	}
	answer, err := saveScript.Run(ctx, s.db, keys, s.clock(), field, class(e.Name), newTag(), s.o.History,
		strconv.FormatUint(e.Version, 10), digits(e.Expires), s.seal.close(e.Name, e.Value, field), must).Slice()
	if err != nil {
		return store.Entry{}, named(e.Name, told(err))
	}
	if n, _ := answer[0].(int64); n != 1 {
		return store.Entry{}, named(e.Name, store.ErrConflict)
	}
	text, _ := answer[1].(string)
	if e.Version, err = strconv.ParseUint(text, 10, 64); err != nil {
		return store.Entry{}, named(e.Name, errDamaged)
	}
	e.Value, e.Must = bytes.Clone(e.Value), false
	return e, nil
}

// permitted asks a server before 7.0 whether it takes changes, by one that changes
// nothing: min-replicas-to-write holds there for commands and not for scripts.
func (s *Store) permitted(ctx context.Context) error {
	if !s.lax {
		return nil
	}
	return told(s.db.HDel(ctx, s.key("head"), "").Err())
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, name string) error {
	keys, field, err := s.place(name)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.permitted(ctx)
	}
	if err == nil {
		err = told(deleteScript.Run(ctx, s.db, keys, s.seal.close(name, nil, field), field, class(name), newTag(), s.o.History).Err())
	}
	return named(name, err)
}

// Scan implements [store.Store]. It holds all that it yields in memory.
func (s *Store) Scan(ctx context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		entries, err := s.collect(ctx, prefix)
		if err != nil {
			yield(store.Entry{}, named(prefix, err))
			return
		}
		now := s.Now()
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			e := entries[name]
			if !e.Expires.IsZero() && !now.Before(e.Expires) {
				continue
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// collect reads the entries and then what changed while they were read, which makes
// them those of the moment of the last change.
func (s *Store) collect(ctx context.Context, prefix string) (map[string]store.Entry, error) {
	at, err := s.Mark(ctx)
	if err != nil {
		return nil, err
	}
	entries := map[string]store.Entry{}
	for e, err := range s.Each(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		entries[e.Name] = e
	}
	for {
		changes, err := s.Changes(ctx, at, 0)
		if err == nil {
			err = at.Follow(changes)
		}
		if err != nil || len(changes) == 0 {
			return entries, err
		}
		for i := range changes {
			c := &changes[i]
			switch known, ok := entries[c.Entry.Name]; {
			case !strings.HasPrefix(c.Entry.Name, prefix), ok && known.Version >= c.Seq:
			case c.Gone:
				delete(entries, c.Entry.Name)
			default:
				entries[c.Entry.Name] = c.Entry
			}
		}
		at = changes[len(changes)-1].Mark
	}
}
