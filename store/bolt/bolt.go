// Package bolt keeps a [store.Store] in one file of the local disk, for one process.
package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"chaperone/store"
)

// Store is a [store.Store] in a bbolt file. Every Save and Delete is one synced
// transaction, which takes some milliseconds; those that come while one is under way
// share the next.
type Store struct {
	db    *bbolt.DB
	now   func() time.Time
	swept []byte // the name at which the next sweep begins; written in transactions that write, of which there is one

	group   *group
	history *history
	closed  chan struct{}
	closing sync.Once
}

// After sweepEvery writes, sweepMost entries are looked at and dropped if they
// have expired, so that the file is bounded by what is alive.
const (
	sweepEvery = 64
	sweepMost  = 256
)

var _ store.Feed = (*Store)(nil)

// Options of a Store; the zero value is good.
type Options struct {
	// Now tells the time by which entries expire; time.Now when nil.
	Now func() time.Time
	// Wait is how long to wait for another process to let go of the file; 1 s when zero.
	Wait time.Duration
}

var bucket = []byte("entries")

// Before each value stand its version, its expiry (unix nanoseconds, 0: never) and a
// checksum of all, without which a disk that forgets would change what is known. Files
// begun by older programs have entries without it; the version's highest bit tells.
const (
	header = 16
	sum    = 4
	summed = 1 << 63
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open opens the file at path, which it makes with mode 0600 when there is none.
// It returns [store.ErrInUse] while another process has it open.
func Open(path string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == 0 {
		o.Wait = time.Second
	}
	s := &Store{now: o.Now, closed: make(chan struct{})}
	if err := s.open(path, o.Wait); err != nil {
		if s.db != nil {
			s.db.Close()
		}
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return s, nil
}

// open opens the file and reads all of it once. A damaged one makes bbolt panic,
// or fault where the file is shorter than it says; both become an error here,
// rather than the end of the process at some later request.
func (s *Store) open(path string, wait time.Duration) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", store.ErrDamaged, p)
		}
	}()
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("its mode is %v; others may read it (chmod 600 %s)", info.Mode().Perm(), path)
	}
	if err == nil && info.Size() > 0 && info.Size() < 2*int64(os.Getpagesize()) {
		return fmt.Errorf("%w (%d bytes are left of it)", store.ErrDamaged, info.Size())
	}
	if err := s.acquire(path, wait); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.compact(path, wait); err != nil {
		return err
	}
	s.group = &group{db: s.db}
	last, err := s.sequence()
	s.history = newHistory(last)
	return err
}

// acquire opens the file and locks it. One that was put in its place while this one
// waited for the lock is opened instead: the other has no name any more.
func (s *Store) acquire(path string, wait time.Duration) error {
	for {
		var locked *os.File
		o := &bbolt.Options{Timeout: wait, FreelistType: bbolt.FreelistMapType, OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, mode)
			locked = f
			return f, err
		}}
		// The freelist is synced: without it, bbolt looks for free pages in a goroutine
		// of its own, whose panic over a damaged file nobody could catch.
		db, err := bbolt.Open(path, 0o600, o)
		switch {
		case errors.Is(err, berrors.ErrTimeout):
			return store.ErrInUse
		case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
			return fmt.Errorf("%w (%w)", store.ErrDamaged, err)
		case err != nil:
			return err
		}
		s.db = db
		has, err := locked.Stat()
		if err != nil {
			return err
		}
		if is, err := os.Stat(path); err == nil && os.SameFile(has, is) {
			return nil
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
}

// prepare makes the bucket, and drops what expired while nobody looked.
func (s *Store) prepare() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		return s.sweep(b, math.MaxInt)
	})
}

// sweep drops what has expired of the next entries, at most as many as given.
func (s *Store) sweep(b *bbolt.Bucket, most int) error {
	var dead [][]byte
	now := s.now().UnixNano()
	c := b.Cursor()
	k, v := c.Seek(s.swept)
	for ; k != nil && most > 0; most-- {
		_, expires, _, err := parse(k, v)
		if err != nil {
			return err
		}
		if past(expires, now) {
			dead = append(dead, bytes.Clone(k))
		}
		k, v = c.Next()
	}
	s.swept = bytes.Clone(k) // nil at the end: begin anew
	for _, k := range dead {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// past reports whether a moment in unix nanoseconds is over by now; 0 never is.
func past(expires, now int64) bool { return expires != 0 && now >= expires }

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, name string) (store.Entry, error) {
	if err := ready(ctx, name); err != nil {
		return store.Entry{}, err
	}
	var e store.Entry
	err := s.db.View(func(tx *bbolt.Tx) error {
		var err error
		e, err = s.find(tx.Bucket(bucket), name)
		return err
	})
	if err != nil {
		return store.Entry{}, named(name, err)
	}
	return e, nil
}

// Save implements [store.Store].
func (s *Store) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	if err := ready(ctx, e.Name); err != nil {
		return store.Entry{}, err
	}
	if len(e.Value) > store.MaxValue {
		return store.Entry{}, named(e.Name, store.ErrTooLarge)
	}
	var saved store.Entry
	err := s.group.write(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		old, err := s.find(b, e.Name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if old.Version != e.Version {
			return store.ErrConflict
		}
		next, err := b.NextSequence() // never repeats, so a deleted and remade entry is another version
		if err != nil {
			return err
		}
		saved = store.Entry{Name: e.Name, Value: bytes.Clone(e.Value), Version: next, Expires: e.Expires}
		if err := b.Put([]byte(e.Name), encode(saved)); err != nil || next%sweepEvery != 0 {
			return err
		}
		return s.sweep(b, sweepMost)
	})
	if err != nil {
		return store.Entry{}, named(e.Name, err)
	}
	s.history.tell(store.Entry{Name: saved.Name, Value: bytes.Clone(saved.Value), Version: saved.Version, Expires: saved.Expires}, saved.Version, false)
	return saved, nil
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := ready(ctx, name); err != nil {
		return err
	}
	var seq uint64 // 0: there was none
	err := s.group.write(func(tx *bbolt.Tx) (err error) {
		b := tx.Bucket(bucket)
		if seq = 0; b.Get([]byte(name)) == nil {
			return nil
		}
		if seq, err = b.NextSequence(); err != nil {
			return err
		}
		return b.Delete([]byte(name))
	})
	if err == nil && seq != 0 {
		s.history.tell(store.Entry{Name: name, Version: seq}, seq, true)
	}
	return named(name, err)
}

