package credential

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
	"chaperone/credential/source"
)

// TestRefreshTokenFromSource has an operator replace the refresh token at its source.
func TestRefreshTokenFromSource(t *testing.T) {
	b, p, ahead := minting(t)
	now := "refresh-0"
	o := b.outside
	o.Sources = map[string]source.Fetcher{"env": source.Env{Lookup: func(string) (string, bool) { return now, true }}}
	b.Use(o)
	c := Credential{ID: "r", Kind: KindRefresh, Service: "acme", Owner: "org", Source: "env:R", Settings: p.settings(), Cache: time.Second}
	if err := b.Add(t.Context(), c, Secret{}); err != nil {
		t.Fatal(err)
	}
	h, err := b.Issue(t.Context(), "r", "s_1", "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want := func(text string, asked int64) {
		t.Helper()
		if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer "+text || p.asked.Load() != asked {
			t.Errorf("got %q, %v, asked %d; want %s, asked %d", got, err, p.asked.Load(), text, asked)
		}
	}
	want("access-1", 1)
	ahead.Store(int64(time.Minute))
	want("access-1", 1) // the source was looked at again, and had nothing new
	p.mu.Lock()
	p.good = "fresh"
	p.mu.Unlock()
	now = "fresh"
	ahead.Store(int64(2 * time.Minute))
	want("access-2", 2)
	now = ""
	ahead.Store(int64(3 * time.Minute))
	if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrSource) {
		t.Errorf("an empty source: %v", err)
	}
}

// TestFailingSourceIsLeftAlone: requests without pause do not run a command as often, and
// another source counts at once.
func TestFailingSourceIsLeftAlone(t *testing.T) {
	b := vault(t)
	var ahead, looks atomic.Int64
	b.Use(Outside{Now: func() time.Time { return time.Unix(1e9, ahead.Load()) }, Sources: map[string]source.Fetcher{"env": source.Env{Lookup: func(name string) (string, bool) {
		looks.Add(1)
		return "canary", name == "GOOD"
	}}}})
	if err := b.Add(t.Context(), Credential{ID: "s", Kind: KindBearer, Service: "acme", Owner: "org", Source: "env:BAD"}, Secret{}); err != nil {
		t.Fatal(err)
	}
	h, err := b.Issue(t.Context(), "s", "s_1", "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		ahead.Store(int64(i) * int64(failedPause) / 10)
		if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrSource) {
			t.Fatal(err)
		}
	}
	if looks.Load() != 2 {
		t.Errorf("%d looks in two seconds", looks.Load())
	}
	if err := b.Replace(t.Context(), "s", "env:GOOD", Secret{}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer canary" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestFailingProviderIsLeftAlone: nor is a provider asked as often as agents repeat.
func TestFailingProviderIsLeftAlone(t *testing.T) {
	b, p, _ := minting(t)
	now, ahead := time.Now(), time.Duration(0)
	o := b.outside
	o.Now = func() time.Time { return now.Add(ahead) }
	b.Use(o)
	p.instead = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
	for i := range 20 {
		ahead = time.Duration(i) * failedPause / 10
		if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, grant.ErrEndpoint) {
			t.Fatal(err)
		}
	}
	if p.asked.Load() != 2 {
		t.Errorf("asked %d times in two seconds", p.asked.Load())
	}
	p.mu.Lock()
	p.instead = nil
	p.mu.Unlock()
	ahead += failedPause
	if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer access-1" {
		t.Errorf("once it is well: %q, %v", got, err)
	}
}

// hanging is a source that does not answer.
type hanging struct{}

func (hanging) Check(string) error { return nil }
func (hanging) Fetch(ctx context.Context, _ string) (source.Fetched, error) {
	<-ctx.Done()
	return source.Fetched{}, ctx.Err()
}

func TestSourceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := vault(t)
		b.Use(Outside{Sources: map[string]source.Fetcher{"slow": hanging{}}})
		if err := b.Add(t.Context(), Credential{ID: "s", Kind: KindBearer, Service: "acme", Owner: "org", Source: "slow:x"}, Secret{}); err != nil {
			t.Fatal(err)
		}
		h, err := b.Issue(t.Context(), "s", "s_1", "", time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrSourceTimeout) || time.Since(began) > DefaultSourceTime {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// stuck is a source on a disk that hangs: it hears of no end of time.
type stuck struct {
	looks atomic.Int64
	free  chan struct{}
}

func (*stuck) Check(string) error { return nil }
func (s *stuck) Fetch(context.Context, string) (source.Fetched, error) {
	s.looks.Add(1)
	<-s.free
	return source.Fetched{Secret: secret.New("canary")}, nil
}

// TestDiskThatHangs: nobody waits for it without end, one look at it is under way at a time,
// and operators are told once, and when it is back.
func TestDiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := vault(t), &stuck{free: make(chan struct{})}
		var told []string
		b.Use(Outside{SourceTime: 3 * time.Second, Sources: map[string]source.Fetcher{"disk": s}, Told: func(id string, x *Trouble) {
			if x == nil {
				x = &Trouble{}
			}
			told = append(told, id+" "+x.What+", "+x.Hint)
		}})
		if err := b.Add(t.Context(), Credential{ID: "s", Kind: KindBearer, Service: "acme", Owner: "org", Source: "disk:x"}, Secret{}); err != nil {
			t.Fatal(err)
		}
		h, err := b.Issue(t.Context(), "s", "s_1", "", time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := b.authorization(t, h, Caller{}); !errors.Is(err, ErrSourceTimeout) {
				t.Error(err)
			}
		}
		close(s.free)
		synctest.Wait()
		if got, err := b.authorization(t, h, Caller{}); err != nil || got != "Bearer canary" || s.looks.Load() != 1 {
			t.Errorf("once it is back: %q, %v, after %d looks", got, err, s.looks.Load())
		}
		if len(told) != 2 || !strings.Contains(told[0], "s the source of the secret does not answer in time: disk, ") || !strings.Contains(told[0], "sources.timeout") || told[1] != "s , " || b.Troubles() != nil {
			t.Errorf("told %q, and there is %v", told, b.Troubles())
		}
		if _, err := b.authorization(t, h+"x", Caller{}); err == nil || b.Trouble("s") != nil { // the agent's affair
			t.Errorf("%v, trouble %v", err, b.Trouble("s"))
		}
	})
}
