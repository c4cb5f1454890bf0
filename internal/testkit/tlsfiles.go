package testkit

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"chaperone/certs"
)

// WriteTLS writes server.pem, server.key and roots.pem into dir, for servers that
// read files, with a certificate for host, and returns the roots.
func WriteTLS(dir, host string) (*x509.CertPool, error) {
	ca, err := certs.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	leaf, err := ca.Leaf(host)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	var chain bytes.Buffer
	for _, c := range leaf.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: c}) // a buffer takes all
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, b := range map[string][]byte{"server.pem": chain.Bytes(), "server.key": key, "roots.pem": ca.PEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, fmt.Errorf("writing certificates: %w", err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	return roots, nil
}
