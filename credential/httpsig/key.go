package httpsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"chaperone/credential/internal/secret"
)

// Algorithms are those of RFC 9421 section 3.3.
var Algorithms = []string{"ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512", "rsa-v1_5-sha256", HMAC}

// HMAC is the one algorithm whose key both sides have.
const HMAC = "hmac-sha256"

// Key signs with one algorithm. It is safe for concurrent use.
type Key struct {
	id   string // as a structured field
	sign func(base []byte) ([]byte, error)
}

// Format keeps the key from being printed.
func (*Key) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

// NewKey reads the key of an algorithm: a private key in PEM, or the bytes that both
// sides have. id is what keyid says. No error repeats any of it.
func NewKey(algorithm, id string, material secret.Secret) (*Key, error) {
	text, err := quoted(id)
	if err != nil {
		return nil, errors.New("the key's id has other characters than those of ASCII that print")
	}
	k := &Key{id: text}
	if algorithm == HMAC {
		if len(secret.Reveal(material)) < 16 {
			return nil, errors.New("a shared secret of less than 16 bytes is too short")
		}
		k.sign = func(base []byte) ([]byte, error) {
			h := hmac.New(sha256.New, secret.Reveal(material))
			h.Write(base)
			return h.Sum(nil), nil
		}
		return k, nil
	}
	block, _ := pem.Decode(secret.Reveal(material))
	if block == nil {
		return nil, errors.New("this is no private key in PEM")
	}
	private, err := parse(block.Bytes)
	if err != nil {
		return nil, errors.New("this is no private key in PEM") // the parser's words say nothing that helps
	}
	k.sign, err = signer(algorithm, private)
	return k, err
}

// parse reads PKCS #8, also of RSA keys that are for PSS alone (RFC 4055 section 1.2),
// PKCS #1 and SEC 1.
func parse(der []byte) (any, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	var outer struct {
		Version   int
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Key []byte
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	}
	if !outer.Algorithm.ID.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}) {
		return nil, errors.New("a key of another algorithm")
	}
	return x509.ParsePKCS1PrivateKey(outer.Key)
}

// signer is how a private key signs with an algorithm (sections 3.3.1 to 3.3.6).
func signer(algorithm string, private any) (func([]byte) ([]byte, error), error) {
	switch key := private.(type) {
	case ed25519.PrivateKey:
		if algorithm == "ed25519" {
			return func(base []byte) ([]byte, error) { return ed25519.Sign(key, base), nil }, nil
		}
	case *ecdsa.PrivateKey:
		switch {
		case algorithm == "ecdsa-p256-sha256" && key.Curve == elliptic.P256():
			return func(base []byte) ([]byte, error) { sum := sha256.Sum256(base); return signECDSA(key, sum[:]) }, nil
		case algorithm == "ecdsa-p384-sha384" && key.Curve == elliptic.P384():
			return func(base []byte) ([]byte, error) { sum := sha512.Sum384(base); return signECDSA(key, sum[:]) }, nil
		}
	case *rsa.PrivateKey:
		if key.N.BitLen() < 2048 {
			return nil, fmt.Errorf("an RSA key of %d bits is too short", key.N.BitLen())
		}
		switch algorithm {
		case "rsa-pss-sha512":
			return func(base []byte) ([]byte, error) {
				sum := sha512.Sum512(base)
				return rsa.SignPSS(rand.Reader, key, crypto.SHA512, sum[:], &rsa.PSSOptions{SaltLength: 64})
			}, nil
		case "rsa-v1_5-sha256":
			return func(base []byte) ([]byte, error) {
				sum := sha256.Sum256(base)
				return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
			}, nil
		}
	}
	return nil, fmt.Errorf("this is no key for %s", algorithm)
}

// signECDSA gives both halves one after the other, each as long as the curve's numbers.
func signECDSA(key *ecdsa.PrivateKey, sum []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, sum)
	if err != nil {
		return nil, err
	}
	n := (key.Params().BitSize + 7) / 8
	out := make([]byte, 2*n)
	r.FillBytes(out[:n])
	s.FillBytes(out[n:])
	return out, nil
}
