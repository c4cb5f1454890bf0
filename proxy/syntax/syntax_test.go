package syntax

import (
	"strings"
	"testing"
)

// FuzzValue compares the quick look with the slow one.
func FuzzValue(f *testing.F) {
	for c := range 256 {
		f.Add("abcdefgh" + string([]byte{byte(c)}) + "ijklmnopqrs")
	}
	f.Add("")
	f.Add("\x80\x80\x80\x80\x80\x80\x80\x1f")
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := Value(s), All(s, ValueByte); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	})
}

// TestValue puts each byte, and each pair of neighbours, at each place of a value.
func TestValue(t *testing.T) {
	for at := range 17 {
		for c := range 256 {
			for _, next := range []byte{'a', 0, 0x1f, ' ', 0x7f, 0x80, 0xff, '\t'} {
				s := strings.Repeat("x", at) + string([]byte{byte(c), next}) + strings.Repeat("y", 17-at)
				if got, want := Value(s), All(s, ValueByte); got != want {
					t.Fatalf("%q: %v, want %v", s, got, want)
				}
			}
		}
	}
}

func TestToken(t *testing.T) {
	for s, want := range map[string]bool{"": false, "Host": true, "x-y_z!": true, "a b": false, "a:b": false, "é": false, "a\x00": false} {
		if Token(s) != want {
			t.Errorf("Token(%q) = %v", s, !want)
		}
	}
}

func BenchmarkValue(b *testing.B) {
	s := strings.Repeat("ETag, Link, Location, ", 15)
	for b.Loop() {
		Value(s)
	}
}
