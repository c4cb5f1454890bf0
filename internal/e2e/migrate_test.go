package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/internal/testkit"
	"chaperone/store"
	"chaperone/store/bolt"
)

// TestMigrate moves a store from the file to Redis and back to another file. The
// session that was made before works after each move.
func TestMigrate(t *testing.T) {
	r := startRedis(t)
	f := assembleFleet(t, 1, r.Addr, 30e9, func(string) string { return "bolt" })
	p := f.replicas[0]
	m := f.member(0)
	works := func(when string) {
		t.Helper()
		if got := ask(t.Context(), f.client(0, m), m, "/once/"+m.Session+"/"+when); got != http.StatusOK {
			t.Errorf("%s: the session is answered with %d", when, got)
		}
	}
	works("before")
	refused := func(what string, args ...string) {
		t.Helper()
		out, err := p.Run(t.Context(), "", nil, append([]string{"store", "migrate"}, args...)...)
		if err != nil || out.Code == 0 || !strings.Contains(out.Err, what) {
			t.Errorf("migrate %q: %+v, %v; want %q", args, out, err, what)
		}
	}
	url := "redis://" + r.Addr + "/0"
	refused("in use", "bolt", url)
	refused("no store", "bolt", "sqlite")
	refused("the same store", url, url)
	refused("the same store", "bolt", "bolt:"+filepath.Join(filepath.Dir(p.Config), "state", "chaperone.db"))
	refused("no store in", "bolt:"+filepath.Join(f.dir, "nothing.db"), url)
	refused("nothing to copy", "redis://"+r.Addr+"/1", url)
	at := "bolt"
	for _, to := range []string{url, "bolt:" + filepath.Join(f.dir, "other.db")} {
		must(t, p.Stop())
		var out struct{ Entries int }
		must(t, json.Unmarshal([]byte(f.verb(0, "", "--json", "store", "migrate", at, to)), &out))
		if out.Entries < 4 {
			t.Errorf("%d entries were moved", out.Entries)
		}
		refused("not empty", at, to)
		f.use(p.Config, to)
		must(t, p.Restart(t.Context()))
		works("at-" + strings.SplitN(to, ":", 2)[0])
		at = to
	}
	must(t, p.Stop())
	if out := f.verb(0, "", "store", "migrate", "bolt", "bolt:"+filepath.Join(f.dir, "third.db")); !strings.Contains(out, "third.db in place of ") {
		t.Errorf("what to do next is %q", out)
	}
}

// use sets the store of a configuration, moving a file to where bolt looks for it.
func (f *fleet) use(config, to string) {
	f.t.Helper()
	if path, ok := strings.CutPrefix(to, "bolt:"); ok {
		must(f.t, os.Rename(path, filepath.Join(filepath.Dir(config), "state", "chaperone.db")))
		to = "bolt"
	}
	b, err := os.ReadFile(config)
	must(f.t, err)
	var lines []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "store: ") {
			line = "store: " + to + "\n"
		}
		lines = append(lines, line)
	}
	must(f.t, os.WriteFile(config, []byte(strings.Join(lines, "")), 0o600))
}

// TestMigrateInterrupted kills a migration in the middle: no proxy starts on what it
// left, and the same command again goes on and ends with all that there was.
func TestMigrateInterrupted(t *testing.T) {
	r := startRedis(t)
	f := assembleFleet(t, 1, r.Addr, 30e9, func(string) string { return "bolt" })
	p := f.replicas[0]
	m := f.member(0)
	must(t, p.Stop())
	before := f.filler(filepath.Join(filepath.Dir(p.Config), "state", "chaperone.db"), 5000)
	url := f.interrupted(r)
	f.use(p.Config, url)
	if err := p.Restart(t.Context()); err == nil || !strings.Contains(p.Output(), "a copy that was not finished") || !strings.Contains(p.Output(), "again") {
		t.Fatalf("a proxy starts on half a store: %v\n%s", err, p.Output())
	}
	if out, err := p.Run(t.Context(), "", nil, "store", "migrate", url, "bolt:"+filepath.Join(f.dir, "other.db")); err != nil || out.Code == 0 || !strings.Contains(out.Err, "not finished") {
		t.Errorf("half a store is copied: %+v, %v", out, err)
	}
	var out struct{ Entries int }
	must(t, json.Unmarshal([]byte(f.verb(0, "", "--json", "store", "migrate", "bolt", url)), &out))
	if out.Entries < before {
		t.Errorf("%d of %d entries were moved", out.Entries, before)
	}
	must(t, p.Restart(t.Context()))
	if got := ask(t.Context(), f.client(0, m), m, "/once/"+m.Session+"/after"); got != http.StatusOK {
		t.Errorf("the session is answered with %d", got)
	}
}

// filler adds n entries that nobody looks at to a file.
func (f *fleet) filler(path string, n int) int {
	f.t.Helper()
	db, err := bolt.Open(path, bolt.Options{})
	must(f.t, err)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("filler/%d", i)
	}
	must(f.t, store.Together(names, func(name string) error {
		_, err := db.Save(f.t.Context(), store.Entry{Name: name, Value: []byte(name)})
		return err
	}))
	must(f.t, db.Close())
	return n
}

// interrupted begins to move the first replica's file to r, and kills that when a part
// of it is there. It returns the store's URL.
func (f *fleet) interrupted(r *testkit.Redis) string {
	f.t.Helper()
	ctx, c, url := f.t.Context(), r.Client(), "redis://"+r.Addr+"/0"
	moved := func() int64 { return c.HLen(ctx, "{chaperone}:e:filler").Val() }
	for range 20 {
		must(f.t, c.FlushDB(ctx).Err())
		cmd := f.replicas[0].Command(ctx, nil, "store", "migrate", "bolt", url)
		must(f.t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		within(f.t, 60*time.Second, "the beginning of a copy", func() bool { return moved() > 500 })
		must(f.t, r.Pause()) // it gets no further
		killed := cmd.Process.Kill()
		err := <-ended
		must(f.t, r.Resume())
		if killed == nil && err != nil && c.HLen(ctx, "{chaperone}:e:migration").Val() == 1 {
			f.t.Logf("killed after %d entries", moved())
			return url
		}
	}
	f.t.Fatal("it was never caught in the middle")
	return ""
}
