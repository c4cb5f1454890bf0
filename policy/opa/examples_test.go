package opa

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"

	"chaperone/policy"
)

// examples returns the example files by name, tests too.
func examples(t *testing.T) map[string][]byte {
	t.Helper()
	names, err := fs.Glob(os.DirFS("../../rego"), "examples/*.rego")
	if err != nil || len(names) < 16 {
		t.Fatal(names, err)
	}
	out := map[string][]byte{}
	for _, n := range names {
		if out[path.Base(n)], err = os.ReadFile("../../rego/" + n); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestExamplesPassTheirTests runs all as they are, beside the shipped policy.
func TestExamplesPassTheirTests(t *testing.T) {
	files := shipped(t)
	for name, b := range examples(t) {
		delete(files, "examples/"+name)
		files["more/"+name] = &fstest.MapFile{Data: b}
		want, err := format.SourceWithOpts(name, b, format.Opts{RegoVersion: ast.RegoV1})
		if err != nil || !bytes.Equal(want, b) {
			t.Errorf("%s is not as `opa fmt` writes it: %v", name, err)
		}
	}
	rep, err := Test(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Results {
		if !r.Pass {
			t.Errorf("%s (%s): %s", r.Name, r.Place, r.Message)
		}
	}
	if rep.Coverage < 95 {
		t.Errorf("the tests cover %.1f %%", rep.Coverage)
	}
}

// TestExamplesInUse copies each to chaperone/rules as its comment says, and asks.
func TestExamplesInUse(t *testing.T) {
	const grants = "grants:\n  agents: {bot: {allow: [{actions: [\"*:*\"]}]}}\n  humans: {\"*\": {allow: [{actions: [\"*:*\"]}]}}\n"
	for name, tc := range map[string]struct {
		action string
		access policy.Access
		labels map[string]string
		time   int64
		want   policy.Result
		duty   string
	}{
		"business_hours":   {"github:issues/create", policy.AccessWrite, nil, 1773432000, policy.Deny, ""},
		"no_admin":         {"github:repos/delete", policy.AccessAdmin, nil, 0, policy.Deny, ""},
		"approve_delete":   {"github:repos/delete", policy.AccessDelete, nil, 0, policy.Ask, ""},
		"four_eyes":        {"github:pulls/merge", policy.AccessWrite, map[string]string{"role": "author"}, 0, policy.Deny, ""},
		"own_repositories": {"github:issues/create", policy.AccessWrite, map[string]string{"owner": "other"}, 0, policy.Deny, ""},
		"sub_agents":       {"github:issues/create", policy.AccessWrite, nil, 0, policy.Allow, ""},
		"spending":         {"openai:embeddings.create", policy.AccessWrite, nil, 0, policy.Allow, "limits"},
		"rate":             {"github:issues/create", policy.AccessWrite, nil, 0, policy.Allow, "limits"},
		"attribution":      {"github:issues/create", policy.AccessWrite, nil, 0, policy.Allow, "attribution"},
	} {
		t.Run(name, func(t *testing.T) {
			files := with(shipped(t), grants)
			src := strings.Replace(string(examples(t)[name+".rego"]), "package examples."+name, "package chaperone.rules", 1)
			files["chaperone/rules/"+name+".rego"] = &fstest.MapFile{Data: []byte(src)}
			e, err := Load(Options{FS: files, Schema: files["schema/input.json"].Data})
			if err != nil {
				t.Fatal(err)
			}
			if why := e.Slow(); why != "" {
				t.Errorf("the machine does not answer for it: %s", why)
			}
			q := question("bot", "alice@acme.com", tc.action, tc.access, "acme/web")
			q.Agent.Labels, q.Time = tc.labels, tc.time
			a, err := e.Eval(t.Context(), q)
			if err != nil || a.Result != tc.want || tc.duty != "" && a.Obligations[tc.duty] == nil {
				t.Errorf("got %+v, %v; want %s with %s", a, err, tc.want, tc.duty)
			}
			if tc.duty == "" && len(a.Obligations) > 0 {
				t.Errorf("obligations %v", a.Obligations)
			}
			faults, err := Check(CheckOptions{FS: files, Schema: files["schema/input.json"].Data})
			if err != nil || len(faults) > 0 {
				t.Errorf("check: %v, %v", faults, err)
			}
		})
	}
}

// TestReportOnly: what is only reported is allowed and said.
func TestReportOnly(t *testing.T) {
	e := engine(t, "grants:\n  agents:\n    bot:\n      allow: [{actions: [\"github:*\"]}]\n      deny: [{actions: [\"github:repos/*\"], report: true}]\n  humans: {\"*\": {allow: [{actions: [\"*:*\"]}]}}\n")
	a, err := e.Eval(t.Context(), question("bot", "alice@acme.com", "github:repos/delete", policy.AccessAdmin, "acme/web"))
	report, _ := a.Obligations["report"].([]any)
	if err != nil || a.Result != policy.Allow || len(report) != 1 || report[0] != "Reported only: Agent bot would be refused github:repos/delete on acme/web, or asked about." {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = e.Eval(t.Context(), question("bot", "alice@acme.com", "github:issues/get", policy.AccessRead, "acme/web"))
	if err != nil || a.Result != policy.Allow || len(a.Obligations) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
}
