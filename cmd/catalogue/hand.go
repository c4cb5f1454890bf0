package main

import (
	"fmt"
	"strings"

	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// byHand adds the operations of hand/SERVICE.txt, lines of method, path (or "key"
// and the key), operation, level and marks:
//
//	POST /services/data/{version}/sobjects/{type}   sobjects/create write creates=/id undo=sobjects/delete
//	key  mutation.createIssue                       graphql/mutation.createIssue write
//
// They win over what was read. Creates and deletes are told as for descriptions
// unless marks say it.
func (w *work) byHand() error {
	lines, err := linesOf("hand/" + w.Name + ".txt")
	if err != nil || len(lines) == 0 {
		return err
	}
	w.cited = append(w.cited, "hand:"+w.Name+".txt")
	for _, words := range lines {
		if len(words) < 4 {
			return fmt.Errorf("hand/%s.txt: %q: want method, path, operation and level", w.Name, strings.Join(words, " "))
		}
		row := strings.Join(words[2:], " ")
		if words[0] == "key" {
			if w.Ops == nil {
				w.Ops = map[string]string{}
			}
			w.Ops[words[1]] = row
			continue
		}
		for method := range strings.SplitSeq(words[0], ",") {
			w.replace(words[1], method, row)
		}
	}
	return nil
}

// replace puts an operation in the place of those on the same request.
func (w *work) replace(path, method, row string) {
	for old := range w.Paths {
		if old != path && describe.Shape(old) == describe.Shape(path) {
			delete(w.Paths[old], method)
			if len(w.Paths[old]) == 0 {
				delete(w.Paths, old)
			}
		}
	}
	if w.Paths[path] != nil {
		delete(w.Paths[path], method)
	}
	put(&w.Service, path, method, row)
}

// onlyByHand makes a service that has no description.
func onlyByHand(s action.Service) func(*work) error {
	return func(w *work) error {
		s.Name = w.Name
		w.Service = s
		return nil
	}
}
