package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

//go:embed overrides hand
var beside embed.FS

// override is a line of overrides/SERVICE.txt: an operation's name, or a pattern
// with * (not across /; alone it is all), perhaps with a method in front; the level, or = to leave it; and marks to
// set, or to take away with a - in front. Later lines win.
//
//	markdown/render                read
//	DELETE:repos/*                 admin
//	git/create-ref                 admin creates=body:/ref undo=git/delete-ref
//	issues/create                  =     -undeletable undo=issues/update
//	*.create                       =     creates?=/id    (where it creates and no place is known)
type override struct {
	pattern, method string
	level           policy.Access
	marks           []string
	used            bool
}

func overridesOf(service string) ([]override, error) {
	lines, err := linesOf("overrides/" + service + ".txt")
	if err != nil {
		return nil, err
	}
	var out []override
	for n, words := range lines {
		if len(words) < 2 {
			return nil, fmt.Errorf("overrides/%s.txt: entry %d: want a name and a level", service, n+1)
		}
		o := override{pattern: words[0], level: policy.Access(words[1]), marks: words[2:]}
		if method, name, ok := strings.Cut(o.pattern, ":"); ok && method == strings.ToUpper(method) {
			o.method, o.pattern = method, name
		}
		if _, err := path.Match(o.pattern, ""); err != nil {
			return nil, fmt.Errorf("overrides/%s.txt: %q: %w", service, o.pattern, err)
		}
		out = append(out, o)
	}
	return out, nil
}

// linesOf returns the words of a file's lines, without comments; nil when there is
// no such file.
func linesOf(name string) ([][]string, error) {
	b, err := fs.ReadFile(beside, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "# ")
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			out = append(out, words)
		}
	}
	return out, nil
}

func (o *override) fits(name, method string) bool {
	if o.method != "" && o.method != method {
		return false
	}
	if o.pattern == "*" {
		return true
	}
	ok, _ := path.Match(o.pattern, name)
	return ok
}

func (o *override) apply(op *describe.Operation) {
	if o.level != "=" {
		op.Access = o.level
		op.Marks = slices.DeleteFunc(op.Marks, func(m string) bool { return m == "maybe-read" })
	}
	for _, m := range o.marks {
		if place, ok := strings.CutPrefix(m, "creates?="); ok { // where it creates and the place is not known
			if i := slices.Index(op.Marks, action.MarkCreates); i >= 0 {
				op.Marks[i] += "=" + place
			}
			continue
		}
		gone, drop := strings.CutPrefix(m, "-")
		kind, _, _ := strings.Cut(gone, "=")
		op.Marks = slices.DeleteFunc(op.Marks, func(old string) bool {
			name, _, _ := strings.Cut(old, "=")
			return name == kind || kind == "undo" && name == "undeletable"
		})
		if !drop {
			op.Marks = append(op.Marks, m)
		}
	}
}
