package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"chaperone/policy/action"
)

// cited is a source as files name it: npm:PACKAGE@VERSION, go:MODULE@VERSION/FILE, hand:FILE.
var cited = regexp.MustCompile(`(npm|go|hand):(@?[^@ ]+)(?:@(\S+?)(?:/(\S+))?)?(?: |$)`)

// table prints the table of docs/services.md out of the files in a folder.
func table(w io.Writer, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "| service | hosts | operations | source | by hand | licence |\n|---|---|---:|---|---|---|")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s, err := action.Parse(file, b)
		if err != nil {
			return err
		}
		sources, hand := citations(s.Source)
		hosts := s.Hosts
		if len(hosts) > 3 {
			hosts = append(hosts[:2:2], "…")
		}
		for _, name := range sorted(s.APIs) {
			hosts = append(hosts, s.APIs[name].Hosts[0])
		}
		if len(hosts) > 6 {
			hosts = append(hosts[:5:5], "…")
		}
		if len(s.GitHosts) > 0 {
			hosts = append(hosts, "git at "+strings.Join(s.GitHosts, ", "))
		}
		if s.OwnHosts && len(hosts) == 0 {
			hosts = []string{"yours"}
		}
		fmt.Fprintf(w, "| `%s` | %s | %d | %s | %s | %s |\n", s.Name, strings.Join(hosts, ", "), len(s.Rows()), sources, hand, s.License)
	}
	return nil
}

func citations(source string) (packages, hand string) {
	seen := map[string]bool{}
	var out []string
	for _, m := range cited.FindAllStringSubmatch(source, -1) {
		if m[1] == "hand" {
			hand = "in part"
			continue
		}
		kind := map[string]string{"npm": "npm", "go": "Go"}[m[1]]
		text := fmt.Sprintf("%s `%s` %s", kind, m[2], m[3])
		if !seen[text] {
			out = append(out, text)
		}
		seen[text] = true
	}
	if len(out) == 0 && hand != "" {
		hand = "whole"
	}
	return strings.Join(out, ", "), hand
}
