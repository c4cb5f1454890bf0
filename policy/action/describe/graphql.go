package describe

import (
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"chaperone/policy"
	"chaperone/policy/action"
)

// readGraphQL reads a schema: its root fields are the operations. The document is
// parsed and not validated, since vendors' own schemas have faults.
func readGraphQL(d *Draft, b []byte, _ *Options) ([]*Operation, error) {
	doc, err := parser.ParseSchema(&ast.Source{Input: string(b), Name: d.Service.Name})
	if err != nil {
		return nil, err
	}
	d.Service.GraphQL, d.Service.Refusal = []string{"/graphql"}, "graphql"
	d.note("a schema names neither host nor path: give --host, and mend graphql: if the path is not /graphql")
	roots := map[string]string{"Query": "query", "Mutation": "mutation"}
	for _, s := range doc.Schema {
		for _, t := range s.OperationTypes {
			roots[t.Type] = string(t.Operation)
		}
	}
	defs := slices.Concat(doc.Definitions, doc.Extensions)
	types := map[string]*ast.Definition{}
	for _, def := range doc.Definitions {
		types[def.Name] = def
	}
	var ops []*Operation
	fields := map[string]bool{}
	for _, def := range defs {
		kind := roots[def.Name]
		if def.Kind != ast.Object || kind != "query" && kind != "mutation" {
			continue
		}
		for _, f := range def.Fields {
			op := &Operation{Method: "POST", Key: kind + "." + f.Name, Name: "graphql/" + kind + "." + f.Name, Published: policy.AccessWrite, Verb: true}
			if kind == "query" {
				op.Method, op.Published, op.single = "GET", policy.AccessRead, returnsOne(f)
			} else {
				fields[f.Name] = true
				op.Fields = madeBy(f, types)
				op.onTargets(targets(f, types))
			}
			if f.Directives.ForName("deprecated") != nil {
				op.mark("deprecated")
			}
			ops = append(ops, op)
		}
	}
	for _, op := range ops {
		op.antonym(fields)
	}
	return ops, nil
}

// returnsOne reports whether a query answers with one thing, by its type and name.
func returnsOne(f *ast.FieldDefinition) bool {
	kind := f.Type.Name()
	words := Words(f.Name)
	return len(words) > 0 && f.Type.Elem == nil && !strings.HasSuffix(kind, "Connection") && !strings.HasSuffix(words[len(words)-1], "s") && words[0] != "search"
}

// targets are the arguments that say what a mutation is on: its own and its input's ids
// that must be given, else those that may be, and no lists. What else it names, it sets.
func targets(f *ast.FieldDefinition, types map[string]*ast.Definition) []string {
	var must, may []string
	byName := false
	take := func(name string, t *ast.Type) {
		byName = byName || strings.HasSuffix(name, "Login") || strings.HasSuffix(name, "NameWithOwner")
		if t.NamedType != "ID" || name == "clientMutationId" || slices.Contains(must, name) || slices.Contains(may, name) {
			return
		}
		if t.NonNull {
			must = append(must, name)
			return
		}
		may = append(may, name)
	}
	for _, a := range f.Arguments {
		take(a.Name, a.Type)
	}
	if len(must) > 0 {
		return must
	}
	for _, a := range f.Arguments {
		if input := types[a.Type.Name()]; input != nil && input.Kind == ast.InputObject && a.Type.Elem == nil {
			for _, x := range input.Fields {
				take(x.Name, x.Type)
			}
		}
	}
	if len(must) > 0 || byName { // it may be named otherwise than by its id
		return must
	}
	return may
}

func (op *Operation) onTargets(names []string) {
	if len(names) > 0 {
		op.mark(action.MarkOn + strings.Join(names, ","))
	}
}

// madeBy is where the id of what a mutation makes stands in its answer.
func madeBy(f *ast.FieldDefinition, types map[string]*ast.Definition) []string {
	payload := types[f.Type.Name()]
	if payload == nil {
		return nil
	}
	for _, x := range payload.Fields {
		t := types[x.Type.Name()]
		if x.Type.Elem == nil && t != nil && strings.Contains(strings.ToLower(f.Name), strings.ToLower(x.Name)) && t.Fields.ForName("id") != nil {
			return []string{"/data/" + f.Name + "/" + x.Name + "/id"}
		}
	}
	return nil
}

// antonym marks what a mutation creates and which undoes it, by their names:
// createIssue and deleteIssue, issueCreate and issueDelete.
func (op *Operation) antonym(all map[string]bool) {
	name, ok := strings.CutPrefix(op.Key, "mutation.")
	if !ok {
		return
	}
	words := Words(name)
	if len(words) < 2 {
		return
	}
	first, last := words[0], words[len(words)-1]
	for _, verb := range [...]string{"delete", "remove", "archive", "unlink"} {
		if first == verb || last == verb {
			op.mark(action.MarkDeletes)
			op.Published = stronger(op.Published, policy.AccessDelete)
		}
	}
	for _, pair := range [...][2]string{{"create", "delete"}, {"add", "remove"}, {"create", "archive"}, {"link", "unlink"}, {"add", "delete"}, {"pin", "unpin"}, {"invite", "delete"}, {"invite", "remove"}} {
		undo := ""
		switch pair[0] {
		case first:
			undo = pair[1] + name[len(pair[0]):]
		case last:
			undo = name[:len(name)-len(last)] + strings.ToUpper(pair[1][:1]) + pair[1][1:]
		}
		if undo != "" && all[undo] {
			op.made()
			op.mark(action.MarkUndo + "graphql/mutation." + undo)
			return
		}
	}
	if first == "create" || last == "create" {
		op.made()
		op.mark("undeletable")
	}
}

// made marks what is created, with the place of its id.
func (op *Operation) made() {
	if len(op.Fields) > 0 {
		op.mark(action.MarkCreates + "=" + op.Fields[0])
		return
	}
	op.mark(action.MarkCreates)
}
