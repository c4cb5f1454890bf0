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
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
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

// TestOpenAfterACrash finds a first start that ended between key and certificate
// completed with the key that is there, and a lost key not replaced silently.
func TestOpenAfterACrash(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, CertFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil {
		t.Errorf("with a key alone: %v", err)
	}
	if again, err := os.ReadFile(filepath.Join(dir, keyFile)); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the key was replaced: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with a certificate alone: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) > 0 {
		t.Errorf("files left behind: %v", left)
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
	between := func(from, to time.Duration) []byte {
		now := time.Now()
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(from), NotAfter: now.Add(to), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
		der, err := x509.CreateCertificate(rand.Reader, c, c, ec.Public(), ec)
		if err != nil {
			t.Fatal(err)
		}
		return block("CERTIFICATE", der)
	}
	old := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("x")})
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
		"encrypted, old form":   {cert(rsaKey), old, "encrypted"},
		"in its validity":       {between(-time.Hour, 2*time.Hour), block("PRIVATE KEY", pkcs8), ""},
		"expired":               {between(-2*time.Hour, -time.Hour), block("PRIVATE KEY", pkcs8), "expired"},
		"not yet valid":         {between(time.Hour, 2*time.Hour), block("PRIVATE KEY", pkcs8), "not valid before"},
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
	for _, host := range []string{"", "*.example", "A.example", "a.example.", "a example", "a%2e", "a..example", "-a.example", "a-.example", "\u00fc.example", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "com",
		"127.1", "2130706433", "0x7f.1", "a.0x7f", "::ffff:127.0.0.1", "0::1", "fe80::1%eth0", "[::1]"} {
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
	for i := range 2*maxLeaves + 10 {
		a.leaves.keep(&leaf{name: fmt.Sprint(i)})
		a.leaves.find("burst.example", time.Time{}) // asked for now and then
	}
	if a.leaves.byName["burst.example"] == nil {
		t.Error("a certificate in use went before those that nobody asked for")
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
	stolen := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: &oneSession{}}
	for i, host := range []string{"a.example", "a.example", "b.example", "b.example"} {
		stolen.ServerName = host
		if resumed, err := shake(cfg, host, stolen); err != nil || resumed != (i%2 == 1) {
			t.Errorf("tunnel %d, with the ticket of the one before: resumed %v, %v", i, resumed, err)
		}
	}
	none := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	for _, host := range []string{"a.example", "b.example"} {
		if resumed, err := shake(cfg, host, none); err != nil || resumed {
			t.Errorf("no server name: resumed %v, %v", resumed, err)
		}
	}
	old := &tls.Config{RootCAs: roots, ServerName: "a.example", MaxVersion: tls.VersionTLS11}
	if _, err := shake(cfg, "a.example", old); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// oneSession offers the latest session to every server.
type oneSession struct{ s *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.s, o.s != nil }
func (o *oneSession) Put(_ string, s *tls.ClientSessionState)    { o.s = s }

func TestTrust(t *testing.T) {
	a := authority(t)
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := authority(t).PEM(), authority(t).PEM()
	first := file("first", append([]byte("# comment\n"), one...))
	both := file("both", append(append([]byte{}, bytes.TrimSpace(one)...), append([]byte("\n"), append(two, a.PEM()...)...)...))
	for name, tc := range map[string]struct {
		files []string
		want  int
		err   error
	}{
		"one file":         {[]string{first}, 2, nil},
		"each once":        {[]string{first, both}, 3, nil},
		"none there":       {[]string{filepath.Join(dir, "none")}, 0, os.ErrNotExist},
		"no roots in file": {[]string{file("empty", nil)}, 0, ErrNoRoots},
	} {
		b, err := a.Bundle(tc.files...)
		if !errors.Is(err, tc.err) || bytes.Count(b, []byte("BEGIN CERTIFICATE")) != tc.want || tc.want > 0 && !x509.NewCertPool().AppendCertsFromPEM(b) {
			t.Errorf("%s: got %d bytes, %v", name, len(b), err)
		}
		if tc.want > 0 && bytes.Count(b, a.PEM()) != 1 {
			t.Errorf("%s: the CA is not in it once", name)
		}
	}
	b, err := a.Bundle(both)
	if err != nil {
		t.Fatal(err)
	}
	p, err := TrustStore(b, "changeit")
	if err != nil {
		t.Fatal(err)
	}
	if held, err := pkcs12.DecodeTrustStore(p, "changeit"); err != nil || len(held) != 3 {
		t.Errorf("trust store: %d certificates, %v", len(held), err)
	}
	if _, err := TrustStore([]byte("none"), "changeit"); !errors.Is(err, ErrNoRoots) {
		t.Errorf("a trust store of nothing: %v", err)
	}
}

// near is a connection that does not leave this machine.
type near struct{ named }

func (near) Local() bool { return true }

// TestKeyAgreement has keys agreed on by X25519 alone where nobody can record what is
// said, and there only; and a client without X25519 is not turned away.
func TestKeyAgreement(t *testing.T) {
	a := authority(t)
	cfg := a.ServerConfig()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	for _, c := range []struct {
		name  string
		local bool
		knows []tls.CurveID
		want  tls.CurveID
	}{
		{"from elsewhere", false, nil, tls.X25519MLKEM768},
		{"from this machine", true, nil, tls.X25519},
		{"from this machine without X25519", true, []tls.CurveID{tls.X25519MLKEM768}, tls.X25519MLKEM768},
		{"from this machine with P-256 only", true, []tls.CurveID{tls.CurveP256}, tls.CurveP256},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := &tls.Config{RootCAs: roots, ServerName: "a.example", CurvePreferences: c.knows, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
			for _, again := range []bool{false, true} {
				mine, theirs := net.Pipe()
				var conn net.Conn = named{theirs, "a.example"}
				if c.local {
					conn = near{named{theirs, "a.example"}}
				}
				go func() {
					sc := tls.Server(conn, cfg)
					if sc.Handshake() == nil {
						sc.Write([]byte("x"))
					}
					theirs.Close()
				}()
				tc := tls.Client(mine, client)
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
				tc.Read(make([]byte, 1)) // tickets come with the first bytes
				if s := tc.ConnectionState(); s.CurveID != c.want || s.DidResume != again {
					t.Errorf("%v, want %v; resumed %v, want %v", s.CurveID, c.want, s.DidResume, again)
				}
				mine.Close()
			}
		})
	}
}

func FuzzClientHello(f *testing.F) {
	a := authority(f)
	cfg := a.ServerConfig()
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	f.Fuzz(func(t *testing.T, hello []byte) {
		c, s := net.Pipe()
		go io.Copy(io.Discard, c) // until s is closed
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

// BenchmarkBurst is many agents that start at once: 64 ask for one
// name that nobody has asked for yet.
func BenchmarkBurst(b *testing.B) {
	a := authority(b)
	n := 0
	for b.Loop() {
		n++
		host := fmt.Sprintf("h%d.example", n)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if _, err := a.Leaf(host); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkMint(b *testing.B) {
	a := authority(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := a.mint("api.github.com"); err != nil {
			b.Fatal(err)
		}
	}
}
