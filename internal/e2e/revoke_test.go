package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// stream is one that is open on a replica, and when it ended.
type stream struct {
	kind    string
	replica int
	ended   <-chan struct{}
	at      time.Time // of its end; read after ended
}

// follow opens a stream of each kind on each replica.
func (f *fleet) follow(ctx context.Context, m member, kinds ...string) (all []*stream) {
	f.t.Helper()
	for i := range f.replicas {
		for _, kind := range kinds {
			ended := make(chan struct{})
			s := &stream{kind: kind, replica: i, ended: ended}
			cut := f.open(ctx, kind, i, m)
			go func() {
				<-cut
				s.at = time.Now()
				close(ended)
			}()
			all = append(all, s)
		}
	}
	return all
}

// alive checks that none of some streams has ended.
func alive(t *testing.T, all []*stream, what string) {
	t.Helper()
	for _, s := range all {
		select {
		case <-s.ended:
			t.Errorf("%s: %s on replica %d was cut too", what, s.kind, s.replica)
		default:
		}
	}
}

// slowest waits for the end of all, and says how long after a moment the last ended, on
// the replica that was asked and on the others.
func slowest(t *testing.T, all []*stream, asked int, began time.Time, what string) (here, elsewhere time.Duration) {
	t.Helper()
	late := time.After(30 * time.Second)
	for _, s := range all {
		select {
		case <-s.ended:
		case <-late:
			t.Fatalf("%s: %s on replica %d goes on", what, s.kind, s.replica)
		}
		if took := s.at.Sub(began); s.replica == asked {
			here = max(here, took)
		} else {
			elsewhere = max(elsewhere, took)
		}
	}
	return here, elsewhere
}

const doomedGrants = `grants:
  agents:
    bot: &all {allow: [{actions: ["acme:*"]}], raw: [{hosts: [wild.example.com], methods: [CONNECT], path_prefix: /}]}
    doomed: *all
  humans: {"*": *all}
`

// selector is one way to say what is revoked: its flags, of a session.
type selector struct {
	name  string
	flags func(m member) []string
	of    string // the handles that it revokes, of which the session goes on; empty: the session
}

var selectors = []selector{
	{"session", func(m member) []string { return []string{"--session", m.Session} }, ""},
	{"instance", func(m member) []string { return []string{"--instance", m.Instance} }, ""},
	{"human", func(m member) []string { return []string{"--human", m.human} }, ""},
	{"handle", func(m member) []string { return []string{"--handle", m.Handles["acme"]} }, "acme"},
	{"credential", func(m member) []string { return []string{"--credential", "spare"} }, "spare"},
	{"agent", func(m member) []string { return []string{"--agent", "doomed"} }, ""},
}

// TestRevoke revokes by each selector on one of three replicas that all have streams of
// all kinds open. What it names ends everywhere, and all else goes on: other sessions,
// and on the same connection of HTTP/2 what presents another handle.
func TestRevoke(t *testing.T) {
	if testing.Short() {
		t.Skip("three programs and a server take some seconds")
	}
	r := startRedis(t)
	f := assemble(t, 3, time.Minute, func(int) (way, string) { return nil, "redis://" + r.Addr }, func(_ int, o *testkit.ProgramOptions) { o.Grants = doomedGrants })
	f.verb(0, "", "agent", "add", "doomed", "--owner", "o@example.com")
	f.verb(0, "acme-secret", "credential", "add", "spare", "--service", "acme", "--owner", "org", "--kind", "bearer", "--from-stdin")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	neighbour := f.member(0)
	f.known(neighbour)
	others := f.follow(ctx, neighbour, kinds...)
	for n, s := range selectors {
		f.revokeBy(ctx, s, n%len(f.replicas))
		alive(t, others, s.name)
	}
	f.hung(2)
	alive(t, others, "a hung replica")
	began := time.Now()
	out := f.verb(1, "", "revoke", "--all", "--reason", "incident")
	f.acknowledged(out, 3)
	here, elsewhere := slowest(t, others, 1, began, "all")
	t.Logf("all: the last stream ended %v after the command was begun on the replica that was asked, %v on the others", here.Round(time.Millisecond), elsewhere.Round(time.Millisecond))
	f.recorded(map[string]string{neighbour.Session: "session_revoked"})
	f.tally()
}

// known waits until all replicas know a session.
func (f *fleet) known(m member) {
	f.t.Helper()
	for i := range f.replicas {
		f.await(i, m, 200, "a session is known everywhere")
	}
}

// revokeBy revokes by one selector on one replica.
func (f *fleet) revokeBy(ctx context.Context, s selector, asked int) {
	t := f.t
	m := f.member(asked, "--agent", "doomed", "--human", s.name+"@example.com", "--credential", "spare")
	var shown struct{ Instance string }
	must(t, json.Unmarshal([]byte(f.verb(asked, "", "session", "show", m.Session, "--json")), &shown))
	m.Instance, m.human, m.agent = shown.Instance, s.name+"@example.com", "doomed"
	f.known(m)
	goes, stays := m, m
	var rest []*stream
	with := kinds
	if s.of != "" { // what presents the other handle, or none, goes on
		with = slices.DeleteFunc(slices.Clone(kinds), func(kind string) bool { return kind == "tunnel" })
		other := map[string]string{"acme": "spare", "spare": "acme"}[s.of]
		goes.Handles, stays.Handles = map[string]string{"acme": m.Handles[s.of]}, map[string]string{"acme": m.Handles[other]}
		rest = f.follow(ctx, stays, kinds...)
	}
	cut := f.follow(ctx, goes, with...)
	both := f.together(ctx, goes, stays)
	began := time.Now()
	out := f.verb(asked, "", append([]string{"revoke", "--reason", "test"}, s.flags(m)...)...)
	done := time.Now()
	f.acknowledged(out, 3)
	here, elsewhere := slowest(t, cut, asked, began, s.name)
	t.Logf("%s: the last stream ended %v after the command was begun on the replica that was asked, %v on the others, and %v after it returned; %s",
		s.name, here.Round(time.Millisecond), elsewhere.Round(time.Millisecond), max(here, elsewhere).Round(time.Millisecond)-done.Sub(began).Round(time.Millisecond), took(out))
	alive(t, rest, s.name)
	for i := range f.replicas {
		if got, want := ask(ctx, f.client(i, goes), goes, "/once/x/gone"), map[bool]int{true: 407, false: 403}[s.of == ""]; got != want {
			t.Errorf("%s: replica %d answers %d to what was revoked, want %d", s.name, i, got, want)
		}
		if s.of != "" {
			f.await(i, stays, 200, s.name+": the other handle goes on")
		}
		both[i](s.of != "")
	}
	if s.of == "" {
		f.gone(m, done, 20*time.Second, s.name)
	}
	f.recorded(map[string]string{m.Session: map[bool]string{true: "session_revoked", false: "handle_revoked"}[s.of == ""]})
}

