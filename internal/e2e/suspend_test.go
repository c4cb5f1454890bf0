package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// suspendGrants are fleetGrants with another agent.
const suspendGrants = `grants:
  agents:
    bot: &all {allow: [{actions: ["acme:*"]}], raw: [{hosts: [wild.example.com], methods: [CONNECT], path_prefix: /}]}
    sub: *all
  humans: {"*": {allow: [{actions: ["*:*"]}], raw: [{hosts: [wild.example.com], methods: [CONNECT], path_prefix: /}]}}
`

// TestSuspend bars a human, and an agent, on one of three replicas: all that acts for the
// one, and all instances of the other, are stopped on all, with what is below them, and
// nothing else is. Lifted on another, all of it is back that was not revoked meanwhile.
func TestSuspend(t *testing.T) {
	if testing.Short() {
		t.Skip("three programs and a server take some seconds")
	}
	r := startRedis(t)
	f := assemble(t, 3, 5*time.Minute, func(int) (way, string) { return nil, "redis://" + r.Addr }, func(_ int, o *testkit.ProgramOptions) { o.Grants = suspendGrants })
	f.verb(2, "", "agent", "add", "sub", "--owner", "o@example.com")
	const bob = "bob@example.com"
	session := func(i int, agent, human string, more ...string) member {
		m := f.member(i, append([]string{"--agent", agent, "--human", human}, more...)...)
		m.agent, m.human = agent, human
		return m
	}
	for what, of := range map[string]struct {
		name string
		hits func(m member) bool // by itself
		code string              // of records of what is refused
	}{
		"human": {human, func(m member) bool { return m.human == human }, "human_suspended"},
		"agent": {"bot", func(m member) bool { return m.agent == "bot" }, "agent_suspended"},
	} {
		t.Run(what, func(t *testing.T) {
			f.t = t
			all := []member{session(0, "bot", human), session(1, "bot", bob), session(2, "sub", human), session(0, "sub", bob)}
			below := session(1, "sub", human, "--parent", all[0].Session) // of one that is hit by either
			final := session(2, "bot", human)
			hit := append(slices.DeleteFunc(slices.Clone(all), func(m member) bool { return !of.hits(m) }), below, final)
			free := slices.DeleteFunc(slices.Clone(all), of.hits)
			var cut, kept []*stream
			for _, m := range hit {
				cut = append(cut, f.follow(t.Context(), m, "events", "tunnel")...)
			}
			for _, m := range free {
				kept = append(kept, f.follow(t.Context(), m, "events", "socket")...)
			}
			within(t, 60*time.Second, "every replica says that it is in force", func() bool { // one that is busy for seconds is not waited for
				out := f.verb(0, "", what, "suspend", of.name, "--reason", "test")
				return strings.Count(out, "in force on r_") == len(f.replicas)
			})
			f.allAnswer(hit, 407, "suspended")
			f.allAnswer(free, 200, "free")
			for _, s := range cut {
				<-s.ended
			}
			if got, err := f.replicas[1].Run(t.Context(), "", nil, "session", "create", "--agent", "bot", "--human", human); err != nil || got.Code != 1 || !strings.Contains(got.Err, what+" resume") {
				t.Errorf("a new session: %+v, %v", got, err)
			}
			f.verb(1, "", "revoke", "--session", final.Session)
			f.verb(2, "", what, "resume", of.name)
			back := slices.DeleteFunc(slices.Clone(hit), func(m member) bool { return m.Session == final.Session })
			for i := range f.replicas {
				n := 0
				within(t, 60*time.Second, "every replica knows that it was lifted", func() bool {
					n++
					return ask(t.Context(), f.client(i, back[0]), back[0], fmt.Sprintf("/once/%s/lifted%d-%d", back[0].Session, i, n)) == 200
				})
			}
			f.allAnswer(back, 200, "resumed")
			f.allAnswer([]member{final}, 407, "revoked")
			alive(t, kept, "suspended")
			f.refused(hit, of.code)
		})
	}
	f.t = t
	named := "https://idp.example.com#" + human
	f.member(1, "--human", named)
	if out := f.verb(0, "", "human", "suspend", human); !strings.Contains(out, "NOT barred is what acts for "+named) || strings.Contains(out, bob) {
		t.Errorf("suspend printed %q", out)
	}
	f.tally()
}

// allAnswer asks all replicas in the names of some.
func (f *fleet) allAnswer(all []member, want int, when string) {
	f.t.Helper()
	for i := range f.replicas {
		for _, m := range all {
			if got := ask(f.t.Context(), f.client(i, m), m, fmt.Sprintf("/once/%s/%s%d", m.Session, when, i)); got != want {
				f.t.Errorf("%s: replica %d answers %d to %s for %s", when, i, got, m.agent, m.human)
			}
		}
	}
}

// refused waits until the records of each replica tell of some that they were refused.
func (f *fleet) refused(all []member, code string) {
	f.t.Helper()
	for _, p := range f.replicas {
		within(f.t, 60*time.Second, "records of what was refused", func() bool {
			records, err := p.Records()
			must(f.t, err)
			sessions, told := map[string]string{}, map[string]bool{}
			for _, r := range records {
				if r.Event == "decision" {
					sessions[r.ID] = r.Session
				} else if r.Event == "outcome" && r.Outcome.Error == code && r.Outcome.Status == 407 {
					told[sessions[r.ID]] = true
				}
			}
			return !slices.ContainsFunc(all, func(m member) bool { return !told[m.Session] })
		})
	}
}
