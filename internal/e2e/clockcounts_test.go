package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// clockWindow uses a limit up on replica i: it is used up until its window ends by the
// machine's clock.
func (f *fleet) clockWindow(i int) {
	const every = 15 * time.Second
	m, _, err := f.made(i, "--purpose", "window")
	if err != nil {
		return
	}
	c := f.client(i, m)
	var ends time.Time // of the window in which it was used up
	for n := 0; ; n++ {
		s := f.timed(c, m, fmt.Sprint("window", n))
		from, to := s.began.Add(-off).Truncate(every), s.done.Add(off).Truncate(every)
		early, late := s.done.Before(ends.Add(-off)), s.began.After(ends.Add(off))
		switch {
		case s.status != 200 && s.status != http.StatusTooManyRequests:
			f.t.Errorf("%d s ahead answers %d", clocks[i], s.status)
			return
		case ends.IsZero() && s.status == http.StatusTooManyRequests && from.Equal(to):
			ends = from.Add(every)
		case !ends.IsZero() && (early || late) && (s.status == 200) != late:
			f.t.Errorf("a limit is used up until %v, and %d s ahead answers %d at %v", ends, clocks[i], s.status, s.done)
			return
		case !ends.IsZero() && s.status == 200:
			return
		}
		<-time.After(200 * time.Millisecond)
	}
}

// clockCounts uses up a budget, and the uses of a handle, on all replicas.
func (f *fleet) clockCounts() {
	count := func(what string, most, refused int, flags ...string) {
		m, _, err := f.made(1, flags...)
		if err != nil {
			return
		}
		got := func() (n int) {
			f.arrived.Range(func(k, _ any) bool {
				if strings.HasPrefix(k.(string), m.Session) {
					n++
				}
				return true
			})
			return n
		}
		round := 0
		within(f.t, 60*time.Second, what+" is used up", func() bool { // a replica may have a part of it for two seconds
			round++
			f.each(func(j int) {
				for n := range 5 {
					if s := f.timed(f.client(j, m), m, fmt.Sprintf("%s%d-%d-%d", what, round, j, n)).status; s != 200 && s != refused {
						f.t.Errorf("%s: %d s ahead answers %d", what, clocks[j], s)
					}
				}
			})
			return got() >= most
		})
		f.clockAll(m, what, refused)
		if n := got(); n != most {
			f.t.Errorf("%s: of %d there were %d", what, most, n)
		}
	}
	count("budget", 30, http.StatusTooManyRequests, "--purpose", "budget")
	count("uses", 20, http.StatusForbidden, "--uses", "20")
}

// given is what the service's token endpoint hands out.
type given struct {
	mu     sync.Mutex
	ends   map[string]time.Time // by token
	made   []time.Time
	latest int // how often a token came after its end
}

// givenLife is how long its tokens live.
const givenLife = 20 * time.Second

func (g *given) serve(w http.ResponseWriter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ends == nil {
		g.ends = map[string]time.Time{}
	}
	token, now := fmt.Sprint("given-", len(g.made)), time.Now()
	g.ends[token], g.made = now.Add(givenLife), append(g.made, now)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":%d}`, token, givenLife/time.Second)
}

// good reports whether a field holds a token that was handed out and goes on.
func (g *given) good(field string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	ends, ok := g.ends[strings.TrimPrefix(field, "Bearer ")]
	if ok && time.Now().After(ends) {
		g.latest++
		return false
	}
	return ok
}

// clockTokens uses a credential whose tokens are short-lived on all replicas: they share
// each for its whole life, and no longer.
func (f *fleet) clockTokens() {
	r, err := f.replicas[1].Run(f.t.Context(), "client-secret", nil, "credential", "add", "minted", "--service", "acme", "--owner", "org", "--kind", "oauth2-client",
		"--set", "token_url=https://acme.example.com/token", "--set", "client_id=app", "--set", "auth=post", "--from-stdin")
	if err != nil || r.Code != 0 {
		f.t.Errorf("%+v, %v", r, err)
		return
	}
	m, _, err := f.made(2, "--credential", "minted")
	if err != nil {
		return
	}
	m.Handles = map[string]string{"acme": m.Handles["minted"]}
	f.each(func(j int) {
		c := f.client(j, m)
		for began, n := time.Now(), 0; time.Since(began) < 2*givenLife+5*time.Second; n++ {
			if got := f.timed(c, m, fmt.Sprintf("token%d-%d", j, n)).status; got != 200 {
				f.t.Errorf("with a token: %d s ahead answers %d", clocks[j], got)
			}
			<-time.After(500 * time.Millisecond)
		}
	})
	f.given.mu.Lock()
	defer f.given.mu.Unlock()
	for n, at := range f.given.made[1:] {
		if lived := at.Sub(f.given.made[n]); lived < givenLife-givenLife/10-off {
			f.t.Errorf("a token of %v was replaced after %v", givenLife, lived)
		}
	}
	if f.given.latest > 0 || len(f.given.made) < 2 {
		f.t.Errorf("of %d tokens %d came after their end", len(f.given.made), f.given.latest)
	}
}

