package redis

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"chaperone/store"
)

// seal keeps what entries say from whoever reads the server: names are keyed hashes
// there, and values are sealed together with their names.
type seal struct {
	names []byte
	aead  cipher.AEAD
	check string // tells one key from another and nothing about it
}

// MinKey is the least length of a key, in bytes.
const MinKey = 32

func newSeal(key []byte) (*seal, error) {
	if len(key) < MinKey {
		return nil, fmt.Errorf("the key that seals entries has %d bytes, and needs %d", len(key), MinKey)
	}
	s := &seal{}
	var derived [3][]byte
	for i, use := range [...]string{"redis names", "redis values", "redis check"} {
		var err error
		if derived[i], err = hkdf.Key(sha256.New, key, nil, "chaperone store/"+use, 32); err != nil {
			return nil, err
		}
	}
	block, err := aes.NewCipher(derived[1])
	if err != nil {
		return nil, err
	}
	s.names, s.check = derived[0], base64.RawURLEncoding.EncodeToString(derived[2][:16])
	s.aead, err = cipher.NewGCM(block)
	return s, err
}

// class is the first part of a name, which stands in clear: what kind of entry it is.
func class(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return first
}

// field is the name under which an entry is kept.
func (s *seal) field(name string) string {
	h := hmac.New(sha256.New, s.names)
	h.Write([]byte(name))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// close seals a value with its name. The field is bound to it, so that no entry can
// be put in the place of another.
func (s *seal) close(name string, value []byte, field string) []byte {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+binary.MaxVarintLen64+len(name)+len(value)+s.aead.Overhead())
	rand.Read(nonce)
	plain := binary.AppendUvarint(nil, uint64(len(name)))
	plain = append(append(plain, name...), value...)
	return s.aead.Seal(nonce, nonce, plain, []byte(field))
}

// open is the reverse of close. It leaves what is sealed as the opened text, of which
// name and value are parts.
func (s *seal) open(sealed []byte, field string) (name, value []byte, err error) {
	n := s.aead.NonceSize()
	if len(sealed) < n {
		return nil, nil, errDamaged
	}
	plain, err := s.aead.Open(sealed[n:n], sealed[:n], sealed[n:], []byte(field))
	if err != nil {
		return nil, nil, errDamaged
	}
	size, k := binary.Uvarint(plain)
	if k <= 0 || size > uint64(len(plain)-k) {
		return nil, nil, errDamaged
	}
	return plain[k : k+int(size) : k+int(size)], plain[k+int(size):], nil
}

var errDamaged = errors.New("an entry is damaged, or was sealed with another key")

// place checks a name and says which keys and field its entry has.
func (s *Store) place(name string) (keys []string, field string, err error) {
	if err := store.CheckName(name); err != nil {
		return nil, "", err
	}
	c := class(name)
	return []string{s.key("e:" + c), s.key("head"), s.key("changes"), s.key("x:" + c), s.key("classes")}, s.seal.field(name), nil
}
