// Package authority reads the host and port of a request in exactly one way.
//
// Every station compares and keys by what Parse returns, so that no two of them
// can hold different names for one server.
package authority

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ErrAuthority is wrapped for whatever is not one clear host and port.
var ErrAuthority = errors.New("host is not valid")

// maxLength bounds what is read, in bytes: no 253 characters of any script with a
// port are longer, and mapping a longer one takes milliseconds.
const maxLength = 253*4 + len(".:65535")

type fault string

func (f fault) Error() string { return "host is not valid: " + string(f) }
func (f fault) Unwrap() error { return ErrAuthority }

// names maps a name as UTS 46 lookup does: case, width and normalisation folded,
// labels checked, to A-labels.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.ValidateLabels(true), idna.VerifyDNSLength(true))

// Parse reads host[:port] (RFC 3986 section 3.2, without userinfo). The host is
// returned as a lower-case A-label without its trailing dot, or as the canonical
// form of an IP address without brackets. A missing port takes standard; standard
// 0 means that the port must be given. Addresses with a zone, numbers that some
// resolvers take for addresses (octal, hexadecimal, short and decimal forms), IPv4
// addresses written as IPv6 ones, and userinfo are refused.
func Parse(s string, standard int) (host string, port int, err error) {
	if s == "" {
		return "", 0, fault("it is empty")
	}
	if len(s) > maxLength {
		return "", 0, fault("it is too long")
	}
	if strings.IndexByte(s, '@') >= 0 {
		return "", 0, fault("it holds user information")
	}
	host, digits, err := split(s)
	if err != nil {
		return "", 0, err
	}
	port = standard
	if digits != "" {
		if port, err = parsePort(digits); err != nil {
			return "", 0, err
		}
	}
	if port == 0 {
		return "", 0, fault("the port is missing")
	}
	host, err = parseHost(host)
	return host, port, err
}

// Format writes what Parse read, without the port when it is the standard one.
func Format(host string, port, standard int) string {
	if strings.IndexByte(host, ':') >= 0 {
		host = "[" + host + "]"
	}
	if port == standard {
		return host
	}
	return host + ":" + strconv.Itoa(port)
}

func split(s string) (host, port string, err error) {
	if s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", fault("a bracket is not closed")
		}
		host, rest := s[:end+1], s[end+1:]
		if rest == "" {
			return host, "", nil
		}
		if rest[0] != ':' || len(rest) == 1 {
			return "", "", fault("it does not end in a port")
		}
		return host, rest[1:], nil
	}
	host, port, found := strings.Cut(s, ":")
	if found && (port == "" || strings.IndexByte(port, ':') >= 0) {
		return "", "", fault("it does not end in one port")
	}
	return host, port, nil
}

func parsePort(s string) (int, error) {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, fault("the port is not a number")
		}
		n = n*10 + int(c-'0')
		if n > 65535 {
			return 0, fault("the port is too large")
		}
	}
	if n == 0 || s[0] == '0' {
		return 0, fault("the port is not a number from 1 to 65535")
	}
	return n, nil
}

func parseHost(s string) (string, error) {
	if s != "" && s[0] == '[' {
		a, err := netip.ParseAddr(s[1 : len(s)-1])
		if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
			return "", fault("the brackets hold no plain IPv6 address")
		}
		return a.String(), nil
	}
	s = lower(strings.TrimSuffix(s, "."))
	if plain(s) {
		return checkName(s)
	}
	if !utf8.ValidString(s) {
		return "", fault("it is no domain name")
	}
	mapped, err := names.ToASCII(s)
	if err != nil {
		return "", fault("it is no domain name")
	}
	return checkName(mapped)
}

// lower folds ASCII letters alone, so that the case of a name never decides
// whether it is plain.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// plain reports whether s is already what a lower-case ASCII name looks like, so
// that the tables of UTS 46 need not be asked. Punycode is left to them.
func plain(s string) bool {
	if s == "" || len(s) > 253 || strings.Contains(s, "xn--") {
		return false
	}
	label := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_':
			label++
		case c == '-':
			if label == 0 || i+1 == len(s) || s[i+1] == '.' {
				return false
			}
			label++
		case c == '.':
			if label == 0 || label > 63 {
				return false
			}
			label = 0
		default:
			return false
		}
	}
	return label > 0 && label <= 63
}

// checkName refuses names that resolvers take for addresses, unless they are the
// canonical form of one (WHATWG URL, "ends in a number" checker).
func checkName(s string) (string, error) {
	if s == "" || strings.HasSuffix(s, ".") {
		return "", fault("it is empty")
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	if !numeric(last) {
		return s, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.String() != s {
		return "", fault("it looks like an address and is not the plain form of one")
	}
	return s, nil
}

func numeric(label string) bool {
	hex := strings.HasPrefix(label, "0x")
	if hex {
		label = label[2:]
	}
	for _, c := range []byte(label) {
		if !('0' <= c && c <= '9' || hex && 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}
