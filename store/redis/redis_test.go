package redis

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chaperone/internal/testkit"
	"chaperone/store"
	"chaperone/store/storetest"
)

// key seals what the tests keep.
var key = []byte("0123456789abcdef0123456789abcdef")

// started returns a server, or skips where there is none to start.
func started(t testing.TB, o testkit.RedisOptions) *testkit.Redis {
	t.Helper()
	o.Dir = t.TempDir()
	r, err := testkit.StartRedis(t.Context(), o)
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func at(t testing.TB, url string) Address {
	t.Helper()
	a, err := ParseAddress(url)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func open(t testing.TB, url string, change func(*Options)) *Store {
	t.Helper()
	o := Options{Address: at(t, url), Key: key}
	if change != nil {
		change(&o)
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// contract runs the suite, each store under a prefix of its own.
func contract(t *testing.T, url string) {
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		return open(t, url, func(o *Options) { o.Prefix, o.Now = fmt.Sprint("p", n.Add(1)), now })
	})
}

func TestContract(t *testing.T) {
	contract(t, "redis://"+started(t, testkit.RedisOptions{}).Addr+"/3")
}

func TestContractOnSentinel(t *testing.T) {
	contract(t, "redis+sentinel://"+sentinels(t).Sentinel.Addr+"/main")
}

func TestContractOnCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("six servers take some seconds")
	}
	g, err := testkit.StartCluster(t.Context(), t.TempDir())
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	url := "redis+cluster://" + g.Addrs()
	contract(t, url)
	for _, r := range g.Servers[:2] { // one of them has not the slot
		if s, err := Open(t.Context(), Options{Address: at(t, "redis://"+r.Addr), Key: key}); err == nil {
			s.Close()
		} else if !strings.Contains(err.Error(), "redis+cluster") {
			t.Errorf("a node alone: %v", err)
		}
	}
	t.Run("fail-over", func(t *testing.T) { failOver(t, g, url) })
}

