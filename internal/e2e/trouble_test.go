package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/internal/testkit"
)

// trouble is what a store may have while replicas run on it.
type trouble struct {
	name       string
	begin, end func()
	says       string // what whoever wants something new is told
	long       bool   // it takes the whole of the time-outs
	full       bool   // what takes authority away is taken all the same
}

// troubles are those of one server, which keeps its files in dir, and on whose way the
// replicas of a fleet are.
func troubles(t *testing.T, r *testkit.Redis, dir string, f *fleet) []trouble {
	do := func(commands ...[]any) func() {
		return func() {
			t.Helper()
			for _, c := range commands {
				_, err := r.Do(t.Context(), c...)
				must(t, err)
			}
		}
	}
	set := func(args ...any) []any { return append([]any{"CONFIG", "SET"}, args...) }
	user := func(rules ...any) []any { return append([]any{"ACL", "SETUSER", "chaperone"}, rules...) }
	noDisk := func() {
		_, port, _ := net.SplitHostPort(r.Addr)
		must(t, os.Mkdir(filepath.Join(dir, "dump-"+port+".rdb"), 0o700)) // where its file should be
		do(set("save", "3600 1"), []any{"BGSAVE"})()
		within(t, time.Minute, "saving fails", func() bool {
			info, err := r.Do(t.Context(), "INFO", "persistence")
			return err == nil && strings.Contains(info, "rdb_last_bgsave_status:err")
		})
	}
	renew := func() { must(t, os.WriteFile(filepath.Join(f.dir, "password"), []byte("other"), 0o600)) }
	ways := func(what func(way)) func() { return func() { what(f.ways[0]); what(f.ways[1]) } }
	return []trouble{
		{name: "a read-only copy", begin: do([]any{"REPLICAOF", "127.0.0.1", "1"}), end: do([]any{"REPLICAOF", "NO", "ONE"}), says: "read-only copy"},
		{name: "too few copies", begin: do(set("min-replicas-to-write", "1")), end: do(set("min-replicas-to-write", "0")), says: "too few copies", long: true},
		{name: "no disk", begin: noDisk, end: do(set("save", "")), says: "cannot write its own files", long: true},
		{name: "full", begin: do(set("maxmemory", "1mb")), end: do(set("maxmemory", "0")), says: "memory is full", full: true},
		{name: "another password", begin: do(user("resetpass", ">other"), []any{"CLIENT", "KILL", "USER", "chaperone"}), end: renew, says: "password is wrong"},
		{name: "another access list", begin: do(user("-@write")), end: do(user("+@write")), says: "access list", long: true},
		{name: "hung", begin: func() { must(t, r.Pause()) }, end: func() { must(t, r.Resume()) }, says: "store does not answer", long: true},
		{name: "a partition", begin: ways(way.Hold), end: ways(way.Heal), says: "store does not answer", long: true},
		{name: "down", begin: ways(way.Cut), end: ways(way.Heal), says: "store does not answer", long: true},
	}
}

// TestTroubles has a real server in all kinds of trouble under two replicas. One may go
// on for long without it, and the other for a second only: what needs nothing new goes
// on on the one and is refused by the other, and what was revoked does not live again.
func TestTroubles(t *testing.T) {
	if testing.Short() {
		t.Skip("two programs and a server take some seconds")
	}
	dir := t.TempDir()
	r, f := troubled(t, dir)
	m := f.member(0)
	tooOld(t, r, f)
	slow(f, m)
	for _, tr := range troubles(t, r, dir, f) {
		if *bigReplicas || !tr.long {
			endure(f, m, tr)
		}
	}
	flushed(r, f, m)
	f.tally()
}

// troubled is a server, which knows its user by a password, and two replicas on it.
func troubled(t *testing.T, dir string) (*testkit.Redis, *fleet) {
	t.Helper()
	r, err := testkit.StartRedis(t.Context(), testkit.RedisOptions{Dir: dir})
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(r.Close)
	_, err = r.Do(t.Context(), "ACL", "SETUSER", "chaperone", "on", ">right", "~*", "&*", "+@all")
	must(t, err)
	f := assemble(t, 2, time.Second, func(int) (way, string) {
		p := faulty(t, r.Addr)
		return way{p}, "redis://chaperone@" + p.Addr()
	}, func(i int, o *testkit.ProgramOptions) {
		o.Config += "redis: {password: {file: ../password}}\n"
		must(t, os.WriteFile(filepath.Join(o.Dir, "..", "password"), []byte("right"), 0o600))
		if i == 0 {
			o.Config = strings.Replace(o.Config, "store_stale: 1s", "store_stale: 10m", 1)
		}
	})
	return r, f
}

