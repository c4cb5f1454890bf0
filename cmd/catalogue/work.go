package main

import (
	"fmt"
	"slices"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// vendor makes one service.
type vendor struct {
	name string
	make func(*work) error
}

// work is a service in the making.
type work struct {
	action.Service
	sources
	cited     []string
	examples  []example
	shows     bool // examples are wanted
	overrides []override
	notes     []string
}

func newWork(name string, src sources) (*work, error) {
	list, err := overridesOf(name)
	return &work{Service: action.Service{Name: name}, sources: src, overrides: list}, err
}

// options are those of every description of the service, or of its part.
func (w *work) options(part string) describe.Options {
	prefix := ""
	if part != "" {
		prefix = part + "."
	}
	return describe.Options{Service: w.Name, Adjust: func(op *describe.Operation) { w.adjust(prefix, op) }}
}

// adjust applies the overrides to an operation, in their order.
func (w *work) adjust(prefix string, op *describe.Operation) {
	for i := range w.overrides {
		if o := &w.overrides[i]; o.fits(prefix+op.Name, op.Method) {
			o.used = true
			o.apply(op)
		}
	}
}

// read takes in one description.
func (w *work) read(file string, b []byte, o describe.Options) error {
	finish := func() {}
	if w.shows {
		finish = w.gather(b, &o)
	}
	d, err := describe.Read(file, b, o)
	if err != nil {
		return err
	}
	finish()
	w.take("", d)
	return nil
}

// operations takes in operations that were gathered from an SDK.
func (w *work) operations(ops []*describe.Operation) error {
	if len(ops) == 0 {
		return fmt.Errorf("no operation was found")
	}
	w.take("", describe.From(ops, w.options("")))
	return nil
}

// take adds what a description gave to the service, or to its part.
func (w *work) take(part string, d *describe.Draft) {
	to := &w.Service
	if part != "" {
		if to = w.APIs[part]; to == nil {
			to = &action.Service{Hosts: d.Service.Hosts}
			if w.APIs == nil {
				w.APIs = map[string]*action.Service{}
			}
			w.APIs[part] = to
		}
	}
	for path, methods := range d.Service.Paths {
		for method, row := range methods {
			put(to, path, method, row)
		}
	}
	for key, row := range d.Service.Ops {
		if to.Ops == nil {
			to.Ops = map[string]string{}
		}
		to.Ops[key] = row
	}
	for _, p := range d.Service.Protocols {
		if !slices.Contains(to.Protocols, p) {
			to.Protocols = append(to.Protocols, p)
		}
	}
	w.notes = append(w.notes, d.Notes...)
}

// put adds one operation. One that is there stays: what is read first leads.
func put(s *action.Service, path, method, row string) {
	if s.Paths == nil {
		s.Paths = map[string]map[string]string{}
	}
	if s.Paths[path] == nil {
		s.Paths[path] = map[string]string{}
	}
	if s.Paths[path][method] == "" {
		s.Paths[path][method] = row
	}
}

// row is the operation of a service's path and method, or "".
func (w *work) row(path, method string) string { return w.Paths[path][method] }

// finish adds what is written by hand, and formats the file.
func (w *work) finish() ([]byte, error) {
	if err := w.byHand(); err != nil {
		return nil, err
	}
	var unused []string
	for _, o := range w.overrides {
		if !o.used {
			unused = append(unused, strings.TrimPrefix(o.method+":"+o.pattern, ":"))
		}
	}
	if len(unused) > 0 {
		return nil, fmt.Errorf("overrides that fit no operation: %s", strings.Join(unused, " "))
	}
	slices.Sort(w.cited)
	w.Source = strings.Join(slices.Compact(w.cited), " ")
	w.mendUndo()
	return describe.Format(&w.Service)
}

// mendUndo takes away undo marks whose operation has another name after overrides,
// so that no file promises what it does not have.
func (w *work) mendUndo() {
	names := map[string]bool{}
	for _, r := range w.Rows() {
		names[r.Action] = true
	}
	mend := func(prefix, row string) string {
		words := strings.Fields(row)
		return strings.Join(slices.DeleteFunc(words, func(m string) bool {
			undo, ok := strings.CutPrefix(m, action.MarkUndo)
			return ok && !names[w.Name+":"+prefix+undo]
		}), " ")
	}
	each := func(prefix string, s *action.Service) {
		for _, methods := range s.Paths {
			for m, row := range methods {
				methods[m] = mend(prefix, row)
			}
		}
		for k, row := range s.Ops {
			s.Ops[k] = mend(prefix, row)
		}
	}
	each("", &w.Service)
	for name, api := range w.APIs {
		each(name+".", api)
	}
}

func levelOf(s string) policy.Access { return policy.Access(s) }
