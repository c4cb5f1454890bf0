// Package store keeps small values under names. Domain packages encode and seal;
// a store only keeps.
package store

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"
)

var (
	// ErrNotFound is returned when no value has the given name, or it has expired.
	ErrNotFound = errors.New("not found")
	// ErrConflict is returned when a value exists already, or changed since it was read.
	ErrConflict = errors.New("changed meanwhile")
	// ErrClosed is returned by a store that was closed.
	ErrClosed = errors.New("store is closed")
	// ErrInUse is returned when another process holds the store.
	ErrInUse = errors.New("store is in use by another process")
	// ErrDamaged is wrapped when what a store kept is not what it was given.
	ErrDamaged = errors.New("the store is damaged")
	// ErrName is returned for a name that is not of the form that CheckName accepts.
	ErrName = errors.New("name is not valid")
	// ErrTooLarge is returned for a value of more than MaxValue bytes.
	ErrTooLarge = errors.New("value is too large")
)

// Limits of names and values, in bytes.
const (
	MaxName  = 512
	MaxValue = 1 << 20
)

// Entry is one value under its name.
type Entry struct {
	Name    string
	Value   []byte
	Version uint64    // changes with each Save; 0 in a Save means that the name must be new
	Expires time.Time // zero: never; from this moment on the entry is not found
	// Must, in a Save, has a store take the change that has no room for what is new. It is
	// for what takes authority away, and for what tells others of it. It is not kept.
	Must bool
}

// Store keeps entries. All methods are safe for concurrent use, and what Save and
// Delete have returned for survives a crash of the process.
type Store interface {
	// Load returns the entry of that name or ErrNotFound. The caller owns the value.
	Load(ctx context.Context, name string) (Entry, error)
	// Save writes e if the name's version is still e.Version, else it returns
	// ErrConflict and changes nothing. The returned entry carries the new version.
	Save(ctx context.Context, e Entry) (Entry, error)
	// Delete removes the entry of that name; there need not be one.
	Delete(ctx context.Context, name string) error
	// Scan yields the entries whose names begin with prefix, in the order of
	// their names, as they were at one moment. An error ends the sequence.
	Scan(ctx context.Context, prefix string) iter.Seq2[Entry, error]
	// Close releases the store. Calls after it return ErrClosed.
	Close() error
}

// CheckName returns ErrName unless name is 1 to MaxName bytes of printable ASCII
// without spaces, in parts that are separated by single slashes.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.Contains(name, "//") {
		return ErrName
	}
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] > '~' {
			return ErrName
		}
	}
	return nil
}
