package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func authority(t testing.TB) *Authority {
	t.Helper()
	a, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOpenMakesAndKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var got [4]*Authority
	var wg sync.WaitGroup
	for i := range got { // processes that start together end up with one CA
		wg.Go(func() {
			a, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = a
		})
	}
	wg.Wait()
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range got {
		if a != nil && !bytes.Equal(a.PEM(), again.PEM()) {
			t.Error("two authorities in one directory")
		}
	}
	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	c := again.Certificate()
	if !c.IsCA || !c.MaxPathLenZero || c.PublicKeyAlgorithm != x509.ECDSA || len(c.SubjectKeyId) == 0 {
		t.Errorf("certificate: %+v", c)
	}
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrCA) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
}

func TestLoad(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	sec1, _ := x509.MarshalECPrivateKey(ec)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(ec)
	pkcs8ed, _ := x509.MarshalPKCS8PrivateKey(ed)
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	cert := func(k crypto.Signer) []byte {
		c, err := selfSign(k)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	leaf := func() []byte {
		c, err := authority(t).Leaf("a.example")
		if err != nil {
			t.Fatal(err)
		}
		return block("CERTIFICATE", c.Certificate[0])
	}
	for name, tc := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"SEC 1":                 {cert(ec), block("EC PRIVATE KEY", sec1), ""},
		"SEC 1 with parameters": {cert(ec), append(block("EC PARAMETERS", []byte{6, 8}), block("EC PRIVATE KEY", sec1)...), ""},
		"PKCS#8":                {cert(ec), block("PRIVATE KEY", pkcs8), ""},
		"PKCS#1":                {cert(rsaKey), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), ""},
		"Ed25519":               {cert(ed), block("PRIVATE KEY", pkcs8ed), "P-256"},
		"encrypted":             {cert(ec), block("ENCRYPTED PRIVATE KEY", pkcs8), "encrypted"},
		"another key":           {cert(rsaKey), block("PRIVATE KEY", pkcs8), "not the certificate's"},
		"not a CA":              {leaf(), block("PRIVATE KEY", pkcs8), "not a CA's"},
		"rubbish key":           {cert(ec), []byte("rubbish"), "not PEM"},
		"rubbish in PEM":        {cert(ec), block("PRIVATE KEY", []byte("rubbish")), "cannot be parsed"},
		"rubbish certificate":   {[]byte("rubbish"), block("PRIVATE KEY", pkcs8), "not PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := Load(tc.cert, tc.key)
			if tc.want != "" {
				if !errors.Is(err, ErrCA) || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Leaf("a.example"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLeaf(t *testing.T) {
	a := authority(t)
	for _, host := range []string{"api.github.com", "127.0.0.1", "::1", strings.Repeat("a", 60) + ".example.com"} {
		c, err := a.Leaf(host)
		if err != nil {
			t.Fatal(err)
		}
		x, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(a.cert)
		if _, err := x.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		switch {
		case len(x.DNSNames)+len(x.IPAddresses) != 1:
			t.Errorf("%s: names %v %v", host, x.DNSNames, x.IPAddresses)
		case len(c.Certificate) != 2:
			t.Errorf("%s: chain of %d", host, len(c.Certificate))
		case x.SerialNumber.BitLen() < 64, len(x.AuthorityKeyId) == 0, len(x.SubjectKeyId) == 0, !x.BasicConstraintsValid, x.IsCA:
			t.Errorf("%s: fields %+v", host, x)
		case x.KeyUsage != x509.KeyUsageDigitalSignature, len(x.ExtKeyUsage) != 1:
			t.Errorf("%s: usages %v %v", host, x.KeyUsage, x.ExtKeyUsage)
		case x.NotAfter.Sub(x.NotBefore) > 24*time.Hour, time.Until(x.NotBefore) > -time.Hour+time.Minute:
			t.Errorf("%s: valid from %v to %v", host, x.NotBefore, x.NotAfter)
		}
	}
	for _, host := range []string{"", "*.example", "A.example", "a.example.", "a example", "a%2e"} {
		if _, err := a.Leaf(host); !errors.Is(err, ErrServerName) {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestLeafIsMintedOnceAndKeptInBounds(t *testing.T) {
	a := authority(t)
	var got [64]*tls.Certificate
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i], _ = a.Leaf("burst.example") })
	}
	wg.Wait()
	for _, c := range got {
		if c == nil || c != got[0] {
			t.Fatal("a burst minted more than one certificate")
		}
	}
	now := time.Now()
	a.now = func() time.Time { return now.Add(leafLife - 30*time.Minute) }
	if c, _ := a.Leaf("burst.example"); c == got[0] {
		t.Error("a certificate was shown in its last hour")
	}
	for i := range maxLeaves + 10 {
		a.leaves.keep(&leaf{name: fmt.Sprint(i)})
	}
	if n := len(a.leaves.byName); n != maxLeaves || a.leaves.order.Len() != n {
		t.Errorf("%d leaves kept", n)
	}
}

// named is a connection into a tunnel to one host.
type named struct {
	net.Conn
	host string
}

func (n named) ServerName() string { return n.host }

// shake makes a TLS connection into a tunnel to host and returns the client's and
// the server's errors.
func shake(a *tls.Config, host string, client *tls.Config) (resumed bool, serverErr error) {
	c, s := net.Pipe()
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		sc := tls.Server(named{s, host}, a)
		err := sc.Handshake()
		if err == nil {
			_, err = sc.Write([]byte("x"))
		}
		done <- err
		s.Close()
	}()
	cc := tls.Client(c, client)
	if err := cc.Handshake(); err == nil {
		cc.Read(make([]byte, 1)) // TLS 1.3 tickets come with the first bytes
		resumed = cc.ConnectionState().DidResume
	}
	c.Close()
	return resumed, <-done
}

func TestServerConfig(t *testing.T) {
	a := authority(t)
	cfg := a.ServerConfig()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := &tls.Config{RootCAs: roots, ServerName: "a.example", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		if resumed, err := shake(cfg, "a.example", client); err != nil || resumed {
			t.Fatalf("first tunnel: %v, %v", resumed, err)
		}
		if resumed, err := shake(cfg, "a.example", client); err != nil || !resumed {
			t.Errorf("second tunnel: resumed %v, %v", resumed, err)
		}
		if _, err := shake(cfg, "b.example", client); !errors.Is(err, ErrServerName) {
			t.Errorf("another name than the tunnel's, with a ticket: %v", err)
		}
	}
	upper := &tls.Config{RootCAs: roots, ServerName: "A.Example"}
	if _, err := shake(cfg, "a.example", upper); err != nil {
		t.Errorf("case of the server name: %v", err)
	}
	none := &tls.Config{InsecureSkipVerify: true}
	if _, err := shake(cfg, "a.example", none); err != nil {
		t.Errorf("no server name: %v", err)
	}
	old := &tls.Config{RootCAs: roots, ServerName: "a.example", MaxVersion: tls.VersionTLS11}
	if _, err := shake(cfg, "a.example", old); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestTrust(t *testing.T) {
	a := authority(t)
	other := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(other, authority(t).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := a.Bundle(other)
	if err != nil || bytes.Count(b, []byte("BEGIN CERTIFICATE")) != 2 || !bytes.Contains(b, a.PEM()) {
		t.Errorf("bundle: %q, %v", b, err)
	}
	if _, err := a.Bundle(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("bundle of a file that is not there: %v", err)
	}
	if p, err := a.TrustStore("changeit"); err != nil || len(p) == 0 {
		t.Errorf("trust store: %v", err)
	}
}

func FuzzClientHello(f *testing.F) {
	a := authority(f)
	cfg := a.ServerConfig()
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	f.Fuzz(func(t *testing.T, hello []byte) {
		c, s := net.Pipe()
		go func() {
			c.Write(hello)
			c.Close()
		}()
		tls.Server(named{s, "a.example"}, cfg).Handshake() // parse or refuse, never panic
		s.Close()
	})
}

func BenchmarkLeafCached(b *testing.B) {
	a := authority(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Leaf("api.github.com"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	a := authority(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.mint("api.github.com"); err != nil {
			b.Fatal(err)
		}
	}
}
