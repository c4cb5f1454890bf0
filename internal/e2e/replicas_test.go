package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"chaperone/internal/testkit"
)

var bigReplicas = flag.Bool("replicas", false, "run the replicas under 500 requests a second and 200 open streams, on one Redis and on a group")

// TestReplicas has three replicas serve sessions and streams while sessions are
// revoked and the way to Redis, or Redis itself, is cut, killed, failed over and emptied.
func TestReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("three programs and a server take some seconds")
	}
	t.Run("one server", func(t *testing.T) {
		r := startRedis(t)
		const stale = 3 * time.Second
		f := assembleFleet(t, 3, r.Addr, stale, func(way string) string { return "redis://" + way + "/0" })
		underTrouble(f, []*testkit.Redis{r}, func(tr *trial) { tr.killed(r) })
	})
	if !*bigReplicas {
		return
	}
	t.Run("a group", func(t *testing.T) {
		g := startGroup(t, testkit.StartSentinel)
		f := assemble(t, 3, 10*time.Second, func(int) (way, string) { return throughWays(t, g) }, nil)
		underTrouble(f, g.Servers, func(tr *trial) { tr.failedOver(g) })
	})
}

func startGroup(t *testing.T, start func(context.Context, string) (*testkit.RedisGroup, error)) *testkit.RedisGroup {
	t.Helper()
	g, err := start(t.Context(), t.TempDir())
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(g.Close)
	return g
}

// throughWays makes a replica's ways to a sentinel and to all servers that it may name:
// what it says of their ports is what they are on the way.
func throughWays(t *testing.T, g *testkit.RedisGroup) (way, string) {
	t.Helper()
	sentinel := faulty(t, g.Sentinel.Addr)
	w := way{sentinel}
	for _, r := range g.Servers {
		p := faulty(t, r.Addr)
		_, from, _ := net.SplitHostPort(r.Addr)
		_, to, _ := net.SplitHostPort(p.Addr())
		must(t, sentinel.Translate(from, to))
		w = append(w, p)
	}
	return w, "redis+sentinel://" + sentinel.Addr() + "/main"
}

// trial is a fleet under load, with streams open.
type trial struct {
	*fleet
	servers []*testkit.Redis
	members []member
	dead    []dead
	ctx     context.Context
}

// dead is a session of which the service must see nothing later than bound after a moment.
type dead struct {
	m     member
	since time.Time
	bound time.Duration
	what  string
}

