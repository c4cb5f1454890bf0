package opa

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"chaperone/policy"
)

// fewNames is a small catalogue.
type fewNames struct{}

func (fewNames) Services() []string { return []string{"github", "slack"} }

func (fewNames) Actions(service string) []Name {
	if service == "slack" {
		return []Name{{"slack:chat.postMessage", policy.AccessWrite, "channel", 1, []string{"channel"}}}
	}
	return []Name{
		{"github:issues/create", policy.AccessWrite, "repository", 2, []string{"owner", "repo"}},
		{"github:issues/get", policy.AccessRead, "repository", 2, []string{"owner", "repo", "issue_number"}},
		{"github:repos/delete", policy.AccessAdmin, "repository", 2, []string{"owner", "repo"}},
		{"github:users/get-authenticated", policy.AccessRead, "", 0, nil},
	}
}

func checked(t *testing.T, files fs.FS) string {
	t.Helper()
	faults, err := Check(CheckOptions{FS: files, Schema: shipped(t)["schema/input.json"].Data, Names: fewNames{}})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range faults {
		lines = append(lines, f.Snippet())
	}
	return strings.Join(lines, "\n")
}

const denyUnless = allowIf + "\tcount(_denies) == 0\n}\n\n"

const allowIf = "decision := {\"result\": \"allow\"} if {\n"

