package identity

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
	"time"

	"chaperone/credential"
	"chaperone/internal/testkit"
	"chaperone/store"
	"chaperone/store/redis"
)

var scale = flag.Int("scale", 0, "sessions of TestScale, with ten handles each; 100000 is what is promised")

// TestScale starts on a store with many sessions, and revokes some of them at once.
func TestScale(t *testing.T) {
	if *scale == 0 {
		t.Skip("takes minutes; -scale 100000")
	}
	r, err := testkit.StartRedis(t.Context(), testkit.RedisOptions{Dir: t.TempDir()})
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	key, err := credential.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	address, err := redis.ParseAddress("redis://" + r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := redis.Open(t.Context(), redis.Options{Address: address, Key: key.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kv.Close() })
	token := populate(t, kv, key)
	before := heap()
	defer debug.SetGCPercent(debug.SetGCPercent(200)) // as serve has it
	began, worked := time.Now(), cpu(t)
	vault, err := credential.Prepare(ctx, kv, key)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(ctx, Options{Store: kv, Vault: vault, Followed: true, Replica: "a", Now: kv.Now})
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
	t.Logf("%d sessions and %d handles: loaded in %v (%v of processor time), %.0f bytes each", *scale, *scale*10, took, worked, each)
	looked := testing.Benchmark(func(b *testing.B) {
		value := basic("bot", token)
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

// populate fills the store, a tenth of it with sessions of one human, and returns
// the token of a session of another.
func populate(t *testing.T, kv store.Store, key credential.Key) string {
	t.Helper()
	vault, err := credential.Open(ctx, kv, key)
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
	made, err := d.CreateSession(ctx, Spec{Agent: "bot", Human: "alice@acme.com", Credentials: ids})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := w; i < *scale; i += 16 {
				human := fmt.Sprintf("h%d@acme.com", i%5000)
				if i%10 == 0 {
					human = "many@acme.com"
				}
				fill(t, kv, vault, d, human, ids)
			}
		})
	}
	all.Wait()
	return made.Token
}

// fill writes one session as CreateSession does, without its taking part.
func fill(t *testing.T, kv store.Store, vault *credential.Vault, d *Directory, human string, ids []string) {
	s, err := d.plan(Spec{Agent: "bot", Human: human, Purpose: "scale", Credentials: ids}, time.Now())
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
