package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// told is what a process prints, for readers at any time.
type told struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *told) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *told) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// TestLogOfAllReplicas asks one replica for what all have logged: by query, show, prove
// and tail, while one is killed, and back.
func TestLogOfAllReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("three programs and a server take some seconds")
	}
	r := startRedis(t)
	f := assembleFleet(t, 3, r.Addr, 30e9, func(way string) string { return "redis://" + way + "/0" })
	m := f.member(0)
	var id [3]string
	for i := range f.replicas {
		b, err := os.ReadFile(filepath.Join(f.dir, fmt.Sprint(i), "state", "replica"))
		must(t, err)
		id[i] = string(b)
		within(t, 20e9, "each knows of all", func() bool { return strings.Count(f.verb(i, "", "replicas"), "alive") == 2 })
	}
	var out told
	defer func() {
		if t.Failed() {
			t.Log(out.String())
		}
	}()
	tail := f.replicas[1].Command(t.Context(), nil, "log", "tail", "-f", "-n", "100", "--method", "GET")
	tail.Stdout, tail.Stderr = &out, &out
	must(t, tail.Start())
	defer func() { tail.Process.Signal(syscall.SIGINT); tail.Wait() }()
	ask3 := func(what string) {
		for i := range f.replicas {
			if got := ask(t.Context(), f.client(i, m), m, fmt.Sprintf("/once/%s/%s%d", m.Session, what, i)); got != 200 {
				t.Errorf("replica %d answers %d", i, got)
			}
		}
	}
	ask3("a")
	query := func(i int, args ...string) (out string) {
		t.Helper()
		within(t, 30e9, "a whole answer", func() bool { // on a busy machine a replica may fall silent for some seconds
			got, err := f.replicas[i].Run(t.Context(), "", nil, append([]string{"log", "query", "--method", "GET"}, args...)...)
			must(t, err)
			out = got.Out
			return got.Code == 0
		})
		return out
	}
	for i := range f.replicas {
		within(t, 20e9, "all replicas' requests at each", func() bool { return strings.Count(query(i), "once/") == 3 })
	}
	within(t, 20e9, "all replicas' requests in what follows", func() bool { return strings.Count(out.String(), "once/") >= 3 })
	groups := query(2, "--group-by", "replica,result")
	for _, one := range id {
		if !strings.Contains(groups, one) || !strings.Contains(out.String(), one) {
			t.Errorf("replica %s is missing in\n%s%s", one, groups, out.String())
		}
	}
	if n := strings.Count(query(0, "--local"), "once/") + strings.Count(query(0, "--replica", id[1]), "once/"); n != 2 {
		t.Errorf("two replicas' own are %d requests", n)
	}
	if n := strings.Count(query(0, "--log", f.replicas[1].Log, "--log", f.replicas[2].Log), "once/"); n != 2 {
		t.Errorf("two files hold %d requests", n)
	}

	// The lines come as they stand in the other's log, and so does what is proved of them.
	lines := query(0, "--json", "--replica", id[2])
	log, err := os.ReadFile(f.replicas[2].Log)
	must(t, err)
	var one struct{ ID string }
	for line := range strings.Lines(lines) {
		must(t, json.Unmarshal([]byte(line), &one))
		if !bytes.Contains(log, []byte(line)) {
			t.Errorf("not a line of the log: %s", line)
		}
	}
	story := ""
	within(t, 30e9, "the story", func() bool {
		got, err := f.replicas[0].Run(t.Context(), "", nil, "log", "show", one.ID)
		must(t, err)
		story = got.Out
		return got.Code == 0
	})
	if strings.Count(story, "once/") < 4 || !strings.Contains(story, id[2]) {
		t.Errorf("the story is\n%s", story)
	}
	must(t, f.replicas[2].Stop()) // which signs
	if got, err := f.replicas[0].Run(t.Context(), "", nil, "log", "query", "--replica", id[2]); err != nil || got.Code != 1 {
		t.Errorf("a replica that is stopped: %+v, %v", got, err)
	}
	must(t, f.replicas[2].Restart(t.Context()))
	within(t, 20e9, "it is back", func() bool { return strings.Count(f.verb(0, "", "replicas"), "alive") == 2 })
	proof := ""
	within(t, 30e9, "the proof", func() bool {
		got, err := f.replicas[0].Run(t.Context(), "", nil, "log", "prove", one.ID)
		must(t, err)
		proof = got.Out
		return got.Code == 0
	})
	got, err := f.replicas[0].Run(t.Context(), proof, nil, "log", "verify", "--proof", "-", "--key", filepath.Join(f.dir, "2", "state", "log.pub"))
	if err != nil || got.Code != 0 || strings.Count(got.Out, "proved") != 2 {
		t.Errorf("%+v, %v", got, err)
	}

	// One that dies makes no answer look whole; what follows goes on, and has it again.
	f.replicas[2].Kill()
	within(t, 30e9, "the answer of the others", func() bool {
		got, err := f.replicas[0].Run(t.Context(), "", nil, "log", "query", "--method", "GET")
		must(t, err)
		if got.Code != 1 || !strings.Contains(got.Err, "replica "+id[2]) {
			t.Fatalf("a replica that is dead: %+v", got)
		}
		return strings.Count(got.Out, "once/") == 2 && strings.Contains(got.Err, "missing: replica "+id[2])
	})
	must(t, f.replicas[2].Restart(t.Context()))
	within(t, 20e9, "it is back", func() bool { return ask(t.Context(), f.client(2, m), m, "/once/"+m.Session+"/up") == 200 })
	ask3("b")
	within(t, 30e9, "all of them in what follows", func() bool {
		return strings.Contains(out.String(), "/b0") && strings.Contains(out.String(), "/b1") && strings.Contains(out.String(), "/b2")
	})
	for _, path := range []string{"a0", "a1", "a2", "b0", "b1", "b2"} {
		if strings.Count(out.String(), "/"+path+" ") != 1 {
			t.Errorf("%s was told more than once, or not:\n%s", path, out.String())
		}
	}
}
