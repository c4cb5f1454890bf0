package opa

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/policy"
)

func TestSuggest(t *testing.T) {
	uses := []Use{{"github:users/get-authenticated", policy.AccessRead, ""}, {"slack:chat.postMessage", policy.AccessWrite, "C1"}, {"github:issues/create", policy.AccessWrite, "acme/web"}}
	for i := range 5 {
		uses = append(uses, Use{"github:issues/update", policy.AccessWrite, fmt.Sprintf("acme/r%d", i)})
	}
	for _, op := range []string{"get", "list", "list-files"} {
		uses = append(uses, Use{"github:pulls/" + op, policy.AccessRead, "acme/web"})
	}
	want := "[{[github:issues/create] [] [acme/web]} {[github:issues/update] [] [acme/*]} {[github:pulls/*] [read list] [acme/web]} {[github:users/get-authenticated] [] []} {[slack:chat.postMessage] [] [C1]}]"
	if got := fmt.Sprint(Suggest(uses)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWithAllow(t *testing.T) {
	allow := []Grant{{Actions: []string{"github:issues/create"}, Resources: []string{"acme/web"}}}
	const entry = "    bot:\n      allow:\n        - actions: [\"github:issues/create\"]\n          resources: [acme/web]\n"
	for name, tc := range map[string]struct{ before, after string }{
		"block":       {"# who\ngrants:\n  agents:\n    a: {}\n    bot:\n      allow:\n        - {actions: [\"*:*\"]}\n        - {actions: [\"x:*\"]}\n      deny:\n        - {actions: [\"y:*\"]} # never\n    # last\n    z: {}\n", "# who\ngrants:\n  agents:\n    a: {}\n" + entry + "      deny:\n        - {actions: [\"y:*\"]} # never\n    # last\n    z: {}\n"},
		"flow":        {"grants:\n  agents:\n    bot: {allow: [{actions: [\"*:*\"]}]}\n  humans: {}\n", "grants:\n  agents:\n" + entry + "  humans: {}\n"},
		"none yet":    {"grants:\n  agents:\n    a:\n      autonomous: true\n  humans: {}\n", "grants:\n  agents:\n    a:\n      autonomous: true\n" + entry + "  humans: {}\n"},
		"none at all": {"grants:\n  agents: {}\n  humans: {}\n", "grants:\n  agents:\n" + entry + "  humans: {}\n"},
	} {
		before, after, err := WithAllow(fstest.MapFS{grantsFile: {Data: []byte(tc.before)}}, "bot", allow)
		if err != nil || before != tc.before || bare(after) != bare(tc.after) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, after, tc.after)
		}
	}
	if _, _, err := WithAllow(fstest.MapFS{grantsFile: {Data: []byte("grants: {agents: {bot: {}, b: {}}}\n")}}, "bot", allow); err == nil {
		t.Error("all on one line was changed")
	}
}

// bare is a text without its quotation marks.
func bare(s string) string { return strings.NewReplacer(`"`, "", "'", "").Replace(s) }

func TestStandings(t *testing.T) {
	files := with(shipped(t), testGrants)
	last := time.Date(2026, 3, 14, 0, 0, 0, 0, time.UTC)
	got, err := Standings(files, map[UsedBy]Used{{Use{"github:issues/create", policy.AccessWrite, "acme/web"}, "triage-bot", "alice@acme.com"}: {Count: 2, Last: last}})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, x := range got {
		lines = append(lines, fmt.Sprint(x.Kind, " ", x.Who, " ", x.Pattern, " ", x.Count, " ", x.Last.Equal(last)))
	}
	want := "agent triage-bot github:issues/* 2 true\nagent triage-bot github:repos/get 0 false\nagent triage-bot slack:chat.postMessage 0 false\nagent reporter *:* 0 false\ngroup eng github:* 2 true\nhuman * *:* 0 false"
	if text := strings.Join(lines, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
