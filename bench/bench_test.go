package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/credential"
)

// smoke runs the bench, shortly, and returns what it prints.
func smoke(t *testing.T, args ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bench")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), bin, append([]string{"-smoke"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestSmoke runs the whole bench as people do, shortly.
func TestSmoke(t *testing.T) {
	out := smoke(t)
	for _, name := range []string{"direct", "bare net/http", "bare goproxy", "chaperone"} {
		if !strings.Contains(out, "\n| "+name+" |") {
			t.Errorf("no row for %s in\n%s", name, out)
		}
	}
}

// TestKindsSmoke finds every kind of credential in the comparison of kinds.
func TestKindsSmoke(t *testing.T) {
	out := smoke(t, "-kinds")
	for _, k := range credential.Kinds() {
		if !strings.Contains(out, "\n| `"+k.Name+"`") {
			t.Errorf("no row for %s in\n%s", k.Name, out)
		}
	}
}
