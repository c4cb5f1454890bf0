package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// TestTwoMasters cuts the master of a group, and one replica with it, off from the
// sentinel, the copy and the other replica, which get another master. The one that is
// left behind hears of no revocation: since its master wants a copy, it takes no changes
// any more, and all is refused past store_stale.
func TestTwoMasters(t *testing.T) {
	if !*bigReplicas {
		t.Skip("several time-outs have to pass: run it with -replicas")
	}
	dir := t.TempDir()
	old := server(t, testkit.RedisOptions{Dir: dir, Args: []string{"--min-replicas-to-write", "1", "--min-replicas-max-lag", "1", "--repl-diskless-sync-delay", "0"}})
	between := faulty(t, old.Addr) // all but the replica that is left behind reach it so
	host, port, _ := net.SplitHostPort(between.Addr())
	next := server(t, testkit.RedisOptions{Dir: dir, Args: []string{"--replicaof", host + " " + port}})
	must(t, os.WriteFile(filepath.Join(dir, "sentinel.conf"), fmt.Appendf(nil, "sentinel monitor main %s %s 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n", host, port), 0o600))
	sentinel := server(t, testkit.RedisOptions{Dir: dir, Sentinel: true})
	within(t, time.Minute, "the sentinel knows the copy", func() bool {
		text, err := sentinel.Do(t.Context(), "SENTINEL", "replicas", "main")
		info, err2 := old.Do(t.Context(), "INFO", "replication")
		return err == nil && err2 == nil && strings.Contains(text, "slave") && strings.Contains(info, "min_slaves_good_slaves:1")
	})
	f := assemble(t, 2, 3*time.Second, func(i int) (way, string) {
		p := faulty(t, sentinel.Addr)
		if i == 1 { // it reaches the old master past what is cut
			_, real, _ := net.SplitHostPort(old.Addr)
			must(t, p.Translate(port, real))
		}
		return way{p}, "redis+sentinel://" + p.Addr() + "/main"
	}, nil)
	m, victim := f.member(0), f.member(0)
	for _, known := range []member{m, victim} {
		f.await(1, known, 200, "a session is known on both")
	}
	defer func() {
		if t.Failed() {
			said, err := sentinel.Do(t.Context(), "SENTINEL", "masters")
			t.Logf("the sentinel says %s, %v; the replicas printed\n%s\n%s", said, err, f.replicas[0].Output(), f.replicas[1].Output())
		}
	}()
	between.Hold()
	f.ways[1].Hold()
	began := time.Now()
	within(t, 3*time.Minute, "the one that follows revokes at the new master", func() bool {
		r, err := f.replicas[0].Run(t.Context(), "", nil, "revoke", "--session", victim.Session)
		return err == nil && r.Code == 0
	})
	revoked := time.Now()
	before := f.await(1, m, 503, "the one that is left behind refuses everything")
	t.Logf("cut off for %v it refused everything; before it answered %v", time.Since(began).Round(time.Millisecond), before)
	if out := f.verb(1, "", "replicas"); !strings.Contains(out, "too few copies") {
		t.Errorf("it says %q", out)
	}
	f.await(0, m, 200, "the one that follows goes on")
	between.Heal()
	f.ways[1].Heal()
	if before := f.await(1, victim, 407, "back, it knows what was revoked"); before[200] {
		t.Error("what was revoked meanwhile lived again")
	}
	f.await(1, m, 200, "back, it goes on")
	f.gone(victim, revoked, 30*time.Second, "revoked at the new master")
	if role, err := next.Do(t.Context(), "INFO", "replication"); err != nil || !strings.Contains(role, "role:master") {
		t.Errorf("the new master is %s, %v", role, err)
	}
	f.tally()
}

func server(t *testing.T, o testkit.RedisOptions) *testkit.Redis {
	t.Helper()
	r, err := testkit.StartRedis(t.Context(), o)
	if err == testkit.ErrNoRedis {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(r.Close)
	return r
}
