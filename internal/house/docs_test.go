package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNamedTestsExist holds the documents that promise something to the tests that
// show it: each test that they name must be there.
func TestNamedTestsExist(t *testing.T) {
	defined := map[string]bool{}
	form := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range form.FindAllSubmatch(b, -1) {
			defined[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)
	for _, doc := range []string{"../../SECURITY.md", "../../docs/threats.md", "../../CONTRIBUTING.md"} {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		named := name.FindAllString(string(b), -1)
		for _, n := range named {
			if !defined[n] {
				t.Errorf("%s names %s, which is not there", filepath.Base(doc), n)
			}
		}
		if len(named) == 0 {
			t.Errorf("%s names no test", doc)
		}
	}
}
