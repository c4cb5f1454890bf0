package keep

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/audit/index"
	"chaperone/audit/proof"
	"chaperone/policy"
)

const logVariable = "CHAPERONE_TEST_KEEP"

func start(t testing.TB, path string, l Log, told func(string)) *Keeper {
	t.Helper()
	key, err := proof.OpenKey(filepath.Join(filepath.Dir(path), "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	return Start(Options{
		Path: path, Log: l, Key: key, Pack: true, CheckpointEvery: 20 * time.Millisecond, CheckpointLines: 100, Every: 10 * time.Millisecond,
		Notice: told, Altered: func(m string) { told("altered: " + m) }, Behind: func(f func()) { f() },
	})
}

func write(l *audit.Log) (string, error) {
	r := l.Open(time.Now())
	r.Agent.ID, r.Decision.Result, r.Session = "bot", policy.Allow, "s_1"
	if err := r.Commit(); err != nil {
		return "", err
	}
	return r.ID, r.Close()
}

// TestKilledUnderLoad kills a process that writes, signs, indexes and packs, again and
// again: what was committed is in the log, its chain and tree hold, and it is found.
func TestKilledUnderLoad(t *testing.T) {
	if path := os.Getenv(logVariable); path != "" {
		serveLoad(t, path)
	}
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	told := map[string]bool{}
	for range 4 {
		for _, id := range killOne(t, path) {
			told[id] = true
		}
	}
	l, err := audit.Open(audit.Options{Path: path}) // enters what was left behind
	if err != nil {
		t.Fatal(err)
	}
	k := start(t, path, nil, func(m string) { t.Error(m) })
	if _, err := write(l); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	k.Close()
	public, err := proof.LoadPublic(filepath.Join(filepath.Dir(path), "log.pub"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := proof.Verify(proof.VerifyOptions{Path: path, Key: public})
	if err != nil || r.Bad != nil || r.Signed != int64(r.Last) || r.Segments < 3 {
		t.Errorf("%+v, %v", r, err)
	}
	for x, err := range index.List(t.Context(), index.Query{Path: path, Key: public, Notice: func(m string) { t.Error(m) }, Filter: audit.Filter{Agent: "bot"}}) {
		if err != nil {
			t.Fatal(err)
		}
		delete(told, x.Decision.ID)
	}
	if len(told) > 0 {
		t.Errorf("%d requests were committed and are not found", len(told))
	}
}

// killOne lets a process write for a while and kills it. It returns what was committed.
func killOne(t *testing.T, path string) (ids []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledUnderLoad$")
	cmd.Env = append(os.Environ(), logVariable+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if id, ok := strings.CutPrefix(sc.Text(), "id "); ok && len(id) == 26 {
			if ids = append(ids, id); len(ids) == 400 {
				cmd.Process.Kill()
			}
		} else if what, ok := strings.CutPrefix(sc.Text(), "told "); ok {
			t.Errorf("the keeper tells: %s", what)
		}
	}
	cmd.Wait()
	if len(ids) < 400 {
		t.Fatalf("the process wrote %d requests", len(ids))
	}
	return ids
}

// serveLoad writes until it is killed.
func serveLoad(t *testing.T, path string) {
	l, err := audit.Open(audit.Options{Path: path, MaxSize: 64 << 10, Leaves: true})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	start(t, path, l, func(m string) { fmt.Println("told", m) })
	for range 4 {
		go func() {
			for {
				id, err := write(l)
				if err != nil {
					return
				}
				mu.Lock()
				fmt.Println("id", id)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// signed waits until a checkpoint covers so many lines.
func signed(t *testing.T, path string, lines int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for {
		b, err := os.ReadFile(proof.LatestFile(path))
		if err == nil && strings.Contains(string(b), fmt.Sprintf("\n%d\n", lines)) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d lines were not signed: %s", lines, b)
		}
	}
}

// TestLogIsTakenAway removes, cuts and edits the log under a keeper that looks after it:
// each is told.
func TestLogIsTakenAway(t *testing.T) {
	for _, c := range []struct {
		name   string
		leaves bool // the tree is built of what was written
		harm   func(path string) error
		alarm  string
	}{
		{"removed", false, os.Remove, ""},
		{"removed from the log", true, os.Remove, "altered: the decision log was removed"},
		{"cut", false, cut, "are not in the log any more"},
		{"cut from the log", true, cut, "altered: the decision log was cut short"},
		{"written from the log", true, scribble, "altered: somebody else wrote to the decision log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "decisions.jsonl")
			var mu sync.Mutex
			var told []string
			tell := func(m string) { mu.Lock(); defer mu.Unlock(); told = append(told, m) }
			now := time.Now()
			l, err := audit.Open(audit.Options{Path: path, Leaves: c.leaves, Notice: tell, Now: func() time.Time { now = now.Add(2 * time.Second); return now }})
			if err != nil {
				t.Fatal(err)
			}
			var from Log
			if c.leaves {
				from = l
			}
			k := start(t, path, from, tell)
			for range 20 {
				if _, err := write(l); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			signed(t, path, 40)
			if err := c.harm(path); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if _, err := write(l); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			k.Close()
			mu.Lock()
			defer mu.Unlock()
			all := strings.Join(told, "; ")
			if !strings.Contains(all, "somebody else") || !strings.Contains(all, c.alarm) {
				t.Errorf("told %q", all)
			}
			public, err := proof.LoadPublic(filepath.Join(filepath.Dir(path), "log.pub"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := proof.Verify(proof.VerifyOptions{Path: path, Key: public})
			removed := strings.HasPrefix(c.name, "removed")
			if err != nil || removed != (r.Bad == nil) || removed && r.First != 41 {
				t.Errorf("verify finds nothing: %+v, %v", r, err)
			}
		})
	}
}

func cut(path string) error { return os.Truncate(path, 4000) }

func scribble(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("{\"v\":1}\n")
	return errors.Join(err, f.Close())
}

// TestSign has a checkpoint signed that would not be due for an hour, also while others
// ask for it, and refuses when nobody looks after the log.
func TestSign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	key, err := proof.OpenKey(filepath.Join(filepath.Dir(path), "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(audit.Options{Path: path, MaxSize: 16 << 10, Leaves: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fault := func(m string) { t.Error(m) }
	k := Start(Options{Path: path, Log: l, Key: key, Pack: true, CheckpointEvery: time.Hour, CheckpointLines: 1 << 40, Every: time.Millisecond, Notice: fault, Altered: fault})
	for n := 1; n <= 5; n++ {
		for range 50 {
			if _, err := write(l); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		var asking sync.WaitGroup
		for range 3 {
			asking.Go(func() {
				if err := k.Sign(); err != nil {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		r, err := proof.Verify(proof.VerifyOptions{Path: path, Key: &key.Public})
		if err != nil || r.Bad != nil || r.Signed != int64(n*100) {
			t.Fatalf("%d lines are signed of %d: %+v, %v", r.Signed, n*100, r.Bad, err)
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for packed := 0; packed == 0; {
		select {
		case <-tick.C:
			files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.jsonl.zst"))
			if packed = len(files); err != nil {
				t.Fatal(err)
			}
		case <-late:
			t.Fatal("no segment was packed")
		}
	}
	k.Close()
	if err := k.Sign(); !errors.Is(err, ErrClosed) {
		t.Errorf("a keeper that was closed: %v", err)
	}
}