// answered sends one request and returns its status and body.
func answered(f *fleet, i int, m member, path string) (status int, body string) {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "https://acme.example.com"+path, nil)
	must(f.t, err)
	r.Header.Set("Authorization", "Bearer "+m.Handles["acme"])
	resp, err := f.client(i, m).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// await waits until a replica answers a member with a status, and returns the others
// with which it did before.
func (f *fleet) await(i int, m member, status int, what string) (before map[int]bool) {
	f.t.Helper()
	before = map[int]bool{}
	c := f.client(i, m)
	within(f.t, time.Minute, what, func() bool {
		got := ask(f.t.Context(), c, m, fmt.Sprintf("/once/%s/%d", m.Session, time.Now().UnixNano()))
		before[got] = got != status
		return got == status
	})
	return before
}

// endure goes through one trouble.
func endure(f *fleet, m member, tr trouble) {
	t, began := f.t, time.Now()
	counted, victim := f.member(0, "--uses", "3"), f.member(0)
	f.await(1, m, 200, tr.name+": it is well before")
	f.await(1, victim, 200, tr.name+": the other knows it")
	printed := [...]int{len(f.replicas[0].Output()), len(f.replicas[1].Output())}
	tr.begin()
	if got, body := answered(f, 0, m, "/once/"+m.Session+"/"+strings.ReplaceAll(tr.name, " ", "-")); got != 200 {
		t.Errorf("%s: a request is answered %d %s", tr.name, got, body)
	}
	f.refuses(tr, victim)
	if got, body := answered(f, 0, counted, "/once/x/counted"); got != 503 || !strings.Contains(body, "could not be counted") {
		t.Errorf("%s: a counted use is answered %d %s", tr.name, got, body)
	}
	if got := ask(t.Context(), f.client(0, victim), victim, "/once/x/revoked"); got != 407 {
		t.Errorf("%s: what was revoked here is answered %d", tr.name, got)
	}
	if tr.full {
		f.await(1, victim, 407, "what is revoked on a full store is dead on the other")
		f.await(1, m, 200, "what needs nothing new goes on on the other")
	} else {
		f.await(1, m, 503, tr.name+": past store_stale everything is refused")
		within(t, time.Minute, tr.name+": it says that everything is refused", func() bool {
			return strings.Contains(f.replicas[1].Output()[printed[1]:], "everything is refused")
		})
	}
	f.says(tr)
	if got, body := answered(f, 0, m, "/once/"+m.Session+"/on-"+strings.ReplaceAll(tr.name, " ", "-")); got != 200 {
		t.Errorf("%s: later a request is answered %d %s", tr.name, got, body)
	}
	tr.end()
	if before := f.await(1, victim, 407, tr.name+": when it is over the other knows"); before[200] {
		t.Errorf("%s: what was revoked meanwhile lived again", tr.name)
	}
	f.await(1, m, 200, tr.name+": when it is over requests go on")
	f.printed(tr, printed)
	t.Logf("%s: %v", tr.name, time.Since(began).Round(time.Millisecond))
}

// refuses wants something new of a store in trouble, and takes something away.
func (f *fleet) refuses(tr trouble, victim member) {
	t := f.t
	t.Helper()
	var all sync.WaitGroup
	defer all.Wait()
	want := func(code int, text string, args ...string) {
		all.Go(func() {
			got, err := f.replicas[0].Run(t.Context(), "s", nil, args...)
			if err != nil || got.Code != code || !strings.Contains(got.Out+got.Err, text) || code != 0 && !strings.Contains(got.Err, "hint: ") {
				t.Errorf("%s: %q: %+v, %v; want %d and %q", tr.name, args, got, err, code, text)
			}
		})
	}
	want(1, tr.says, "session", "create", "--agent", "bot")
	want(1, tr.says, "agent", "add", "late", "--owner", "o@example.com")
	want(1, tr.says, "credential", "add", "late", "--service", "acme", "--owner", "org", "--kind", "bearer", "--from-stdin")
	code, force := 1, "in force on this replica alone"
	if tr.full {
		code, force = 0, "in force on r_"
	}
	want(code, force, "revoke", "--session", victim.Session)
	want(code, force, "human", "suspend", strings.ReplaceAll(tr.name, " ", "-")+"@example.com")
}

