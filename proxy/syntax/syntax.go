// Package syntax knows the bytes that messages of HTTP/1.1 are written in (RFC 9110
// section 5, RFC 9112 sections 3 and 5), for the sides of the proxy that read and write
// them.
package syntax

import (
	"encoding/binary"
	"strings"
)

// Class is a set of kinds of bytes.
type Class uint8

const (
	TokenByte Class = 1 << iota // tchar, RFC 9110 section 5.6.2
	Visible                     // what a request target is written in
	ValueByte                   // what a field value may hold: visible bytes, obs-text, space and tab
	HostByte                    // what host and port are written in
)

var classes = classify()

func classify() (t [256]Class) {
	for i := range t {
		c := byte(i)
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if alphanumeric || c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			t[i] |= TokenByte
		}
		if c > ' ' && c < 0x7f {
			t[i] |= Visible
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[i] |= ValueByte
		}
		if alphanumeric || c != 0 && strings.IndexByte(".-_:[]", c) >= 0 {
			t[i] |= HostByte
		}
	}
	return t
}

// Has reports whether c is of one of the kinds of k.
func (k Class) Has(c byte) bool { return classes[c]&k != 0 }

// All reports whether each byte of s is of one of the kinds of k.
func All(s string, k Class) bool {
	for i := range len(s) {
		if classes[s[i]]&k == 0 {
			return false
		}
	}
	return true
}

// Token reports whether s is a token, as names of fields and methods are.
func Token(s string) bool { return s != "" && All(s, TokenByte) }

// Trim removes optional whitespace around a field's value (RFC 9110 section 5.5).
func Trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// Value reports whether s can be a field's value: no byte in it ends the field (RFC
// 9110 section 5.5). It looks at eight bytes at a time: values are most of what a head
// is made of.
func Value(s string) bool {
	const low, high = 0x0101010101010101, 0x8080808080808080
	for len(s) >= 8 {
		w := binary.LittleEndian.Uint64([]byte(s[:8]))
		control := (w - 0x20*low) &^ w                  // below a space
		del := ((w ^ 0x7f*low) - low) &^ (w ^ 0x7f*low) // 0x7f
		if (control|del)&high != 0 && !All(s[:8], ValueByte) {
			return false
		}
		s = s[8:]
	}
	return All(s, ValueByte)
}