// hung revokes while a replica does nothing: it is named, and knows when it goes on.
func (f *fleet) hung(i int) {
	t, asked := f.t, (i+1)%len(f.replicas)
	m := f.member(asked)
	f.known(m)
	must(t, f.replicas[i].Pause())
	began := time.Now()
	out := f.verb(asked, "", "revoke", "--session", m.Session)
	if strings.Count(out, "in force on r_") != len(f.replicas)-1 || strings.Count(out, "NOT confirmed by r_") != 1 {
		t.Errorf("one is hung, and revoke printed %q", out)
	}
	t.Logf("one is hung: revoke returned after %v", time.Since(began).Round(time.Millisecond))
	must(t, f.replicas[i].Resume())
	f.await(i, m, 407, "what was hung knows when it goes on")
}

// took is what a revocation says of how fast it was.
func took(out string) string {
	return "it printed " + strings.Join(regexp.MustCompile(`after \S+`).FindAllString(out, -1), ", ")
}

// acknowledged checks that a revocation names all replicas as those on which it is in force.
func (f *fleet) acknowledged(out string, n int) {
	f.t.Helper()
	if strings.Count(out, "in force on r_") != n || strings.Contains(out, "NOT") {
		f.t.Errorf("revoke printed %q", out)
	}
}

// together opens two streams of HTTP/2 on one connection to each replica, and returns
// what checks, after the first was revoked, that the second goes on or not.
func (f *fleet) together(ctx context.Context, goes, stays member) (checks []func(goesOn bool)) {
	f.t.Helper()
	for i := range f.replicas {
		c := f.client(i, goes)
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = true
		conns := map[string]bool{}
		ctx := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(g httptrace.GotConnInfo) { conns[fmt.Sprintf("%p", g.Conn)] = true }})
		var bodies []io.ReadCloser
		for _, m := range []member{goes, stays} {
			r, err := f.begin(ctx, http.MethodGet, "stream", nil, m)
			must(f.t, err)
			resp, err := c.Do(r)
			must(f.t, err)
			f.t.Cleanup(func() { resp.Body.Close() })
			if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
				f.t.Fatalf("it began with %s %s", resp.Proto, resp.Status)
			}
			bodies = append(bodies, resp.Body)
		}
		checks = append(checks, func(goesOn bool) {
			f.t.Helper()
			if err := drained(bodies[0]); err == nil {
				f.t.Errorf("replica %d: what was revoked ended as if it were whole", i)
			}
			if !goesOn {
				return
			}
			b := make([]byte, 1)
			for range 200 { // more than was on its way
				if _, err := io.ReadFull(bodies[1], b); err != nil {
					f.t.Fatalf("replica %d: the other stream of the connection: %v", i, err)
				}
			}
			r, err := f.begin(ctx, http.MethodGet, "stream", nil, stays)
			must(f.t, err)
			resp, err := c.Do(r)
			must(f.t, err)
			resp.Body.Close()
			if len(conns) != 1 || resp.StatusCode != 200 {
				f.t.Errorf("replica %d: %d connections were used for the three streams, the last answered %s", i, len(conns), resp.Status)
			}
		})
	}
	return checks
}

// drained reads to the end, and returns why it ended; nil where it was whole.
func drained(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// recorded waits until the records say of the sessions' exchanges that were cut why, and
// of each upload that it may have happened.
func (f *fleet) recorded(why map[string]string) {
	f.t.Helper()
	var missing map[string]string
	within(f.t, 30*time.Second, "a record of each exchange that was cut", func() bool {
		missing = map[string]string{}
		n := 0
		for i, p := range f.replicas {
			records, err := p.Records()
			must(f.t, err)
			began := map[string]testkit.Record{}
			for _, r := range records {
				kind, _, _ := strings.Cut(strings.TrimPrefix(r.Request.Path, "/"), "/")
				switch d := began[r.ID]; {
				case r.Event == "decision" && r.Decision.Result == "allow" && why[r.Session] != "" && kind != "once":
					began[r.ID] = r
				case r.Event == "outcome" && d.ID != "" && r.Outcome.Error == why[d.Session]:
					upload := strings.HasPrefix(d.Request.Path, "/upload/")
					if upload == r.Outcome.Indeterminate {
						n++
					} else {
						missing[r.ID] = fmt.Sprintf("replica %d: %s: %+v", i, d.Request.Path, r.Outcome)
					}
				}
			}
		}
		return n >= len(kinds)*len(f.replicas)-len(f.replicas) && len(missing) == 0
	})
	for text := range maps.Values(missing) {
		f.t.Error(text)
	}
}
