package action

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// maxPath bounds an escaped path, in bytes.
const maxPath = 8 << 10

// checkPath returns an error that wraps [ErrAmbiguous] unless every reader takes
// the escaped path for the same segments. Nothing is repaired: what is matched is
// what is sent. encodedSlash admits %2F, for services whose ids hold slashes,
// where the path would be as clear with plain ones.
func checkPath(p string, encodedSlash bool) error {
	flaw := pathFlaw(p, encodedSlash)
	if flaw == "" && encodedSlash {
		if plain := plainSlashes(p); plain != p {
			flaw = pathFlaw(plain, false)
		}
	}
	if flaw == "" {
		return nil
	}
	return fmt.Errorf("%w: the path has %s", ErrAmbiguous, flaw)
}

// plainSlashes writes encoded slashes as slashes.
func plainSlashes(p string) string {
	if strings.IndexByte(p, '%') < 0 {
		return p
	}
	return strings.NewReplacer("%2F", "/", "%2f", "/").Replace(p)
}

func pathFlaw(p string, encodedSlash bool) string {
	if p == "" || p[0] != '/' {
		return "no leading slash"
	}
	if len(p) > maxPath {
		return "too many bytes"
	}
	start, high := 1, false
	for i := 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '/':
			if flaw := segmentFlaw(p[start:i]); flaw != "" {
				return flaw
			}
			start = i + 1
		case c == '%':
			flaw, above := escapeFlaw(p[i:], encodedSlash)
			if flaw != "" {
				return flaw
			}
			high = high || above
			i += 2
		case c == '\\':
			return "a backslash"
		case c == ';':
			return "a matrix parameter"
		case c == '#' || c == '?':
			return "a delimiter out of place"
		case c <= ' ' || c >= 0x7f:
			return "a byte that must be encoded"
		}
	}
	if last := p[start:]; last == "." || last == ".." {
		return "a dot segment"
	}
	if high {
		if s, err := url.PathUnescape(p); err != nil || !utf8.ValidString(s) {
			return "an encoding that is not UTF-8"
		}
	}
	return ""
}

func segmentFlaw(s string) string {
	switch s {
	case "":
		return "an empty segment"
	case ".", "..":
		return "a dot segment"
	}
	return ""
}

// escapeFlaw judges the escape at the front of s, and tells whether it stands for
// a byte above ASCII.
func escapeFlaw(s string, encodedSlash bool) (flaw string, above bool) {
	if len(s) < 3 || unhex(s[1]) < 0 || unhex(s[2]) < 0 {
		return "a broken escape", false
	}
	switch d := byte(unhex(s[1])<<4 | unhex(s[2])); {
	case d == '/' && encodedSlash:
		return "", false
	case d == '/' || d == '\\':
		return "an encoded slash", false
	case d == '%':
		if len(s) >= 5 && unhex(s[3]) >= 0 && unhex(s[4]) >= 0 {
			return "a double encoding", false
		}
		return "", false
	case d == '.':
		return "an encoded dot", false
	case d == ';':
		return "a matrix parameter", false
	case d < ' ' || d == 0x7f:
		return "an encoded control byte", false
	case 'a' <= d && d <= 'z' || 'A' <= d && d <= 'Z' || '0' <= d && d <= '9' || d == '-' || d == '_' || d == '~':
		return "a needless escape", false
	default:
		return "", d >= 0x80
	}
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// unescape decodes a value of a path that has passed checkPath.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// checkQuery returns an error that wraps [ErrAmbiguous] unless the query splits
// into the same parameters for every reader.
func checkQuery(raw string) error {
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '%' && (i+2 >= len(raw) || unhex(raw[i+1]) < 0 || unhex(raw[i+2]) < 0):
			return fmt.Errorf("%w: the query has a broken escape", ErrAmbiguous)
		case c == ';':
			return fmt.Errorf("%w: the query has a semicolon", ErrAmbiguous)
		case c <= ' ' || c >= 0x7f || c == '#':
			return fmt.Errorf("%w: the query has a byte that must be encoded", ErrAmbiguous)
		}
	}
	return nil
}
