package main

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"chaperone/audit"
	"chaperone/audit/proof"
	"chaperone/cmd/chaperone/settings"
	"chaperone/store/redis"
	"chaperone/store/replica"
)

// traced reports whether requests are spans of traces that go somewhere.
func traced(s *settings.Settings) bool {
	return slices.ContainsFunc(s.Sinks, func(c settings.Sink) bool { return c.Kind == settings.Traces })
}

// figures adds to the metrics what is read when they are.
func (r *road) figures() {
	m := r.metrics
	m.Each("chaperone_sessions", "Sessions, by state.", "state", func() map[string]float64 {
		all := map[string]float64{"open": 0}
		list := r.directory.Sessions()
		for i := range list {
			all[state(&list[i])]++
		}
		return all
	})
	m.Each("chaperone_agents", "Agents, by state.", "state", func() map[string]float64 {
		all := map[string]float64{}
		for _, a := range r.directory.Agents() {
			all[string(a.State)]++
		}
		return all
	})
	m.Counter("chaperone_policy_questions_total", "Questions that the policy in force was asked.", func() float64 { n, _ := r.counting.Load().Counts(); return float64(n) })
	m.Counter("chaperone_policy_recalled_total", "Questions that were answered from memory.", func() float64 { _, n := r.counting.Load().Counts(); return float64(n) })
	m.Counter("chaperone_refreshes_total", "Short-lived tokens that were got or refreshed.", func() float64 { n, _ := r.vault.Mints(); return float64(n) })
	m.Counter("chaperone_refresh_failures_total", "Tokens that could not be got.", func() float64 { _, n := r.vault.Mints(); return float64(n) })
	m.Gauge("chaperone_credentials_failing", "Credentials that could not be used when that was last tried.", func() float64 { return float64(len(r.vault.Troubles())) })
	m.Gauge("chaperone_log_failed", "1 while the decision log cannot be written; requests are refused then.", func() float64 {
		if r.log.Failed() != nil {
			return 1
		}
		return 0
	})
	m.Counter("chaperone_log_lines_total", "Number of the last line of the decision log.", func() float64 {
		n, err := audit.LastNumber(r.s.Log.Path)
		if err != nil {
			return 0
		}
		return float64(n)
	})
	m.Gauge("chaperone_checkpoint_age_seconds", "Age of the newest signed checkpoint; -1 where there is none.", func() float64 {
		age, err := proof.Age(r.s.Log.Path, time.Now())
		if err != nil {
			return -1
		}
		return age.Seconds()
	})
	m.Gauge("chaperone_ready", "1 while requests are accepted and decided.", func() float64 {
		if r.unready() == "" {
			return 1
		}
		return 0
	})
	m.Gauge("chaperone_store_age_seconds", "Age of what is known of the store; past store_stale everything is refused.", func() float64 {
		return r.shared.age().Seconds()
	})
	m.Gauge("chaperone_store_trouble", "1 while the store cannot be read, or takes nothing new.", func() float64 {
		var s replica.Status
		if r.shared.contact.show(&s); s.Trouble != "" {
			return 1
		}
		return 0
	})
	if db, ok := r.shared.kv.(*redis.Store); ok {
		m.Counter("chaperone_store_commands_total", "Commands that Redis was sent; hardly more when there are more requests.", func() float64 {
			return float64(db.Commands())
		})
	}
	m.Counter("chaperone_store_reloads_total", "How often the store was read anew because its history had a gap.", func() float64 {
		v := r.shared.view.Load()
		if v == nil {
			return 0
		}
		return float64(v.Reloads())
	})
}

// health serves what an orchestrator asks: whether the process lives, and whether
// requests are accepted, decided and recorded.
func (r *road) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := r.unready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
}

// unready is why requests would be refused, or empty.
func (r *road) unready() string {
	switch {
	case !r.ready.Load():
		return "not ready: the proxy starts or stops"
	case r.log.Failed() != nil:
		return "not ready: the decision log cannot be written"
	case r.gate.Revision() == "":
		return "not ready: no policy is loaded"
	case r.stale() != nil:
		return "not ready: the store does not answer, and what is known of it is older than store_stale"
	}
	return ""
}
