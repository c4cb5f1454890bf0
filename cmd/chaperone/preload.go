package main

import (
	_ "embed"
	"path/filepath"
	"strings"
)

// Files that are loaded into the interpreters of a session, for libraries that heed
// no variable.
const (
	nodeFile   = "chaperone.cjs"
	pythonFile = "sitecustomize.py" // the name is Python's, module site
)

//go:embed preload/chaperone.cjs
var nodePreload []byte

//go:embed preload/sitecustomize.py
var pythonPreload []byte

// nodeOptions have Node load its file behind what NODE_OPTIONS asked for before. Node
// splits them at spaces unless they stand in double quotes, in which a backslash
// escapes.
func (s surroundings) nodeOptions() string {
	option := `--require "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s.file(nodeFile)) + `"`
	if s.node == "" {
		return option
	}
	return s.node + " " + option
}

// pythonPath has Python look into the trust folder first: its sitecustomize.py
// loads the one that it hides.
func (s surroundings) pythonPath() string {
	if s.python == "" {
		return s.trust
	}
	return s.trust + string(filepath.ListSeparator) + s.python
}
