package credential

import (
	"crypto/rand"
	"encoding/base64"
	"hash/crc32"
	"strconv"
	"strings"
)

// A handle is the vendor's prefix and a payload of [A-Za-z0-9]: a mark by which
// people, scanners and the proxy know it at sight, an id, a secret, and a checksum
// over the three. The payload is as long as GitHub's, which suits every vendor.
const (
	mark        = "chp"
	idLen       = 8
	secretLen   = 19 // 113 bits
	checksumLen = 6
	payloadLen  = len(mark) + idLen + secretLen + checksumLen

	tokenPrefix = "chs_"
	tokenLen    = 43 // 256 bits
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// genericPrefix is the prefix of handles for services whose SDKs look for none.
const genericPrefix = "chh_"

// newHandle makes a handle and its id.
func newHandle(prefix string) (handle, id string) {
	if prefix == "" {
		prefix = genericPrefix
	}
	id = random(idLen)
	body := mark + id + random(secretLen)
	return prefix + body + checksum(body), id
}

// random returns n characters of the alphabet, each equally likely.
func random(n int) string {
	out := make([]byte, 0, n)
	var b [64]byte
	for len(out) < n {
		rand.Read(b[:]) // never fails: it ends the program instead
		for _, c := range b {
			if c < 248 && len(out) < n { // 4 × 62, so that no character is likelier
				out = append(out, alphabet[c%62])
			}
		}
	}
	return string(out)
}

// checksum is a CRC-32 in base 62, as GitHub's tokens carry one: it tells a handle
// from a chance likeness, and protects nothing.
func checksum(body string) string {
	n := crc32.ChecksumIEEE([]byte(body))
	var out [checksumLen]byte
	for i := checksumLen - 1; i >= 0; i-- {
		out[i] = alphabet[n%62]
		n /= 62
	}
	return string(out[:])
}

// payload returns the payload if s is a handle, with whatever prefix.
func payload(s string) (string, bool) {
	at := len(s) - payloadLen
	if at < 0 {
		return "", false
	}
	p := s[at:]
	return p, isPayload(p)
}

func isPayload(p string) bool {
	if len(p) != payloadLen || p[:len(mark)] != mark {
		return false
	}
	for i := 0; i < len(p); i++ {
		if !alphanumeric(p[i]) {
			return false
		}
	}
	body := p[:payloadLen-checksumLen]
	n := crc32.ChecksumIEEE([]byte(body))
	for i := payloadLen - 1; i >= payloadLen-checksumLen; i-- {
		if p[i] != alphabet[n%62] {
			return false
		}
		n /= 62
	}
	return true
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// find looks for a handle anywhere in s.
func find(s string) bool { return handleAt(s) >= 0 }

// handleAt returns where the first handle of s begins, without its prefix, or -1.
func handleAt(s string) int {
	for from := 0; ; from++ {
		i := strings.Index(s[from:], mark)
		if from += i; i < 0 || len(s)-from < payloadLen {
			return -1
		}
		if isPayload(s[from : from+payloadLen]) {
			return from
		}
	}
}

// findEncoded looks for a handle in s as it stands, percent-decoded once and
// twice, and base64-decoded.
func findEncoded(s string) bool {
	if len(s) < payloadLen {
		return false
	}
	if find(s) {
		return true
	}
	for range 2 {
		if strings.IndexByte(s, '%') < 0 {
			break
		}
		if s = unescape(s); find(s) {
			return true
		}
	}
	return findBase64(s)
}

// unescape decodes the percent-encoded bytes of s and leaves a stray percent sign
// as it stands, so that one cannot keep the rest from being looked at.
func unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// minBase64 is the length of a handle's payload in base64, in characters.
const minBase64 = payloadLen * 4 / 3

// findBase64 decodes every run of base64 characters that could hold a handle, in
// both alphabets.
func findBase64(s string) bool {
	for len(s) >= minBase64 {
		n := 0
		for n < len(s) && base64Char(s[n]) {
			n++
		}
		if n >= minBase64 && decodesToHandle(s[:n]) {
			return true
		}
		s = s[min(n+1, len(s)):]
	}
	return false
}

func base64Char(c byte) bool {
	return alphanumeric(c) || c == '+' || c == '/' || c == '-' || c == '_'
}

func decodesToHandle(run string) bool {
	run = strings.NewReplacer("-", "+", "_", "/").Replace(run)
	for skip := range 4 { // where the encoding began is not known
		part := run[min(skip, len(run)):]
		part = part[:len(part)-len(part)%4]
		if b, err := base64.RawStdEncoding.DecodeString(part); err == nil && find(string(b)) {
			return true
		}
	}
	if b, err := base64.RawStdEncoding.DecodeString(run); err == nil && find(string(b)) {
		return true
	}
	return false
}

// NewSessionToken makes a session token: the proxy password of one session.
func NewSessionToken() string {
	body := random(tokenLen)
	return tokenPrefix + body + checksum(body)
}

// IsSessionToken reports whether s has the form of a session token.
func IsSessionToken(s string) bool {
	body, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(body) != tokenLen+checksumLen {
		return false
	}
	return checksum(body[:tokenLen]) == body[tokenLen:]
}

// findToken looks for a session token anywhere in s, as it stands and percent-decoded
// once and twice.
func findToken(s string) bool {
	for range 2 {
		if tokenAt(s) >= 0 {
			return true
		}
		if strings.IndexByte(s, '%') < 0 {
			return false
		}
		s = unescape(s)
	}
	return tokenAt(s) >= 0
}

const sessionTokenLen = len(tokenPrefix) + tokenLen + checksumLen

// tokenAt returns where the first session token of s begins, or -1.
func tokenAt(s string) int {
	for from := 0; ; from++ {
		i := strings.Index(s[from:], tokenPrefix)
		if from += i; i < 0 || len(s)-from < sessionTokenLen {
			return -1
		}
		if IsSessionToken(s[from : from+sessionTokenLen]) {
			return from
		}
	}
}

// Conceal returns s with [Hidden] in the place of handles and session tokens, for what
// is kept of a request that carries them where they do not belong. Where they are
// percent-encoded nothing of s is left.
func Conceal(s string) string {
	if len(s) < payloadLen {
		return s
	}
	if at := tokenAt(s); at >= 0 {
		return Conceal(s[:at]) + Hidden + Conceal(s[at+sessionTokenLen:])
	}
	if at := handleAt(s); at >= 0 {
		return s[:at] + Hidden + Conceal(s[at+payloadLen:])
	}
	if strings.IndexByte(s, '%') >= 0 {
		if plain := unescape(unescape(s)); find(plain) || findToken(plain) {
			return Hidden
		}
	}
	return s
}

// IsHandle reports whether s has the form of a handle.
func IsHandle(s string) bool {
	_, ok := payload(s)
	return ok
}

// NewID returns an id of n characters under a prefix, for sessions and instances.
func NewID(prefix string, n int) string { return prefix + random(n) }
