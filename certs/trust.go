package certs

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"software.sslmate.com/src/go-pkcs12"

	"crypto/x509"
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

// ErrNoRoots is returned by Bundle where no roots are found.
var ErrNoRoots = errors.New("no system roots found")

// Bundle returns PEM roots with the CA among them, for the variables that replace
// a client's roots. The roots are those of file, or the system's when it is empty.
func (a *Authority) Bundle(file string) ([]byte, error) {
	files := systemBundles[:]
	if file != "" {
		files = []string{file}
	}
	for _, name := range files {
		roots, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading roots: %w", err)
		}
		if bytes.Contains(roots, a.pem) {
			return roots, nil
		}
		return append(append(bytes.TrimRight(roots, "\n"), '\n'), a.pem...), nil
	}
	if file != "" {
		return nil, fmt.Errorf("reading roots: %s: %w", file, os.ErrNotExist)
	}
	return nil, ErrNoRoots
}

// TrustStore returns the CA in PKCS#12, as Java reads it. The password guards
// nothing, but Java wants one.
func (a *Authority) TrustStore(password string) ([]byte, error) {
	b, err := pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{a.cert}, password)
	if err != nil {
		return nil, fmt.Errorf("writing trust store: %w", err)
	}
	return b, nil
}
