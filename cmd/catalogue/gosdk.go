package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"strconv"
	"strings"

	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// goSDK is an SDK in Go whose functions say method and path in their code.
type goSDK struct {
	texts map[string]string // package-wide constants
	funcs []*ast.FuncDecl
	files map[*ast.FuncDecl]string
}

func (w *work) goSDK(p pack) (*goSDK, error) {
	files, err := w.goFiles(p, "*.go")
	if err != nil {
		return nil, err
	}
	g := &goSDK{texts: map[string]string{}, files: map[*ast.FuncDecl]string{}}
	for _, name := range sorted(files) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, files[name], parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				g.constants(d)
			case *ast.FuncDecl:
				g.funcs = append(g.funcs, d)
				g.files[d] = strings.TrimSuffix(path.Base(name), ".go")
			}
		}
	}
	return g, nil
}

func (g *goSDK) constants(d *ast.GenDecl) {
	for _, s := range d.Specs {
		v, ok := s.(*ast.ValueSpec)
		for i := 0; ok && i < len(v.Names) && i < len(v.Values); i++ {
			if text, ok := g.text(v.Values[i], nil); ok {
				g.texts[v.Names[i].Name] = text
			}
		}
	}
}

// text is what an expression says, with {name} for what is not known before the call.
// It returns false when nothing of it is.
func (g *goSDK) text(e ast.Expr, local map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		a, one := g.text(e.X, local)
		b, two := g.text(e.Y, local)
		if !one {
			a = param(e.X)
		}
		if !two {
			b = param(e.Y)
		}
		return a + b, e.Op == token.ADD && (one || two)
	case *ast.Ident:
		if s, ok := local[e.Name]; ok {
			return s, true
		}
		s, ok := g.texts[e.Name]
		return s, ok
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.Ident); ok && f.Name == "route" && len(e.Args) == 1 {
			return g.text(e.Args[0], local)
		}
		if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" && len(e.Args) > 0 {
			s, ok := g.text(e.Args[0], local)
			return format(s, e.Args[1:], g, local), ok
		}
	}
	return "", false
}

// format fills the verbs of a format with parameters, named after the segment in
// front where that is known, else after the argument.
func format(s string, args []ast.Expr, g *goSDK, local map[string]string) string {
	verb := regexp.MustCompile(`%[sdv]`)
	n := 0
	return verb.ReplaceAllStringFunc(s, func(string) string {
		n++
		if n > len(args) {
			return "{id}"
		}
		if text, ok := g.text(args[n-1], local); ok {
			return text
		}
		return param(args[n-1])
	})
}

// param names a parameter after the expression that gives it: ProjectID{pid} is
// {project_id}, issue is {issue}.
func param(e ast.Expr) string {
	name := "id"
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.CompositeLit:
		if t, ok := e.Type.(*ast.Ident); ok {
			name = t.Name
		}
	case *ast.SelectorExpr:
		name = e.Sel.Name
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Encode" {
			return "" // of a query
		}
		if len(e.Args) > 0 {
			return param(e.Args[0])
		}
	case *ast.UnaryExpr:
		return param(e.X)
	case *ast.StarExpr:
		return param(e.X)
	}
	return "{" + strings.Join(describe.Words(name), "_") + "}"
}

// gitLabParams are the documented names of parameters, by the segment in front.
var gitLabParams = map[string]string{"issues": "issue_iid", "merge_requests": "merge_request_iid", "pipelines": "pipeline_id", "jobs": "job_id", "notes": "note_id",
	"hooks": "hook_id", "users": "user_id", "milestones": "milestone_id", "branches": "branch", "variables": "key", "discussions": "discussion_id"}

