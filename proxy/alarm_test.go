package proxy

import (
	"encoding/hex"
	"strconv"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
	"chaperone/proxy/upstream"
)

// TestAlarmsPause raises what comes with every request once a minute for a session.
func TestAlarmsPause(t *testing.T) {
	s := new(Server)
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	raised := func(session, err string, shadow policy.Result, at time.Time) string {
		x := &exchange{s: s, rec: audit.Record{Session: session, Arrived: at, Outcome: audit.Outcome{Error: err}}}
		x.rec.Decision.Result = policy.Allow
		if shadow != "" {
			x.rec.Decision.Shadow = &policy.Answer{Result: shadow}
		}
		x.raise()
		return x.rec.Alarm
	}
	for i, tc := range []struct {
		session, err string
		shadow       policy.Result
		after        time.Duration
		want         string
	}{
		{"a", "limit_exceeded", "", 0, "limit_exceeded"},
		{"a", "limit_exceeded", "", 59 * time.Second, ""},
		{"b", "limit_exceeded", "", 59 * time.Second, "limit_exceeded"},
		{"a", "", policy.Deny, 59 * time.Second, "shadow_flip"},
		{"a", "", policy.Allow, 2 * time.Minute, ""},
		{"a", "", policy.Deny, 2 * time.Minute, "shadow_flip"},
		{"a", "denied", "", 2 * time.Minute, ""},
		{"a", "limit_exceeded", "", 3 * time.Minute, "limit_exceeded"},
	} {
		if got := raised(tc.session, tc.err, tc.shadow, now.Add(tc.after)); got != tc.want {
			t.Errorf("%d: %q, want %q", i, got, tc.want)
		}
	}
	for i := range 2 * maxPauses {
		s.pauses.due("k", strconv.Itoa(i), now)
	}
	if len(s.pauses.last) > maxPauses {
		t.Errorf("%d sessions are remembered", len(s.pauses.last))
	}
}

// TestTraceparent passes a trace on with the request as parent, and begins one.
func TestTraceparent(t *testing.T) {
	const agents = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, sent := range []string{"", agents, "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "rubbish"} {
		d := newRoad(t, func(o *Options, _ *upstream.Options) { o.Trace = true })
		r := d.request("GET", "https://api.acme.dev/x", nil)
		if sent != "" {
			r.Header.Set("Traceparent", sent)
		}
		resp, err := d.client(false).Do(r)
		check(t, err)
		resp.Body.Close()
		x := d.records(1)[0]
		span, ok := audit.SpanOf(x.Decision.ID)
		got := d.received()[0].Header.Get("Traceparent")
		if !ok || len(got) != 55 || got[36:52] != hex.EncodeToString(span[:]) {
			t.Errorf("sent %q: the service got %q", sent, got)
		}
		if sent == agents && (got[:35] != agents[:35] || x.Decision.Traceparent != agents) {
			t.Errorf("the trace is another: %q, recorded %q", got, x.Decision.Traceparent)
		}
		if sent != agents && x.Decision.Traceparent != got {
			t.Errorf("sent %q: recorded %q, the service got %q", sent, x.Decision.Traceparent, got)
		}
	}
}

// TestNoTraceIsMade leaves requests as they are where traces go nowhere.
func TestNoTraceIsMade(t *testing.T) {
	d := newRoad(t)
	resp, err := d.client(false).Do(d.request("GET", "https://api.acme.dev/x", nil))
	check(t, err)
	resp.Body.Close()
	if got := d.received()[0].Header.Get("Traceparent"); got != "" {
		t.Errorf("the service got %q", got)
	}
}
