package opa

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"chaperone/policy"
)

// casesDir is the folder of the tables of questions with the answers that are wanted.
const casesDir = "cases"

// Case is one question with the answer that is wanted.
type Case struct {
	Agent  string            `yaml:"agent"`
	Owner  string            `yaml:"owner"`
	Labels map[string]string `yaml:"labels"`
	Human  string            `yaml:"human"`
	Groups []string          `yaml:"groups"`
	Scope  []string          `yaml:"scope"` // ACTIONS[@RESOURCES]
	Do     string            `yaml:"do"`    // METHOD URL, named by the catalogue
	Body   string            `yaml:"body"`
	Action string            `yaml:"action"` // in place of do
	On     string            `yaml:"on"`     // the action's resource
	Time   time.Time         `yaml:"time"`

	Want   policy.Result `yaml:"want"`
	Reason string        `yaml:"reason"` // a part of one of the reasons

	Name string `yaml:"-"`
	File string `yaml:"-"`
	Line int    `yaml:"-"`
}

// Cases reads the tables of a policy's folder: in each file of cases/, names of cases
// with what they say. The error is [Faults].
func Cases(files fs.FS) ([]Case, error) {
	names, err := fs.Glob(files, casesDir+"/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("reading cases: %w", err)
	}
	var out []Case
	var faults Faults
	for _, name := range names {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading cases: %w", err)
		}
		list, wrong := parseCases(name, b)
		out, faults = append(out, list...), append(faults, wrong...)
	}
	if len(faults) > 0 {
		faults.sort()
		return nil, faults
	}
	return out, nil
}

func parseCases(file string, b []byte) ([]Case, Faults) {
	byName := map[string]*Case{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&byName); err != nil && !errors.Is(err, io.EOF) {
		return nil, yamlFaults(file, err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return nil, yamlFaults(file, err)
	}
	var out []Case
	var faults Faults
	for name, c := range byName {
		line, col := lineOfKey(&root, name)
		if c == nil {
			c = new(Case)
		}
		c.Name, c.File, c.Line = name, file, line
		if wrong := c.wrong(); wrong != "" {
			faults = append(faults, Fault{File: file, Line: line, Col: col, Message: wrong})
		}
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Case) int { return a.Line - b.Line })
	return out, faults
}

func lineOfKey(root *yaml.Node, key string) (line, col int) {
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		for i, n := range root.Content[0].Content {
			if i%2 == 0 && n.Value == key {
				return n.Line, n.Column
			}
		}
	}
	return 0, 0
}

func (c *Case) wrong() string {
	switch {
	case c.Agent == "":
		return "the case names no agent"
	case (c.Do == "") == (c.Action == ""):
		return "the case wants one of do (METHOD URL) and action"
	case c.Want != policy.Allow && c.Want != policy.Deny && c.Want != policy.Ask:
		return "want is none of allow, deny, ask"
	}
	return ""
}

// RunCases asks each case's question, as ask makes it, and compares.
func (e *Engine) RunCases(ctx context.Context, cases []Case, ask func(*Case) (*policy.Question, error)) []TestResult {
	var out []TestResult
	for i := range cases {
		c := &cases[i]
		begun := time.Now()
		r := TestResult{Name: path.Base(strings.TrimSuffix(c.File, ".yaml")) + ": " + c.Name, Place: fmt.Sprintf("%s:%d", c.File, c.Line)}
		r.Pass, r.Message = e.runCase(ctx, c, ask)
		r.Duration = time.Since(begun)
		out = append(out, r)
	}
	return out
}

func (e *Engine) runCase(ctx context.Context, c *Case, ask func(*Case) (*policy.Question, error)) (bool, string) {
	q, err := ask(c)
	if err != nil {
		return false, err.Error()
	}
	a, err := e.Eval(ctx, q)
	if err != nil {
		return false, fmt.Sprintf("the answer is a deny, since the policy could not be evaluated: %v", err)
	}
	reasons := strings.Join(a.Reasons, " ")
	if a.Result != c.Want {
		return false, fmt.Sprintf("wanted %s, got %s: %s", c.Want, a.Result, reasons)
	}
	if c.Reason != "" && !slices.ContainsFunc(a.Reasons, func(r string) bool { return strings.Contains(r, c.Reason) }) {
		return false, fmt.Sprintf("it is %s as wanted, but no reason says %q: %s", a.Result, c.Reason, reasons)
	}
	return true, ""
}
