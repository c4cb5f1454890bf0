package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// fleet is several replicas, each with its own way to one Redis, and one service.
type fleet struct {
	t        *testing.T
	dir      string
	service  *testkit.Service
	arrived  sync.Map // session/n -> time of arrival
	streams  sync.Map // session -> *atomic.Int64, unix nanoseconds of the last piece of a stream that was seen
	closed   sync.Map // of WebSockets: any name -> the code with which they were closed
	spans    sync.Map // of requests that were answered, by session/n
	given    given    // tokens
	replicas []*testkit.Program
	ways     []way
	roots    *x509.CertPool
	stale    time.Duration
	options  testkit.ProgramOptions // of the replica that was started last
}

// member is one session, with the token and handle of its agent.
type member struct {
	Session, Token  string
	Handles         map[string]string
	Instance, human string // where a test asks for them
	agent           string // bot where it is empty
}

// user is the agent's name, by which it is known to the proxy.
func (m member) user() string {
	if m.agent == "" {
		return "bot"
	}
	return m.agent
}

const fleetServices = `services:
  - {service: acme, hosts: [acme.example.com], env: [ACME_TOKEN], places: [bearer], paths: {"/{path+}": {GET: read read, POST: write write}}}
`

const fleetGrants = `grants:
  agents: {bot: {allow: [{actions: ["acme:*"]}], raw: [{hosts: [wild.example.com], methods: [CONNECT], path_prefix: /}]}}
  humans: {"*": {allow: [{actions: ["*:*"]}], raw: [{hosts: [wild.example.com], methods: [CONNECT], path_prefix: /}]}}
`

// way is how one replica reaches the servers of the store.
type way []*testkit.Faulty

func (w way) Hold() {
	for _, p := range w {
		p.Hold()
	}
}

func (w way) Cut() {
	for _, p := range w {
		p.Cut()
	}
}

func (w way) Heal() {
	for _, p := range w {
		p.Heal()
	}
}

// assembleFleet starts the service and n replicas. url makes the store's address of that
// of a way to Redis; without one of the latter it is the same for all.
func assembleFleet(t *testing.T, n int, redisAddr string, stale time.Duration, url func(way string) string) *fleet {
	t.Helper()
	return assemble(t, n, stale, func(int) (way, string) {
		if redisAddr == "" {
			return nil, url("")
		}
		p := faulty(t, redisAddr)
		return way{p}, url(p.Addr())
	}, nil)
}

func faulty(t *testing.T, to string) *testkit.Faulty {
	t.Helper()
	p, err := testkit.NewFaulty(to)
	must(t, err)
	t.Cleanup(p.Close)
	return p
}

// assemble starts the service and n replicas, each with its way to the store and what
// the store's address is on it. adapt changes how one is started; nil: as it is.
func assemble(t *testing.T, n int, stale time.Duration, reach func(i int) (way, string), adapt func(i int, o *testkit.ProgramOptions)) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), stale: stale, roots: x509.NewCertPool()}
	bin, err := testkit.Build(t.Context(), f.dir)
	must(t, err)
	ca, err := certs.Open(filepath.Join(f.dir))
	must(t, err)
	f.roots.AppendCertsFromPEM(ca.PEM())
	f.service, err = testkit.Serve(ca, http.HandlerFunc(f.serve))
	must(t, err)
	t.Cleanup(func() { f.service.Close() })
	must(t, os.WriteFile(filepath.Join(f.dir, "key"), []byte(strings.Repeat("k", 32)), 0o600))
	wilds := f.serveWild()
	for i := range n {
		w, store := reach(i)
		f.ways = append(f.ways, w)
		peers := ", peers: 127.0.0.1:0"
		if store == "bolt" { // with a file of its own a replica has no peers
			peers = ""
		}
		o := testkit.ProgramOptions{
			Bin: bin, Dir: filepath.Join(f.dir, fmt.Sprint(i)), Resolve: map[string]string{"acme.example.com": f.service.Addr(), wild: wilds}, Roots: ca.PEM(), Grants: fleetGrants,
			Log:    peers,
			Config: fmt.Sprintf("%sunknown_hosts: tunnel\nstore: %s\nstore_stale: %v\nkey: {file: ../key}\nca: {cert: ../ca.pem, key: ../ca.key}\ndrain: 2s\n", fleetServices, store, stale),
		}
		if adapt != nil {
			adapt(i, &o)
		}
		must(t, os.Mkdir(o.Dir, 0o700))
		p, err := testkit.Start(t.Context(), o)
		must(t, err)
		t.Cleanup(p.Kill)
		f.replicas, f.options = append(f.replicas, p), o
	}
	f.verb(0, "", "agent", "add", "bot", "--owner", "o@example.com")
	f.verb(n-1, "acme-secret", "credential", "add", "acme", "--service", "acme", "--owner", "org", "--kind", "bearer", "--from-stdin")
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve notes /once/SESSION/N, and ticks without end under /stream/SESSION.
func (f *fleet) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		f.given.serve(w)
		return
	}
	if field := r.Header.Get("Authorization"); field != "Bearer acme-secret" && !f.given.good(field) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	f.arrived.Store(rest, time.Now())
	session, _, _ := strings.Cut(rest, "/")
	switch kind {
	case "once":
		return
	case "upload":
		f.takeUpload(r, session)
		return
	case "socket":
		f.takeSocket(w, r, session)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	testkit.Tick(r.Context(), func(int) error {
		_, err := io.WriteString(w, "data: x\n\n")
		return errors.Join(err, http.NewResponseController(w).Flush())
	})
}

