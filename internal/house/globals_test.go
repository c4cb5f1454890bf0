package house

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// vessels notes the variables that a declaration makes, and returns those that
// exist to be filled later.
func vessels(s source, g *ast.GenDecl, vars map[string]bool) (faults []string) {
	for _, spec := range g.Specs {
		v := spec.(*ast.ValueSpec)
		for i, name := range v.Names {
			if name.Name == "_" {
				continue
			}
			vars[name.Name] = true
			embedded := comment(g.Doc, "//go:embed ") || comment(v.Doc, "//go:embed ")
			if !embedded && (len(v.Values) == 0 || i < len(v.Values) && vessel(s, v.Values[i])) {
				faults = append(faults, s.line(name)+": package variable "+name.Name+" is made to be changed")
			}
		}
	}
	return faults
}

func comment(g *ast.CommentGroup, prefix string) bool {
	if g == nil {
		return false
	}
	for _, c := range g.List {
		if strings.HasPrefix(c.Text, prefix) {
			return true
		}
	}
	return false
}

// vessel reports whether a value is there to be filled: made, new, an address,
// or of a type of sync or sync/atomic. A pool is none: what it holds is nobody's.
func vessel(s source, e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.UnaryExpr:
		return e.Op == token.AND
	case *ast.CallExpr:
		f, ok := e.Fun.(*ast.Ident)
		return ok && (f.Name == "make" || f.Name == "new")
	case *ast.CompositeLit:
		sel, ok := e.Type.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		x, ok := sel.X.(*ast.Ident)
		return ok && strings.HasPrefix(s.imports()[x.Name], "sync") && sel.Sel.Name != "Pool"
	}
	return false
}

// written returns the places where a file writes to one of the package's
// variables or takes its address.
func written(s source, vars map[string]bool) (names []*ast.Ident) {
	note := func(e ast.Expr) {
		name := base(e)
		if name != nil && vars[name.Name] && packageLevel(s, name) {
			names = append(names, name)
		}
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				return true
			}
			for _, e := range n.Lhs {
				note(e)
			}
		case *ast.IncDecStmt:
			note(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				note(n.X)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") && len(n.Args) > 0 {
				note(n.Args[0])
			}
		}
		return true
	})
	return names
}

// base returns the variable that an expression reaches into.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// packageLevel reports whether a name is the package's variable and not a local
// one of that name. A name that the file does not declare is another file's.
func packageLevel(s source, name *ast.Ident) bool {
	return name.Obj == nil || s.ast.Scope.Lookup(name.Name) == name.Obj
}

func TestRulesCatch(t *testing.T) {
	long := strings.Repeat("\tprintln()\n", maxFunc)
	for _, tc := range []struct{ name, file, src, want string }{
		{"clean", "proxy/a.go", "func f() { if true { for { switch {} } } }", ""},
		{"init", "proxy/a.go", "func init() {}", "init function"},
		{"long function", "proxy/a.go", "func f() {\n" + long + "}", "82 lines"},
		{"long file", "proxy/a.go", strings.Repeat("\n", maxFile), "lines, at most 500"},
		{"deep", "proxy/a.go", "func f() { for { if true { switch { case true: for {} } } } }", "nests 4 deep"},
		{"else-if is not deep", "proxy/a.go", "func f() { if a { } else if b { } else if c { } else if d { for {} } }", ""},
		{"deep in else", "proxy/a.go", "func f() { if a { } else { for { for { for {} } } } }", "nests 4 deep"},
		{"deep in else-if", "proxy/a.go", "func f() { if a { } else if b { for { for { for {} } } } }", "nests 4 deep"},
		{"function literal", "proxy/a.go", "func f() { for { for { for { _ = func() { if a {} } } } } }", ""},
		{"environment", "proxy/a.go", "import \"os\"\nvar a = os.Getenv(\"A\")", "os.Getenv outside cmd"},
		{"environment by another name", "proxy/a.go", "import x \"os\"\nvar a = x.Getenv(\"A\")", "os.Getenv outside cmd"},
		{"environment in cmd", "cmd/a/a.go", "import \"os\"\nvar a = os.Getenv(\"A\")", ""},
		{"signal", "proxy/a.go", "import \"os/signal\"\nfunc f() { signal.Notify(nil) }", "os/signal.Notify outside cmd"},
		{"sleeping test", "proxy/a_test.go", "import \"time\"\nfunc f() { time.Sleep(1) }", "a test sleeps"},
		{"sleep in a bubble", "proxy/a_test.go", "import (\n\"testing/synctest\"\n\"time\"\n)\nfunc f() { synctest.Wait(); time.Sleep(1) }", ""},
		{"no package comment", "proxy/a.go", "NODOC", "the package has no comment"},
		{"bare function", "proxy/a.go", "func F() {}", "exported F has no comment"},
		{"bare method", "proxy/a.go", "type t struct{}\nfunc (t) F() {}\n// T is.\ntype T[P any] struct{}\nfunc (*T[P]) G() {}", "exported G has no comment"},
		{"bare type", "proxy/a.go", "type T struct{}", "exported T has no comment"},
		{"bare value", "proxy/a.go", "const (\n\tA = 1 // one\n\tB = 2\n)", "exported B has no comment"},
		{"documented group", "proxy/a.go", "// Numbers.\nconst (\n\tA = 1\n\tB = 2\n)", ""},
		{"sentinel", "proxy/a.go", "import \"errors\"\nvar errA = errors.New(\"a\")", ""},
		{"table", "proxy/a.go", "var a = [...]int{1}\nfunc f() int { a := 1; a = 2; return a }", ""},
		{"unset", "proxy/a.go", "var a int", "a is made to be changed"},
		{"made", "proxy/a.go", "var a = make(map[int]int)", "a is made to be changed"},
		{"lock", "proxy/a.go", "import \"sync\"\nvar a = sync.Mutex{}", "a is made to be changed"},
		{"pool", "proxy/a.go", "import \"sync\"\nvar a = sync.Pool{New: f}\nfunc f() any { return 1 }", ""},
		{"deep literal", "proxy/a.go", "func f() { _ = func() { for { for { for { for {} } } } } }", "nests 4 deep"},
		{"address", "proxy/a.go", "var a = &struct{}{}", "a is made to be changed"},
		{"assigned", "proxy/a.go", "var a = 1\nfunc f() { a = 2 }", "a is written to"},
		{"element assigned", "proxy/a.go", "var a = map[int]int{}\nfunc f() { a[1]++ }", "a is written to"},
		{"deleted from", "proxy/a.go", "var a = map[int]int{}\nfunc f() { delete(a, 1) }", "a is written to"},
		{"address taken", "proxy/a.go", "var a = 1\nfunc f() *int { return &a }", "a is written to"},
		{"embedded", "proxy/a.go", "import _ \"embed\"\n//go:embed x\nvar a string", ""},
		{"assertion", "proxy/a.go", "var _ error = nil", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := "// Package a is.\npackage a\n" + tc.src
			if tc.src == "NODOC" {
				src = "package a"
			}
			s := parse(t, tc.file, src)
			got := append(shape(s), undocumented([]source{s})...)
			got = append(got, mutable([]source{s})...)
			if tc.want == "" && len(got) > 0 || tc.want != "" && !strings.Contains(strings.Join(got, "\n"), tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
