package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	// which is "all" for the clients that have to be installed first.
	which = flag.String("clients", "", "all: install every client, play every mode, and write docs/clients.md; or NAME,… for some, without writing")
	// kept is where they are installed, to have them for another run.
	kept = flag.String("clients-dir", "", "folder to install the clients of -clients in; one that is thrown away if not given")
)

// TestAllClients installs every client, plays every mode that it knows, and writes
// down what a person saw.
func TestAllClients(t *testing.T) {
	if *which == "" {
		t.Skip("installs many clients: -clients=all")
	}
	s := newStage(t, installed(t))
	p := page{}
	for _, r := range rows() {
		if *which != "all" && !slices.Contains(strings.Split(*which, ","), r.name) {
			continue
		}
		t.Run(r.family+"/"+r.name, func(t *testing.T) {
			e := entry{row: r, version: r.present(t, s.scripts), marks: map[string]string{}, said: map[string]string{}}
			for _, mode := range allModes {
				e.marks[mode] = r.applies(mode)
				if e.marks[mode] != "" {
					continue
				}
				e.marks[mode] = "no"
				if t.Run(mode, func(t *testing.T) { e.said[mode] = s.visit(t, r, mode) }) {
					e.marks[mode] = "✓"
				}
			}
			p = append(p, e)
		})
	}
	s.up.sweep(t, canary)
	if *which == "all" && !t.Failed() {
		if err := os.WriteFile("../../docs/clients.md", []byte(p.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// applies returns the mark of a mode that says nothing of a row.
func (r row) applies(mode string) string {
	switch {
	case mode == reading && !r.can("read"), mode == writing && !r.can("write"), mode == cut && !r.can("endless"),
		mode == streams && !slices.ContainsFunc(streaming, r.can):
		return "–"
	case r.door && (mode == wrong || mode == expired):
		return "–"
	case r.alone && (mode == foreign || mode == sameness):
		return "–"
	}
	return ""
}

// installed puts scripts and clients into a folder and returns it.
func installed(t *testing.T) string {
	t.Helper()
	dir := *kept
	if dir == "" {
		dir = t.TempDir()
	}
	var kits []string
	for _, kit := range []string{"python", "python-new", "node", "rust", "java"} {
		c := exec.CommandContext(t.Context(), filepath.Join("testdata", "install.sh"), kit, dir)
		if out, err := c.CombinedOutput(); err != nil {
			t.Logf("%s: %v\n%s", kit, err, out)
		} else {
			kits = append(kits, kit)
		}
	}
	if len(kits) == 0 {
		t.Fatal("nothing could be installed")
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-R", "testdata/.", dir).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("copying scripts: %w: %s", err, out))
	}
	return dir
}
