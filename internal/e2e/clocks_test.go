package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// clocks are how many seconds the replicas of TestReplicasClocks are ahead of the
// machine, on which Redis, the service and the agents are.
var clocks = []int{0, 5, -5}

// off is how wrong replicas may be about the time that they share: half of what an answer
// of the store may take, and some more.
const off = 2 * time.Second

// clockRules limit sessions by what they are for.
const clockRules = `package chaperone.rules

obligations.limits contains {"of": "requests", "per": ["session"], "max": 3, "every": "15s", "name": "window"} if input.session.purpose == "window"

obligations.limits contains {"of": "requests", "per": ["session"], "max": 30, "name": "budget"} if input.session.purpose == "budget"
`

// TestReplicasClocks has three replicas whose clocks are five and ten seconds apart: what
// one makes works on all at once and ends on all at the same time, what is counted is
// counted together, and what they write down is in one order.
func TestReplicasClocks(t *testing.T) {
	if !*bigReplicas {
		t.Skip("builds everything anew; -replicas")
	}
	f := assembleApart(t)
	var all sync.WaitGroup
	for i := range clocks {
		for _, part := range []func(int){f.clockLife, f.clockIdle, f.clockUsed, f.clockLeased, f.clockWindow} {
			all.Go(func() { part(i) })
		}
	}
	all.Go(f.clockOrder)
	all.Go(f.clockTokens)
	all.Wait()
	f.clockCounts()
	for i := range clocks {
		m := f.member((i + 1) % len(clocks))
		f.clockAll(m, "to-be-revoked", 200)
		if out := f.verb(i, "", "revoke", "--session", m.Session); strings.Count(out, "in force on") != len(clocks) {
			t.Errorf("revoke printed %q", out)
		}
		f.clockAll(m, "revoked", 407)
	}
	f.clockStale()
	f.clockDates()
	f.tally()
}

// assembleApart starts the replicas and waits until each knows how wrong its clock is.
func assembleApart(t *testing.T) *fleet {
	t.Helper()
	r := startRedis(t)
	bin, err := testkit.BuildWithClock(t.Context(), t.TempDir())
	must(t, err)
	f := assemble(t, len(clocks), 10*time.Second, func(int) (way, string) {
		p := faulty(t, r.Addr)
		return way{p}, "redis://" + p.Addr()
	}, func(i int, o *testkit.ProgramOptions) {
		o.Bin, o.Env = bin, []string{fmt.Sprintf("%s=%d", testkit.ClockVariable, clocks[i])}
	})
	for i, ahead := range clocks {
		within(t, 30*time.Second, "every replica knows of its clock", func() bool {
			var all []struct {
				Self bool
				Skew time.Duration
			}
			must(t, json.Unmarshal([]byte(f.verb(i, "", "replicas", "--json")), &all))
			for _, s := range all {
				if s.Self {
					return len(all) == len(clocks) && (s.Skew+time.Duration(ahead)*time.Second).Abs() < off
				}
			}
			return false
		})
	}
	t.Logf("%s", f.verb(0, "", "replicas"))
	policy := filepath.Join(f.dir, "limited")
	must(t, os.CopyFS(policy, os.DirFS(filepath.Join(f.dir, "0", "rego"))))
	must(t, os.Mkdir(filepath.Join(policy, "chaperone", "rules"), 0o700))
	must(t, os.WriteFile(filepath.Join(policy, "chaperone", "rules", "limited.rego"), []byte(clockRules), 0o600))
	if out := f.verb(1, "", "policy", "promote", policy); strings.Count(out, "in force on") != len(clocks) {
		t.Fatalf("promote printed %q", out)
	}
	return f
}

// span is one request: when it was sent, when it was answered and how.
type span struct {
	began, done time.Time
	status      int
}

// timed sends one request.
func (f *fleet) timed(c *http.Client, m member, n string) span {
	s := span{began: time.Now()}
	s.status = ask(f.t.Context(), c, m, "/once/"+m.Session+"/"+n)
	s.done = time.Now()
	if s.status == 200 {
		f.spans.Store(m.Session+"/"+n, s)
	}
	return s
}

// made makes a session on replica i, and says when it will end.
func (f *fleet) made(i int, flags ...string) (m member, expires time.Time, err error) {
	r, err := f.replicas[i].Run(f.t.Context(), "", nil, append([]string{"session", "create", "--agent", "bot", "--human", human, "--credential", "acme", "--format", "json"}, flags...)...)
	var out struct {
		member
		Expires time.Time
	}
	if err == nil && r.Code != 0 {
		err = errors.New(r.Err)
	}
	if err == nil {
		err = json.Unmarshal([]byte(r.Out), &out)
	}
	if err != nil {
		f.t.Errorf("%d s ahead: a new session: %v", clocks[i], err)
	}
	return out.member, out.Expires, err
}

// each calls what it is given for all replicas at once, and waits.
func (f *fleet) each(do func(j int)) {
	var all sync.WaitGroup
	for j := range f.replicas {
		all.Go(func() { do(j) })
	}
	all.Wait()
}

// clockAll asks once on each replica.
func (f *fleet) clockAll(m member, n string, want int) {
	f.each(func(j int) {
		if got := f.timed(f.client(j, m), m, fmt.Sprint(n, j)).status; got != want {
			f.t.Errorf("%s: %d s ahead answers %d", n, clocks[j], got)
		}
	})
}

