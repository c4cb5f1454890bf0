package upstream

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
)

func TestAddresses(t *testing.T) {
	for s, want := range map[string]bool{
		"8.8.8.8": true, "140.82.112.5": true, "2606:4700::1111": true, "64:ff9b::808:808": true, "2002:808:808::1": true,
		"127.0.0.1": false, "127.255.255.255": false, "::1": false, "0.0.0.0": false, "::": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "fd00:ec2::254": false, "fe80::1": false, "100.64.0.1": false, "192.0.0.1": false, "192.0.2.1": false, "198.18.0.1": false, "198.51.100.1": false,
		"203.0.113.1": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::7f00:1": false, "64:ff9b::7f00:1": false,
		"64:ff9b:1::1": false, "2002:7f00:1::1": false, "2001:0:1::1": false, "2001:db8::1": false, "ff02::1": false, "fec0::1": false, "168.63.129.16": false, "100::1": false, "fe80::1%lo": false,
	} {
		if got := public(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: public %v", s, got)
		}
	}
}

// TestRebinding has a name resolve to a public address first and to a private one
// next: every address is looked at when it is dialled.
func TestRebinding(t *testing.T) {
	var calls atomic.Int32
	for name, addrs := range map[string][]string{"private": {"127.0.0.1"}, "mapped": {"::ffff:127.0.0.1"}, "metadata": {"169.254.169.254"}} {
		c := client(t, "127.0.0.1:1", func(o *Options) {
			o.Resolve = nil
			o.Lookup = func(context.Context, string) ([]netip.Addr, error) {
				calls.Add(1)
				var out []netip.Addr
				for _, a := range addrs {
					out = append(out, netip.MustParseAddr(a))
				}
				return out, nil
			}
		})
		if _, _, err := send1(t, c, get("/x")); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if calls.Load() != 3 {
		t.Errorf("%d look-ups", calls.Load())
	}
}

func TestAllowPrivate(t *testing.T) {
	addr, _ := script(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	ap := netip.MustParseAddrPort(addr)
	r := get("/x")
	r.Host, r.Port = "127.0.0.1", int(ap.Port())
	for name, tc := range map[string]struct {
		allow []string
		own   []netip.AddrPort
		ok    bool
	}{
		"nothing":     {nil, nil, false},
		"network":     {[]string{"127.0.0.0/8"}, nil, true},
		"endpoint":    {[]string{addr}, nil, true},
		"other port":  {[]string{"127.0.0.1:1"}, nil, false},
		"other":       {[]string{"10.0.0.0/8"}, nil, false},
		"own":         {[]string{"127.0.0.0/8"}, []netip.AddrPort{ap}, false},
		"own, on all": {[]string{"127.0.0.0/8"}, []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port())}, false},
	} {
		c := client(t, addr, func(o *Options) {
			o.Resolve, o.AllowPrivate = nil, tc.allow
			o.Forbidden = func() []netip.AddrPort { return tc.own }
		})
		if _, _, err := send1(t, c, r); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{AllowPrivate: []string{"nonsense"}}); err == nil {
		t.Error("nonsense was allowed")
	}
	if _, err := New(Options{Resolve: map[string]string{"a": "b"}}); err == nil {
		t.Error("a resolve without an address was taken")
	}
}
