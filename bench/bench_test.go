package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSmoke runs the whole bench as people do, shortly.
func TestSmoke(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "bench")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), bin, "-smoke").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"direct", "bare net/http", "bare goproxy", "chaperone"} {
		if !strings.Contains(string(out), "\n| "+name+" |") {
			t.Errorf("no row for %s in\n%s", name, out)
		}
	}
}
