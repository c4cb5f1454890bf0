package e2e

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"chaperone/internal/testkit"
)

// stock lays one tiny package of each kind into a folder, as its registry has it.
func stock(dir string) error {
	wheel := zipped(map[string]string{
		"tiny.py": "", "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
		"tiny-1.0.dist-info/WHEEL":  "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"tiny-1.0.dist-info/RECORD": "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n",
	})
	packed := tarred(map[string]string{"package/package.json": `{"name":"tiny","version":"1.0.0"}`})
	sum := sha1.Sum(packed)
	crate := tarred(map[string]string{"tiny-1.0.0/Cargo.toml": "[package]\nname = \"tiny\"\nversion = \"1.0.0\"\n", "tiny-1.0.0/src/lib.rs": ""})
	digest := sha256.Sum256(crate)
	const mod = "module example.com/tiny\n"
	pom := `<project><modelVersion>4.0.0</modelVersion><groupId>com.example</groupId><artifactId>tiny</artifactId><version>1.0</version></project>`
	for name, b := range map[string][]byte{
		"simple/tiny/index.html":                       []byte(`<a href="/files/tiny-1.0-py3-none-any.whl">tiny-1.0-py3-none-any.whl</a>`),
		"files/tiny-1.0-py3-none-any.whl":              wheel,
		"npm/tiny":                                     fmt.Appendf(nil, `{"name":"tiny","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"tiny","version":"1.0.0","dist":{"tarball":"https://npm.example.com/files/tiny-1.0.0.tgz","shasum":"%x"}}}}`, sum),
		"files/tiny-1.0.0.tgz":                         packed,
		"index/config.json":                            []byte(`{"dl":"https://crates.example.com/files/{crate}-{version}.crate","api":"https://crates.example.com","auth-required":true}`),
		"index/ti/ny/tiny":                             []byte(`{"name":"tiny","vers":"1.0.0","deps":[],"features":{},"yanked":false,"cksum":"` + hex.EncodeToString(digest[:]) + `"}` + "\n"),
		"files/tiny-1.0.0.crate":                       crate,
		"go/example.com/tiny/@v/list":                  []byte("v1.0.0\n"),
		"go/example.com/tiny/@v/v1.0.0.info":           []byte(`{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}`),
		"go/example.com/tiny/@v/v1.0.0.mod":            []byte(mod),
		"go/example.com/tiny/@v/v1.0.0.zip":            zipped(map[string]string{"example.com/tiny@v1.0.0/go.mod": mod, "example.com/tiny@v1.0.0/tiny.go": "package tiny\n"}),
		"maven/com/example/tiny/1.0/tiny-1.0.pom":      []byte(pom),
		"maven/com/example/tiny/1.0/tiny-1.0.jar":      zipped(map[string]string{"tiny.txt": "tiny"}),
		"maven/com/example/tiny/1.0/tiny-1.0.pom.sha1": fmt.Appendf(nil, "%x", sha1.Sum([]byte(pom))),
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func zipped(files map[string]string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			panic(err) // a buffer takes all
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func tarred(files map[string]string) []byte {
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	a := tar.NewWriter(g)
	for name, text := range files {
		err := a.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
		if err == nil {
			_, err = a.Write([]byte(text))
		}
		if err != nil {
			panic(err) // a buffer takes all
		}
	}
	if err := a.Close(); err != nil {
		panic(err)
	}
	if err := g.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// registry is a real registry of container images behind the password secret, where
// Debian's docker-registry is installed.
func registry(t *testing.T, secret string) http.Handler {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil || *which == "" {
		return http.NotFoundHandler()
	}
	addr, err := testkit.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + dir + "}}\nhttp: {addr: " + addr + ", relativeurls: true}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program, "serve", config)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		behind.ServeHTTP(w, r)
	})
}
