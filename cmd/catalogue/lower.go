package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chaperone/policy/action"
)

// write writes a service's file, unless that would take away protection that nobody
// has agreed to lose by -lower.
func (m *maker) write(s *action.Service, text []byte) error {
	file := filepath.Join(m.out, s.Name+".json")
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		was, err := action.Parse(file, old)
		if err != nil {
			return err
		}
		lost := changes(was, s)
		if len(lost) > 0 && !m.lower {
			return fmt.Errorf("not written, since it would lower or drop operations (-lower to agree):\n%s", strings.Join(lost, "\n"))
		}
		for _, line := range lost {
			fmt.Fprintln(m.stdout, line)
		}
	}
	return os.WriteFile(file, text, 0o644)
}

// changes lists the operations of was whose level is weaker in now, and those whose
// name is gone, in order and without repetition.
func changes(was, now *action.Service) []string {
	have := map[string]string{}
	for _, r := range now.Rows() {
		at := place(&r)
		have[at] = string(r.Access)
		if old := have[r.Action]; old == "" || action.Stronger(r.Access, levelOf(old)) {
			have[r.Action] = string(r.Access)
		}
	}
	var out []string
	for _, r := range was.Rows() {
		level, ok := have[place(&r)]
		switch {
		case !ok && have[r.Action] == "":
			out = append(out, fmt.Sprintf("dropped %s", r.Action))
		case ok && action.Stronger(r.Access, levelOf(level)):
			out = append(out, fmt.Sprintf("lowered %s %s %s", r.Action, r.Access, level))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func place(r *action.Row) string { return r.Host + r.Method + " " + r.Path + r.Key + " " + r.Action }
