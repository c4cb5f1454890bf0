package identity

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"sync"
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
	began := time.Now()
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
	each := float64(heap()-before) / float64(*scale*11)
	t.Logf("%d sessions and %d handles: loaded in %v, %.0f bytes each", *scale, *scale*10, took, each)
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

// fill writes one session as CreateSession does, without what memory would keep.
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
		h, err := json.Marshal(map[string]any{"credential": id, "service": "github", "session": s.ID, "expires": s.Expires, "sum": s.Sum})
		if err == nil {
			_, err = kv.Save(ctx, store.Entry{Name: "handle/" + credential.NewID("", 8), Value: h, Expires: s.Expires})
		}
		if err != nil {
			t.Error(err)
		}
	}
}
