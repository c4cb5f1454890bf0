package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"chaperone/rego"
)

// copyShipped DIR… puts the shipped policy into folders, but for what is there already.
func copyShipped(ts *testscript.TestScript, _ bool, args []string) {
	for _, dir := range args {
		ts.Check(fs.WalkDir(rego.FS, "chaperone", func(name string, d fs.DirEntry, err error) error {
			to := filepath.Join(ts.MkAbs(dir), filepath.FromSlash(name))
			if err != nil || d.IsDir() {
				return errors.Join(err, os.MkdirAll(to, 0o755))
			}
			if _, err := os.Stat(to); err == nil {
				return nil
			}
			b, err := fs.ReadFile(rego.FS, name)
			return errors.Join(err, os.WriteFile(to, b, 0o644))
		}))
	}
}
