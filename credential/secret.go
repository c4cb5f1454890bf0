// Package credential keeps real secrets, hands out handles that stand for them,
// and turns a handle into its secret only against a permit.
package credential

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"

	"chaperone/credential/internal/secret"
)

// Secret holds bytes that nothing prints: no format verb, logger or encoder.
type Secret = secret.Secret

// NewSecret keeps a copy of b.
func NewSecret(b []byte) Secret { return secret.New(b) }

// Key is the installation's key, from which all others are derived. It prints as
// a Secret does.
type Key struct{ Secret }

// KeySize is the length of a key in bytes.
const KeySize = 32

// ErrKey is wrapped when a key or what was sealed with it cannot be used.
var ErrKey = errors.New("installation key")

// NewKey makes a key.
func NewKey() (Key, error) {
	b := make([]byte, KeySize)
	if _, err := rand.Read(b); err != nil {
		return Key{}, fmt.Errorf("making a key: %w", err)
	}
	return Key{NewSecret(b)}, nil
}

// ParseKey takes a key of exactly [KeySize] bytes.
func ParseKey(b []byte) (Key, error) {
	if len(b) != KeySize {
		return Key{}, fmt.Errorf("%w: it has %d bytes, want %d", ErrKey, len(b), KeySize)
	}
	return Key{NewSecret(b)}, nil
}

// Bytes returns the key for whoever stores it.
func (k Key) Bytes() []byte { return append([]byte(nil), secret.Reveal(k.Secret)...) }

// derive returns a key for one purpose, RFC 5869.
func (k Key) derive(purpose string, salt []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret.Reveal(k.Secret), salt, "chaperone "+purpose, KeySize)
}

// saltSize is the length of the salt that makes each sealing key a new one, in bytes.
const saltSize = 16

// seal encrypts a secret with AES-256-GCM under a key of its own, bound to what it
// belongs to. The result is salt, nonce and ciphertext.
func (k Key) seal(s Secret, belongs string) ([]byte, error) {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	aead, err := k.aead(salt)
	if err != nil {
		return nil, err
	}
	return append(salt, aead.Seal(nil, nil, secret.Reveal(s), []byte(belongs))...), nil
}

// open decrypts what seal made for the same key and belonging.
func (k Key) open(sealed []byte, belongs string) (Secret, error) {
	if len(sealed) < saltSize {
		return Secret{}, fmt.Errorf("%w: what was sealed is damaged", ErrKey)
	}
	aead, err := k.aead(sealed[:saltSize])
	if err != nil {
		return Secret{}, err
	}
	b, err := aead.Open(nil, nil, sealed[saltSize:], []byte(belongs))
	if err != nil {
		return Secret{}, fmt.Errorf("%w: it does not open what is in the store; it is another installation's, or the store was changed", ErrKey)
	}
	return secret.New(b), nil
}

// Seal encrypts what the installation keeps of its own beside credentials. belongs names
// it, and nothing else opens under that name.
func (k Key) Seal(b []byte, belongs string) ([]byte, error) {
	return k.seal(NewSecret(b), "installation "+belongs)
}

// Open is the reverse of Seal. Errors wrap [ErrKey].
func (k Key) Open(sealed []byte, belongs string) ([]byte, error) {
	s, err := k.open(sealed, "installation "+belongs)
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), secret.Reveal(s)...), nil
}

func (k Key) aead(salt []byte) (cipher.AEAD, error) {
	key, err := k.derive("seal", salt)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// mac is the keyed hash under which tokens and handles are stored and recorded.
type mac struct{ states *sync.Pool } // of *macState

// macState is a hash that has taken in the key, with room for what goes in and out.
type macState struct {
	h   hash.Hash
	in  []byte
	out [sha256.Size]byte
}

func (k Key) mac(purpose string) (mac, error) {
	key, err := k.derive(purpose, nil)
	return mac{&sync.Pool{New: func() any { return &macState{h: hmac.New(sha256.New, key)} }}}, err
}

func (m mac) sum(s string) [sha256.Size]byte {
	st := m.states.Get().(*macState)
	defer m.states.Put(st)
	st.h.Reset()
	st.in = append(st.in[:0], s...)
	st.h.Write(st.in)
	st.h.Sum(st.out[:0])
	return st.out
}

// fingerprint is short enough to read and long enough to tell apart.
func (m mac) fingerprint(s string) string {
	sum := m.sum(s)
	b := make([]byte, 0, 14)
	b = append(b, "f_"...)
	for _, c := range sum[:12] {
		b = append(b, alphabet[int(c)%len(alphabet)])
	}
	return string(b)
}
