package testkit

import (
	"crypto/tls"
	"fmt"
	"net"

	"chaperone/certs"
)

// serverTLS answers under whatever name the client asks for.
func serverTLS(ca *certs.Authority, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return ca.Leaf(hello.ServerName)
		},
	}
}

// tlsListen listens on loopback with HTTP/1.1 alone.
func tlsListen(ca *certs.Authority) (net.Listener, error) {
	ln, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS(ca, "http/1.1"))
	if err != nil {
		return nil, fmt.Errorf("starting service: %w", err)
	}
	return ln, nil
}

// FreeAddr returns an address on loopback that nobody listens on at this moment.
func FreeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