func TestCheckRego(t *testing.T) {
	for name, tc := range map[string]struct{ src, want string }{
		"misspelt input":          {allowIf + "\tinput.acton.id == \"x\"\n}", "p.rego:4:8: error: undefined ref: input.acton.id; did you mean action?\n     4 | \tinput.acton.id == \"x\"\n       | \t      ^"},
		"misplaced input":         {allowIf + "\tinput.body_state == \"parsed\"\n}", "undefined ref: input.body_state; did you mean input.request.body_state?"},
		"misspelt past all":       {allowIf + "\ta := input.agent\n\ta.xyzzy == \"x\"\n}", "p.rego:5:4: error: undefined ref: a.xyzzy; there is id, labels, owner"},
		"misspelt in argument":    {allowIf + "\t_f(input.action)\n}\n\n_f(x) if x.acess == \"read\"", "_f is given input.action, which has no acess; did you mean access? [untyped-argument]"},
		"whole input":             {allowIf + "\t_f(input)\n}\n\n_f(x) if x.action.known", "warning: _f takes the whole input"},
		"unknown action":          {allowIf + "\tinput.action.id == \"github:isues/create\"\n}", "error: no action is named github:isues/create; did you mean github:issues/create? [unknown-action]"},
		"unknown in a set":        {allowIf + "\tinput.action.id in {\"github:issues/get\", \"github:issues/crate\"}\n}", "did you mean github:issues/create?"},
		"unknown pattern":         {allowIf + "\t\"github:isues/*\" in input.action.keys\n}", "did you mean github:issues/*?"},
		"unknown service":         {allowIf + "\tinput.action.service == \"gihub\"\n}", "no service is named gihub; did you mean github?"},
		"unknown access":          {allowIf + "\tinput.action.access == \"wirte\"\n}", `input.action.access is never "wirte"`},
		"by alias":                {allowIf + "\ta := input.action\n\ta.access == \"wirte\"\n}", `input.action.access is never "wirte"`},
		"unknown parameter":       {allowIf + "\tinput.resource.ownr == \"acme\"\n}", "no resource has a parameter ownr; did you mean owner?"},
		"unknown type":            {allowIf + "\tinput.resource.type == \"repositry\"\n}", "did you mean repository?"},
		"answer's key":            {"decision := {\"result\": \"allow\", \"reason\": [\"x\"]}", "an answer has no reason; did you mean reasons?"},
		"answer's result":         {"decision := {\"result\": \"alow\"}", "did you mean allow?"},
		"answer's obligation":     {"decision := {\"result\": \"allow\", \"obligations\": {\"limit\": []}}", "no obligation is named limit, so that this is a deny; did you mean limits?"},
		"absent human":            {allowIf + "\tnot input.human.email == \"x\"\n}", "error: this also holds where there is no input.human.email, and so an absent value allows: say first what must be there, such as input.human != null [open-negation]"},
		"absent human, by rule":   {allowIf + "\tnot _contractor\n}\n\n_contractor if \"contractors\" in input.human.groups", "this also holds where there is no input.human.groups"},
		"absent label":            {allowIf + "\tnot input.agent.labels.tier == \"1\"\n}", "input.agent.labels.tier != null"},
		"null differs":            {allowIf + "\tinput.session.purpose != \"debug\"\n}", "this also holds where input.session.purpose is null"},
		"search":                  {allowIf + "\tsome a in data.agents\n\ta.id == input.agent.id\n}", "warning: this goes through all of data.agents: key it by id and look up data.agents[input.agent.id] [search]"},
		"dynamic pattern":         {allowIf + "\tsome p in data.patterns\n\tglob.match(p, [\"/\"], input.action.id)\n}", "glob.match with a pattern that is not a constant"},
		"walk":                    {allowIf + "\twalk(data.tree, [_, 1])\n}", "walk visits every value"},
		"null differs, twice":     {allowIf + "\tinput.session.purpose != \"debug\"\n\tinput.session.purpose != \"x\"\n}", "this also holds where input.session.purpose is null"},
		"sound: not null":         {allowIf + "\tinput.session.purpose != \"debug\"\n\tinput.session.purpose != null\n}", ""},
		"sound: not in":           {allowIf + "\tnot \"contractors\" in input.human.groups\n}", ""}, // undefined where there is no human
		"lower-case method":       {allowIf + "\tinput.request.method == \"get\"\n}", `input.request.method is never "get": it is written as in "GET" [unknown-word]`},
		"upper-case field":        {allowIf + "\tinput.request.headers[\"X-Team\"][0] == \"a\"\n}", `no header field is named "X-Team" in the input, where names are in lower case: write "x-team"`},
		"keys of the resource":    {allowIf + "\t\"a/*\" in input.resource.keys\n}", "did you mean input.resource_keys?"},
		"path in object.get":      {allowIf + "\tobject.get(input, [\"acton\", \"id\"], \"\") == \"x\"\n}", "error: input has no acton; did you mean action? [untyped-argument]"},
		"key in object.get":       {allowIf + "\tobject.get(input.action, \"acess\", \"\") == \"x\"\n}", "error: input.action has no acess; did you mean access?"},
		"pattern in an argument":  {allowIf + "\t_any({\"github:isues/*\"})\n}\n\n_any(p) if {\n\tsome k in input.action.keys\n\tk in p\n}", "warning: no action begins with github:isues/; did you mean github:issues/*? [unknown-action]"},
		"key of a table":          {allowIf + "\t_price[input.action.id]\n}\n\n_price := {\"github:issues/crate\": 1}", "warning: no action is named github:issues/crate; did you mean github:issues/create? [unknown-action]"},
		"nested comprehensions":   {allowIf + "\tcount([x | some x in data.as; count([y | some y in data.bs; y == x]) > 0]) > 3\n}", "p.rego:4:38: warning: this goes through data for each element"},
		"deny by another human":   {denyUnless + "_denies contains 1 if input.human.email != \"a\"\n", `an absent value escapes the deny: write not input.human.email == "a", or first input.human != null if that is meant [escaped-deny]`},
		"deny by another label":   {denyUnless + "_denies contains 1 if input.agent.labels.tier != \"prod\"\n", "escapes the deny: write not input.agent.labels.tier == \"prod\""},
		"deny by another owner":   {denyUnless + "_denies contains 1 if {\n\tr := input.resource\n\tr.owner != \"acme\"\n}\n", "this does not hold where there is no input.resource.owner"},
		"deny by an amount":       {denyUnless + "_denies contains 1 if input.request.body.amount > 100\n", "deny also where input.request.body_state is none of parsed and absent [escaped-deny]"},
		"deny by a flag":          {denyUnless + "_denies contains 1 if input.request.body.admin\n", "than input.request.body.admin, and so it escapes the deny"},
		"sound: a human, another": {denyUnless + "_denies contains 1 if {\n\tinput.human != null\n\tinput.human.email != \"a\"\n}\n", ""},
		"sound: a certain human":  {denyUnless + "_denies contains 1 if input.human.email == \"a\"\n", ""},
		"sound: body is read":     {denyUnless + "_denies contains 1 if input.request.body.amount > 100\n\n_denies contains 2 if not input.request.body_state in {\"parsed\", \"absent\"}\n", ""},
		"not indexed":             {allowIf + "\tcount(_denies) == 0\n}\n\n" + strings.Repeat("_denies contains 1 if input.request.port < 3\n\n", 8), "one of 8 rules _denies, and it is tried for every request"},
		"sound":                   {allowIf + "\tinput.human != null\n\tnot \"contractors\" in input.human.groups\n\tinput.action.id == \"github:issues/get\"\n\tinput.resource.owner == \"acme\"\n}", ""},
		"sound: deny by absence":  {"default decision := {\"result\": \"deny\"}\n\ndecision := {\"result\": \"deny\"} if not \"eng\" in input.human.groups\n", ""},
		"sound: none denied":      {allowIf + "\tcount(_denies) == 0\n}\n\n_denies contains 1 if not \"eng\" in input.human.groups\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := checked(t, custom(tc.src))
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("got %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestCheckGrants(t *testing.T) {
	const humans = "  humans: {\"*\": {allow: [{actions: [\"*:*\"]}]}}\n"
	for name, tc := range map[string]struct{ grants, want string }{
		"unknown action":     {"    a:\n      allow:\n        - actions: [\"github:issues/get\", \"github:isues/*\"]\n", "chaperone/grants.yaml:5:42: error: no action begins with github:isues/; did you mean github:issues/*?"},
		"misspelt list":      {"    a:\n      alow: []\n", "chaperone/grants.yaml:4:7: error: alow is no key here, where there is allow, ask, deny, raw, autonomous, groups; did you mean allow?\n     4 |       alow: []\n       |       ^"},
		"misspelt key":       {"    a: {allow: [{action: [\"github:*\"]}]}\n", "chaperone/grants.yaml:3:18: error: action is no key here, where there is actions, access, resources, report; did you mean actions?"},
		"text for a list":    {"    a: {allow: [{actions: \"github:issues/*\"}]}\n", "chaperone/grants.yaml:3:27: error: a list is wanted here, such as [github:issues/*]"},
		"text for grants":    {"    a: {allow: all}\n", "chaperone/grants.yaml:3:16: error: a list of grants is wanted here"},
		"access misspelt":    {"    b: {allow: [{actions: [\"github:*\"], access: [read]}]}\n    a: {allow: [{actions: [\"github:*\"], access: [raed]}]}\n", "chaperone/grants.yaml:4:50: error: agent a: access \"raed\" is none of read, list, write, delete, admin; did you mean read?"},
		"no truth":           {"    a: {autonomous: perhaps}\n", "chaperone/grants.yaml:3:21: error: true or false is wanted here"},
		"two at once":        {"    a: {alow: []}\n    b: {allow: [{actions: []}]}\n", "chaperone/grants.yaml:4:18: error: actions is empty"},
		"unknown service":    {"    a: {allow: [{actions: [\"gitub:*\"]}]}\n", "no service is named gitub; did you mean github?"},
		"no such access":     {"    a: {allow: [{actions: [\"github:issues/*\"], access: [admin]}]}\n", "warning: it reaches nothing: no action of github:issues/* is admin [unreachable-grant]"},
		"no such resource":   {"    a: {allow: [{actions: [\"github:issues/*\"], resources: [acme]}]}\n", "whose name has 2 parts between slashes, and acme has not"},
		"no resource at all": {"    a: {allow: [{actions: [\"github:users/*\"], resources: [acme/web]}]}\n", "is on no resource; leave resources out"},
		"contradictory":      {"    a:\n      allow:\n        - {actions: [\"github:issues/create\"], resources: [acme/web]}\n      deny:\n        - {actions: [\"github:*\"]}\n", "chaperone/grants.yaml:5:11: warning: agent a: it never takes effect, since line 7 denies all of it [contradictory-grant]"},
		"always asks":        {"    a:\n      allow:\n        - {actions: [\"github:issues/create\"]}\n      ask:\n        - {actions: [\"github:issues/*\"]}\n", "it always asks, since line 7 says so"},
		"redundant":          {"    a:\n      allow:\n        - {actions: [\"github:issues/create\"], resources: [acme/web]}\n        - {actions: [\"github:issues/*\"], resources: [acme/*]}\n", ":5:11: warning: agent a: line 6 says all of this already"},
		"sound":              {"    a:\n      allow:\n        - {actions: [\"github:issues/*\"], resources: [acme/web, acme/*]}\n      deny:\n        - {actions: [\"github:*\"], access: [admin]}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := checked(t, with(shipped(t), "grants:\n  agents:\n"+tc.grants+humans))
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("got %s\nwant %s", got, tc.want)
			}
		})
	}
	got := checked(t, with(shipped(t), "grants:\n  agents:\n    a: {allow: [{actions: [\"github:repos/delete\"]}]}\n  groups:\n    g: {}\n  humans: {\"*\": {allow: [{actions: [\"*:*\"], access: [read]}]}}\n"))
	if want := "no human may have this done on their behalf"; strings.Contains(got, want) {
		t.Errorf("delete is admin here, read is what humans may: by patterns alone they meet: %s", got)
	}
	got = checked(t, with(shipped(t), "grants:\n  agents:\n    a: {allow: [{actions: [\"slack:*\"]}]}\n  groups:\n    g: {allow: [{actions: [\"*:*\"]}]}\n  humans: {b: {allow: [{actions: [\"github:*\"]}]}}\n"))
	for _, want := range []string{"agent a: no human may have this done on their behalf", "group g: no human is in it"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %q", got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{"acton": "action", "raesons": "reasons", "result": "result", "xyz": "", "": ""} {
		if got := nearest(name, []string{"action", "reasons", "result"}); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestCases(t *testing.T) {
	files := fstest.MapFS{"cases/a.yaml": {Data: []byte("good:\n  agent: a\n  do: GET https://x/\n  want: allow\nbad:\n  do: GET https://x/\n  want: yes\n")}}
	if _, err := Cases(files); err == nil || !strings.Contains(err.Error(), "cases/a.yaml:5:1: the case names no agent") {
		t.Error(err)
	}
	files["cases/a.yaml"].Data = []byte("good:\n  agent: a\n  human: alice@acme.com\n  action: github:issues/get\n  want: allow\n  reason: Reading\nnot so:\n  agent: a\n  action: github:issues/get\n  want: ask\n")
	cases, err := Cases(files)
	if err != nil || len(cases) != 2 || cases[1].Line != 7 {
		t.Fatal(cases, err)
	}
	e, err := Load(Options{FS: custom(`decision := {"result": "allow", "reasons": ["Reading is free."]}`)})
	if err != nil {
		t.Fatal(err)
	}
	got := e.RunCases(t.Context(), cases, func(c *Case) (*policy.Question, error) {
		return question(c.Agent, c.Human, c.Action, policy.AccessRead, ""), nil
	})
	if !got[0].Pass || got[1].Pass || !strings.Contains(got[1].Message, "wanted ask, got allow") || !slices.ContainsFunc(got, func(r TestResult) bool { return r.Place == "cases/a.yaml:7" }) {
		t.Errorf("%+v", got)
	}
}