// clockOrder asks one replica after the other, and finds it so in the log of all.
func (f *fleet) clockOrder() {
	const n = 9
	m, _, err := f.made(1)
	if err != nil {
		return
	}
	var out told
	tail := f.replicas[1].Command(f.t.Context(), nil, "log", "tail", "-f", "-n", "0", "--session", m.Session)
	tail.Stdout, tail.Stderr = &out, &out
	if err := tail.Start(); err != nil {
		f.t.Error(err)
		return
	}
	defer func() { tail.Process.Signal(syscall.SIGINT); tail.Wait() }()
	<-time.After(2 * off) // what it does not follow yet when it is asked for is no fault of a clock
	for k := range n {
		if got := f.timed(f.client((k*2)%len(clocks), m), m, fmt.Sprint("order", k)).status; got != 200 {
			f.t.Errorf("%d s ahead answers %d", clocks[(k*2)%len(clocks)], got)
		}
		<-time.After(2 * off)
	}
	for j := range f.replicas {
		var got []string
		if err := f.eventually(func() (err error) {
			got, err = f.paths(j, m.Session, "order")
			if err == nil && len(got) < n {
				err = errors.New("records are missing")
			}
			return err
		}); err != nil {
			f.t.Errorf("%d s ahead: %v: %q", clocks[j], err, got)
			return
		}
		for k, path := range got {
			if !strings.HasSuffix(path, fmt.Sprint("/order", k)) {
				f.t.Errorf("%d s ahead tells of %s as number %d", clocks[j], path, k)
			}
		}
	}
	for k := range n {
		if c := strings.Count(out.String(), fmt.Sprintf("/order%d ", k)); c != 1 {
			f.t.Errorf("number %d was told %d times:\n%s", k, c, out.String())
		}
	}
}

// paths are those of the allowed requests of a session that contain some text, as replica
// j tells of all.
func (f *fleet) paths(j int, session, text string) (all []string, err error) {
	r, err := f.replicas[j].Run(f.t.Context(), "", nil, "log", "query", "--session", session, "--result", "allow", "--since", "1h", "--json")
	if err == nil && r.Code != 0 {
		err = errors.New(r.Err)
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(r.Out) {
		var e struct {
			Event   string
			Request struct{ Path string }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, err
		}
		if e.Event == "decision" && strings.Contains(e.Request.Path, text) {
			all = append(all, e.Request.Path)
		}
	}
	return all, nil
}

// eventually tries until it works or 30 s are over.
func (f *fleet) eventually(try func() error) error {
	for late := time.Now().Add(30 * time.Second); ; {
		err := try()
		if err == nil || time.Now().After(late) {
			return err
		}
		<-time.After(100 * time.Millisecond)
	}
}

// clockStale cuts all off from the store: their views grow old at the same pace.
func (f *fleet) clockStale() {
	m := f.member(0)
	for _, w := range f.ways {
		w.Hold()
	}
	cut := time.Now()
	f.each(func(j int) {
		c := f.client(j, m)
		for n := 0; ; n++ {
			s := f.timed(c, m, fmt.Sprintf("stale%d-%d", j, n))
			early, late := s.done.Before(cut.Add(f.stale/2)), s.began.After(cut.Add(f.stale))
			if early && s.status != 200 || late && s.status != 503 {
				f.t.Errorf("%d s ahead answers %d %v after it was cut off; store_stale is %v", clocks[j], s.status, s.began.Sub(cut), f.stale)
			}
			if late {
				return
			}
			<-time.After(100 * time.Millisecond)
		}
	})
	for _, w := range f.ways {
		w.Heal()
	}
	for j := range f.replicas {
		n := 0
		within(f.t, 30*time.Second, "it is back", func() bool {
			n++
			return f.timed(f.client(j, m), m, fmt.Sprintf("back%d-%d", j, n)).status == 200
		})
	}
}

// clockDates compares the time of each record with when its request was sent and answered.
func (f *fleet) clockDates() {
	n := 0
	for i, p := range f.replicas {
		records, err := p.Records()
		must(f.t, err)
		for _, r := range records {
			_, key, _ := strings.Cut(strings.TrimPrefix(r.Request.Path, "/"), "/")
			v, ok := f.spans.Load(key)
			if r.Event != "decision" || !ok {
				continue
			}
			n++
			if s := v.(span); r.Time.Before(s.began.Add(-off)) || r.Time.After(s.done.Add(off)) {
				f.t.Fatalf("%d s ahead dates %s %v, which was sent %v and answered %v", clocks[i], key, r.Time, s.began, s.done)
			}
		}
	}
	if n < 100 {
		f.t.Errorf("%d records were compared", n)
	}
}
