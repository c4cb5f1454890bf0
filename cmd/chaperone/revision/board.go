package revision

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"chaperone/store"
)

var (
	// ErrMeanwhile is wrapped when another replica put a policy in force meanwhile.
	ErrMeanwhile = errors.New("another replica has put a policy in force meanwhile")
	// ErrLarge is wrapped when a policy does not fit into the store.
	ErrLarge = errors.New("policy is larger than 1 MiB when packed")
)

// Standing is the policy that was put in force for all replicas.
type Standing struct {
	Entry
	// Pinned says that it decides whatever stands at policy.path. Else each replica
	// follows its own policy.path, where this one stood when it was promoted.
	Pinned  bool   `json:"pinned"`
	Replica string `json:"replica"` // that put it in force
}

// Board is where replicas find the policy that was put in force, its files, and those
// before it. It is a [store.Consumer], and safe for concurrent use.
type Board struct {
	store   store.Store
	changed chan struct{}

	mu      sync.Mutex
	at      Standing
	version uint64
}

// Names in the store. The standing one is small and followed; the others are read when
// they are needed.
const (
	standingName  = "policy/standing"
	filesPrefix   = "policyfiles/"
	historyPrefix = "policyhistory/"
)

// keptEntries is how many entries of the history, with their policies, stay in the store.
const keptEntries = 50

// NewBoard returns a board that knows of no policy yet.
func NewBoard(s store.Store) *Board {
	return &Board{store: s, changed: make(chan struct{}, 1)}
}

// Standing returns the policy that was put in force for all; it has no revision when
// there was none.
func (b *Board) Standing() Standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

// Changed is sent to when another policy was put in force. A nil board has none.
func (b *Board) Changed() <-chan struct{} {
	if b == nil {
		return nil
	}
	return b.changed
}

// Put puts a policy, whose kept files these are, in force for all replicas. Where
// another one was put in force that this board does not know of yet, it is
// ErrMeanwhile, and nothing changes. What was put there is to be recorded.
func (b *Board) Put(ctx context.Context, files fs.FS, s Standing) error {
	b.mu.Lock()
	version := b.version
	b.mu.Unlock()
	packed, err := pack(files)
	if err != nil {
		return fmt.Errorf("sharing policy: %w", err)
	}
	err = b.add(ctx, filesPrefix+s.Revision, packed)
	text, merr := json.Marshal(s)
	if err = errors.Join(err, merr); err != nil {
		return fmt.Errorf("sharing policy: %w", err)
	}
	e, err := b.store.Save(ctx, store.Entry{Name: standingName, Value: text, Version: version})
	if errors.Is(err, store.ErrConflict) {
		return ErrMeanwhile
	}
	if err != nil {
		return fmt.Errorf("sharing policy: %w", err)
	}
	b.take(e.Version, s)
	return nil
}

// Withdraw takes down what was put in force for all replicas, if anything was: each goes
// on with what it decides by.
func (b *Board) Withdraw(ctx context.Context) error {
	if err := b.store.Delete(ctx, standingName); err != nil {
		return fmt.Errorf("withdrawing the policy of all replicas: %w", err)
	}
	return nil
}

// Record adds to the history, with the files of that policy, unless it is there.
func (b *Board) Record(ctx context.Context, files fs.FS, e Entry) error {
	packed, perr := pack(files)
	line, err := json.Marshal(e)
	if err = errors.Join(perr, err); err == nil {
		err = errors.Join(b.add(ctx, filesPrefix+e.Revision, packed), b.add(ctx, fmt.Sprintf("%s%020d", historyPrefix, e.Time.UnixNano()), line), b.forget(ctx))
	}
	if err != nil {
		return fmt.Errorf("keeping history of the policy in the store: %w", err)
	}
	return nil
}

// add saves a value that never changes.
func (b *Board) add(ctx context.Context, name string, value []byte) error {
	if len(value) > store.MaxValue {
		return ErrLarge
	}
	_, err := b.store.Save(ctx, store.Entry{Name: name, Value: value})
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

func pack(files fs.FS) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	if err := errors.Join(w.AddFS(files), w.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Files returns the files of a revision.
func (b *Board) Files(ctx context.Context, revision string) (fs.FS, error) {
	e, err := b.store.Load(ctx, filesPrefix+revision)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, revision)
	}
	if err != nil {
		return nil, fmt.Errorf("reading policy from the store: %w", err)
	}
	z, err := zip.NewReader(bytes.NewReader(e.Value), int64(len(e.Value)))
	if err != nil {
		return nil, fmt.Errorf("reading policy from the store: %w", err)
	}
	return z, nil
}

// History returns how policies were put in force, oldest first.
func (b *Board) History(ctx context.Context) ([]Entry, error) {
	var out []Entry
	for e, err := range b.store.Scan(ctx, historyPrefix) {
		if err != nil {
			return nil, fmt.Errorf("reading history of the policy: %w", err)
		}
		var one Entry
		if json.Unmarshal(e.Value, &one) == nil {
			out = append(out, one)
		}
	}
	return out, nil
}

// forget removes from the store what is older than what is kept there.
func (b *Board) forget(ctx context.Context) error {
	var names []string
	var list []Entry
	for e, err := range b.store.Scan(ctx, historyPrefix) {
		if err != nil {
			return err
		}
		var one Entry
		json.Unmarshal(e.Value, &one) // of another version: it names no revision
		names, list = append(names, e.Name), append(list, one)
	}
	old := max(0, len(list)-keptEntries)
	var errs error
	for i := range old {
		used := slices.ContainsFunc(list[old:], func(e Entry) bool { return e.Revision == list[i].Revision })
		if !used && list[i].Revision != "" {
			errs = errors.Join(errs, b.store.Delete(ctx, filesPrefix+list[i].Revision))
		}
		errs = errors.Join(errs, b.store.Delete(ctx, names[i]))
	}
	return errs
}

// take notes what stands, unless it is older than what is known.
func (b *Board) take(version uint64, s Standing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if version <= b.version {
		return
	}
	b.version, b.at = version, s
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// Prefixes implements [store.Consumer].
func (b *Board) Prefixes() []string { return []string{standingName} }

// Begin implements [store.Consumer]: what is not told again was lost with the store, and
// what is in force stays.
func (b *Board) Begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version = 0
}

// Take implements [store.Consumer].
func (b *Board) Take(c store.Change) error {
	if !strings.HasPrefix(c.Entry.Name, standingName) {
		return nil
	}
	if c.Gone {
		b.Begin()
		return nil
	}
	var s Standing
	if err := json.Unmarshal(c.Entry.Value, &s); err != nil {
		return nil // of another version: what is in force stays
	}
	b.take(c.Seq, s)
	return nil
}

// Loaded implements [store.Consumer].
func (b *Board) Loaded() {}

// Missing returns the entries of a list that another does not have.
func Missing(list, from []Entry) []Entry {
	type moment struct {
		revision string
		at       time.Time
	}
	known := map[moment]bool{}
	for _, e := range from {
		known[moment{e.Revision, e.Time.UTC()}] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(e Entry) bool { return known[moment{e.Revision, e.Time.UTC()}] })
}
