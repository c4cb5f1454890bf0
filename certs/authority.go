// Package certs makes the certificates that agents see inside intercepted tunnels.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

var (
	// ErrServerName is wrapped when a client asks inside a tunnel for another name
	// than the tunnel's.
	ErrServerName = errors.New("server name is not the tunnel's")
	// ErrCA is wrapped when a CA certificate or key cannot be used.
	ErrCA = errors.New("certificate authority is not usable")
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 23 * time.Hour // with the hour before: at most 24 h
	skew     = time.Hour      // how far an agent's clock may be behind
)

// Files of an authority in its directory.
const (
	CertFile = "ca.pem"
	keyFile  = "ca.key"
)

// Authority signs leaf certificates with one CA key. It is safe for concurrent use.
type Authority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	leafKey *ecdsa.PrivateKey // one for all leaves of this process: making keys costs more than it guards
	leafPub []byte            // SHA-1 of leafKey's public half, the leaves' key identifier
	pem     []byte
	now     func() time.Time
	leaves  leaves
	minting chan struct{} // holds one for each certificate that is being made
}

// Open loads the authority in dir, or makes one there when there is none: P-256,
// ten years, key file with mode 0600. Two processes that race to make it end up
// with the same one.
func Open(dir string) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, CertFile), filepath.Join(dir, keyFile)
	if _, err := os.Stat(certPath); errors.Is(err, os.ErrNotExist) {
		if err := create(dir, certPath, keyPath); err != nil {
			return nil, fmt.Errorf("making the certificate authority: %w", err)
		}
	}
	return Files(certPath, keyPath)
}

// Files loads an operator's own authority. The key file must not be readable by
// others.
func Files(certPath, keyPath string) (*Authority, error) {
	cert, err := os.ReadFile(certPath)
	if err != nil {
		return nil, fmt.Errorf("reading CA certificate: %w", err)
	}
	info, err := os.Stat(keyPath)
	if err != nil {
		return nil, fmt.Errorf("reading CA key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: others may read %s (chmod 600 %s)", ErrCA, keyPath, keyPath)
	}
	key, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, fmt.Errorf("reading CA key: %w", err)
	}
	a, err := Load(cert, key)
	if err != nil {
		return nil, fmt.Errorf("loading CA from %s and %s: %w", certPath, keyPath, err)
	}
	return a, nil
}

// Load makes an authority of a PEM certificate and its PEM key in PKCS#1, PKCS#8
// or SEC 1 form. Errors wrap [ErrCA].
func Load(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%w: the key is not the certificate's", ErrCA)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the leaf key: %w", err)
	}
	id, err := keyID(leafKey.Public())
	if err != nil {
		return nil, err
	}
	return &Authority{
		cert: cert, key: key, leafKey: leafKey, leafPub: id, now: time.Now,
		pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), minting: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
	}, nil
}

// PEM returns the CA's certificate; it must not be changed.
func (a *Authority) PEM() []byte { return a.pem }

// Certificate returns the CA's certificate; it must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

func parseCert(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%w: the certificate is not PEM", ErrCA)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCA, err)
	case !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%w: the certificate is not a CA's (basic constraints CA:TRUE, key usage certificate sign)", ErrCA)
	case time.Now().Before(cert.NotBefore):
		return nil, fmt.Errorf("%w: the certificate is not valid before %s; check the clock", ErrCA, cert.NotBefore.Format(time.RFC3339))
	case time.Now().After(cert.NotAfter):
		return nil, fmt.Errorf("%w: the certificate expired on %s", ErrCA, cert.NotAfter.Format(time.DateOnly))
	}
	return cert, nil
}

func parseKey(b []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, fmt.Errorf("%w: the key is not PEM in PKCS#1, PKCS#8 or SEC 1 form", ErrCA)
		}
		var key any
		var err error
		switch block.Type {
		case "EC PARAMETERS": // openssl ecparam writes it before the key
			continue
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, fmt.Errorf("%w: the key is encrypted; write it unencrypted with `openssl pkey`, mode 0600", ErrCA)
		default:
			return nil, fmt.Errorf("%w: a PEM block %q is no private key", ErrCA, block.Type)
		}
		if block.Headers["DEK-Info"] != "" {
			return nil, fmt.Errorf("%w: the key is encrypted; write it unencrypted with `openssl pkey`, mode 0600", ErrCA)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: the key cannot be parsed", ErrCA) // err may quote key material
		}
		if _, ok := key.(ed25519.PrivateKey); ok {
			return nil, fmt.Errorf("%w: many clients refuse Ed25519; use ECDSA P-256", ErrCA)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%w: the key cannot sign", ErrCA)
		}
		return signer, nil
	}
}

// create makes key and certificate and puts them into place, the key first. Who
// comes second to the key waits for nobody: it signs a certificate for the key
// that is there, so that the pair always matches.
func create(dir, certPath, keyPath string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(keyPath); errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := place(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(keyPath)
	if err != nil {
		return err
	}
	key, err := parseKey(b)
	if err != nil {
		return err
	}
	cert, err := selfSign(key)
	if err != nil {
		return err
	}
	return place(certPath, cert, 0o644)
}

// place writes a file whole or not at all, and leaves one that is there.
func place(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), path); errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func selfSign(key crypto.Signer) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "chaperone CA " + hex.EncodeToString(id[:4]), Organization: []string{"chaperone"}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id,
		AuthorityKeyId:        id,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// keyID is the SHA-1 of the public key, RFC 5280 section 4.2.1.2; it identifies
// and protects nothing.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum(der)
	return sum[:], nil
}

// newSerial returns 127 random bits, RFC 5280 section 4.1.2.2.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
