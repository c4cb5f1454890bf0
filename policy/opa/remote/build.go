package remote

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
)

// Build writes a policy's files as a bundle, whole: `opa build -b`, which alone can sign,
// leaves out data that is in files of any other name than data.json and data.yaml, and so
// all grants. The private key in s signs it, unless it is empty.
func Build(ctx context.Context, w io.Writer, files fs.FS, revision string, s Signing) error {
	c := compile.New().WithFS(files).WithPaths(".").WithRegoVersion(ast.RegoV1).WithRevision(revision).WithFilter(unpacked)
	if err := c.Build(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrBundle, err)
	}
	b := c.Bundle()
	for i := range b.Modules {
		m := &b.Modules[i]
		m.Path = "/" + strings.TrimPrefix(m.Path, "/")
		m.URL = m.Path
	}
	if s.Key != "" {
		if err := b.GenerateSignature(bundle.NewSigningConfig(s.Key, cmp.Or(s.Algorithm, "RS256"), ""), keyID, false); err != nil {
			return fmt.Errorf("%w: signing it: %w", ErrBundle, err)
		}
	}
	if err := bundle.NewWriter(w).Write(*b); err != nil {
		return fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return nil
}

// unpacked tells what of a policy's folder is no part of the bundle.
func unpacked(path string, info fs.FileInfo, _ int) bool {
	if info.IsDir() {
		return slices.Contains([]string{"schema", "cases", "examples"}, filepath.ToSlash(path))
	}
	return strings.HasSuffix(path, "_test.rego") || strings.HasPrefix(filepath.Base(path), ".")
}