// failOver kills the master that has the entries: the copy that takes over is found at
// once, and has them.
func failOver(t *testing.T, g *testkit.RedisGroup, url string) {
	s, ctx := open(t, url, nil), t.Context()
	save := func(name string) error {
		_, err := s.Save(ctx, store.Entry{Name: name})
		return err
	}
	if err := save("before"); err != nil {
		t.Fatal(err)
	}
	master, err := s.db.(*redis.ClusterClient).MasterForKey(ctx, s.key("head"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range g.Servers {
		if r.Addr == master.Options().Addr {
			if _, err := r.Do(ctx, "SET", s.key("later"), ""); err != nil {
				t.Fatal(err)
			}
			for n := "0"; n != "1" && ctx.Err() == nil; { // until the copy has that, and what came before
				if n, err = r.Do(ctx, "WAIT", 1, 1000); err != nil {
					t.Fatal(err)
				}
			}
			r.Kill()
		}
	}
	began := time.Now()
	for err = save("after"); err != nil && time.Since(began) < 30*time.Second; err = save("after") {
		if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrConflict) {
			t.Fatal(err)
		}
	}
	if err != nil {
		t.Fatalf("no change is taken %v after the master was killed: %v", time.Since(began), err)
	}
	t.Logf("a change was taken %v after the master was killed", time.Since(began))
	if _, err := s.Load(ctx, "before"); err != nil {
		t.Error(err)
	}
}

func sentinels(t *testing.T) *testkit.RedisGroup {
	t.Helper()
	g, err := testkit.StartSentinel(t.Context(), t.TempDir())
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// TestNothingReadable looks for what was kept in all that the server has.
func TestNothingReadable(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	s := open(t, "redis://"+r.Addr, nil)
	const human, value = "alice@acme.example", "a value that nobody reads"
	e, err := s.Save(t.Context(), store.Entry{Name: "human/" + human, Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(t.Context(), store.Entry{Name: "human/gone" + human, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "human/gone"+human); err != nil {
		t.Fatal(err)
	}
	all := dump(t, r)
	for _, secret := range []string{human, "alice", value, "nobody", string(key)} {
		if strings.Contains(all, secret) {
			t.Errorf("the server has %q in clear", secret)
		}
	}
	if !strings.Contains(all, s.seal.field(e.Name)) {
		t.Error("the dump does not hold the entry at all")
	}
}

// dump is every key with its value, as the server gives it.
func dump(t *testing.T, r *testkit.Redis) string {
	t.Helper()
	var b strings.Builder
	c, ctx := r.Client(), t.Context()
	for _, k := range c.Keys(ctx, "*").Val() {
		fmt.Fprintln(&b, k, c.HGetAll(ctx, k).Val(), c.SMembers(ctx, k).Val(), c.ZRange(ctx, k, 0, -1).Val(), c.XRange(ctx, k, "-", "+").Val())
	}
	return b.String()
}

// TestMovedEntries puts an entry where another was: it does not open there.
func TestMovedEntries(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	s, ctx := open(t, "redis://"+r.Addr, nil), t.Context()
	for _, name := range []string{"k/mine", "k/theirs"} {
		if _, err := s.Save(ctx, store.Entry{Name: name, Value: []byte(name)}); err != nil {
			t.Fatal(err)
		}
	}
	hash, c := s.key("e:k"), r.Client()
	c.HSet(ctx, hash, s.seal.field("k/theirs"), c.HGet(ctx, hash, s.seal.field("k/mine")).Val())
	if e, err := s.Load(ctx, "k/theirs"); err == nil {
		t.Errorf("loaded %+v", e)
	}
}

// TestAskedAgain repeats a script whose answer was lost, as the client does by itself.
func TestAskedAgain(t *testing.T) {
	s, ctx := open(t, "redis://"+started(t, testkit.RedisOptions{}).Addr, nil), t.Context()
	keys, field, err := s.place("k")
	if err != nil {
		t.Fatal(err)
	}
	var versions [2]string
	for i := range versions {
		sealed := s.seal.close("k", []byte("v"), field)
		for range 2 {
			answer, err := saveScript.Run(ctx, s.db, keys, "", field, "k", newTag(), 100, []string{"0", versions[0]}[i], "0", sealed).Slice()
			if err != nil || answer[0].(int64) != 1 {
				t.Fatalf("save %d: %v, %v", i, answer, err)
			}
			versions[i] = answer[1].(string)
		}
	}
	if m, err := s.Mark(ctx); err != nil || m.Seq != 2 || versions[0] == versions[1] {
		t.Errorf("two changes made %+v, %v, versions %v", m, err, versions)
	}
}

// TestSweep finds that what expired leaves the server.
func TestSweep(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	now := time.Now()
	s, ctx := open(t, "redis://"+r.Addr, func(o *Options) { o.Now = func() time.Time { return now } }), t.Context()
	for i := range 20 {
		if _, err := s.Save(ctx, store.Entry{Name: fmt.Sprint("k/", i), Expires: now.Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(time.Hour)
	for i := range 10 {
		if _, err := s.Save(ctx, store.Entry{Name: fmt.Sprint("k/new", i)}); err != nil {
			t.Fatal(err)
		}
	}
	c := r.Client()
	if n, x := c.HLen(ctx, s.key("e:k")).Val(), c.ZCard(ctx, s.key("x:k")).Val(); n != 10 || x != 0 {
		t.Errorf("%d entries and %d ends are kept, want 10 and none", n, x)
	}
}

// TestClocksApart has machines whose clocks are wrong by seconds and by a minute: they
// agree on the time, know how wrong they are, and an entry expires on all at once.
func TestClocksApart(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	var all []*Store
	ahead := []time.Duration{0, 5 * time.Second, -5 * time.Second, time.Minute, -time.Minute}
	for _, d := range ahead {
		all = append(all, open(t, "redis://"+r.Addr, func(o *Options) { o.Local = func() time.Time { return time.Now().Add(d) } }))
	}
	for i, s := range all {
		const slack = 2 * time.Second // a slow answer is put in the middle of the time that it took
		if off := time.Until(s.Now()).Abs(); off > slack {
			t.Errorf("%v ahead: its time is off by %v", ahead[i], off)
		}
		if off := (s.Skew() + ahead[i]).Abs(); off > slack {
			t.Errorf("%v ahead: it knows of %v", ahead[i], s.Skew())
		}
	}
	for i, s := range all {
		name := fmt.Sprint("short/", i)
		if _, err := s.Save(t.Context(), store.Entry{Name: name, Expires: s.Now().Add(40 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		over := fmt.Sprint("over/", i)
		if _, err := s.Save(t.Context(), store.Entry{Name: over, Expires: s.Now().Add(-10 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		for j, other := range all {
			if _, err := other.Load(t.Context(), name); err != nil {
				t.Errorf("written %v ahead, read %v ahead: %v", ahead[i], ahead[j], err)
			}
			if _, err := other.Load(t.Context(), over); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("expired, written %v ahead, read %v ahead: %v", ahead[i], ahead[j], err)
			}
		}
	}
}

func TestMain(m *testing.M) {
	Silence()
	os.Exit(m.Run())
}

// TestClockStays moves a clock no more than it must be: an answer tells the time only as
// well as it was quick.
func TestClockStays(t *testing.T) {
	s := new(Store)
	for _, step := range []struct{ ahead, took, want time.Duration }{
		{40 * time.Millisecond, 100 * time.Millisecond, 0}, // it may be right
		{40 * time.Millisecond, 10 * time.Millisecond, 35 * time.Millisecond},
		{36 * time.Millisecond, 10 * time.Millisecond, 35 * time.Millisecond},
		{5 * time.Second, 2 * time.Second, 4 * time.Second}, // the server's was set, or this one's
		{5 * time.Second, time.Millisecond, 5*time.Second - 500*time.Microsecond},
		{-time.Minute, 3 * time.Second, -time.Minute - 1500*time.Millisecond},
	} {
		if s.setClock(step.ahead, step.took); s.Skew() != step.want {
			t.Errorf("%v ahead, told in %v: %v, want %v", step.ahead, step.took, s.Skew(), step.want)
		}
	}
}

// TestChangesSaysThatThereAreMore falls behind by more than is told at once: a view must
// not take itself for current before it has all of it.
func TestChangesSaysThatThereAreMore(t *testing.T) {
	s, ctx := open(t, "redis://"+started(t, testkit.RedisOptions{}).Addr, nil), t.Context()
	start, err := s.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, page+1)
	for i := range names {
		names[i] = fmt.Sprint("k/", i)
	}
	if err := store.Together(names, func(name string) error {
		_, err := s.Save(ctx, store.Entry{Name: name})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{page, 1} {
		c, err := s.Changes(ctx, start, 0)
		if err != nil || len(c) != want || c[want-1].More != (want == page) {
			t.Fatalf("%d changes, %v; want %d", len(c), err, want)
		}
		start = c[want-1].Mark
	}
}
