package opa

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"

	"chaperone/policy"
)

// block returns the one fenced block of a language in docs/policy.md.
func block(t *testing.T, language string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(b), -1)
	if len(m) != 1 {
		t.Fatalf("docs/policy.md has %d blocks of %s", len(m), language)
	}
	return m[0][1]
}

func TestDocumentedGrants(t *testing.T) {
	e := engine(t, block(t, "yaml"))
	for action, want := range map[string]policy.Result{"github:issues/create": policy.Allow, "github:pulls/merge": policy.Ask, "github:repos/delete": policy.Deny} {
		a, err := e.Eval(t.Context(), question("triage-bot", "alice@acme.com", action, policy.AccessWrite, "acme/web"))
		if err != nil || a.Result != want {
			t.Errorf("%s: %+v, %v", action, a, err)
		}
	}
}

// TestCommentedGrants reads the example in the comments of the shipped file.
func TestCommentedGrants(t *testing.T) {
	text := string(shipped(t)[grantsFile].Data)
	_, example, _ := strings.Cut(text, "# For example:\n#\n")
	var y strings.Builder
	for line := range strings.Lines(example) {
		if !strings.HasPrefix(line, "#   ") {
			break
		}
		y.WriteString(strings.TrimPrefix(line, "#   "))
	}
	a, err := engine(t, y.String()).Eval(t.Context(), question("triage-bot", "alice@acme.com", "github:issues/create", policy.AccessWrite, "acme/web"))
	if err != nil || a.Result != policy.Allow {
		t.Errorf("%+v, %v of\n%s", a, err, y.String())
	}
}

func TestDocumentedRego(t *testing.T) {
	files := shipped(t)
	e, err := Load(Options{FS: fstest.MapFS{"p.rego": {Data: []byte(block(t, "rego"))}}, Schema: files["schema/input.json"].Data})
	if err != nil {
		t.Fatal(err)
	}
	for access, want := range map[policy.Access]policy.Result{policy.AccessRead: policy.Allow, policy.AccessWrite: policy.Deny} {
		if a, err := e.Eval(t.Context(), question("a", "h", "s:o", access, "r")); err != nil || a.Result != want {
			t.Errorf("%s: %+v, %v", access, a, err)
		}
	}
}

// TestDocumentedFunctions: whoever takes a function away says so.
func TestDocumentedFunctions(t *testing.T) {
	b, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for _, m := range regexp.MustCompile("`([a-z0-9_.*]+)`").FindAllStringSubmatch(string(b), -1) {
		patterns = append(patterns, "^"+strings.ReplaceAll(regexp.QuoteMeta(m[1]), `\*`, `.*`)+"$")
	}
	names := regexp.MustCompile(strings.Join(patterns, "|"))
	for name := range denied {
		if !names.MatchString(name) {
			t.Errorf("docs/policy.md does not say that %s is not there", name)
		}
	}
}

// TestDeniedFunctions compiles a call of each: none may be reached.
func TestDeniedFunctions(t *testing.T) {
	for name := range denied {
		b := ast.BuiltinMap[name]
		if b == nil {
			if !strings.HasPrefix(name, "rego.metadata.") {
				t.Errorf("OPA has no %s", name)
			}
			continue
		}
		args := make([]string, len(b.Decl.FuncArgs().Args))
		for i := range args {
			args[i] = "input.agent"
		}
		src := "decision := {\"result\": \"allow\"} if " + name + "(" + strings.Join(args, ", ") + ")"
		if _, err := Load(Options{FS: custom(src)}); err == nil || !strings.Contains(err.Error(), "may not be used") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestShippedPolicyIsFormatted(t *testing.T) {
	for name, f := range shipped(t) {
		if !strings.HasSuffix(name, ".rego") {
			continue
		}
		want, err := format.SourceWithOpts(name, f.Data, format.Opts{RegoVersion: ast.RegoV1})
		if err != nil || !bytes.Equal(want, f.Data) {
			t.Errorf("%s is not as `opa fmt` writes it: %v", name, err)
		}
	}
}
