package credential

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/internal/testkit"
	"chaperone/store"
	"chaperone/store/redis"
)

// TestTwentyReplicas has twenty replicas need a refresh at once, over each store.
func TestTwentyReplicas(t *testing.T) {
	t.Run("bolt", func(t *testing.T) {
		b, p, _ := minting(t)
		twentyReplicas(t, b, p, func() store.Store { return b.kv })
	})
	t.Run("redis", func(t *testing.T) {
		server, err := testkit.StartRedis(t.Context(), testkit.RedisOptions{Dir: t.TempDir()})
		if errors.Is(err, testkit.ErrNoRedis) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		address, err := redis.ParseAddress("redis://" + server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		b, p, _ := minting(t)
		open := func() store.Store {
			kv, err := redis.Open(t.Context(), redis.Options{Address: address, Key: b.key.Bytes()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { kv.Close() })
			return kv
		}
		kv := open()
		v, err := Open(t.Context(), kv, b.key)
		if err != nil {
			t.Fatal(err)
		}
		v.Use(b.outside)
		b.Vault, b.kv = v, kv
		twentyReplicas(t, b, p, open)
	})
}

func twentyReplicas(t *testing.T, b *bench, p *provider, open func() store.Store) {
	h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
	var replicas []*bench
	for range 20 {
		kv := open()
		v, err := Open(t.Context(), kv, b.key)
		if err != nil {
			t.Fatal(err)
		}
		v.Use(b.outside)
		replicas = append(replicas, &bench{Vault: v, kv: kv, key: b.key})
	}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			got, err := replicas[i%20].authorization(t, h, Caller{})
			if err != nil || got != "Bearer access-1" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := p.asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
}

func TestLimitedHandle(t *testing.T) {
	b := vault(t)
	if err := b.Add(t.Context(), Credential{ID: "x", Kind: KindBearer, Service: "acme", Owner: "org"}, NewSecret([]byte("s"))); err != nil {
		t.Fatal(err)
	}
	h, err := b.IssueLimited(t.Context(), "x", "s_1", "", time.Now().Add(time.Hour), 30)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(t.Context(), b.kv, b.key)
	if err != nil {
		t.Fatal(err)
	}
	replicas := []*bench{b, {Vault: other, kv: b.kv, key: b.key}}
	var done, spent atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			switch _, err := replicas[i%2].authorization(t, h, Caller{}); {
			case err == nil:
				done.Add(1)
			case errors.Is(err, ErrHandleSpent):
				spent.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done.Load() != 30 || spent.Load() != 20 {
		t.Errorf("%d uses, %d refused", done.Load(), spent.Load())
	}
}
