package oblige

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"chaperone/policy"
)

// Edit says what to change in a JSON document or a form, by JSON pointers (RFC 6901) in
// which a part "*" stands for any element or member. What is not there need not be
// removed or masked; what is to be set must have its place.
type Edit struct {
	Remove []string                  `json:"remove"`
	Mask   []string                  `json:"mask"` // replaced by "[masked]"
	Set    map[string]jsontext.Value `json:"set"`

	labels map[string]string // added to the list at a pointer
	append map[string]string // added to the text at a pointer
}

// Attribution adds who acts for whom to what is created.
type Attribution struct {
	As string `json:"as"` // footer, trailer or label
	At string `json:"at"` // JSON pointer of the text, for a label of the list
}

const masked = `"[masked]"`

// Empty reports whether there is nothing to change.
func (e *Edit) Empty() bool {
	return len(e.Remove) == 0 && len(e.Mask) == 0 && len(e.Set) == 0 && len(e.labels) == 0 && len(e.append) == 0
}

func (e *Edit) check(name string) error {
	for _, p := range slices.Concat(e.Remove, e.Mask) {
		if !strings.HasPrefix(p, "/") {
			return unmet(name, "%q is no JSON pointer", p)
		}
	}
	for p, v := range e.Set {
		if !strings.HasPrefix(p, "/") || strings.Contains(p+"/", "/*/") || !v.IsValid() {
			return unmet(name, "%q is no JSON pointer of one place, or what to set there is no JSON", p)
		}
	}
	return nil
}

func checkAttribution(list []Attribution) error {
	for _, a := range list {
		if !strings.HasPrefix(a.At, "/") || strings.Contains(a.At+"/", "/*/") || !slices.Contains([]string{"footer", "trailer", "label"}, a.As) {
			return unmet("attribution", "it wants as (footer, trailer or label) and at, the JSON pointer of a text or list")
		}
	}
	return nil
}

// RequestEdit is what is to be changed in the body of a request, the attribution with
// the decision's id among it.
func (d *Duties) RequestEdit(q *policy.Question, id string) *Edit {
	e := d.Body.Request
	for _, a := range d.Attribution {
		if a.As == "label" {
			if e.labels == nil {
				e.labels = map[string]string{}
			}
			e.labels[a.At] = "agent:" + q.Agent.ID
			continue
		}
		if e.append == nil {
			e.append = map[string]string{}
		}
		e.append[a.At] += signature(a.As, q, id)
	}
	return &e
}

