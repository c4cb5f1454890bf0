package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"chaperone/internal/testkit"
)

// TestWhoDidIt has two instances of one agent act for each of two humans with one
// credential. To the service they are all the same; the log tells them apart.
func TestWhoDidIt(t *testing.T) {
	w := begin(t)
	want := map[string]string{} // issue -> human
	for i, human := range []string{"alice@example.com", "carol@example.com", "alice@example.com", "carol@example.com"} {
		s, c := w.open(t, human)
		issue := fmt.Sprintf("/repos/acme/web/issues/%d", i)
		want[issue] = human
		if _, _, err := get(t.Context(), c, "https://api.github.com"+issue, s.Handles["gh"]); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range w.services["api.github.com"].Received() {
		if got := r.Header.Get("Authorization"); got != "Bearer "+githubSecret {
			t.Error("the service did not receive the credential")
		}
	}
	var instances []string
	for _, r := range w.decisions(t, 4, func(testkit.Record) bool { return true }) {
		if who := want[r.Request.Path]; who == "" || r.Human.Email != who && r.Human.Sub != who || r.Agent.ID != agent || r.Agent.Owner == "" || r.Credential.ID != "gh" {
			t.Errorf("%s: %+v, want human %q", r.Request.Path, r, who)
		}
		instances = append(instances, r.Agent.Instance)
	}
	slices.Sort(instances)
	if instances = slices.Compact(instances); len(instances) != 4 {
		t.Errorf("instances %q, want 4", instances)
	}
}

// TestStrangers are refused before anything reaches a service: no credentials,
// wrong ones, a handle of another session, and a session that was revoked.
func TestStrangers(t *testing.T) {
	w := begin(t)
	mine, c := w.open(t, human)
	other, _ := w.open(t, human)
	const target = "https://api.github.com/repos/acme/web/issues"

	code, _, err := get(t.Context(), c, target, other.Handles["gh"])
	if err != nil || code != http.StatusForbidden {
		t.Errorf("a stolen handle: %d %v", code, err)
	}
	roots := c.Transport.(*http.Transport).TLSClientConfig.RootCAs
	u, err := url.Parse(mine.ProxyURL)
	if err != nil {
		t.Fatal("the proxy's URL is none")
	}
	for name, user := range map[string]*url.Userinfo{
		"no credentials": nil, "a wrong token": url.UserPassword(agent, "chs_"+strings.Repeat("0", 40)),
	} {
		stranger := *u
		stranger.User = user
		if code, _, err := get(t.Context(), direct(stranger.String(), roots), target, mine.Handles["gh"]); err == nil {
			t.Errorf("%s: got %d through", name, code)
		} else if !strings.Contains(err.Error(), "Proxy Authentication Required") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.verb(t, "", "revoke", "--session", mine.Session)
	if code, _, err := get(t.Context(), c, target, mine.Handles["gh"]); err == nil && code == http.StatusOK {
		t.Error("a revoked session was served")
	}
	if n := w.received(); n != 0 {
		t.Errorf("services received %d requests", n)
	}
	until(t, "an alarm about the stolen handle", func() bool {
		records, err := w.Records()
		return err == nil && slices.ContainsFunc(records, func(r testkit.Record) bool { return r.Alarm == "handle_theft" })
	})
	w.sweep(t, mine.secrets(t)...)
}
