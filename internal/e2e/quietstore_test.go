package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// TestRequestsDoNotAskRedis makes 15,000 requests on two replicas: what Redis is sent
// meanwhile is what they send it every second anyway, to watch it and to tell of themselves.
func TestRequestsDoNotAskRedis(t *testing.T) {
	const requests, perSecond = 15_000, 25 // of one replica; some 10 are usual
	r := startRedis(t)
	f := assembleFleet(t, 2, r.Addr, 30*time.Second, func(way string) string { return "redis://" + way })
	m := f.member(0)
	clients := []*http.Client{f.client(0, m), f.client(1, m)}
	for i, c := range clients { // the first of all learns of the session
		if got := ask(t.Context(), c, m, fmt.Sprintf("/once/%s/first%d", m.Session, i)); got != http.StatusOK {
			t.Fatalf("it is answered with %d", got)
		}
	}
	began, redis, told := time.Now(), f.commands(r), f.told()
	late := 0
	for n := range requests {
		switch got := ask(t.Context(), clients[n%2], m, fmt.Sprintf("/once/%s/%d", m.Session, n)); got {
		case http.StatusOK:
		case 0: // the machine stood still for longer than one request is waited for
			late++
		default:
			t.Fatalf("request %d is answered with %d", n, got)
		}
	}
	took := time.Since(began)
	redis, told = f.commands(r)-redis, f.told()-told
	t.Logf("%d requests in %v: Redis counts %.0f commands, %.1f for 1,000 requests, and the replicas say %.0f", requests, took, redis, redis/requests*1000, told)
	if most := 2*perSecond*took.Seconds() + 50; redis > most || told > most {
		t.Errorf("Redis counts %.0f commands and the replicas %.0f; %.0f are what they send it anyway in that time", redis, told, most)
	}
	if late > requests/100 {
		t.Errorf("%d requests were not answered", late)
	}
	if f.told() < 10 {
		t.Error("the metric counts hardly anything")
	}
}

// commands is how many Redis counts.
func (f *fleet) commands(r *testkit.Redis) float64 {
	f.t.Helper()
	n, err := r.Commands(f.t.Context())
	must(f.t, err)
	return n
}

var commandsTotal = regexp.MustCompile(`(?m)^chaperone_store_commands_total (\S+)$`)

// told is what all replicas' metrics say that Redis was sent.
func (f *fleet) told() (n float64) {
	f.t.Helper()
	for _, p := range f.replicas {
		b, err := p.Admin(f.t.Context(), "/metrics")
		must(f.t, err)
		found := commandsTotal.FindSubmatch(b)
		if found == nil {
			f.t.Fatal("the metric is missing")
		}
		v, err := strconv.ParseFloat(string(found[1]), 64)
		must(f.t, err)
		n += v
	}
	return n
}
