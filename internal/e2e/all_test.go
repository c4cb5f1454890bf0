package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	// which is "all" for the clients that have to be installed first.
	which = flag.String("clients", "", "all: install every client, play every mode, and write docs/clients.md; it goes on where a run of the last day stopped. NAME or FAMILY,… for some, without writing; page: write what runs in -clients-dir saw")
	// kept is where they are installed, to have them for another run.
	kept = flag.String("clients-dir", "", "folder for the clients of -clients and for what was seen of them (default chaperone-clients among the user's caches)")
)

// fresh is how long what was seen of a client holds before -clients=all looks again.
const fresh = 24 * time.Hour

// slack is how much time -clients=all leaves before the test's own limit: one row may
// take that long.
const slack = 4 * time.Minute

// TestAllClients installs every client, plays every mode that it knows, and writes
// down what a person saw. What it saw it keeps at once, so that a run that is cut
// short, or short of time, is gone on with by the same command.
func TestAllClients(t *testing.T) {
	if *which == "" {
		t.Skip("installs many clients: -clients=all")
	}
	d := installed(t)
	p := seenSoFar(t)
	var left []string
	if *which != "page" {
		s := newStage(t, d)
		for _, r := range rows() {
			switch {
			case !p.wants(r):
			case short(t, slack):
				left = append(left, r.family+"/"+r.name)
			default:
				t.Run(r.family+"/"+r.name, func(t *testing.T) { s.look(t, r, p) })
			}
		}
		s.up.sweep(t, canary)
	}
	if len(left) > 0 {
		t.Errorf("no time for %d clients: run the same again, it goes on with them (or give -timeout 90m): %s", len(left), strings.Join(left, ", "))
	}
	if *which == "all" || *which == "page" {
		if err := os.WriteFile("../../docs/clients.md", []byte(p.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// wants reports whether a row is asked for and is not known.
func (p page) wants(r row) bool {
	if *which != "all" {
		return slices.ContainsFunc(strings.Split(*which, ","), func(w string) bool { return w == r.name || w == r.family })
	}
	e, ok := p[r.family+"/"+r.name]
	return !ok || e.Missing != "" || time.Since(e.Seen) > fresh || slices.Contains(slices.Collect(maps.Values(e.Marks)), "no")
}

// short reports whether the test's limit is nearer than d.
func short(t *testing.T, d time.Duration) bool {
	end, limited := t.Deadline()
	return limited && time.Until(end) < d
}

// look plays all modes of a row and keeps what it saw.
func (s *stage) look(t *testing.T, r row, p page) {
	key := r.family + "/" + r.name
	version, why := r.find(t, s.scripts)
	if why != "" {
		if p[key].Version == "" {
			p[key] = entry{Missing: why, Seen: time.Now()}
			p.save(t)
		}
		t.Skipf("%s is missing: %s", r.name, why)
	}
	e := entry{Version: version, Seen: time.Now(), Marks: map[string]string{}, Said: map[string]string{}}
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
	p[key] = e
	p.save(t)
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
	if *kept == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		*kept = filepath.Join(cache, "chaperone-clients")
	}
	dir, err := filepath.Abs(*kept)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, kit := range []string{"python", "python-new", "node", "rust", "java", "google", "dotnet"} {
		c := exec.CommandContext(t.Context(), filepath.Join("testdata", "install.sh"), kit, dir)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("installing %s: %v\n%s", kit, err, out)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-R", "testdata/.", dir).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("copying scripts: %w: %s", err, out))
	}
	return dir
}
