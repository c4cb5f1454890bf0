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
	if err := os.WriteFile(PublicFile(path), []byte(public+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	_, err = f.WriteString(private + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return OpenKey(path)
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
