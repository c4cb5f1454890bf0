package house

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "chaperone"

// floors of the tree: a folder imports only from those below it.
var floors = map[string]int{
	"cmd": 4, "bench": 4,
	"proxy":      3,
	"credential": 2, "audit": 2, "internal/testkit": 2,
	"policy": 1, "store": 1, "certs": 1, "rego": 1,
	"internal/house": 1, "internal/e2e": 4,
}

// forTests are the packages that tests of every floor may import.
var forTests = [...]string{"internal/testkit", "store/storetest"}

// topOf returns the folder of which a package's floor goes by.
func topOf(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	if parts[0] == "internal" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// upward returns what is wrong with the floors in a file's imports.
func upward(s source) (faults []string) {
	from, known := floors[s.top()]
	if !known {
		return []string{fmt.Sprintf("%s: folder %s has no floor", s.path, s.top())}
	}
	for _, imp := range s.imports() {
		dir, ours := strings.CutPrefix(imp, module+"/")
		if !ours || topOf(dir) == s.top() || s.test() && (dir == forTests[0] || dir == forTests[1]) {
			continue
		}
		if to, known := floors[topOf(dir)]; !known || to >= from {
			faults = append(faults, fmt.Sprintf("%s imports %s, which is not below it", s.path, dir))
		}
	}
	if s.dir() != "policy" {
		return faults
	}
	for _, imp := range s.imports() { // the middle of everything stands alone
		if strings.HasPrefix(imp, module+"/") || thirdParty(imp) {
			faults = append(faults, fmt.Sprintf("%s imports %s; policy imports the standard library alone", s.path, imp))
		}
	}
	return faults
}

func thirdParty(imp string) bool {
	host, _, _ := strings.Cut(imp, "/")
	return strings.Contains(host, ".")
}

// doors are the folders that may import each library, as docs/dependencies.md
// tells people.
type doors map[string][]string

// row of the table there: | `module` | `door`, `door` | why |
var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (`[^|]+`) \\|")

func readDoors(t *testing.T) doors {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	d := doors{}
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		d[m[1]] = strings.Split(strings.ReplaceAll(m[2], "`", ""), ", ")
	}
	if len(d) == 0 {
		t.Fatal("docs/dependencies.md has no table of doors")
	}
	return d
}

// strangers returns the imports of libraries that come in by another door.
// Tests, and the tools that measure and test, may import any.
func (d doors) strangers(s source) (faults []string) {
	if s.test() || s.tool() {
		return nil
	}
	for _, imp := range s.imports() {
		if thirdParty(imp) && !d.admits(imp, s.dir()) {
			faults = append(faults, fmt.Sprintf("%s imports %s, whose door is elsewhere: see docs/dependencies.md", s.path, imp))
		}
	}
	return faults
}

func (d doors) admits(imp, dir string) bool {
	for lib, folders := range d {
		if !within(imp, lib) {
			continue
		}
		for _, door := range folders {
			if within(dir, door) {
				return true
			}
		}
	}
	return false
}

func TestImports(t *testing.T) {
	d := readDoors(t)
	for _, s := range sources(t) {
		for _, fault := range append(upward(s), d.strangers(s)...) {
			t.Error(fault)
		}
	}
}

func TestImportRulesCatch(t *testing.T) {
	d := doors{"go.etcd.io/bbolt": {"store/bolt"}, "go.yaml.in/yaml/v3": {"cmd/chaperone", "policy/opa"}}
	for _, tc := range []struct {
		name, file, imp string
		faults          int
	}{
		{"down", "proxy/a.go", "chaperone/policy", 0},
		{"same folder", "proxy/a.go", "chaperone/proxy/identity", 0},
		{"up", "store/a.go", "chaperone/proxy", 1},
		{"sideways", "certs/a.go", "chaperone/store", 1},
		{"test uses the kit", "store/bolt/a_test.go", "chaperone/internal/testkit", 0},
		{"product uses the kit", "store/bolt/a.go", "chaperone/internal/testkit", 1},
		{"no floor", "util/a.go", "fmt", 1},
		{"policy imports ours", "policy/a.go", "chaperone/policy/action", 1},
		{"own door", "store/bolt/a.go", "go.etcd.io/bbolt/errors", 0},
		{"second door", "policy/opa/a.go", "go.yaml.in/yaml/v3", 0},
		{"no door", "store/redis/a.go", "go.etcd.io/bbolt", 1},
		{"unlisted", "proxy/a.go", "example.com/lib", 1},
		{"alike", "store/bolt/a.go", "go.etcd.io/bboltx", 1},
		{"test imports any", "proxy/a_test.go", "example.com/lib", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := parse(t, tc.file, "package a\nimport _ \""+tc.imp+"\"\n")
			if got := append(upward(s), d.strangers(s)...); len(got) != tc.faults {
				t.Errorf("got %q, want %d faults", got, tc.faults)
			}
		})
	}
}
