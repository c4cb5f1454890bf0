package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	// which is "all" for the clients that have to be installed first.
	which = flag.String("clients", "", "all: install every client, play every mode, and write docs/clients.md; or NAME or FAMILY,… for some, without writing; page: write what runs in -clients-dir saw")
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
	p := seenSoFar(t)
	for _, r := range rows() {
		if *which != "all" && !slices.ContainsFunc(strings.Split(*which, ","), func(w string) bool { return w == r.name || w == r.family }) {
			continue
		}
		t.Run(r.family+"/"+r.name, func(t *testing.T) {
			e := entry{Version: r.present(t, s.scripts), Marks: map[string]string{}, Said: map[string]string{}}
			for _, mode := range allModes {
				e.Marks[mode] = r.applies(mode)
				if e.Marks[mode] != "" {
					continue
				}
				e.Marks[mode] = "no"
				if t.Run(mode, func(t *testing.T) { e.Said[mode] = s.visit(t, r, mode) }) {
					e.Marks[mode] = "✓"
				}
			}
			p[r.family+"/"+r.name] = e
			p.save(t)
		})
	}
	s.up.sweep(t, canary)
	if *which == "all" || *which == "page" {
		if err := os.WriteFile("../../docs/clients.md", []byte(p.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// seenSoFar is what earlier runs in the same folder saw.
func seenSoFar(t *testing.T) page {
	t.Helper()
	p := page{}
	b, err := os.ReadFile(filepath.Join(*kept, "seen.json"))
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return p
}

// save keeps what was seen for the next run in the same folder.
func (p page) save(t *testing.T) {
	t.Helper()
	if *kept == "" {
		return
	}
	b, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(filepath.Join(*kept, "seen.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
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
