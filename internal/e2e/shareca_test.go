package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// TestReplicasShareTheirCA starts replicas that were given none: the second takes that
// of the first, whose key nobody reads in Redis, and a third that has made its own
// before keeps it and says so, until that is moved away.
func TestReplicasShareTheirCA(t *testing.T) {
	if testing.Short() {
		t.Skip("three programs and a server take some seconds")
	}
	r := startRedis(t)
	dir := t.TempDir()
	bin, err := testkit.Build(t.Context(), dir)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "key"), []byte(strings.Repeat("k", 32)), 0o600))
	others, err := certs.Open(filepath.Join(dir, "service"))
	must(t, err)
	state := func(name string) string { return filepath.Join(dir, name, "state") }
	start := func(name string) *testkit.Program {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
		p, err := testkit.Start(t.Context(), testkit.ProgramOptions{
			Bin: bin, Dir: filepath.Join(dir, name), Roots: others.PEM(), Grants: fleetGrants, Config: "store: redis://" + r.Addr + "\nkey: {file: ../key}\n",
		})
		must(t, err)
		t.Cleanup(p.Kill)
		return p
	}
	pem := func(name string) string {
		b, err := os.ReadFile(filepath.Join(state(name), certs.CertFile))
		must(t, err)
		return string(b)
	}
	must(t, os.MkdirAll(state("c"), 0o700))
	_, err = certs.Open(state("c"))
	must(t, err)

	start("a")
	start("b")
	if pem("a") != pem("b") {
		t.Error("the second replica has a CA of its own")
	}
	if info, err := os.Stat(filepath.Join(state("b"), "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its key: %v, %v", info, err)
	}
	kept, err := r.Do(t.Context(), "HVALS", "{chaperone}:e:installation")
	must(t, err)
	if len(kept) < 100 || strings.Contains(kept, "PRIVATE KEY") || strings.Contains(kept, "CERTIFICATE") {
		t.Errorf("Redis has %q", kept)
	}

	c := start("c")
	if pem("c") == pem("a") || !strings.Contains(c.Output(), "keeps a CA of its own") {
		t.Errorf("a replica that has a CA lost it, or keeps still: %s", c.Output())
	}
	must(t, c.Stop())
	for _, name := range []string{certs.CertFile, "ca.key"} {
		must(t, os.Rename(filepath.Join(state("c"), name), filepath.Join(dir, name)))
	}
	must(t, c.Restart(t.Context()))
	if pem("c") != pem("a") {
		t.Error("its own moved away, it did not take that of the others")
	}
}
