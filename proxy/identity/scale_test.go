package identity

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
	"time"

	"chaperone/credential"
	"chaperone/internal/testkit"
	"chaperone/store"
	"chaperone/store/bolt"
	"chaperone/store/redis"
)

var (
	scale    = flag.Int("scale", 0, "sessions of TestScale, with ten handles each; 100000 is what is promised")
	scaleDir = flag.String("scale-dir", "", "where TestScale keeps its file for another run")
)

// TestScale starts on a store with many sessions, embedded and shared, and revokes some
// of them at once.
func TestScale(t *testing.T) {
	if *scale == 0 {
		t.Skip("takes minutes; -scale 100000")
	}
	dir := *scaleDir
	if dir == "" {
		dir = t.TempDir()
	}
	f := filled{path: filepath.Join(dir, "store")}
	f.populate(t)
	t.Run("bolt", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store")
		copyFile(t, f.path, path)
		f.start(t, func() (store.Feed, error) { return bolt.Open(path, bolt.Options{}) }, time.Now)
	})
	t.Run("redis", func(t *testing.T) {
		r, err := testkit.StartRedis(t.Context(), testkit.RedisOptions{Dir: t.TempDir()})
		if errors.Is(err, testkit.ErrNoRedis) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		address, err := redis.ParseAddress("redis://" + r.Addr)
		if err != nil {
			t.Fatal(err)
		}
		kv, err := redis.Open(t.Context(), redis.Options{Address: address, Key: f.key.Bytes()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { kv.Close() })
		f.copy(t, kv)
		f.start(t, func() (store.Feed, error) { return kv, nil }, kv.Now)
	})
}

// filled is a file with many sessions.
type filled struct {
	path  string
	key   credential.Key
	token string // of one session
}

// start loads what a store has, as serve does, and looks at what that takes.
func (f *filled) start(t *testing.T, open func() (store.Feed, error), now func() time.Time) {
	before := heap()
	defer debug.SetGCPercent(debug.SetGCPercent(200)) // as serve has it
	began, worked := time.Now(), cpu(t)
	kv, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	opened := time.Since(began)
	vault, err := credential.Prepare(ctx, kv, f.key)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(ctx, Options{Store: kv, Vault: vault, Followed: true, Replica: "a", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	view, err := store.OpenView(ctx, store.ViewOptions{Feed: kv, Consumers: []store.Consumer{vault, d}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(view.Close)
	took := time.Since(began)
	worked = cpu(t) - worked
	each := float64(heap()-before) / float64(*scale*11)
	t.Logf("%d sessions and %d handles: loaded in %v (%v of processor time; %v of it opening), %.0f bytes each", *scale, *scale*10, took, worked, opened, each)
	looked := testing.Benchmark(func(b *testing.B) {
		value := basic("bot", f.token)
		for b.Loop() {
			if _, err := d.Identify(value); err != nil {
				b.Fatal(err)
			}
		}
	})
	t.Logf("a look-up takes %d ns", looked.NsPerOp())
	began = time.Now()
	out, err := d.Revoke(ctx, Target{Human: "many@acme.com"}, "test", "me")
	if err != nil || len(out.Sessions) != *scale/10 || out.Handles != *scale {
		t.Fatalf("revoked %d, %v", len(out.Sessions), err)
	}
	t.Logf("revoked %d sessions and %d handles in %v", len(out.Sessions), out.Handles, time.Since(began))
	if took > 5*time.Second || each > 1024 {
		t.Errorf("it took %v and %.0f bytes for each, the bounds are 5s and 1024", took, each)
	}
}

// cpu is the processor time that this process has used, which other programs on the
// machine do not lengthen as much as they do the time by the clock.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// populate makes the file, or uses the one that an earlier run left, a tenth of it
// sessions of one human, and knows the token of a session of another.
func (f *filled) populate(t *testing.T) {
	t.Helper()
	var err error
	if known, rerr := os.ReadFile(f.path + ".key"); rerr == nil {
		f.token = string(known[32:])
		f.key, err = credential.ParseKey(known[:32])
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if f.key, err = credential.NewKey(); err != nil {
		t.Fatal(err)
	}
	kv, err := bolt.Open(f.path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.fill(t, kv)
	if err := errors.Join(kv.Close(), os.WriteFile(f.path+".key", append(f.key.Bytes(), f.token...), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (f *filled) fill(t *testing.T, kv store.Store) {
	t.Helper()
	vault, err := credential.Open(ctx, kv, f.key)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(ctx, Options{Store: kv, Vault: vault})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.AddAgent(ctx, "bot", "team:dev", nil); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 10 {
		ids = append(ids, fmt.Sprint("gh", i))
		if err := vault.Add(ctx, credential.Credential{ID: ids[i], Service: "github", Owner: "org", Kind: credential.KindBearer}, credential.NewSecret([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	made, err := d.CreateSession(ctx, Spec{Agent: "bot", Human: "alice@acme.com", TTL: MaxTTL, Credentials: ids})
	if err != nil {
		t.Fatal(err)
	}
	f.token = made.Token
	const writers = 1000 // what comes together is written together
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < *scale; i += writers {
				human := fmt.Sprintf("h%d@acme.com", i%5000)
				if i%10 == 0 {
					human = "many@acme.com"
				}
				fill(t, kv, vault, d, human, ids)
			}
		})
	}
	all.Wait()
}

// copy fills another store with what the file has.
func (f *filled) copy(t *testing.T, to store.Store) {
	t.Helper()
	kv, err := bolt.Open(f.path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer kv.Close()
	var entries []store.Entry
	for e, err := range kv.Scan(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		e.Version = 0
		entries = append(entries, e)
	}
	err = store.Together(entries, func(e store.Entry) error {
		_, err := to.Save(ctx, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyFile makes a synced copy, so that opening it does not wait for the writing of it.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// fill writes one session as CreateSession does, without its taking part.
func fill(t *testing.T, kv store.Store, vault *credential.Vault, d *Directory, human string, ids []string) {
	s, err := d.plan(Spec{Agent: "bot", Human: human, Purpose: "scale", TTL: MaxTTL, Credentials: ids}, time.Now())
	if err != nil {
		t.Error(err)
		return
	}
	sum := vault.TokenSum(credential.NewSessionToken())
	s.Sum = hex.EncodeToString(sum[:])
	if _, err := d.save(ctx, sessionPrefix+s.ID, 0, s, s.Expires); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		_, err := vault.Issue(ctx, id, s.ID, "ghp_", s.Expires)
		if err != nil {
			t.Error(err)
		}
	}
}
