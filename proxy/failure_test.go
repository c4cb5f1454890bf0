package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/policy"
	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
)

// TestPolicyIsAskedAgain loads a policy between the decision and the request's
// departure (W2).
func TestPolicyIsAskedAgain(t *testing.T) {
	d := newRoad(t)
	d.gate.Use(swapped{d.gate})
	resp, err := d.client(false).Do(d.request("GET", "https://api.acme.dev/x", nil))
	check(t, err)
	if resp.StatusCode != 403 || len(d.received()) > 0 {
		t.Errorf("%d, the service received %+v", resp.StatusCode, d.received())
	}
}

// swapped allows, and has a policy that denies loaded at the same moment.
type swapped struct{ gate *policy.Gate }

func (s swapped) Eval(context.Context, *policy.Question) (policy.Answer, error) {
	s.gate.Use(denies{})
	return policy.Answer{Result: policy.Allow}, nil
}
func (swapped) Revision() string { return "old" }
func (swapped) ReadsBody() bool  { return false }

type denies struct{}

func (denies) Eval(context.Context, *policy.Question) (policy.Answer, error) {
	return policy.Answer{Result: policy.Deny}, nil
}
func (denies) Revision() string { return "new" }
func (denies) ReadsBody() bool  { return false }

// broken fails as an engine may.
type broken struct{ denies }

func (broken) Eval(context.Context, *policy.Question) (policy.Answer, error) {
	return policy.Answer{Result: policy.Allow}, errors.New("odd")
}

// TestEveryFailureRefuses (W3, W4, W6).
func TestEveryFailureRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		harm func(*road)
		want int
	}{
		"policy fails":    {func(d *road) { d.gate.Use(broken{}) }, 403},
		"no policy":       {func(d *road) { *d.gate = policy.Gate{} }, 503},
		"log is closed":   {func(d *road) { d.server.o.Log.Close() }, 503},
		"credential gone": {func(d *road) { check(d.t, d.vault.Remove(d.t.Context(), "acme")) }, 403},
	} {
		t.Run(name, func(t *testing.T) {
			d := newRoad(t)
			tc.harm(d)
			resp, err := d.client(false).Do(d.request("GET", "https://api.acme.dev/x", nil))
			check(t, err)
			if resp.StatusCode != tc.want || len(d.received()) > 0 {
				t.Errorf("%d, the service received %+v", resp.StatusCode, d.received())
			}
		})
	}
}

// TestServiceFails tells that it was the service, and not the decision.
func TestServiceFails(t *testing.T) {
	d := newRoad(t, func(_ *Options, u *upstream.Options) { u.Resolve["api.acme.dev"] = "127.0.0.1:1" })
	resp, err := d.client(false).Do(d.request("POST", "https://api.acme.dev/x", nil))
	check(t, err)
	var p problem
	check(t, json.NewDecoder(resp.Body).Decode(&p))
	if resp.StatusCode != 502 || p.Title != "The service cannot be reached" || p.Detail != "The service cannot be reached." || p.Reasons != nil || !strings.HasPrefix(resp.Header.Get("Chaperone-Decision"), "allow; ") {
		t.Errorf("%d %v %+v", resp.StatusCode, resp.Header, p)
	}
	if x := d.records(1)[0]; x.Decision.Decision.Result != "allow" || x.Outcome.Outcome.Error != "upstream_unreachable" || x.Outcome.Outcome.Indeterminate {
		t.Errorf("record %s\n%s", x.Decision.Raw, x.Outcome.Raw)
	}
}

// TestUnknownHost is refused inside its tunnel, and the record says what it is.
func TestUnknownHost(t *testing.T) {
	d := newRoad(t)
	resp, err := d.client(false).Get("https://other.example.com/x")
	check(t, err)
	if x := d.records(1)[0]; resp.StatusCode != 403 || x.Decision.Action.Unknown != "unknown_host" || x.Decision.Request.Host != "other.example.com" {
		t.Errorf("%d, record %s", resp.StatusCode, x.Decision.Raw)
	}
}

// faulty panics with a secret in hand.
type faulty struct{ denies }

func (faulty) Eval(context.Context, *policy.Question) (policy.Answer, error) { panic(canary) }

// TestPanic cuts the exchange, leaves a record and tells the operator where, and
// nobody what the value was.
func TestPanic(t *testing.T) {
	d := newRoad(t)
	d.gate.Use(faulty{})
	if resp, err := d.client(false).Do(d.request("GET", "https://api.acme.dev/x", nil)); err == nil {
		t.Errorf("answered %d", resp.StatusCode)
	}
	x := d.records(1)[0]
	d.server.Close()
	if said := d.operation.String(); x.Outcome.Outcome.Error != "internal" || x.Decision.Alarm != "internal" || !strings.Contains(said, "faulty") || !strings.Contains(said, x.Decision.ID) || strings.Contains(said, canary) {
		t.Errorf("record %s, said %s", x.Outcome.Raw, said)
	}
	if len(d.received()) > 0 {
		t.Error("it was forwarded")
	}
}

// TestTunnelOfAnEndedSession attaches a tunnel whose session ended a moment before.
func TestTunnelOfAnEndedSession(t *testing.T) {
	d := newRoad(t)
	caller, err := d.dir.Identify(basicAuth("bot", d.session.Token))
	check(t, err)
	_, err = d.dir.Revoke(t.Context(), identity.Target{Session: d.session.ID}, "test", "me")
	check(t, err)
	a, b := net.Pipe()
	tun := &tunnel{Conn: a, caller: caller}
	tun.attach()
	tun.Close()
	b.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the tunnel is open: %v", err)
	}
}

// TestNothingIsLeftBehind sends many requests over many connections and looks for
// goroutines and connections that stay.
func TestNothingIsLeftBehind(t *testing.T) {
	d := newRoad(t)
	before := runtime.NumGoroutine()
	const clients, each = 20, 500
	var wg sync.WaitGroup
	for i := range clients {
		c := d.client(i%2 == 0)
		wg.Go(func() {
			for j := range each {
				method := []string{"GET", "POST", "DELETE"}[j%3]
				resp, err := c.Do(d.request(method, "https://api.acme.dev/x", nil))
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			c.CloseIdleConnections()
		})
	}
	wg.Wait()
	d.server.o.Upstream.Close()
	d.service.CloseClientConnections()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+5 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if now := runtime.NumGoroutine(); now > before+5 {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after\n%s", before, now, buf[:runtime.Stack(buf, true)])
	}
	if n := len(d.records(clients * each)); n != clients*each {
		t.Errorf("%d records for %d requests", n, clients*each)
	}
	if n := len(d.server.taken.conns); n != 0 {
		t.Errorf("%d connections are still taken over", n)
	}
}
