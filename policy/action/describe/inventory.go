package describe

import (
	"slices"
	"strings"

	"chaperone/policy/action"
)

// undoing are last segments of paths that end what cannot be deleted.
var undoing = [...]string{"cancel", "close", "archive", "revoke", "deactivate", "disable", "void", "expire", "unpublish", "trash"}

// inventory marks what operations create and delete: creates=PLACE where the id of
// the made thing stands, undo=OPERATION that removes it, deletes for what removes,
// undeletable for what is made and cannot be taken back by the same API.
func inventory(ops []*Operation) {
	items := map[string][]*Operation{}   // by collection
	has := map[string]*Operation{}       // by method and shape
	returns := map[string][]*Operation{} // GETs of an item by the type they return
	for _, op := range ops {
		if op.Path == "" {
			continue
		}
		has[op.Method+" "+Shape(op.Path)] = op
		if c, ok := collection(op.Path); ok {
			items[Shape(c)] = append(items[Shape(c)], op)
			if op.Method == "GET" && op.Returns != "" {
				returns[op.Returns] = append(returns[op.Returns], op)
			}
		}
	}
	for _, op := range ops {
		if op.Path == "" || slices.ContainsFunc(op.Marks, isCreates) {
			continue
		}
		_, item := collection(op.Path)
		remove := has["DELETE "+Shape(op.Path)]
		switch {
		case op.Method == "DELETE":
			op.mark(action.MarkDeletes)
		case op.Method == "POST" && len(items[Shape(op.Path)]) > 0:
			op.creates(items[Shape(op.Path)][0].Path, has)
		case op.Method == "POST" && !item && op.Created && len(returns[op.Returns]) > 0:
			op.creates(closest(op.Path, returns[op.Returns]), has)
		case (op.Method == "PUT" || op.Method == "POST" && op.Created) && remove != nil && (op.unnamed || !changes(verbOf(op.Name))):
			op.mark(action.MarkCreates + "=" + ownID(op.Path))
			op.mark(action.MarkUndo + remove.Name)
		case op.Created && op.Method != "GET":
			op.mark(action.MarkCreates)
			op.mark("undeletable")
		}
	}
}

// changes reports whether a verb says that the thing is there already.
func changes(verb string) bool {
	switch verb {
	case "update", "edit", "replace", "patch", "modify", "change":
		return true
	}
	return false
}

func isCreates(mark string) bool { return strings.HasPrefix(mark, action.MarkCreates) }

// ownID is the id of what stands at a path: its parameters.
func ownID(path string) string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		if i, j := strings.IndexByte(segment, '{'), strings.LastIndexByte(segment, '}'); i >= 0 && j > i {
			out = append(out, strings.Replace(segment[i:j+1], "+}", "}", 1))
		}
	}
	return strings.Join(out, "/")
}

// collection returns the path in front of a last segment that is a parameter.
func collection(path string) (string, bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", false
	}
	last := strings.TrimSuffix(path[i+1:], ".json")
	return path[:i] + path[i+1+len(last):], strings.HasPrefix(last, "{") && strings.HasSuffix(last, "}")
}

// creates marks that an operation makes the thing at an item's path.
func (op *Operation) creates(item string, has map[string]*Operation) {
	mark := action.MarkCreates
	if field := idField(item, op.Fields); field != "" {
		mark += "=/" + strings.ReplaceAll(field, ".", "/")
	}
	op.mark(mark)
	if remove := has["DELETE "+Shape(item)]; remove != nil {
		op.mark(action.MarkUndo + remove.Name)
		return
	}
	for _, end := range undoing {
		if by := has["POST "+Shape(item)+"/"+end]; by != nil {
			op.mark(action.MarkUndo + by.Name)
			return
		}
	}
	op.mark("undeletable")
}

// closest picks the item path that shares most of its beginning with path.
func closest(path string, ops []*Operation) string {
	best, most := ops[0].Path, -1
	for _, op := range ops {
		n := 0
		for n < len(path) && n < len(op.Path) && path[n] == op.Path[n] {
			n++
		}
		if n > most {
			best, most = op.Path, n
		}
	}
	return best
}

// idField finds the answer's field that holds the last parameter of an item's path:
// the same name, the name's last word (issue_number, number), or id.
func idField(item string, fields []string) string {
	open, end := strings.LastIndexByte(item, '{'), strings.LastIndexByte(item, '}')
	if open < 0 || end < open {
		return ""
	}
	param := strings.TrimSuffix(item[open+1:end], "+")
	words := Words(param)
	if len(words) == 0 {
		return ""
	}
	for _, want := range [...]string{param, words[len(words)-1], "id", "name"} {
		for _, f := range fields {
			if strings.EqualFold(f, want) || strings.HasSuffix(strings.ToLower(f), "."+strings.ToLower(want)) {
				return f
			}
		}
	}
	return ""
}
