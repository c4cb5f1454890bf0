package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
