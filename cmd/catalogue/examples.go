package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chaperone/policy/action/describe"
)

// Limits of what is written of a vendor's examples: requests of a service, and bytes of
// a body.
const (
	fewestExamples = 5
	mostExamples   = 60
	longestBody    = 600
)

// example is a request that a vendor's description shows, and the operation that it is
// shown for.
type example struct {
	method, host, target string
	fields               []string // "Name: value"
	body                 string
	name                 string
	source               string
}

// gather keeps the examples of a description beside its operations, by the names that the
// catalogue gives these.
func (w *work) gather(b []byte, o *describe.Options) (finish func()) {
	var ops []*describe.Operation
	adjust := o.Adjust
	o.Adjust = func(op *describe.Operation) {
		adjust(op)
		ops = append(ops, op)
	}
	return func() {
		list := documentExamples(b, ops)
		for i := range list {
			list[i].source = w.cited[len(w.cited)-1]
		}
		w.examples = append(w.examples, list...)
	}
}

// writeExamples writes requests as the golden files of policy/action have them.
func (w *work) writeExamples(dir string) error {
	names := map[string]bool{}
	for _, r := range w.Rows() {
		names[r.Action] = true
	}
	list := slices.DeleteFunc(w.examples, func(e example) bool { return !names[w.Name+":"+e.name] })
	if len(list) < fewestExamples {
		return nil
	}
	host, _, _ := strings.Cut(w.Hosts[0], "/")
	host = strings.ReplaceAll(host, "*", "acme")
	var out bytes.Buffer
	source := ""
	for i := range min(mostExamples, len(list)) {
		e := list[i*len(list)/min(mostExamples, len(list))] // from all of it
		if e.source != source {
			source = e.source
			fmt.Fprintf(&out, "# from %s\n", source)
		}
		if e.host == "" {
			e.host = host
		}
		fmt.Fprintf(&out, "%s https://%s%s", e.method, e.host, e.target)
		if len(e.fields) == 0 && e.body == "" {
			fmt.Fprintf(&out, " => %s:%s\n", w.Name, e.name)
			continue
		}
		out.WriteByte('\n')
		for _, f := range e.fields {
			out.WriteString(f + "\n")
		}
		if e.body != "" {
			out.WriteString("| " + e.body + "\n")
		}
		fmt.Fprintf(&out, "=> %s:%s\n", w.Name, e.name)
	}
	return os.WriteFile(filepath.Join(dir, w.Name+".txt"), out.Bytes(), 0o644)
}

// fill puts values in the place of a template's parameters. It returns false when one is
// missing, or stands for several segments where the template has one.
func fill(template string, values map[string]string) (string, bool) {
	var out strings.Builder
	for {
		before, rest, more := strings.Cut(template, "{")
		out.WriteString(before)
		if !more {
			return out.String(), true
		}
		name, after, _ := strings.Cut(rest, "}")
		name, several := strings.CutSuffix(name, "+")
		v := values[name]
		if v == "" || v == "." || v == ".." || !several && strings.Contains(v, "/") || strings.HasPrefix(v, "/") || strings.HasSuffix(v, "/") {
			return "", false
		}
		out.WriteString(strings.ReplaceAll(url.PathEscape(v), "%2F", "/"))
		template = after
	}
}
