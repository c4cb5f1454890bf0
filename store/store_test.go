package store

import (
	"strings"
	"testing"
)

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"agent/a", "", "/", "a//b", "a/", "a b", "a\x00", "\u00fc", strings.Repeat("n", MaxName+1), "a/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		valid := name != "" && len(name) <= MaxName
		for part := range strings.SplitSeq(name, "/") {
			valid = valid && part != ""
		}
		for _, r := range name {
			valid = valid && r > ' ' && r < 0x7f
		}
		if err := CheckName(name); (err == nil) != valid {
			t.Errorf("CheckName(%q): %v, and valid is %v", name, err, valid)
		}
	})
}
