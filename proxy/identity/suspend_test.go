package identity

import (
	"errors"
	"testing"
	"time"
)

// TestResumeGivesBack suspends for longer than sessions may be idle, and than their lease:
// what was suspended goes on on all replicas when that is lifted, and nothing else.
func TestResumeGivesBack(t *testing.T) {
	for name, tc := range map[string]struct {
		suspend, resume func(*replica) error
		barred          error
	}{
		"agent": {func(r *replica) error { return r.SuspendAgent(ctx, "bot", "odd") }, func(r *replica) error { return r.ResumeAgent(ctx, "bot") }, ErrAgentSuspended},
		"human": {func(r *replica) error { _, err := r.SuspendHuman(ctx, "alice@acme.com", "odd", "me"); return err },
			func(r *replica) error { _, err := r.ResumeHuman(ctx, "alice@acme.com", "me"); return err }, ErrHumanSuspended},
	} {
		t.Run(name, func(t *testing.T) {
			c := join(t, 2)
			if _, err := c.all[0].AddAgent(ctx, "sub", "team:dev", nil); err != nil {
				t.Fatal(err)
			}
			create := func(spec Spec) Created {
				spec.Human = "alice@acme.com"
				return c.create(t, spec)
			}
			running := create(Spec{Agent: "bot", Lease: 20 * time.Second})
			below := create(Spec{Agent: "sub", Parent: running.ID})
			quiet := create(Spec{Agent: "bot", Idle: time.Minute})
			revoked := create(Spec{Agent: "bot"})
			short := create(Spec{Agent: "bot", TTL: 5 * time.Minute})
			gone := create(Spec{Agent: "bot", Lease: 20 * time.Second}) // its program ends meanwhile
			sessions := map[*Created]string{&running: "with a heartbeat", &below: "below it", &quiet: "idle", &revoked: "revoked", &short: "short", &gone: "whose program is gone"}
			check := func(when string, want map[*Created]error) {
				t.Helper()
				c.settle(t)
				for s, what := range sessions {
					for i, r := range c.all {
						if _, err := r.Identify(basic(s.Agent, s.Token)); !errors.Is(err, want[s]) || want[s] == nil && err != nil {
							t.Errorf("%s, %s on replica %d: %v, want %v", when, what, i, err, want[s])
						}
					}
				}
			}
			check("before", nil)
			if err := tc.suspend(c.all[1]); err != nil {
				t.Fatal(err)
			}
			barred := map[*Created]error{}
			for s := range sessions {
				barred[s] = tc.barred
			}
			check("suspended", barred)
			if _, err := c.all[1].Revoke(ctx, Target{Session: revoked.ID}, "", ""); err != nil {
				t.Fatal(err)
			}
			for d := time.Duration(0); d <= 10*time.Minute; d += 10 * time.Second {
				for _, r := range c.all {
					r.ahead.Store(int64(d))
					r.alive.Store(true)
				}
				if err := c.all[0].Renew(ctx, running.ID); !errors.Is(err, tc.barred) {
					t.Fatalf("a heartbeat after %v: %v", d, err)
				}
				for _, r := range c.all {
					r.tick(ctx)
				}
				c.settle(t)
			}
			if err := tc.resume(c.all[1]); err != nil {
				t.Fatal(err)
			}
			check("resumed", map[*Created]error{&revoked: ErrSessionRevoked, &short: ErrSessionExpired, &gone: ErrSessionExpired})
		})
	}
}
