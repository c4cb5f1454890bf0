package certs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Pair returns certificate and key of the authority in dir, in PEM, for whoever shares
// it. There must be one.
func Pair(dir string) (cert, key []byte, err error) {
	cert, err = os.ReadFile(filepath.Join(dir, CertFile))
	if err == nil {
		key, err = os.ReadFile(filepath.Join(dir, keyFile))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	return cert, key, nil
}

// Adopt puts an authority that others have into dir, and reports whether it did: one
// that is there stays. Errors of what cannot be used wrap [ErrCA].
func Adopt(dir string, cert, key []byte) (bool, error) {
	certPath, keyPath := filepath.Join(dir, CertFile), filepath.Join(dir, keyFile)
	for _, path := range []string{certPath, keyPath} {
		if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	if _, err := Load(cert, key); err != nil {
		return false, err
	}
	err := place(keyPath, key, 0o600)
	if err == nil {
		err = place(certPath, cert, 0o644)
	}
	if err != nil {
		return false, fmt.Errorf("adopting the certificate authority: %w", err)
	}
	return true, nil
}