// Scan implements [store.Store].
func (s *Store) Scan(ctx context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		entries, err := s.collect(ctx, prefix)
		if err != nil {
			yield(store.Entry{}, named(prefix, err))
			return
		}
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// collect copies the entries out, so that whoever iterates may write and take
// all the time in the world without holding a transaction open.
func (s *Store) collect(ctx context.Context, prefix string) ([]store.Entry, error) {
	var out []store.Entry
	now := s.now().UnixNano()
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			e, err := decode(k, v, now)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// Close implements [store.Store]. It waits for transactions under way.
func (s *Store) Close() error {
	s.closing.Do(func() { close(s.closed) })
	return s.db.Close()
}

func (s *Store) find(b *bbolt.Bucket, name string) (store.Entry, error) {
	v := b.Get([]byte(name))
	if v == nil {
		return store.Entry{}, store.ErrNotFound
	}
	return decode([]byte(name), v, s.now().UnixNano())
}

func ready(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return named(name, store.CheckName(name))
}

func named(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		err = store.ErrClosed
	}
	return fmt.Errorf("%q: %w", name, err)
}

func encode(e store.Entry) []byte {
	b := make([]byte, header+sum, header+sum+len(e.Value))
	binary.BigEndian.PutUint64(b, e.Version|summed)
	binary.BigEndian.PutUint64(b[8:], uint64(nanos(e.Expires)))
	binary.BigEndian.PutUint32(b[header:], checksum([]byte(e.Name), b[:header], e.Value))
	return append(b, e.Value...)
}

func checksum(parts ...[]byte) (n uint32) {
	for _, p := range parts {
		n = crc32.Update(n, castagnoli, p)
	}
	return n
}

// nanos returns a moment in unix nanoseconds: 0 for never, and nothing else is
// ever taken for that.
func nanos(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Year() >= 2262: // beyond what 63 bits hold
		return math.MaxInt64
	case t.Unix() <= 0:
		return 1
	}
	return t.UnixNano()
}

// decode returns an entry, or ErrNotFound if it has expired by now.
func decode(k, v []byte, now int64) (store.Entry, error) {
	version, expires, value, err := parse(k, v)
	if err != nil {
		return store.Entry{}, err
	}
	if past(expires, now) {
		return store.Entry{}, store.ErrNotFound
	}
	return store.Entry{Name: string(k), Version: version, Value: bytes.Clone(value), Expires: moment(expires)}, nil
}

// moment is the reverse of nanos.
func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// parse takes apart what is kept of an entry, all of which it reads. The value is a part
// of v.
func parse(k, v []byte) (version uint64, expires int64, value []byte, err error) {
	if len(k) > store.MaxName || len(v) < header {
		return 0, 0, nil, wrong(k)
	}
	version, expires, value = binary.BigEndian.Uint64(v), int64(binary.BigEndian.Uint64(v[8:])), v[header:]
	if version&summed == 0 {
		checksum(k, v) // it has none to compare; but a file that is shorter than it says faults here
		if version == 0 || store.CheckName(string(k)) != nil {
			return 0, 0, nil, wrong(k)
		}
		return version, expires, value, nil
	}
	if len(value) < sum || binary.BigEndian.Uint32(value) != checksum(k, v[:header], value[sum:]) {
		return 0, 0, nil, wrong(k)
	}
	return version &^ summed, expires, value[sum:], nil
}

// wrong is the error of an entry that is not what was written.
func wrong(k []byte) error {
	if len(k) > store.MaxName || store.CheckName(string(k)) != nil {
		return fmt.Errorf("%w (an entry's name is not what was written)", store.ErrDamaged)
	}
	return fmt.Errorf("%w (%q is not what was written)", store.ErrDamaged, k)
}
