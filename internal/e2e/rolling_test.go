package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// TestReplicasFailOver kills the master of a group: no request fails meanwhile and no
// stream is cut, and what is revoked afterwards is dead everywhere.
func TestReplicasFailOver(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers and two programs take some seconds")
	}
	t.Run("Sentinel", func(t *testing.T) {
		g := startGroup(t, testkit.StartSentinel)
		failOver(t, "redis+sentinel://"+g.Sentinel.Addr+"/main", func() *testkit.Redis { return g.Servers[0] })
	})
	if *bigReplicas {
		t.Run("Cluster", func(t *testing.T) {
			g := startGroup(t, testkit.StartCluster)
			failOver(t, "redis+cluster://"+g.Addrs(), func() *testkit.Redis { return keeper(t, g) })
		})
	}
}

// keeper is the master of a cluster that has the store.
func keeper(t *testing.T, g *testkit.RedisGroup) *testkit.Redis {
	t.Helper()
	for _, r := range g.Servers[:3] {
		n, err := r.Do(t.Context(), "DBSIZE")
		must(t, err)
		if n != "0" {
			return r
		}
	}
	t.Fatal("no master has anything")
	return nil
}

// failOver serves from two replicas while the master of their store is killed.
func failOver(t *testing.T, store string, master func() *testkit.Redis) {
	f := assembleFleet(t, 2, "", 30*time.Second, func(string) string { return store })
	m, other := f.member(0), f.member(0)
	clients := []*http.Client{f.client(0, m), f.client(1, m)}
	ctx := t.Context()
	var ended []<-chan struct{}
	for i, kind := range kinds {
		ended = append(ended, f.open(ctx, kind, i%2, m))
	}
	f.verb(0, "", "revoke", "--session", other.Session)
	n := 0
	ok := func() {
		for i, c := range clients {
			n++
			if got := ask(ctx, c, m, fmt.Sprintf("/once/%s/%d", m.Session, n)); got != 200 {
				t.Fatalf("replica %d answers %d", i, got)
			}
		}
	}
	ok()
	master().Kill()
	within(t, 30*time.Second, "a change is taken again", func() bool {
		ok()
		r, err := f.replicas[1].Run(ctx, "", nil, "agent", "add", fmt.Sprint("bot", n), "--owner", "o@example.com")
		return err == nil && r.Code == 0
	})
	for i, c := range ended {
		select {
		case <-c:
			t.Errorf("%s was cut when another master took over", kinds[i])
		default:
		}
	}
	within(t, 30*time.Second, "both follow the new master", func() bool {
		return strings.Count(f.verb(0, "", "revoke", "--session", m.Session), "in force on") == 2
	})
	revoked := time.Now()
	allEnd(t, ended, "revoked at the new master")
	f.gone(m, revoked, 5*time.Second, "revoked at the new master")
	for i := range f.replicas {
		for _, dead := range []member{m, other} {
			if got := ask(ctx, f.client(i, dead), dead, "/once/x/3"); got != 407 {
				t.Errorf("replica %d: what was revoked is answered with %d", i, got)
			}
		}
	}
	f.tally()
}

// TestRollingUpgrade takes one of two replicas down: what is going on goes on for its
// drain time, the other serves the same session, and the list knows who has left.
func TestRollingUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("two programs and a server take some seconds")
	}
	r := startRedis(t)
	f := assembleFleet(t, 2, r.Addr, 10*time.Second, func(way string) string { return "redis://" + way })
	m := f.member(0)
	ctx := t.Context()
	ended := f.open(ctx, "events", 0, m)
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- f.replicas[0].Stop() }()
	c := f.client(1, m)
	for n := 0; ; n++ {
		if got := ask(ctx, c, m, fmt.Sprintf("/once/%s/%d", m.Session, n)); got != 200 {
			t.Fatalf("the other replica answers %d", got)
		}
		select {
		case <-ended:
		default:
			continue
		}
		break
	}
	if lived := time.Since(began); lived < 1900*time.Millisecond {
		t.Errorf("the stream was cut after %v, before its drain time of 2s", lived)
	}
	must(t, <-stopped)
	if out := f.verb(1, "", "replicas"); strings.Count(out, "127.0.0.1:") != 1 {
		t.Errorf("who has left is still on the list: %s", out)
	}
	must(t, f.replicas[0].Restart(ctx))
	if got := ask(ctx, f.client(0, m), m, "/once/"+m.Session+"/again"); got != 200 {
		t.Errorf("started again it answers %d", got)
	}
	f.tally()
}
