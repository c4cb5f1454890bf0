package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// special are the networks that a proxy must not reach on an agent's behalf: the
// IANA special-purpose address registries (RFC 6890 and updates), and what cloud
// machines reach their metadata by. Multicast, loopback, link-local and private
// addresses are told by netip.
var special = parse(
	"0.0.0.0/8",        // this network, RFC 791
	"100.64.0.0/10",    // shared address space (CGNAT), RFC 6598
	"192.0.0.0/24",     // IETF protocol assignments, RFC 6890
	"192.0.2.0/24",     // documentation, RFC 5737
	"192.88.99.0/24",   // 6to4 relay anycast, RFC 7526
	"198.18.0.0/15",    // benchmarking, RFC 2544
	"198.51.100.0/24",  // documentation, RFC 5737
	"203.0.113.0/24",   // documentation, RFC 5737
	"240.0.0.0/4",      // reserved and broadcast, RFC 1112
	"168.63.129.16/32", // Azure's host
	"::/96",            // unspecified, loopback, IPv4-compatible, RFC 4291
	"64:ff9b:1::/48",   // local NAT64, RFC 8215
	"100::/64",         // discard only, RFC 6666
	"2001::/23",        // IETF protocol assignments with Teredo, RFC 2928, 4380
	"2001:db8::/32",    // documentation, RFC 3849
	"3fff::/20",        // documentation, RFC 9637
	"5f00::/16",        // segment routing, RFC 9602
	"fec0::/10",        // site-local, RFC 3879
)

// embedding are the networks whose addresses carry an IPv4 address, and where in
// the 16 bytes it begins.
var embedding = []struct {
	net netip.Prefix
	at  int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4, RFC 3056
}

func parse(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// public reports whether a is an ordinary address of the Internet.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" || !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	for _, e := range embedding {
		if e.net.Contains(a) {
			b := a.As16()
			return public(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	return true
}

// guard decides which addresses may be dialled. It looks at addresses only, at the
// moment of dialling, so that no name can resolve to one thing when it is checked
// and to another when it is used.
type guard struct {
	networks  []netip.Prefix
	endpoints map[string]bool // host:port or address:port
	forbidden func() []netip.AddrPort
}

func newGuard(allow []string, forbidden func() []netip.AddrPort) (*guard, error) {
	g := &guard{endpoints: map[string]bool{}, forbidden: forbidden}
	for _, s := range allow {
		if p, err := netip.ParsePrefix(s); err == nil {
			g.networks = append(g.networks, p.Masked())
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil {
			g.networks = append(g.networks, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		if _, _, err := net.SplitHostPort(s); err != nil {
			return nil, fmt.Errorf("%q is neither a network (10.0.0.0/8), an address, nor host:port", s)
		}
		g.endpoints[strings.ToLower(s)] = true
	}
	return g, nil
}

// dial is what the guard checks one dial against.
type dial struct {
	authority string // host:port as the request names it
	trusted   string // address:port that the operator names for it, if any
}

type dialKey struct{}

// control refuses an address just before the socket connects to it.
func (g *guard) control(ctx context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrAddress, address)
	}
	d, _ := ctx.Value(dialKey{}).(dial)
	return g.check(d, ap)
}

// literal refuses a host that is an address which may not be dialled. Behind a
// corporate proxy this is all that can be known: names are resolved there.
func (g *guard) literal(host string, port int) error {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return nil // a name
	}
	return g.check(dial{authority: net.JoinHostPort(host, strconv.Itoa(port))}, netip.AddrPortFrom(a, uint16(port)))
}

func (g *guard) check(d dial, ap netip.AddrPort) error {
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	if g.own(ap) {
		return fmt.Errorf("%w: %s is this proxy", ErrAddress, ap)
	}
	if public(ap.Addr()) {
		return nil
	}
	if g.endpoints[d.authority] || g.endpoints[ap.String()] || d.trusted != "" {
		return nil
	}
	for _, p := range g.networks {
		if p.Contains(ap.Addr()) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is private or special", ErrAddress, ap)
}

// own reports whether ap is one of the proxy's own listeners, under any address of
// this machine.
func (g *guard) own(ap netip.AddrPort) bool {
	if g.forbidden == nil {
		return false
	}
	for _, f := range g.forbidden() {
		if f.Port() != ap.Port() {
			continue
		}
		if f.Addr().Unmap() == ap.Addr() || ap.Addr().IsLoopback() || ap.Addr().IsUnspecified() {
			return true
		}
		if f.Addr().IsUnspecified() && local(ap.Addr()) {
			return true
		}
	}
	return false
}

// local reports whether a is an address of this machine.
func local(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // not known: refuse
	}
	for _, x := range addrs {
		if n, ok := x.(*net.IPNet); ok {
			if b, ok := netip.AddrFromSlice(n.IP); ok && b.Unmap() == a {
				return true
			}
		}
	}
	return false
}