// says looks at what both replicas tell operators while there is trouble.
func (f *fleet) says(tr trouble) {
	t := f.t
	t.Helper()
	states := [...]string{"goes on", "refuses everything"}
	if tr.full {
		states[1] = states[0]
	}
	for i, state := range states {
		for _, verb := range []string{"replicas", "doctor"} {
			within(t, time.Minute, fmt.Sprintf("%s: replica %d says in %s that it %s", tr.name, i, verb, state), func() bool {
				got, err := f.replicas[i].Run(t.Context(), "", nil, verb)
				must(t, err)
				return strings.Contains(got.Out, state) && strings.Contains(got.Out, tr.says) && (verb == "doctor") == (got.Code == 1)
			})
		}
		metrics, err := f.replicas[i].Admin(t.Context(), "/metrics")
		must(t, err)
		ready := fmt.Sprintf("\nchaperone_ready %d\n", map[bool]int{true: 1}[state == "goes on"])
		for _, line := range []string{ready, "\nchaperone_store_trouble 1\n"} {
			if !strings.Contains(string(metrics), line) {
				t.Errorf("%s: replica %d: the metrics lack %q", tr.name, i, line)
			}
		}
	}
}

// printed looks at what both replicas printed: one line when it began, one when
// everything is refused, one when it is over.
func (f *fleet) printed(tr trouble, from [2]int) {
	t := f.t
	t.Helper()
	for i, p := range f.replicas {
		var text string
		within(t, time.Minute, tr.name+": it says that it is over", func() bool {
			text = p.Output()[from[i]:]
			return strings.Contains(text, "takes changes again")
		})
		begins := "trouble with the store"
		if tr.full {
			begins = "the store is full"
		}
		for what, n := range map[string]int{begins: 1, "takes changes again": 1, "everything is refused": i} {
			if tr.full && what == "everything is refused" {
				n = 0
			}
			most := n // a machine that stands still for seconds is trouble of its own
			if n > 0 {
				most += 2
			}
			if got := strings.Count(text, what); got < n || got > most {
				t.Errorf("%s: replica %d printed %q %d times, want %d:\n%s", tr.name, i, what, got, n, text)
			}
		}
		if lines := strings.Count(text, "level=WARN") + strings.Count(text, "level=ERROR"); lines > 8 {
			t.Errorf("%s: replica %d printed %d lines of trouble:\n%s", tr.name, i, lines, text)
		}
	}
}

// slow has each piece of what passes between the replicas and the server wait.
func slow(f *fleet, m member) {
	t := f.t
	printed := len(f.replicas[0].Output())
	for _, w := range f.ways {
		for _, p := range w {
			p.Delay(100 * time.Millisecond)
		}
	}
	if got, body := answered(f, 0, m, "/once/"+m.Session+"/slow"); got != 200 {
		t.Errorf("slow: a request is answered %d %s", got, body)
	}
	victim := f.member(0)
	if out := f.verb(0, "", "revoke", "--session", victim.Session); strings.Count(out, "in force on") != 2 {
		t.Errorf("slow: revoke printed %q", out)
	}
	f.await(0, victim, 407, "slow: what was revoked is dead") // on the other the view may be too old
	for _, w := range f.ways {
		w.Heal()
	}
	if text := f.replicas[0].Output()[printed:]; strings.Contains(text, "trouble") {
		t.Logf("slow: it printed %s", text) // the machine may have stood still for seconds
	}
}

// flushed empties the server: nobody is known, and everything can be made anew.
func flushed(r *testkit.Redis, f *fleet, m member) {
	t := f.t
	_, err := r.Do(t.Context(), "FLUSHALL")
	must(t, err)
	for i := range f.replicas {
		f.await(i, m, 407, "emptied: nobody is known")
	}
	f.verb(0, "", "agent", "add", "bot", "--owner", "o@example.com")
	f.verb(1, "acme-secret", "credential", "add", "acme", "--service", "acme", "--owner", "org", "--kind", "bearer", "--from-stdin")
	n := f.member(0)
	for i := range f.replicas {
		f.await(i, n, 200, "emptied: a new session works")
	}
}

// tooOld starts a program on a server that says of itself to be of version 5: all else
// about it is real.
func tooOld(t *testing.T, r *testkit.Redis, f *fleet) {
	t.Helper()
	p := faulty(t, r.Addr)
	for i := 6; i < 10; i++ {
		must(t, p.Translate(fmt.Sprintf("redis_version:%d.", i), "redis_version:5."))
	}
	o := f.options
	o.Dir = filepath.Join(f.dir, "old")
	must(t, os.Mkdir(o.Dir, 0o700))
	for _, password := range []string{"right", "wrong"} {
		o.Config = fmt.Sprintf("store: redis://chaperone@%s\nkey: {file: ../key}\nredis: {password: {command: [echo, %s]}}\n", p.Addr(), password)
		want := map[string]string{"right": "6.2 is the least that will do", "wrong": "password is wrong"}[password]
		began, err := testkit.Start(t.Context(), o)
		if err == nil {
			began.Kill()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "hint: mend Redis as the message says") {
			t.Errorf("%s password, an old server: %v", password, err)
		}
	}
}
