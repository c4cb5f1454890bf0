package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"chaperone/policy/action"
)

// sources is where packages are found.
type sources struct{ npm string }

// npmFile returns one file of an npm tarball, and how the tarball is cited.
func (s sources) npmFile(tarball, pkg, version, name string) (content []byte, source string, err error) {
	whole, err := os.ReadFile(filepath.Join(s.npm, tarball))
	if err != nil {
		return nil, "", fmt.Errorf("%w (npm pack %s@%s)", err, pkg, version)
	}
	z, err := gzip.NewReader(bytes.NewReader(whole))
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", tarball, err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, "", fmt.Errorf("%s has no %s", tarball, name)
		}
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", tarball, err)
		}
		if h.Name == name {
			content, err = io.ReadAll(r)
			return content, cite("npm:"+pkg+"@"+version, whole), err
		}
	}
}

// goFile returns one file of a Go module, and how it is cited.
func (sources) goFile(module, version, name string) (content []byte, source string, err error) {
	out, err := exec.Command("go", "mod", "download", "-json", module+"@"+version).Output()
	if err != nil {
		return nil, "", fmt.Errorf("go mod download %s@%s: %w", module, version, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, "", err
	}
	content, err = os.ReadFile(filepath.Join(m.Dir, name))
	return content, cite("go:"+module+"@"+version+"/"+name, content), err
}

func cite(name string, b []byte) string {
	sum := sha256.Sum256(b)
	return name + " sha256:" + hex.EncodeToString(sum[:])
}

// write writes a service with one line an operation, so that a change of a source
// shows as lines changed.
func write(dir string, s *action.Service) error {
	paths := s.Paths
	head := *s
	head.Paths = nil
	b, err := json.MarshalIndent(&head, "", " ")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	out.Write(bytes.TrimSuffix(b, []byte("\n}")))
	out.WriteString(",\n \"paths\": {")
	for i, p := range sorted(paths) {
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "\n  %q: {", p)
		for j, m := range sorted(paths[p]) {
			if j > 0 {
				out.WriteByte(',')
			}
			fmt.Fprintf(&out, "\n   %q: %q", m, paths[p][m])
		}
		out.WriteString("}")
	}
	out.WriteString("\n }\n}\n")
	return os.WriteFile(filepath.Join(dir, s.Name+".json"), out.Bytes(), 0o644)
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// put adds one operation, strongest of several on one request.
func put(s *action.Service, path, method, name, access string, marks ...string) {
	if s.Paths == nil {
		s.Paths = map[string]map[string]string{}
	}
	if s.Paths[path] == nil {
		s.Paths[path] = map[string]string{}
	}
	s.Paths[path][method] = strings.Join(append([]string{name, access}, marks...), " ")
}