// clockLife uses a session that replica i makes on all, up to its end.
func (f *fleet) clockLife(i int) {
	const ttl = 15 * time.Second
	began := time.Now()
	m, end, err := f.made(i, "--ttl", ttl.String())
	if err != nil {
		return
	}
	if end.Before(began.Add(ttl-off)) || end.After(time.Now().Add(ttl+off)) {
		f.t.Errorf("%d s ahead says that %v from %v on ends at %v", clocks[i], ttl, began, end)
	}
	f.each(func(j int) {
		c, served := f.client(j, m), false
		for n := 0; ; n++ {
			s := f.timed(c, m, fmt.Sprintf("life%d-%d", j, n))
			served = served || s.status == 200
			early, late := s.done.Before(end.Add(-off)), s.began.After(end.Add(off))
			if early && s.status != 200 || late && s.status != 407 || late && !served {
				f.t.Errorf("made %d s ahead: %d s ahead answers %d when its end is %v away", clocks[i], clocks[j], s.status, end.Sub(s.began))
			}
			if late {
				return
			}
			<-time.After(200 * time.Millisecond)
		}
	})
}

// idleTime is what sessions of clockIdle and clockUsed may be idle: less than clocks differ.
const idleTime = 8 * time.Second

// clockIdle uses a session that replica i makes once on each, and again when it must have
// ended.
func (f *fleet) clockIdle(i int) {
	m, _, err := f.made(i, "--idle", idleTime.String())
	if err != nil {
		return
	}
	f.each(func(j int) { f.timed(f.client(j, m), m, fmt.Sprint("idle", j)) })
	<-time.After(idleTime + off)
	f.each(func(j int) {
		if got := f.timed(f.client(j, m), m, fmt.Sprint("idled", j)).status; got != 407 {
			f.t.Errorf("made %d s ahead: %d s ahead answers %d when it was idle for too long", clocks[i], clocks[j], got)
		}
	})
}

// clockUsed uses a session for longer than it may be idle, on one replica alone: it goes
// on for all. A machine that stalls meanwhile tells nothing.
func (f *fleet) clockUsed(i int) {
	const often, stalled = 500 * time.Millisecond, 3 * time.Second
	j := (i + 1) % len(clocks)
	for range 5 {
		m, _, err := f.made(i, "--idle", idleTime.String())
		if err != nil {
			return
		}
		c, last, smooth := f.client(j, m), time.Now(), true
		for n := 0; smooth && n < int(2*idleTime/often); n++ {
			s := f.timed(c, m, fmt.Sprint("use", n))
			if smooth = s.done.Sub(last) < stalled; smooth && s.status != 200 {
				f.t.Errorf("in use, made %d s ahead: %d s ahead answers %d", clocks[i], clocks[j], s.status)
			}
			last = s.began
			<-time.After(often)
		}
		spans := make([]span, len(clocks))
		f.each(func(k int) { spans[k] = f.timed(f.client(k, m), m, fmt.Sprint("used", k)) })
		for k, s := range spans {
			if smooth = smooth && s.done.Sub(last) < stalled; smooth && s.status != 200 {
				f.t.Errorf("in use %d s ahead: %d s ahead answers %d", clocks[j], clocks[k], s.status)
			}
		}
		if smooth {
			return
		}
	}
	f.t.Error("the machine stalls too often to tell what is idle")
}

// clockLeased runs a command on replica i, has all serve it for longer than its lease,
// and kills what gives its heartbeat.
func (f *fleet) clockLeased(i int) {
	const lease = 20 * time.Second
	ctx, kill := context.WithCancel(f.t.Context())
	defer kill()
	cmd := f.replicas[i].Command(ctx, nil, "run", "--agent", "bot", "--human", human, "--credential", "acme", "--", "sh", "-c", "echo $HTTPS_PROXY $ACME_TOKEN; exec sleep 600")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		f.t.Error(err)
		return
	}
	b := make([]byte, 1024)
	n, err := out.Read(b)
	proxy, handle, _ := strings.Cut(strings.TrimSpace(string(b[:n])), " ")
	_, token, _ := strings.Cut(strings.TrimPrefix(proxy, "http://"), ":")
	token, _, _ = strings.Cut(token, "@")
	if err != nil || token == "" || handle == "" {
		f.t.Errorf("the command printed %q, %v", b[:n], err)
		return
	}
	m := member{Session: fmt.Sprint("leased", i), Token: token, Handles: map[string]string{"acme": handle}}
	for began, s := time.Now(), 0; time.Since(began) < lease+5*time.Second; s++ {
		f.clockAll(m, fmt.Sprintf("beat%d-", s), 200)
		<-time.After(time.Second)
	}
	kill()
	io.Copy(io.Discard, out)
	cmd.Wait() // it was killed
	f.each(func(j int) {
		c, late := f.client(j, m), time.Now().Add(2*time.Minute)
		for n := 0; f.timed(c, m, fmt.Sprintf("gone%d-%d", j, n)).status != 407; n++ {
			if time.Now().After(late) {
				f.t.Errorf("%d s ahead goes on with a session whose heartbeat was %d s ahead and is no more", clocks[j], clocks[i])
				return
			}
			<-time.After(time.Second)
		}
	})
}
