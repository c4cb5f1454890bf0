package certs

import (
	"container/list"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// maxLeaves bounds the certificates kept. One that nobody asked for since it last
// could have gone goes first.
const maxLeaves = 4096

// leaves are the certificates at hand, by name.
type leaves struct {
	mu     sync.RWMutex
	byName map[string]*list.Element
	order  list.List // of *leaf; the back is next to go
	flight singleflight.Group
}

type leaf struct {
	name  string
	cert  *tls.Certificate
	renew time.Time
	asked atomic.Bool // since it was at the back
}

// Leaf returns a certificate for host, which must be a lower-case A-label name or
// the canonical form of an IP address. It is minted at first use, once for all
// who ask at the same moment, and again an hour before it expires. No more are minted
// at once than leaves a processor for others.
func (a *Authority) Leaf(host string) (*tls.Certificate, error) {
	if c := a.leaves.find(host, a.now()); c != nil {
		return c, nil
	}
	c, err, _ := a.leaves.flight.Do(host, func() (any, error) {
		if c := a.leaves.find(host, a.now()); c != nil {
			return c, nil
		}
		a.minting <- struct{}{}
		c, expires, err := a.mint(host)
		<-a.minting
		if err != nil {
			return nil, err
		}
		a.leaves.keep(&leaf{name: host, cert: c, renew: expires.Add(-time.Hour)})
		return c, nil
	})
	if err != nil {
		return nil, fmt.Errorf("minting a certificate: %w", err)
	}
	return c.(*tls.Certificate), nil
}

// find looks a certificate up. It only marks it as asked for: to move it would
// take the write lock in every handshake.
func (l *leaves) find(name string, now time.Time) *tls.Certificate {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e := l.byName[name]
	if e == nil {
		return nil
	}
	f := e.Value.(*leaf)
	if !now.Before(f.renew) {
		return nil
	}
	if !f.asked.Load() {
		f.asked.Store(true)
	}
	return f.cert
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
		back := l.order.Back()
		if back.Value.(*leaf).asked.Swap(false) {
			l.order.MoveToFront(back) // a second chance; a full round finds one without
			continue
		}
		l.order.Remove(back)
		delete(l.byName, back.Value.(*leaf).name)
	}
}

// mint signs a leaf with what strict clients look for: one name, key identifiers,
// basic constraints, usages, a random serial, at most a day (RFC 5280; CA/Browser
// Forum baseline requirements). It also returns when the leaf expires.
func (a *Authority) mint(host string) (*tls.Certificate, time.Time, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, time.Time{}, err
	}
	now := a.now()
	if now.After(a.cert.NotAfter) {
		return nil, time.Time{}, fmt.Errorf("%w: it expired on %s", ErrCA, a.cert.NotAfter.Format(time.DateOnly))
	}
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
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" && !ip.Is4In6() && ip.String() == host {
		t.IPAddresses = []net.IP{ip.AsSlice()}
	} else if canonical(host) {
		t.DNSNames = []string{host}
	} else {
		return nil, time.Time{}, fmt.Errorf("%w: not a canonical host name", ErrServerName)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, a.leafKey.Public(), a.key)
	if err != nil {
		return nil, time.Time{}, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: a.leafKey}, t.NotAfter, nil
}

// canonical reports whether s is a name of lower-case letters, digits, hyphens
// and underscores in labels of 1 to 63, the last of which is no number (then it
// would pass for an address). What is not canonical the caller should have
// refused, so it gets no certificate.
func canonical(s string) bool {
	if len(s) > 253 {
		return false
	}
	last := ""
	for last = range strings.SplitSeq(s, ".") {
		if last == "" || len(last) > 63 || last[0] == '-' || last[len(last)-1] == '-' || strings.Trim(last, ldh) != "" {
			return false
		}
	}
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// ldh are the characters of a canonical label.
const ldh = "abcdefghijklmnopqrstuvwxyz0123456789-_"

// ServerConfig returns the one TLS configuration for all tunnels: sharing it is
// what lets a client resume a session in its next tunnel. The connection passed
// to tls.Server must have a method ServerName() string that tells the tunnel's
// host; a client that asks for another name is refused with [ErrServerName], and
// one that resumes a session of another host makes a full handshake instead. A
// session is bound to the name that the client sent, which is the tunnel's; one
// that sent none gets no ticket.
//
// Where the connection has a method Local() bool that says that it does not leave this
// machine, keys are agreed on by X25519 alone: nobody records there what could be
// decrypted one day, and X25519MLKEM768 is a sixth of the time that a new tunnel takes.
// A client that does not know X25519 gets what others get.
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
	nameless := c.Clone()
	nameless.SessionTicketsDisabled = true
	var near *tls.Config
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if _, err := tunnelHost(hello); err != nil { // here, as resumption asks for no certificate
			return nil, err
		}
		if hello.ServerName == "" {
			return nameless, nil
		}
		if local(hello) {
			return near, nil
		}
		return nil, nil // go on with c
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
	near = c.Clone() // seals and opens tickets as c does
	near.GetConfigForClient = nil
	near.CurvePreferences = []tls.CurveID{tls.X25519}
	return c
}

// local reports whether a client that knows X25519 speaks from this machine.
func local(hello *tls.ClientHelloInfo) bool {
	t, ok := hello.Conn.(interface{ Local() bool })
	return ok && t.Local() && slices.Contains(hello.SupportedCurves, tls.X25519)
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
