// Package revision keeps the policies that were in force, with who put them there.
package revision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ErrUnknown is wrapped when no revision of that name is kept.
var ErrUnknown = errors.New("revision is not known")

// Entry is one moment at which a policy came into force.
type Entry struct {
	Revision string    `json:"revision"`
	Time     time.Time `json:"time"`
	How      string    `json:"how"` // start, reload, promote or rollback
	By       string    `json:"by"`
	Reason   string    `json:"reason,omitzero"`
	From     string    `json:"from,omitzero"` // path that it was read from
}

// Keeper keeps revisions in a directory: each in a folder of its name, the history, and
// which one is pinned. One process writes; any may read.
type Keeper struct{ dir string }

// New returns a keeper of the directory dir, which is made when first written to.
func New(dir string) *Keeper { return &Keeper{dir: dir} }

var name = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

const (
	historyFile = "history.jsonl"
	pinFile     = "pinned"
)

// Keep copies a policy's files, unless that revision is kept already.
func (k *Keeper) Keep(revision string, files fs.FS) error {
	if !name.MatchString(revision) {
		return fmt.Errorf("keeping policy: %w: %q", ErrUnknown, revision)
	}
	to := filepath.Join(k.dir, revision)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return fmt.Errorf("keeping policy: %w", err)
	}
	part, err := os.MkdirTemp(k.dir, ".part-")
	if err != nil {
		return fmt.Errorf("keeping policy: %w", err)
	}
	defer os.RemoveAll(part)
	err = fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		return copyOne(files, part, path, d, err)
	})
	if err != nil {
		return fmt.Errorf("keeping policy: %w", err)
	}
	if err := os.Rename(part, to); err != nil {
		return fmt.Errorf("keeping policy: %w", err)
	}
	return nil
}

// copyOne copies what may be part of a policy.
func copyOne(files fs.FS, to, path string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	hidden := strings.HasPrefix(d.Name(), ".") && path != "."
	if d.IsDir() {
		if hidden {
			return fs.SkipDir
		}
		return os.MkdirAll(filepath.Join(to, filepath.FromSlash(path)), 0o700)
	}
	switch filepath.Ext(path) {
	case ".rego", ".yaml", ".yml", ".json":
	default:
		return nil
	}
	b, err := fs.ReadFile(files, path)
	if err != nil || hidden {
		return err
	}
	return os.WriteFile(filepath.Join(to, filepath.FromSlash(path)), b, 0o600)
}

// Files returns the files of a revision.
func (k *Keeper) Files(revision string) (fs.FS, error) {
	dir := filepath.Join(k.dir, revision)
	if _, err := os.Stat(dir); err != nil || !name.MatchString(revision) {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, revision)
	}
	return os.DirFS(dir), nil
}

// Find completes the beginning of a revision's name.
func (k *Keeper) Find(begin string) (string, error) {
	list, err := filepath.Glob(filepath.Join(k.dir, "*"))
	if err != nil {
		return "", err
	}
	var found []string
	for _, p := range list {
		if n := filepath.Base(p); name.MatchString(n) && begin != "" && strings.HasPrefix(n, begin) {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%w: %s is the beginning of %d revisions that are kept", ErrUnknown, begin, len(found))
	}
	return found[0], nil
}

// Note adds to the history. It is on disk when Note returns.
func (k *Keeper) Note(e Entry) error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return fmt.Errorf("noting policy: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(k.dir, historyFile), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("noting policy: %w", err)
	}
	b, err := json.Marshal(e)
	if torn(f) {
		b = append([]byte("\n"), b...)
	}
	if err == nil {
		_, err = f.Write(append(b, '\n'))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("noting policy: %w", err)
	}
	return nil
}

// torn reports whether a crash left the last line half-written.
func torn(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}

// History returns all entries, oldest first. A line that a crash left half-written is
// passed over.
func (k *Keeper) History() ([]Entry, error) {
	b, err := os.ReadFile(filepath.Join(k.dir, historyFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading history of the policy: %w", err)
	}
	var out []Entry
	for line := range bytes.Lines(b) {
		var e Entry
		if json.Unmarshal(line, &e) == nil {
			out = append(out, e)
		}
	}
	return out, nil
}

// Before returns the revision that was in force before the given one.
func (k *Keeper) Before(revision string) (string, error) {
	list, err := k.History()
	if err != nil {
		return "", err
	}
	last := -1
	for i, e := range list {
		if e.Revision == revision {
			last = i
		}
	}
	for i := last - 1; i >= 0; i-- {
		if list[i].Revision != revision {
			return list[i].Revision, nil
		}
	}
	return "", fmt.Errorf("%w: none was in force before %s", ErrUnknown, revision)
}

// Pinned returns the revision that decides whatever stands at policy.path, or nothing.
func (k *Keeper) Pinned() string {
	b, err := os.ReadFile(filepath.Join(k.dir, pinFile))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Pin makes a revision decide from now on, also after a restart; an empty one lets what
// stands at policy.path decide again.
func (k *Keeper) Pin(revision string) error {
	path := filepath.Join(k.dir, pinFile)
	if revision == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unpinning policy: %w", err)
		}
		return nil
	}
	if _, err := k.Files(revision); err != nil {
		return err
	}
	f, err := os.CreateTemp(k.dir, ".pin-")
	if err != nil {
		return fmt.Errorf("pinning policy: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(revision + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("pinning policy: %w", err)
	}
	return nil
}
