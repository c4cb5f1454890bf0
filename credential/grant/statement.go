package grant

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"

	"chaperone/credential/internal/secret"
)

// ErrKey is wrapped when a private key cannot be read.
var ErrKey = errors.New("this is no private key in PEM")

// Signer signs statements (JWT, RFC 7519) with one private key.
type Signer struct {
	key crypto.Signer
	alg jwa.SignatureAlgorithm
	id  string // kid; empty: none is named
}

// NewSigner reads an RSA, ECDSA or Ed25519 key in PEM: PKCS #8, PKCS #1 or SEC 1.
func NewSigner(pemText secret.Secret, id string) (*Signer, error) {
	block, _ := pem.Decode(secret.Reveal(pemText))
	if block == nil {
		return nil, ErrKey
	}
	key, err := parseKey(block.Bytes)
	if err != nil {
		return nil, ErrKey // the parser's words say nothing that helps
	}
	s := &Signer{id: id}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return nil, fmt.Errorf("%w: an RSA key of %d bits is too short", ErrKey, k.N.BitLen())
		}
		s.key, s.alg = k, jwa.RS256()
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%w: of ECDSA only P-256 is signed with", ErrKey)
		}
		s.key, s.alg = k, jwa.ES256()
	case ed25519.PrivateKey:
		s.key, s.alg = k, jwa.EdDSA()
	default:
		return nil, ErrKey
	}
	return s, nil
}

func parseKey(der []byte) (any, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	return x509.ParseECPrivateKey(der)
}

// Sign returns the claims as a signed statement.
func (s *Signer) Sign(claims map[string]any) (secret.Secret, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return secret.Secret{}, err
	}
	h := jws.NewHeaders()
	err = h.Set(jws.TypeKey, "JWT")
	if err == nil && s.id != "" {
		err = h.Set(jws.KeyIDKey, s.id)
	}
	if err != nil {
		return secret.Secret{}, err
	}
	signed, err := jws.Sign(payload, jws.WithKey(s.alg, s.key, jws.WithProtectedHeaders(h)))
	if err != nil {
		return secret.Secret{}, errors.New("signing a statement: the key does not sign")
	}
	return secret.New(signed), nil
}