// underTrouble goes through everything that may happen to sessions and to the store; then
// is what happens to its servers.
func underTrouble(f *fleet, servers []*testkit.Redis, then func(*trial)) {
	t := f.t
	count, every, streams := 5, 100*time.Millisecond, 2*len(kinds)
	if *bigReplicas {
		count, every, streams = 10, 60*time.Millisecond, 200
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	tr := &trial{fleet: f, servers: servers, ctx: ctx}
	for i := range count {
		tr.members = append(tr.members, f.member(i%3))
	}
	ended := [2][]<-chan struct{}{tr.streams(streams/2, 0), tr.streams(streams/2, 1)}
	loaded := f.load(ctx, tr.members, every)
	tr.quiet()
	tr.revoked(ended[0])
	tr.apart(ended[1])
	then(tr)
	flushed := tr.emptied()
	stop()
	loaded.Wait()
	slack := 5 * time.Second // for a machine that is busy with other tests
	if *bigReplicas {
		slack = time.Second
	}
	gone := map[string]bool{}
	for _, d := range tr.dead {
		gone[d.m.Session] = true
		f.gone(d.m, d.since, d.bound+slack, d.what)
		t.Logf("%s: the last that the service saw came %v after", d.what, f.last(d.m).Sub(d.since))
	}
	for _, m := range tr.members {
		f.gone(m, flushed, time.Second+slack, "emptied")
	}
	f.undecided(gone)
	f.tally()
	if *bigReplicas {
		for i, p := range f.replicas {
			t.Logf("replica %d printed:\n%s", i, p.Output())
		}
	}
}

// streams opens streams of all kinds on all replicas in one member's name.
func (tr *trial) streams(n, of int) (ended []<-chan struct{}) {
	for i := range n {
		ended = append(ended, tr.open(tr.ctx, kinds[i%len(kinds)], i%3, tr.members[of]))
	}
	return ended
}

// end notes that a session was ended.
func (tr *trial) end(m member, since time.Time, bound time.Duration, what string) {
	tr.dead = append(tr.dead, dead{m, since, bound, what})
}

// stayDead asks each replica in the names of all that were ended.
func (tr *trial) stayDead(when string) {
	tr.t.Helper()
	for i := range tr.replicas {
		for _, d := range tr.dead {
			if got := ask(tr.ctx, tr.client(i, d.m), d.m, "/once/x/"+when); got != 407 {
				tr.t.Errorf("%s, replica %d answers %d to what was ended: %s", when, i, got, d.what)
			}
		}
	}
}

// quiet finds that the store is not asked for the sake of a request.
func (tr *trial) quiet() {
	commands, requests := tr.pace(tr.servers[0], 2*time.Second)
	tr.t.Logf("%.0f requests and %.0f commands of Redis a second", requests, commands)
	if commands > 60 { // those by which three replicas watch and tell of themselves
		tr.t.Errorf("%.0f commands a second for %.0f requests", commands, requests)
	}
}

// revoked revokes on one replica: it is dead on all, in mid-stream.
func (tr *trial) revoked(ended []<-chan struct{}) {
	t := tr.t
	began := time.Now()
	out := tr.verb(1, "", "revoke", "--session", tr.members[0].Session, "--reason", "test")
	took, done := time.Since(began), time.Now()
	if strings.Count(out, "in force on") != 3 || strings.Contains(out, "NOT") {
		t.Errorf("revoke printed %q", out)
	}
	allEnd(t, ended, "revoked")
	tr.partings(websocket.StatusPolicyViolation)
	if *bigReplicas {
		done = began
	}
	tr.end(tr.members[0], done, 0, "revoked")
	tr.stayDead("revoked")
	t.Logf("revoke returned after %v", took)
}

// apart cuts the third off: it goes on for a while, makes nothing new, then refuses.
func (tr *trial) apart(ended []<-chan struct{}) {
	t, ctx, m := tr.t, tr.ctx, tr.members[2]
	tr.ways[2].Hold()
	cut := time.Now()
	if got, err := tr.replicas[2].Run(ctx, "", nil, "session", "create", "--agent", "bot"); err != nil || got.Code != 1 || !strings.Contains(got.Err, "store does not answer") {
		t.Errorf("a new session while cut off: %+v, %v", got, err)
	}
	out := tr.verb(0, "", "revoke", "--session", tr.members[1].Session)
	tr.end(tr.members[1], time.Now(), tr.stale, "revoked while a replica was cut off")
	if !strings.Contains(out, "NOT confirmed") {
		t.Errorf("revoke printed %q", out)
	}
	within(t, 2*tr.stale+20*time.Second, "the replica that is cut off refuses everything", func() bool {
		return ask(ctx, tr.client(2, m), m, "/once/"+m.Session+"/stale") == 503
	})
	t.Logf("cut off, it refused everything after %v", time.Since(cut))
	allEnd(t, ended, "revoked while a replica was cut off")
	tr.partings(websocket.StatusPolicyViolation, websocket.StatusTryAgainLater)
	if _, err := tr.replicas[2].Admin(ctx, "/readyz"); err == nil || !strings.Contains(err.Error(), "store_stale") {
		t.Errorf("/readyz of a replica that refuses everything: %v", err)
	}
	if out := tr.verb(2, "", "replicas"); !strings.Contains(out, "this one, refusing") || !strings.Contains(out, "store does not answer") {
		t.Errorf("replicas printed %q", out)
	}
	tr.ways[2].Heal()
	within(t, 30*time.Second, "it is back", func() bool {
		return ask(ctx, tr.client(2, m), m, "/once/"+m.Session+"/back") == 200
	})
	tr.stayDead("back")
}

// killed has Redis killed and come back with what it had.
func (tr *trial) killed(r *testkit.Redis) {
	r.Kill()
	if m := tr.members[2]; ask(tr.ctx, tr.client(0, m), m, "/once/"+m.Session+"/killed") != 200 {
		tr.t.Error("a moment after Redis was killed nothing goes on")
	}
	must(tr.t, r.Start(tr.ctx))
	tr.anew("killed")
}

// anew waits until a new session works on all, and what was ended on none.
func (tr *trial) anew(when string) {
	late := tr.member(0)
	for i := range tr.replicas {
		within(tr.t, 30*time.Second, "a new session on another replica", func() bool {
			return ask(tr.ctx, tr.client(i, late), late, fmt.Sprintf("/once/%s/%s%d", late.Session, when, i)) == 200
		})
	}
	tr.stayDead(when)
}

// failedOver kills the master of a group under load. What was revoked a moment before,
// and what is revoked while there is no master, is dead on all replicas, and stays that
// on one that starts anew; all that goes on goes on, streams too.
func (tr *trial) failedOver(g *testkit.RedisGroup) {
	t, ctx := tr.t, tr.ctx
	going, ending, early, late := tr.members[2], tr.members[3], tr.members[4], tr.members[5]
	alive, cut := tr.streams(len(kinds)*3, 2), [...][]<-chan struct{}{tr.streams(len(kinds)*9, 3), tr.streams(len(kinds)*9, 5)}
	tr.verb(2, "", "revoke", "--session", early.Session)
	tr.end(early, time.Now(), 0, "revoked a moment before the fail-over")
	began := time.Now()
	g.Servers[0].Kill()
	var all sync.WaitGroup
	all.Go(func() { // it may be refused the store, or wait for the new master
		out, err := tr.replicas[1].Run(ctx, "", nil, "revoke", "--session", ending.Session)
		t.Logf("revoked while there was no master: %+v, %v", out, err)
	})
	within(t, 60*time.Second, "a change is taken again", func() bool {
		if got := ask(ctx, tr.client(0, going), going, fmt.Sprintf("/once/%s/over-%d", going.Session, time.Now().UnixNano())); got != 200 {
			t.Errorf("while another master takes over: %d", got)
		}
		r, err := tr.replicas[0].Run(ctx, "", nil, "agent", "add", fmt.Sprint("bot", time.Now().UnixNano()), "--owner", "o@example.com")
		return err == nil && r.Code == 0
	})
	took := time.Since(began)
	all.Wait()
	tr.end(ending, time.Now(), 2*time.Second, "revoked while there was no master") // it is written again every second
	within(t, 60*time.Second, "all follow the new master", func() bool {
		return strings.Count(tr.verb(0, "", "revoke", "--session", late.Session), "in force on") == 3
	})
	tr.end(late, time.Now(), 0, "revoked at the new master")
	t.Logf("another master took changes %v after the old one was killed", took)
	for i, e := range append(cut[:], alive) {
		if i < len(cut) {
			allEnd(t, e, "revoked around a fail-over")
			continue
		}
		for j, c := range e {
			select {
			case <-c:
				t.Errorf("stream %d, %s, was cut by the fail-over", j, kinds[j%len(kinds)])
			default:
			}
		}
	}
	tr.partings(websocket.StatusPolicyViolation)
	tr.stayDead("failed over")
	for _, m := range []member{early, ending} { // when it returns, the store has it
		if out := tr.verb(1, "", "revoke", "--session", m.Session); strings.Count(out, "in force on") != 3 {
			t.Errorf("revoke printed %q", out)
		}
	}
	must(t, tr.replicas[2].Stop())
	must(t, tr.replicas[2].Restart(ctx))
	tr.stayDead("started anew")
	must(t, g.Servers[0].Start(ctx))
	tr.servers = g.Servers[1:]
	tr.anew("anew")
}

// emptied empties the store: nobody is known any more, and nobody gets through.
func (tr *trial) emptied() time.Time {
	m := tr.members[2]
	if _, err := tr.servers[0].Do(tr.ctx, "FLUSHALL"); err != nil {
		tr.t.Fatal(err)
	}
	flushed := time.Now()
	for i := range tr.replicas {
		within(tr.t, 20*time.Second, "an empty store lets nobody in", func() bool {
			return ask(tr.ctx, tr.client(i, m), m, "/once/"+m.Session+"/flushed") == 407
		})
	}
	tr.t.Logf("emptied, all refused after %v", time.Since(flushed))
	return flushed
}
