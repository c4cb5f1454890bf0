// Package secret holds bytes that nothing prints. Only the folders of credential can
// import it, so only they can open what it holds: the compiler sees to that.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret holds bytes that no format verb, logger or encoder shows. They sit behind
// a pointer because fmt skips methods of unexported fields and would print a slice.
// The zero Secret holds nothing.
type Secret struct{ b *[]byte }

const redacted = "[secret]"

// New keeps a copy of b.
func New[T ~string | ~[]byte](b T) Secret {
	c := append([]byte(nil), b...)
	return Secret{&c}
}

// Reveal returns what s holds. The caller neither changes nor keeps it.
func Reveal(s Secret) []byte {
	if s.b == nil {
		return nil
	}
	return *s.b
}

// Text is Reveal as a string, which is a copy.
func Text(s Secret) string { return string(Reveal(s)) }

// Empty reports whether s holds nothing.
func (s Secret) Empty() bool { return s.b == nil || len(*s.b) == 0 }

// Format implements [fmt.Formatter] for every verb.
func (Secret) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], and by it JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