// signature is text that people and the tools of git read (git-interpret-trailers(1)).
func signature(as string, q *policy.Question, id string) string {
	agent, human := oneLine(q.Agent.ID), ""
	if q.Human != nil {
		human = oneLine(subject("human", q))
	}
	if as == "trailer" {
		text := "\n\nAgent: " + agent
		if human != "" {
			text += "\nOn-Behalf-Of: " + human
		}
		return text + "\nChaperone-Decision: " + id
	}
	text := "\n\n---\nBy agent " + agent
	if human != "" {
		text += " for " + human
	}
	return text + " (chaperone " + id + ")"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// errForm is wrapped when a document cannot be changed as it is obliged to.
var errForm = errors.New("editing JSON")

// Apply returns the changed document. Numbers, order and spelling of all else are kept.
func (e *Edit) Apply(doc []byte) ([]byte, error) {
	var out bytes.Buffer
	w := editor{e: e, d: jsontext.NewDecoder(bytes.NewReader(doc)), w: jsontext.NewEncoder(&out), done: map[string]bool{}}
	if err := w.value(nil); err != nil {
		return nil, fmt.Errorf("%w: %w", errForm, err)
	}
	if _, err := w.d.ReadToken(); err != io.EOF {
		return nil, fmt.Errorf("%w: more than one document", errForm)
	}
	for _, p := range e.places() {
		if !w.done[p] {
			return nil, fmt.Errorf("%w: there is no place %s", errForm, p)
		}
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// places are the pointers at which there must be something in the end.
func (e *Edit) places() []string {
	var out []string
	for p := range e.Set {
		out = append(out, p)
	}
	for p := range e.labels {
		out = append(out, p)
	}
	for p := range e.append {
		out = append(out, p)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// respelled is the place that differs from a pointer in case only: some services would
// take what stands there for what is set.
func (e *Edit) respelled(at string) string {
	for _, m := range [...]map[string]string{e.append, e.labels} {
		for p := range m {
			if p != at && strings.EqualFold(p, at) {
				return p
			}
		}
	}
	for p := range e.Set {
		if p != at && strings.EqualFold(p, at) {
			return p
		}
	}
	return ""
}

// editor copies a document token by token.
type editor struct {
	e    *Edit
	d    *jsontext.Decoder
	w    *jsontext.Encoder
	done map[string]bool
}

const maxDepth = 200

// value copies the next value, which stands at path, or what is to be in its place.
func (w *editor) value(path []string) error {
	at := pointer(path)
	if text, ok := w.e.append[at]; ok {
		return w.extended(at, text)
	}
	replacement, ok := w.e.Set[at]
	if !ok && matchesAny(w.e.Mask, path) {
		replacement, ok = jsontext.Value(masked), true
	}
	if ok {
		w.done[at] = true
		if err := w.d.SkipValue(); err != nil {
			return err
		}
		return w.w.WriteValue(replacement)
	}
	if len(path) > maxDepth {
		return errors.New("nested too deep")
	}
	switch w.d.PeekKind() {
	case '{':
		return w.object(path)
	case '[':
		return w.array(path)
	}
	v, err := w.d.ReadValue()
	if err != nil {
		return err
	}
	return w.w.WriteValue(v)
}

// extended copies a text with more at its end; null counts as none.
func (w *editor) extended(at, text string) error {
	w.done[at] = true
	t, err := w.d.ReadToken()
	if err != nil {
		return err
	}
	switch t.Kind() {
	case '"':
		return w.w.WriteToken(jsontext.String(t.String() + text))
	case 'n':
		return w.w.WriteToken(jsontext.String(strings.TrimLeft(text, "\n")))
	}
	return fmt.Errorf("%s is no text", at)
}

func (w *editor) object(path []string) error {
	if err := w.copyToken(); err != nil {
		return err
	}
	for w.d.PeekKind() != '}' {
		name, err := w.d.ReadToken()
		if err != nil {
			return err
		}
		below := append(path[:len(path):len(path)], name.String())
		if matchesAny(w.e.Remove, below) {
			if err := w.d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if other := w.e.respelled(pointer(below)); other != "" {
			return fmt.Errorf("%s stands there as %s", other, pointer(below))
		}
		if err := w.w.WriteToken(jsontext.String(name.String())); err != nil {
			return err
		}
		if err := w.value(below); err != nil {
			return err
		}
	}
	if err := w.missing(path); err != nil {
		return err
	}
	return w.copyToken()
}

// missing adds members that are to be set and were not there.
func (w *editor) missing(path []string) error {
	for _, p := range w.e.places() {
		parent, name, _ := cutLast(p)
		if w.done[p] || parent != pointer(path) {
			continue
		}
		w.done[p] = true
		v := w.e.Set[p]
		if text, ok := w.e.append[p]; ok {
			v, _ = jsontext.AppendQuote(nil, strings.TrimLeft(text, "\n"))
		} else if label, ok := w.e.labels[p]; ok {
			quoted, _ := jsontext.AppendQuote(nil, label)
			v = append(append([]byte("["), quoted...), ']')
		}
		if err := w.w.WriteToken(jsontext.String(name)); err != nil {
			return err
		}
		if err := w.w.WriteValue(v); err != nil {
			return err
		}
	}
	return nil
}

func (w *editor) array(path []string) error {
	if err := w.copyToken(); err != nil {
		return err
	}
	for i := 0; w.d.PeekKind() != ']'; i++ {
		if w.d.PeekKind() == 0 {
			_, err := w.d.ReadToken()
			return err
		}
		below := append(path[:len(path):len(path)], fmt.Sprint(i))
		if matchesAny(w.e.Remove, below) {
			if err := w.d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if err := w.value(below); err != nil {
			return err
		}
	}
	if label, ok := w.e.labels[pointer(path)]; ok {
		w.done[pointer(path)] = true
		if err := w.w.WriteToken(jsontext.String(label)); err != nil {
			return err
		}
	}
	return w.copyToken()
}

func (w *editor) copyToken() error {
	t, err := w.d.ReadToken()
	if err != nil {
		return err
	}
	return w.w.WriteToken(t)
}

var escape = strings.NewReplacer("~", "~0", "/", "~1")

func pointer(path []string) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(escape.Replace(p))
	}
	return b.String()
}

func cutLast(p string) (parent, name string, ok bool) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", "", false
	}
	return p[:i], strings.NewReplacer("~1", "/", "~0", "~").Replace(p[i+1:]), true
}

func matchesAny(patterns []string, path []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		parts := strings.Split(p[1:], "/")
		if len(parts) != len(path) {
			return false
		}
		for i, part := range parts {
			if part != "*" && !strings.EqualFold(part, escape.Replace(path[i])) { // some services take them for one
				return false
			}
		}
		return true
	})
}
