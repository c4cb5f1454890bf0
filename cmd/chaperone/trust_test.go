package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestSweepTrust removes what killed runs left behind, and nothing that is in use or
// being made.
func TestSweepTrust(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"left", "held", "young"} {
		folder := filepath.Join(dir, privatePrefix+name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, caFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "young" {
			continue
		}
		if err := os.Chtimes(folder, old, old); err != nil {
			t.Fatal(err)
		}
	}
	held, err := hold(filepath.Join(dir, privatePrefix+"held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	(&app{}).sweepTrust()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range list {
		left = append(left, e.Name())
	}
	if want := []string{privatePrefix + "held", privatePrefix + "young"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}

// TestVariablesReplace whatever the caller had, in whichever case.
func TestVariablesReplace(t *testing.T) {
	got := withVariables([]string{"Https_Proxy=a", "SSL_CERT_DIR=b", "npm_config_proxy=c", "PATH=d"}, []assignment{{"HTTPS_PROXY", "e"}})
	if want := []string{"PATH=d", "HTTPS_PROXY=e"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
