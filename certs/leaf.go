package certs

import (
	"container/list"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// maxLeaves bounds the certificates kept; the one longest unused goes first.
const maxLeaves = 4096

// leaves are the certificates at hand, by name.
type leaves struct {
	mu     sync.RWMutex
	byName map[string]*list.Element
	order  list.List // of *leaf, newest first
	flight singleflight.Group
}

type leaf struct {
	name  string
	cert  *tls.Certificate
	renew time.Time
}

// Leaf returns a certificate for host, which must be a lower-case A-label name or
// the canonical form of an IP address. It is minted at first use, once for all
// who ask at the same moment, and again an hour before it expires.
func (a *Authority) Leaf(host string) (*tls.Certificate, error) {
	if c := a.leaves.find(host, a.now()); c != nil {
		return c, nil
	}
	c, err, _ := a.leaves.flight.Do(host, func() (any, error) {
		if c := a.leaves.find(host, a.now()); c != nil {
			return c, nil
		}
		c, err := a.mint(host)
		if err != nil {
			return nil, err
		}
		a.leaves.keep(&leaf{host, c, a.now().Add(leafLife - time.Hour)})
		return c, nil
	})
	if err != nil {
		return nil, fmt.Errorf("minting a certificate: %w", err)
	}
	return c.(*tls.Certificate), nil
}

// find looks a certificate up. It does not move it to the front: that would take
// the write lock in every handshake, and what is used much is minted anew daily.
func (l *leaves) find(name string, now time.Time) *tls.Certificate {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if e := l.byName[name]; e != nil && now.Before(e.Value.(*leaf).renew) {
		return e.Value.(*leaf).cert
	}
	return nil
}

func (l *leaves) keep(f *leaf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byName == nil {
		l.byName = map[string]*list.Element{}
	}
	if old := l.byName[f.name]; old != nil {
		l.order.Remove(old)
	}
	l.byName[f.name] = l.order.PushFront(f)
	for len(l.byName) > maxLeaves {
		oldest := l.order.Back()
		l.order.Remove(oldest)
		delete(l.byName, oldest.Value.(*leaf).name)
	}
}

// mint signs a leaf with what strict clients look for: one name, key identifiers,
// basic constraints, usages, a random serial, at most a day (RFC 5280; CA/Browser
// Forum baseline requirements).
func (a *Authority) mint(host string) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          a.leafPub,
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	if len(host) <= 64 { // the most a common name holds
		t.Subject = pkix.Name{CommonName: host}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
	} else if err := checkName(host); err != nil {
		return nil, err
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, a.leafKey.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: a.leafKey}, nil
}

// checkName refuses what no host is called: the caller forgot to canonicalise it.
func checkName(s string) error {
	if s == "" || len(s) > 253 || s != strings.ToLower(s) || strings.Trim(s, ".") != s || strings.ContainsAny(s, "*/:@ \x00%") {
		return fmt.Errorf("%w: not a canonical host name", ErrServerName)
	}
	return nil
}

// ServerConfig returns the one TLS configuration for all tunnels: sharing it is
// what lets a client resume a session in its next tunnel. The connection passed
// to tls.Server must have a method ServerName() string that tells the tunnel's
// host; a client that asks for another name is refused with [ErrServerName], and
// one that resumes a session of another host makes a full handshake instead.
func (a *Authority) ServerConfig() *tls.Config {
	c := &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"h2", "http/1.1"},
		DynamicRecordSizingDisabled: true,
	}
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		host, err := tunnelHost(hello)
		if err != nil {
			return nil, err
		}
		return a.Leaf(host)
	}
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		_, err := tunnelHost(hello) // before resumption, which asks for no certificate
		return nil, err
	}
	c.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, []byte(cs.ServerName))
		return c.EncryptTicket(cs, ss)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := c.DecryptTicket(identity, cs)
		if err != nil || ss == nil {
			return nil, err
		}
		if n := len(ss.Extra); n == 0 || string(ss.Extra[n-1]) != cs.ServerName {
			return nil, nil
		}
		return ss, nil
	}
	return c
}

func tunnelHost(hello *tls.ClientHelloInfo) (string, error) {
	t, ok := hello.Conn.(interface{ ServerName() string })
	if !ok {
		return "", fmt.Errorf("%w: the connection has none", ErrServerName)
	}
	host := t.ServerName()
	if sni := strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")); sni != "" && sni != host {
		return "", fmt.Errorf("%w: the client asks for another", ErrServerName)
	}
	return host, nil
}
