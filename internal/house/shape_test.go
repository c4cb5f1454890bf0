package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// Limits of a file, a function and the blocks within one another.
const (
	maxFile    = 500
	maxFunc    = 80
	maxNesting = 3
)

// onlyCmd are the uses of the process that belong to cmd alone.
var onlyCmd = [...]string{
	"os.Exit", "os.Getenv", "os.LookupEnv", "os.Environ", "os.Setenv", "log.Fatal", "log.Fatalf",
	"os/signal.Notify", "os/signal.NotifyContext",
}

// Names that say nothing of what is inside.
var (
	emptyFolders = [...]string{"config", "util", "utils", "common", "core", "types", "pkg", "server", "manager", "helpers"}
	emptyFiles   = [...]string{"helpers.go", "helper.go", "util.go", "utils.go", "common.go", "misc.go", "types.go"}
)

// shape returns what is wrong with one file by itself.
func shape(s source) (faults []string) {
	fault := func(n ast.Node, format string, args ...any) {
		faults = append(faults, s.line(n)+": "+fmt.Sprintf(format, args...))
	}
	if n := s.lines(); n > maxFile {
		fault(s.ast, "%d lines, at most %d", n, maxFile)
	}
	for _, d := range s.ast.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		if f.Name.Name == "init" && f.Recv == nil {
			fault(f, "init function")
		}
		if s.test() { // tables are long
			continue
		}
		if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; n > maxFunc {
			fault(f, "%s has %d lines, at most %d", f.Name.Name, n, maxFunc)
		}
		for _, body := range bodies(f) {
			if n := nesting(body); n > maxNesting {
				fault(body, "%s nests %d deep, at most %d", f.Name.Name, n, maxNesting)
			}
		}
	}
	return append(faults, uses(s)...)
}

// bodies returns a function's body and those of the literals in it, each of which
// is a function of its own.
func bodies(f *ast.FuncDecl) []*ast.BlockStmt {
	all := []*ast.BlockStmt{f.Body}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if l, ok := n.(*ast.FuncLit); ok {
			all = append(all, l.Body)
		}
		return true
	})
	return all
}

// nesting counts the blocks of branches and loops within one another. An else-if
// is as deep as its if, and what function literals do is not counted.
func nesting(n ast.Node) int {
	deepest := 0
	ast.Inspect(n, func(c ast.Node) bool {
		if c == nil || c == n {
			return true
		}
		depth := 0
		switch c := c.(type) {
		case *ast.IfStmt:
			depth = 1 + nesting(c.Body)
			if c.Else != nil {
				depth = max(depth, 1+nesting(&ast.BlockStmt{List: elseBody(c.Else)}))
			}
			if chained, ok := c.Else.(*ast.IfStmt); ok {
				depth = max(depth, nesting(&ast.BlockStmt{List: []ast.Stmt{chained}}))
			}
		case *ast.ForStmt:
			depth = 1 + nesting(c.Body)
		case *ast.RangeStmt:
			depth = 1 + nesting(c.Body)
		case *ast.SwitchStmt:
			depth = 1 + nesting(c.Body)
		case *ast.TypeSwitchStmt:
			depth = 1 + nesting(c.Body)
		case *ast.SelectStmt:
			depth = 1 + nesting(c.Body)
		case *ast.FuncLit:
		default:
			return true
		}
		deepest = max(deepest, depth)
		return false
	})
	return deepest
}

func elseBody(s ast.Stmt) []ast.Stmt {
	if b, ok := s.(*ast.BlockStmt); ok {
		return b.List
	}
	return nil
}

// uses returns the calls that are out of place.
func uses(s source) (faults []string) {
	imports := s.imports()
	_, bubbled := imports["synctest"]
	ast.Inspect(s.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || imports[x.Name] == "" {
			return true
		}
		name := imports[x.Name] + "." + sel.Sel.Name
		switch {
		case !s.test() && !s.inCmd() && !s.tool() && slices.Contains(onlyCmd[:], name):
			faults = append(faults, s.line(n)+": "+name+" outside cmd")
		case s.test() && !bubbled && name == "time.Sleep": // the clock of a bubble moves by sleeping
			faults = append(faults, s.line(n)+": a test sleeps")
		}
		return true
	})
	return faults
}

func TestShape(t *testing.T) {
	for _, s := range sources(t) {
		if s.made() {
			continue
		}
		for _, fault := range shape(s) {
			t.Error(fault)
		}
	}
}

func TestNames(t *testing.T) {
	walk(t, func(name string, d fs.DirEntry) {
		base := path.Base(name)
		if d.IsDir() && slices.Contains(emptyFolders[:], base) || !d.IsDir() && slices.Contains(emptyFiles[:], base) {
			t.Errorf("%s: the name says nothing of what is inside", name)
		}
	})
}

// undocumented returns a package's exported declarations without a comment, and
// the package itself when none of its files describes it.
func undocumented(files []source) (faults []string) {
	described := false
	for _, s := range files {
		described = described || s.ast.Doc != nil && (strings.HasPrefix(s.ast.Doc.Text(), "Package ") || strings.HasPrefix(s.ast.Doc.Text(), "Command "))
		if s.test() {
			continue
		}
		for _, d := range s.ast.Decls {
			for _, name := range bare(d) {
				faults = append(faults, s.line(name)+": exported "+name.Name+" has no comment")
			}
		}
	}
	if !described {
		faults = append(faults, files[0].dir()+": the package has no comment")
	}
	return faults
}

// bare returns the exported names that a declaration leaves without a comment. A
// comment on a group of constants or variables is one for each.
func bare(d ast.Decl) (names []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d.Recv))) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Doc == nil && spec.Name.IsExported() {
					names = append(names, spec.Name)
				}
			case *ast.ValueSpec:
				names = append(names, bareValues(spec)...)
			}
		}
	}
	return names
}

func bareValues(spec *ast.ValueSpec) (names []*ast.Ident) {
	if spec.Doc != nil || spec.Comment != nil {
		return nil
	}
	for _, name := range spec.Names {
		if name.IsExported() {
			names = append(names, name)
		}
	}
	return names
}

func receiver(l *ast.FieldList) string {
	t := l.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestComments(t *testing.T) {
	for _, files := range packages(sources(t)) {
		for _, fault := range undocumented(files) {
			t.Error(fault)
		}
	}
}

func TestGlobals(t *testing.T) {
	for _, files := range packages(sources(t)) {
		for _, fault := range mutable(files) {
			t.Error(fault)
		}
	}
}

// mutable returns the package variables that are more than names for fixed
// values. A fixed value is set where it is declared, is no lock, counter, channel
// or empty vessel, and nothing in the package writes to it or takes its address.
func mutable(files []source) (faults []string) {
	vars := map[string]bool{}
	for _, s := range files {
		if s.test() || s.made() {
			continue
		}
		for _, d := range s.ast.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				faults = append(faults, vessels(s, g, vars)...)
			}
		}
	}
	for _, s := range files {
		if s.test() {
			continue
		}
		for _, name := range written(s, vars) {
			faults = append(faults, s.line(name)+": package variable "+name.Name+" is written to")
		}
	}
	return faults
}