func gitLab(w *work) error {
	w.Service = action.Service{
		Name: "gitlab", License: "Apache-2.0", Hosts: []string{"gitlab.com/api"}, GitHosts: []string{"gitlab.com"}, Env: []string{"GITLAB_TOKEN", "GITLAB_PRIVATE_TOKEN", "CI_JOB_TOKEN"},
		Places: []string{"header:PRIVATE-TOKEN", "bearer", "header:JOB-TOKEN", "basic"}, Handle: "glpat-", Also: map[string]string{"@sudo": "sudo admin", "?sudo": "sudo admin"}, EncodedSlash: true, GitNested: true, GraphQL: []string{"/api/graphql"},
		Resources: []action.ResourceRule{{Type: "project", ID: "{project_id}"}, {Type: "group", ID: "{group_id}"}, {Type: "repository", ID: "{owner}/{repo}"}, {Type: "user", ID: "{user_id}"}},
		Fold:      []string{"project_id", "group_id", "owner", "repo"},
	}
	g, err := w.goSDK(pack{"gitlab.com/gitlab-org/api/client-go/v2", "v2.64.0"})
	if err != nil {
		return err
	}
	var ops []*describe.Operation
	for _, f := range g.funcs {
		method, at := "GET", ""
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok || len(c.Args) == 0 {
				return true
			}
			switch fun, _ := c.Fun.(*ast.Ident); {
			case fun == nil:
			case fun.Name == "withMethod":
				if s, ok := c.Args[0].(*ast.SelectorExpr); ok {
					method = strings.ToUpper(strings.TrimPrefix(s.Sel.Name, "Method"))
				}
			case fun.Name == "withPath":
				if s, ok := g.text(c.Args[0], nil); ok {
					at = gitLabPath(format(s, c.Args[1:], g, nil))
				}
			}
			return true
		})
		if at != "" && f.Recv != nil && f.Name.IsExported() {
			name := strings.Join(describe.Words(f.Name.Name), "_")
			if i := strings.LastIndex(name, "by_"); strings.HasSuffix(at, "/search") && i >= 0 {
				name = name[i:] // one request for all kinds of things
			}
			ops = append(ops, &describe.Operation{Method: method, Path: at, Name: g.files[f] + "/" + name})
		}
	}
	return w.operations(ops)
}

// gitLabPath gives the parameters of a path their documented names.
func gitLabPath(p string) string {
	segments := strings.Split("api/v4/"+strings.TrimPrefix(p, "/"), "/")
	for i, s := range segments {
		if name := gitLabParams[segments[max(i-1, 0)]]; name != "" && strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
			segments[i] = "{" + name + "}"
		}
	}
	return "/" + strings.Join(segments, "/")
}

func pagerDuty(w *work) error {
	w.Service = action.Service{
		Name: "pagerduty", License: "Apache-2.0", Hosts: []string{"api.pagerduty.com", "api.eu.pagerduty.com"}, Env: []string{"PAGERDUTY_TOKEN", "PAGERDUTY_API_KEY", "PD_API_KEY"},
		Places: []string{"header:Authorization", "bearer"}, Resources: []action.ResourceRule{{Type: "incident", ID: "{incident_id}"}, {Type: "service", ID: "{service_id}"}},
	}
	g, err := w.goSDK(pack{"github.com/PagerDuty/go-pagerduty", "v1.8.0"})
	if err != nil {
		return err
	}
	var ops []*describe.Operation
	for _, f := range g.funcs {
		if f.Recv == nil || !f.Name.IsExported() || f.Body == nil {
			continue
		}
		local := map[string]string{}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if id, ok := n.Lhs[0].(*ast.Ident); ok && len(n.Rhs) == 1 {
					if text, ok := g.text(n.Rhs[0], local); ok && strings.HasPrefix(text, "/") {
						local[id.Name] = text
					}
				}
			case *ast.CallExpr:
				if op := g.pagerDutyCall(n, f, local); op != nil {
					ops = append(ops, op)
				}
			}
			return true
		})
	}
	return w.operations(ops)
}

// pagerDutyCall reads c.get(ctx, path, …) and its like.
func (g *goSDK) pagerDutyCall(c *ast.CallExpr, f *ast.FuncDecl, local map[string]string) *describe.Operation {
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || len(c.Args) < 2 {
		return nil
	}
	switch s.Sel.Name {
	case "get", "post", "put", "delete":
	default:
		return nil
	}
	at, ok := g.text(c.Args[1], local)
	at, _, _ = strings.Cut(at, "?")
	if !ok || !strings.HasPrefix(at, "/") {
		return nil
	}
	segments := strings.Split(at, "/")
	for i, x := range segments {
		if strings.HasPrefix(x, "{") && i > 0 { // /incidents/{id}: {incident_id}
			segments[i] = "{" + strings.TrimSuffix(segments[i-1], "s") + "_id}"
		}
	}
	made := segments[len(segments)-1] // {"incident": {"id": …}}
	if stem, ok := strings.CutSuffix(made, "ies"); ok {
		made = stem + "y"
	}
	name := strings.TrimSuffix(strings.TrimSuffix(f.Name.Name, "WithContext"), "Context")
	return &describe.Operation{Method: strings.ToUpper(s.Sel.Name), Path: strings.Join(segments, "/"), Name: g.files[f] + "/" + strings.Join(describe.Words(name), "_"),
		Fields: []string{strings.TrimSuffix(made, "s") + ".id"}}
}
