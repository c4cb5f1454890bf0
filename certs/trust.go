package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"software.sslmate.com/src/go-pkcs12"
)

// systemBundles are the files in which systems keep their roots, as crypto/x509
// looks for them.
var systemBundles = [...]string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// ErrNoRoots is wrapped by Bundle where no roots are found.
var ErrNoRoots = errors.New("no root certificates found")

// Bundle returns PEM roots with the CA among them, each once, for the variables
// that replace a client's roots. The roots are those of all the files given, or
// the system's when there is none: give the file that such a variable named before.
func (a *Authority) Bundle(files ...string) ([]byte, error) {
	if len(files) == 0 {
		file, err := systemBundle()
		if err != nil {
			return nil, err
		}
		files = []string{file}
	}
	var out bytes.Buffer
	seen := map[string]bool{string(a.cert.Raw): true}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading roots: %w", err)
		}
		if !merge(&out, b, seen) {
			return nil, fmt.Errorf("reading roots: %s: %w", name, ErrNoRoots)
		}
	}
	out.Write(a.pem)
	return out.Bytes(), nil
}

// merge copies the certificates that were not seen yet, and reports whether there
// were any at all.
func merge(out *bytes.Buffer, b []byte, seen map[string]bool) bool {
	found := false
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return found
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		found = true
		if !seen[string(block.Bytes)] {
			seen[string(block.Bytes)] = true
			pem.Encode(out, &pem.Block{Type: block.Type, Bytes: block.Bytes}) // a buffer takes all
		}
	}
}

func systemBundle() (string, error) {
	for _, name := range systemBundles {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", ErrNoRoots
}

// TrustStore returns the certificates of a PEM bundle in PKCS#12, as Java reads it.
// One that cannot be parsed is left out. The password guards nothing, but Java
// wants one.
func TrustStore(bundle []byte, password string) ([]byte, error) {
	var entries []pkcs12.TrustStoreEntry
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err == nil {
			entries = append(entries, pkcs12.TrustStoreEntry{Cert: cert, FriendlyName: fmt.Sprintf("root-%d", len(entries))})
		}
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("writing trust store: %w", ErrNoRoots)
	}
	b, err := pkcs12.Modern.EncodeTrustStoreEntries(entries, password)
	if err != nil {
		return nil, fmt.Errorf("writing trust store: %w", err)
	}
	return b, nil
}
