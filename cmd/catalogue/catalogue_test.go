package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/policy/action"
)

// packed writes an npm tarball of the files.
func packed(t *testing.T, dir string, p pack, files map[string]string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range sorted(files) {
		if err := w.WriteHeader(&tar.Header{Name: "package/" + name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, p.tarball()), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

var small = pack{"@acme/api", "1.0.0"}

const smallAPI = `{"openapi":"3.0.0","servers":[{"url":"https://api.acme.example"}],"paths":{
	"/things":{"get":{"operationId":"things/list"},"post":{"operationId":"things/create","responses":{"201":{"content":{"application/json":{"schema":{"properties":{"id":{}}}}}}}}},
	"/things/{id}":{"get":{"operationId":"things/get"},"delete":{"operationId":"things/drop"}},
	"/keys":{"post":{"operationId":"keys/create"}}}}`

func smallVendor(overrides string) vendor {
	return vendor{"acme", func(w *work) error {
		w.License, w.Hosts = "MIT", []string{"api.acme.example"}
		for line := range strings.Lines(overrides) {
			f := strings.Fields(line)
			w.overrides = append(w.overrides, override{pattern: f[0], level: levelOf(f[1]), marks: f[2:]})
		}
		b, err := w.npmFile(small, "api.json")
		if err != nil {
			return err
		}
		return w.read("api.json", b, w.options(""))
	}}
}

func makeSmall(t *testing.T, m *maker, overrides string) (string, error) {
	t.Helper()
	v := smallVendor(overrides)
	if err := m.make(&v); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(m.out, "acme.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

// TestTheSameBytes makes a small service many times over.
func TestTheSameBytes(t *testing.T) {
	dir := t.TempDir()
	packed(t, dir, small, map[string]string{"api.json": smallAPI})
	first := ""
	for range 20 {
		m := &maker{sources: sources{npm: dir}, out: t.TempDir(), stdout: &bytes.Buffer{}}
		text, err := makeSmall(t, m, "things/drop = deletes\n")
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = text
		}
		if text != first {
			t.Fatalf("other bytes:\n%s\n%s", text, first)
		}
	}
	for _, want := range []string{`npm:@acme/api@1.0.0 sha256:`, `"POST": "things/create write creates=/id undo=things/drop"`, `"keys/create admin lasting"`} {
		if !strings.Contains(first, want) {
			t.Errorf("%s is missing in\n%s", want, first)
		}
	}
}

// TestNothingIsLoweredUnseen wants a run that lowers or drops operations refused
// with a list of them.
func TestNothingIsLoweredUnseen(t *testing.T) {
	dir := t.TempDir()
	packed(t, dir, small, map[string]string{"api.json": smallAPI})
	var out bytes.Buffer
	m := &maker{sources: sources{npm: dir}, out: t.TempDir(), stdout: &out}
	before, err := makeSmall(t, m, "things/list admin\n")
	if err != nil {
		t.Fatal(err)
	}
	packed(t, dir, small, map[string]string{"api.json": strings.ReplaceAll(smallAPI, "things/get", "things/show")})
	_, err = makeSmall(t, m, "keys/create write\n")
	if err == nil {
		t.Fatal("lowered without a word")
	}
	for _, want := range []string{"lowered acme:keys/create admin write", "lowered acme:things/list admin list", "dropped acme:things/get"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	if now, _ := os.ReadFile(filepath.Join(m.out, "acme.json")); string(now) != before {
		t.Error("the file was written all the same")
	}
	m.lower = true
	if _, err := makeSmall(t, m, "keys/create write\n"); err != nil || !strings.Contains(out.String(), "lowered acme:keys/create admin write") {
		t.Errorf("-lower: %v, %q", err, out.String())
	}
	if _, err := makeSmall(t, m, "nobody/knows read\n"); err == nil || !strings.Contains(err.Error(), "nobody/knows") {
		t.Errorf("an override of nothing: %v", err)
	}
}

// TestOverrides reads every file of overrides and by hand.
func TestOverrides(t *testing.T) {
	known := map[string]bool{}
	for _, v := range vendors() {
		known[v.name] = true
		if _, err := overridesOf(v.name); err != nil {
			t.Error(err)
		}
		w := &work{Service: action.Service{Name: v.name, Hosts: []string{"x.example"}}}
		if err := w.byHand(); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{"overrides", "hand"} {
		files, err := beside.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if name := strings.TrimSuffix(f.Name(), ".txt"); !known[name] {
				t.Errorf("%s/%s is of no service", dir, f.Name())
			}
		}
	}
}

// TestTableReadsTheFiles wants a row of every shipped service.
func TestTableReadsTheFiles(t *testing.T) {
	var b bytes.Buffer
	if err := table(&b, "../../policy/action/catalogue"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| `aws-s3` | s3.amazonaws.com", "Go `github.com/aws/aws-sdk-go` v1.55.8", "| `github` |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}