func (f *fleet) verb(i int, stdin string, args ...string) string {
	f.t.Helper()
	r, err := f.replicas[i].Run(f.t.Context(), stdin, nil, args...)
	if err != nil || r.Code != 0 {
		f.t.Fatalf("replica %d: chaperone %s: %v, code %d\n%s%s", i, strings.Join(args, " "), err, r.Code, r.Out, r.Err)
	}
	return r.Out
}

func (f *fleet) member(i int, more ...string) member {
	f.t.Helper()
	var m member
	args := append([]string{"session", "create", "--agent", "bot", "--human", human, "--credential", "acme", "--format", "json"}, more...)
	must(f.t, json.Unmarshal([]byte(f.verb(i, "", args...)), &m))
	return m
}

func (f *fleet) client(i int, m member) *http.Client {
	tr := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: f.replicas[i].Addr, User: url.UserPassword(m.user(), m.Token)}),
		TLSClientConfig: &tls.Config{RootCAs: f.roots, MinVersion: tls.VersionTLS12},
	}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// ask sends one request and returns its status, 407 for a tunnel that was refused.
func ask(ctx context.Context, c *http.Client, m member, path string) int {
	return askWithin(ctx, 10*time.Second, c, m, path)
}

func askWithin(ctx context.Context, d time.Duration, c *http.Client, m member, path string) int {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://acme.example.com"+path, nil)
	if err != nil {
		return 0
	}
	r.Header.Set("Authorization", "Bearer "+m.Handles["acme"])
	resp, err := c.Do(r)
	if err != nil {
		for status, text := range map[int]string{407: "Proxy Authentication Required", 503: "Service Unavailable"} {
			if strings.Contains(err.Error(), text) {
				return status
			}
		}
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// load keeps asking on all replicas in each member's name, until ctx is done.
func (f *fleet) load(ctx context.Context, members []member, every time.Duration) *sync.WaitGroup {
	var all sync.WaitGroup
	for _, m := range members {
		for i := range f.replicas {
			c := f.client(i, m)
			all.Go(func() {
				tick := time.NewTicker(every)
				defer tick.Stop()
				for n := 0; ctx.Err() == nil; n++ {
					ask(ctx, c, m, fmt.Sprintf("/once/%s/%d-%d", m.Session, i, n))
					select {
					case <-ctx.Done():
					case <-tick.C:
					}
				}
			})
		}
	}
	return &all
}

// pace counts commands that Redis was sent and requests that the service got, a second.
func (f *fleet) pace(r *testkit.Redis, d time.Duration) (commands, requests float64) {
	f.t.Helper()
	count := func() (sent, got float64) {
		sent, err := r.Commands(f.t.Context())
		must(f.t, err)
		f.arrived.Range(func(any, any) bool { got++; return true })
		return sent, got
	}
	began := time.Now()
	sent, got := count()
	<-time.After(d)
	sent2, got2 := count()
	took := time.Since(began).Seconds()
	return (sent2 - sent) / took, (got2 - got) / took
}

// last is the last moment at which the service saw something of a session.
func (f *fleet) last(m member) (at time.Time) {
	f.arrived.Range(func(k, v any) bool {
		if strings.HasPrefix(k.(string), m.Session) && v.(time.Time).After(at) {
			at = v.(time.Time)
		}
		return true
	})
	if v, ok := f.streams.Load(m.Session); ok {
		if s := time.Unix(0, v.(*atomic.Int64).Load()); s.After(at) {
			at = s
		}
	}
	return at
}

// gone checks that nothing of a session was seen later than so long after a moment.
func (f *fleet) gone(m member, revoked time.Time, bound time.Duration, what string) {
	f.t.Helper()
	if late := f.last(m).Sub(revoked); late > bound {
		f.t.Errorf("%s: the service saw something %v after the revocation, the bound is %v", what, late, bound)
	}
}

// tally compares what the service saw with what all records together say: each has what
// the other has. A record is in the file a moment after its answer.
func (f *fleet) tally() {
	f.t.Helper()
	within(f.t, 30*time.Second, "a record of everything that the service saw", func() bool {
		allowed, _ := f.written()
		all, n := true, 0
		f.arrived.Range(func(k, _ any) bool {
			n++
			all = all && allowed[k.(string)]
			return true
		})
		if n == 0 {
			f.t.Fatal("the service saw nothing at all")
		}
		return all
	})
	_, answered := f.written()
	for k := range answered {
		if _, ok := f.arrived.Load(k); !ok {
			f.t.Errorf("a record says that the service answered %s, which it never saw", k)
		}
	}
}

// written are the requests that the records of all replicas say were allowed, and those
// that they say the service answered.
func (f *fleet) written() (allowed, answered map[string]bool) {
	f.t.Helper()
	allowed, answered = map[string]bool{}, map[string]bool{}
	for i, p := range f.replicas {
		records, err := p.Records()
		if err != nil {
			f.t.Fatalf("replica %d: %v", i, err)
		}
		byID := map[string]string{}
		for _, r := range records {
			switch {
			case r.Event == "decision" && r.Decision.Result == "allow" && r.Request.Path != "":
				_, rest, _ := strings.Cut(strings.TrimPrefix(r.Request.Path, "/"), "/")
				allowed[rest], byID[r.ID] = true, rest
			case r.Event == "outcome" && r.Outcome.UpstreamUS != 0 && byID[r.ID] != "":
				answered[byID[r.ID]] = true
			}
		}
	}
	return allowed, answered
}

// within waits for something that must come in time.
func within(t *testing.T, d time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, d)
		case <-tick.C:
		}
	}
}

func startRedis(t *testing.T) *testkit.Redis {
	t.Helper()
	r, err := testkit.StartRedis(t.Context(), testkit.RedisOptions{Dir: t.TempDir(), Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(r.Close)
	return r
}
