package proof

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var (
	// ErrCheckpoint is wrapped when a text is no checkpoint of this log.
	ErrCheckpoint = errors.New("not a checkpoint of this log")
	// ErrRolledBack is wrapped when the log is not a continuation of a checkpoint:
	// something that was signed was changed or taken away.
	ErrRolledBack = errors.New("the log does not continue what was signed")
)

// Checkpoint says how many lines a log had, and the root of their tree. Its text is
// that of C2SP tlog-checkpoint: origin, size, root, signatures.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
	Text   []byte // signed
}

// checkpointFile holds the newest checkpoint of the log at path.
func checkpointFile(path string) string { return path + ".checkpoint" }

// LatestFile is where the newest checkpoint of the log at path is.
func LatestFile(path string) string { return checkpointFile(path) }

// sign makes the checkpoint of a tree.
func sign(t *Tree, key *Key) (*Checkpoint, error) {
	size := t.Size()
	root, err := t.Root(size)
	if err != nil {
		return nil, err
	}
	text := key.Name() + "\n" + strconv.FormatInt(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
	signed, err := note.Sign(&note.Note{Text: text}, key.Signer)
	if err != nil {
		return nil, fmt.Errorf("signing checkpoint: %w", err)
	}
	return &Checkpoint{key.Name(), size, root, signed}, nil
}

// ParseCheckpoint reads a checkpoint and checks its signature.
func ParseCheckpoint(text []byte, key *Public) (*Checkpoint, error) {
	n, err := note.Open(text, note.VerifierList(key.Verifier))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCheckpoint, err)
	}
	lines := strings.SplitN(n.Text, "\n", 4)
	if len(lines) < 4 || lines[0] != key.Name() {
		return nil, fmt.Errorf("%w: it is for %q", ErrCheckpoint, lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, rerr := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || rerr != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] || len(root) != tlog.HashSize {
		return nil, fmt.Errorf("%w: size or root cannot be read", ErrCheckpoint)
	}
	return &Checkpoint{lines[0], size, tlog.Hash(root), text}, nil
}

// LoadCheckpoint reads a checkpoint from a file.
func LoadCheckpoint(name string, key *Public) (*Checkpoint, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading checkpoint: %w", err)
	}
	c, err := ParseCheckpoint(text, key)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return c, nil
}

// keepCheckpoint writes a checkpoint beside the log and into folders elsewhere, into
// each under its size as a new file, so that folders that take no change will do.
func keepCheckpoint(c *Checkpoint, path string, elsewhere []string) error {
	err := replaceFile(checkpointFile(path), c.Text)
	for _, dir := range elsewhere {
		name := filepath.Join(dir, fmt.Sprintf("%012d.checkpoint", c.Size))
		if derr := newFile(name, c.Text); derr != nil {
			err = errors.Join(err, fmt.Errorf("writing checkpoint: %w", derr))
		}
	}
	return err
}

func newFile(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil // it was written before
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func replaceFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("writing checkpoint: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("writing checkpoint: %w", err)
	}
	return nil
}

// Age is how old the newest checkpoint is.
func Age(path string, now time.Time) (time.Duration, error) {
	info, err := os.Stat(checkpointFile(path))
	if err != nil {
		return 0, fmt.Errorf("looking for checkpoint: %w", err)
	}
	return now.Sub(info.ModTime()), nil
}
