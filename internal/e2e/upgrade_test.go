package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"chaperone/internal/testkit"
)

// balancer passes connections on to those replicas in turn that say they are ready, as
// haproxy does in docs/replicas.md.
type balancer struct {
	ln   net.Listener
	to   []string // addresses of the replicas
	up   []atomic.Bool
	next atomic.Int64
	all  sync.WaitGroup
}

// balance starts one before replicas whose metrics are at checks.
func balance(t *testing.T, to, checks []string) *balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &balancer{ln: ln, to: to, up: make([]atomic.Bool, len(to))}
	ctx, stop := context.WithCancel(context.Background())
	for i, addr := range checks {
		b.all.Go(func() {
			for ctx.Err() == nil {
				b.up[i].Store(ready(ctx, addr))
				<-time.After(50 * time.Millisecond)
			}
		})
	}
	b.all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.all.Go(func() { b.pass(ctx, c) })
		}
	})
	t.Cleanup(func() { stop(); ln.Close(); b.all.Wait() })
	return b
}

func ready(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// pass joins an agent's connection and one to a replica, another one where that takes none.
func (b *balancer) pass(ctx context.Context, agent net.Conn) {
	defer agent.Close()
	for range b.to {
		i := int(b.next.Add(1)) % len(b.to)
		if !b.up[i].Load() {
			continue
		}
		replica, err := net.Dial("tcp", b.to[i])
		if err != nil {
			continue
		}
		defer replica.Close()
		defer context.AfterFunc(ctx, func() { agent.Close(); replica.Close() })()
		var both sync.WaitGroup
		for _, ends := range [][2]net.Conn{{agent, replica}, {replica, agent}} {
			both.Go(func() {
				io.Copy(ends[0], ends[1])
				ends[0].(*net.TCPConn).CloseWrite()
			})
		}
		both.Wait()
		return
	}
}

// TestRollingUpgradeUnderLoad stops and starts three replicas behind a balancer, one after
// the other, while agents ask on connections that they keep: no request is lost, and no
// stream is cut before its time.
func TestRollingUpgradeUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("three programs and a server take some seconds")
	}
	const notice, drain = time.Second, 2 * time.Second
	r := startRedis(t)
	var checks []string
	f := assemble(t, 3, 5*time.Minute, func(int) (way, string) { return nil, "redis://" + r.Addr }, func(_ int, o *testkit.ProgramOptions) {
		addr, err := testkit.FreeAddr()
		must(t, err)
		checks = append(checks, addr)
		o.Config += fmt.Sprintf("drain_notice: %v\nmetrics: %s\n", notice, addr)
	})
	var addrs []string
	for _, p := range f.replicas {
		addrs = append(addrs, p.Addr)
	}
	b := balance(t, addrs, checks)
	ready := func(i int) { within(t, 60*time.Second, "the balancer uses it", b.up[i].Load) }
	for i := range f.replicas {
		ready(i)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asked atomic.Int64
	var load sync.WaitGroup
	for n := range 8 {
		m := f.member(n % 3)
		c := f.client(0, m)
		c.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: b.ln.Addr().String(), User: url.UserPassword("bot", m.Token)})
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = n%2 == 0
		load.Go(func() { f.keepAsking(ctx, c, m, &asked) })
	}
	for i, p := range f.replicas {
		m := f.member(i)
		var streams []<-chan struct{}
		for _, kind := range kinds {
			streams = append(streams, f.open(t.Context(), kind, i, m))
		}
		began := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- p.Stop() }()
		for k, ended := range streams {
			<-ended
			if lived := time.Since(began); lived < notice+drain {
				t.Errorf("replica %d: %s was cut after %v, before its drain time", i, kinds[k], lived)
			}
		}
		must(t, <-stopped)
		if out := p.Output(); !strings.Contains(out, fmt.Sprintf("msg=\"exchanges were cut that went on for longer\" exchanges=%d drain=2s", len(kinds))) {
			t.Errorf("replica %d says\n%s", i, out)
		}
		f.partings(websocket.StatusGoingAway)
		f.stoppedBy(p, m)
		must(t, p.Restart(t.Context()))
		ready(i)
	}
	stop()
	load.Wait()
	t.Logf("%d requests", asked.Load())
	for i, p := range f.replicas {
		t.Logf("replica %d printed:\n%s", i, p.Output())
	}
	f.tally()
}

// stoppedBy checks that a replica that has ended says of each stream of a session that it
// cut it.
func (f *fleet) stoppedBy(p *testkit.Program, m member) {
	f.t.Helper()
	records, err := p.Records()
	must(f.t, err)
	of, n := map[string]bool{}, 0
	for _, r := range records {
		if r.Event == "decision" && r.Session == m.Session {
			of[r.ID] = true
		}
		if r.Event != "outcome" || !of[r.ID] {
			continue
		}
		if n++; r.Outcome.Error != "shutting_down" {
			f.t.Errorf("what the replica cut is recorded as %+v", r.Outcome)
		}
	}
	if n != len(kinds) {
		f.t.Errorf("%d records of %d streams", n, len(kinds))
	}
}

// keepAsking reads and writes in turn, and has an error for each that is lost.
func (f *fleet) keepAsking(ctx context.Context, c *http.Client, m member, asked *atomic.Int64) {
	for n := 0; ctx.Err() == nil; n++ {
		method := [...]string{http.MethodGet, http.MethodPost}[n%2]
		path := fmt.Sprintf("/once/%s/%d", m.Session, n)
		r, err := http.NewRequest(method, "https://acme.example.com"+path, strings.NewReader("{}"))
		if err == nil {
			r.Header.Set("Authorization", "Bearer "+m.Handles["acme"])
			var resp *http.Response
			if resp, err = c.Do(r); err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = errors.Join(err, errors.New(resp.Status))
				}
			}
		}
		if err != nil {
			f.t.Errorf("%s %s: %v", method, path, err)
		}
		asked.Add(1)
		<-time.After(10 * time.Millisecond)
	}
}
