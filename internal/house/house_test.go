// Package house tests the shape of the code: who imports what, sizes, and habits
// that the compiler does not know.
package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the module's folder as tests here see it.
const root = "../.."

// skipped folders hold nothing that is judged; also those that begin with a dot.
var skipped = [...]string{"testdata", "node_modules", "python_modules", "state"}

// source is one Go file of the module.
type source struct {
	path string // slash path from the module's root
	ast  *ast.File
	fset *token.FileSet
}

func (s source) dir() string { return path.Dir(s.path) }
func (s source) test() bool  { return strings.HasSuffix(s.path, "_test.go") }
func (s source) inCmd() bool { return within(s.dir(), "cmd") }
func (s source) lines() int  { return s.fset.File(s.ast.FileStart).LineCount() }
func (s source) made() bool  { return ast.IsGenerated(s.ast) }
func (s source) tool() bool  { return within(s.dir(), "bench") || within(s.dir(), "internal") }
func (s source) top() string { return topOf(s.dir()) }
func (s source) line(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// imports maps the names by which the file knows packages to their paths.
func (s source) imports() map[string]string {
	m := map[string]string{}
	for _, i := range s.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		m[name] = p
	}
	return m
}

// within reports whether dir is parent or lies below it.
func within(dir, parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") }

func parse(t *testing.T, name string, src any) source {
	t.Helper()
	fset := token.NewFileSet()
	file := filepath.Join(root, name)
	f, err := parser.ParseFile(fset, file, src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return source{name, f, fset}
}

// walk calls visit with every file and folder of the module that is judged.
func walk(t *testing.T, visit func(name string, d fs.DirEntry)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || slices.Contains(skipped[:], d.Name()) || slices.Contains(skipped[:], name)) {
			return fs.SkipDir
		}
		if _, err := fs.Stat(os.DirFS(root), name+"/go.mod"); err == nil && d.IsDir() {
			return fs.SkipDir // a module of its own
		}
		visit(name, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	walk(t, func(name string, d fs.DirEntry) {
		if !d.IsDir() && strings.HasSuffix(name, ".go") {
			all = append(all, parse(t, name, nil))
		}
	})
	if len(all) == 0 {
		t.Fatal("there is no source to judge")
	}
	return all
}

// packages groups files by folder, which is by package but for external tests.
func packages(all []source) map[string][]source {
	m := map[string][]source{}
	for _, s := range all {
		m[s.dir()] = append(m[s.dir()], s)
	}
	return m
}
