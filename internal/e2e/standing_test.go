package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/rego"
)

// candidate writes the shipped policy with other grants and one file of rules.
func (f *fleet) candidate(name, grants, rules string) string {
	f.t.Helper()
	dir := filepath.Join(f.dir, name)
	must(f.t, os.CopyFS(dir, rego.FS))
	own := filepath.Join(dir, "chaperone", "rules")
	must(f.t, errors.Join(os.MkdirAll(own, 0o755), os.WriteFile(filepath.Join(dir, "chaperone", "grants.yaml"), []byte(grants), 0o644)))
	if rules != "" {
		must(f.t, os.WriteFile(filepath.Join(own, name+".rego"), []byte(rules), 0o644))
	}
	return dir
}

// answers are what each replica gives to one request.
func (f *fleet) answers(m member, name string) (out []int) {
	f.t.Helper()
	for i := range f.replicas {
		out = append(out, ask(f.t.Context(), f.client(i, m), m, fmt.Sprintf("/once/%s/%s-%d", m.Session, name, i)))
	}
	return out
}

func (f *fleet) all(m member, name string, want int) {
	f.t.Helper()
	if got := f.answers(m, name); slices.ContainsFunc(got, func(n int) bool { return n != want }) {
		f.t.Errorf("%s: the replicas answer %v", name, got)
	}
}

const limitedRules = `package chaperone.rules

obligations.limits := [{"of": "requests", "per": ["session"], "max": 100}]
`

// TestReplicasPolicy promotes and rolls back on one replica what then decides on all,
// also on one that was away, and holds one limit over all of them.
func TestReplicasPolicy(t *testing.T) {
	if testing.Short() {
		t.Skip("three programs and a server take some seconds")
	}
	r := startRedis(t)
	f := assembleFleet(t, 3, r.Addr, 30*time.Second, func(way string) string { return "redis://" + way })
	m := f.member(0)
	f.all(m, "first", 200)

	// Promoted on one, it decides on all when the verb returns; rolled back on another too.
	none := f.candidate("none", "grants: {agents: {bot: {deny: [{actions: [\"acme:*\"]}]}}}\n", "")
	if out := f.verb(0, "", "policy", "promote", none, "--reason", "nothing today"); strings.Count(out, "\nin force on r_") != 3 || strings.Contains(out, "NOT") {
		t.Errorf("promote printed %q", out)
	}
	f.all(m, "promoted", 403)
	if out := f.verb(2, "", "policy", "rollback", "--reason", "too narrow"); strings.Count(out, "\nin force on r_") != 3 {
		t.Errorf("rollback printed %q", out)
	}
	f.all(m, "rolled-back", 200)
	var list []struct{ How, Reason, By string }
	within(t, 60*time.Second, "every replica knows who did what", func() bool {
		must(t, json.Unmarshal([]byte(f.verb(1, "", "policy", "revisions", "--json")), &list))
		return len(list) > 2 && list[0].How == "rollback" && list[0].Reason == "too narrow" && list[1].How == "promote" && list[1].Reason == "nothing today" && list[1].By != ""
	})

	// One that was away takes over what was promoted meanwhile.
	must(t, f.replicas[1].Stop())
	limited := f.candidate("limited", fleetGrants, limitedRules)
	f.verb(0, "", "policy", "promote", limited, "--reason", "a hundred each")
	must(t, f.replicas[1].Restart(t.Context()))
	within(t, 60*time.Second, "all alike", func() bool { return !strings.Contains(f.verb(1, "", "replicas"), "!") })
	f.never(f.member(1), 100)

	// Where each follows its own folder again, one whose folder differs says so.
	must(t, os.WriteFile(filepath.Join(f.dir, "1", "rego", "chaperone", "grants.yaml"), []byte("grants: {}\n"), 0o600))
	out := f.verb(0, "", "policy", "promote", filepath.Join(f.dir, "0", "rego"), "--reason", "back to the folder")
	if !strings.Contains(out, "it decides by policy") {
		t.Errorf("promote printed %q", out)
	}
	within(t, 60*time.Second, "it says so", func() bool {
		return strings.Contains(f.replicas[1].Output(), "policy.path of this replica holds another policy")
	})
	within(t, 60*time.Second, "a list in which one differs", func() bool { return strings.Count(f.verb(0, "", "replicas"), " !") == 1 })
	f.tally()
}

// never sends many requests at once over all replicas under a limit, a thousand with
// -replicas: the service sees as many as it allows, and not one more.
func (f *fleet) never(m member, limit int) {
	f.t.Helper()
	burst := 300
	if *bigReplicas {
		burst = 1000
	}
	var all sync.WaitGroup
	var allowed, other atomic.Int64
	for i := range f.replicas {
		c := f.client(i, m)
		for n := range burst / len(f.replicas) {
			all.Go(func() {
				switch got := askWithin(f.t.Context(), time.Minute, c, m, fmt.Sprintf("/once/%s/burst-%d-%d", m.Session, i, n)); got {
				case 200:
					allowed.Add(1)
				case 429:
				default:
					other.Add(1)
				}
			})
		}
	}
	all.Wait()
	f.t.Logf("%d of %d requests at once were allowed", allowed.Load(), burst)
	if other.Load() > 0 || allowed.Load() > int64(limit) || allowed.Load() == 0 {
		f.t.Errorf("%d were allowed, %d answered with neither 200 nor 429", allowed.Load(), other.Load())
	}
	// What a replica had reserved and not used comes back: the limit is reached, not less.
	n := 0
	within(f.t, 60*time.Second, "all that the limit allows", func() bool {
		for i := range f.replicas {
			n++
			if ask(f.t.Context(), f.client(i, m), m, fmt.Sprintf("/once/%s/rest-%d", m.Session, n)) == 200 {
				allowed.Add(1)
			}
		}
		return allowed.Load() >= int64(limit)
	})
	for i := range f.replicas {
		if got := ask(f.t.Context(), f.client(i, m), m, fmt.Sprintf("/once/%s/over-%d", m.Session, i)); got != 429 {
			f.t.Errorf("replica %d answers %d to one more", i, got)
		}
	}
	arrived := 0
	f.arrived.Range(func(k, _ any) bool {
		if strings.HasPrefix(k.(string), m.Session) {
			arrived++
		}
		return true
	})
	if arrived != limit {
		f.t.Errorf("the service saw %d requests under a limit of %d", arrived, limit)
	}
}
