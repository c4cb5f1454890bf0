package remote

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestDistribution takes a bundle, and the next revision of it, from CNCF's distribution,
// the registry that Debian has as docker-registry. It is skipped where that is missing.
func TestDistribution(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not on this machine")
	}
	r := shelf("http://" + distribution(t, program))
	r.push(t, made(t, "first", secret))
	used := make(chan string, 10)
	f, err := Follow(t.Context(), Options{
		URL: "oci+" + string(r) + "/team/policy:1.0", Signing: Signing{Key: secret, Algorithm: "HS256"}, Poll: time.Second, Dir: t.TempDir(),
		Use: func(files fs.FS, revision string) error { loads(t, files); used <- revision; return nil }, Failed: func(err error) { t.Log(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := next(t, used); got != "first" {
		t.Errorf("got %s", got)
	}
	r.push(t, made(t, "second", secret))
	if got := next(t, used); got != "second" {
		t.Errorf("got %s", got)
	}
}

// distribution starts the registry and returns where it listens.
func distribution(t *testing.T, program string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, dir := ln.Addr().String(), t.TempDir()
	ln.Close()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program, "serve", config)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		if resp, err := http.Get("http://" + address + "/v2/"); err == nil {
			resp.Body.Close()
			return address
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the registry does not answer")
		}
	}
}

// shelf is the URL of a registry.
type shelf string

// push puts a bundle there as team/policy:1.0, as the OCI distribution specification's
// pushing half has it.
func (s shelf) push(t *testing.T, bundle []byte) {
	t.Helper()
	blob := func(b []byte, kind string) map[string]any {
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
		begun := s.send(t, http.MethodPost, string(s)+"/v2/team/policy/blobs/uploads/", "", nil, http.StatusAccepted)
		to, err := begun.Location()
		if err != nil {
			t.Fatal(err)
		}
		q := to.Query()
		q.Set("digest", digest)
		to.RawQuery = q.Encode()
		s.send(t, http.MethodPut, to.String(), "application/octet-stream", b, http.StatusCreated)
		return map[string]any{"mediaType": kind, "digest": digest, "size": len(b)}
	}
	const kind = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": kind,
		"config": blob([]byte("{}"), "application/vnd.oci.image.config.v1+json"),
		"layers": []any{blob(bundle, "application/vnd.oci.image.layer.v1.tar+gzip")}})
	if err != nil {
		t.Fatal(err)
	}
	s.send(t, http.MethodPut, string(s)+"/v2/team/policy/manifests/1.0", kind, manifest, http.StatusCreated)
}

func (s shelf) send(t *testing.T, method, to, kind string, body []byte, want int) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, to, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s", method, to, resp.Status)
	}
	return resp
}
