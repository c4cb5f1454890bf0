// Package proof shows that the decision log is whole: a Merkle tree over its lines
// (RFC 6962), checkpoints of it signed and kept elsewhere (C2SP tlog-checkpoint), and
// proofs that a line is in the log which anybody can check without it (C2SP tlog-proof).
package proof

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// ErrKey is wrapped when a key of the log cannot be used.
var ErrKey = errors.New("key of the log cannot be used")

// Key signs for one log. Its name is the log's origin.
type Key struct {
	note.Signer
	Public
}

// Public is the half of a [Key] that checks signatures.
type Public struct {
	note.Verifier
	Text string // NAME+HASH+KEY, as signed notes have it
}

// Name is the log's origin.
func (k *Key) Name() string { return k.Signer.Name() }

// KeyHash identifies the key among those of its name.
func (k *Key) KeyHash() uint32 { return k.Signer.KeyHash() }

// PublicFile is where the public half of the key at path is.
func PublicFile(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ".pub" }

// OpenKey reads the key at path. Where there is none it makes one, mode 0600, for an
// origin of its own, and puts the public half beside it.
func OpenKey(path string) (*Key, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%w: %s holds no signer's key", ErrKey, path)
	}
	public, err := LoadPublic(PublicFile(path))
	if err != nil {
		return nil, err
	}
	if public.Name() != signer.Name() || public.KeyHash() != signer.KeyHash() {
		return nil, fmt.Errorf("%w: %s and %s do not belong together", ErrKey, path, PublicFile(path))
	}
	return &Key{signer, *public}, nil
}

func makeKey(path string) (*Key, error) {
	id := make([]byte, 6)
	if _, err := rand.Read(id); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	private, public, err := note.GenerateKey(rand.Reader, "chaperone.log/"+hex.EncodeToString(id))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	// The public half first: a key without it would sign what nobody can check.
	if err := keepKey(PublicFile(path), public, 0o644, os.Rename); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if err := keepKey(path, private, 0o600, os.Link); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return OpenKey(path)
}

// keepKey puts half of a key into its place, whole, and returns when it is on disk and
// so is its name: what it signs must not outlive it in a power cut.
func keepKey(path, text string, mode os.FileMode, place func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text + "\n")
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// LoadPublic reads the public half of a key from a file.
func LoadPublic(path string) (*Public, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return ParsePublic(string(text))
}

// ParsePublic reads NAME+HASH+KEY.
func ParsePublic(text string) (*Public, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("%w: not NAME+HASH+KEY of a log", ErrKey)
	}
	return &Public{v, text}, nil
}
