package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/internal/testkit"
	"chaperone/store"
)

func TestOpenRefuses(t *testing.T) {
	plain := started(t, testkit.RedisOptions{})
	open(t, "redis://"+plain.Addr, func(o *Options) { o.Prefix = "taken" })
	locked := started(t, testkit.RedisOptions{Args: []string{"--requirepass", "right"}, Password: "right"})
	host, port, _ := net.SplitHostPort(plain.Addr)
	replica := started(t, testkit.RedisOptions{Args: []string{"--replicaof", host + " " + port}})
	evicting := started(t, testkit.RedisOptions{Args: []string{"--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"}})
	lonely := started(t, testkit.RedisOptions{Args: []string{"--cluster-enabled", "yes"}})
	nobody, err := testkit.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		addr   string
		change func(*Options)
		want   error
		text   string
	}{
		"no password":    {locked.Addr, func(*Options) {}, store.ErrRefused, "redis.password"},
		"wrong password": {locked.Addr, func(o *Options) { o.Password = "wrong" }, store.ErrRefused, "password is wrong"},
		"unknown user":   {plain.Addr, func(o *Options) { o.Address.User, o.Password = "somebody", "x" }, store.ErrRefused, "password is wrong"},
		"too old":        {plain.Addr, func(o *Options) { o.MinVersion = "99.1" }, store.ErrRefused, "99.1"},
		"read-only copy": {replica.Addr, func(*Options) {}, store.ErrRefused, "read-only copy"},
		"drops entries":  {evicting.Addr, func(*Options) {}, store.ErrRefused, "noeviction"},
		"another key":    {plain.Addr, func(o *Options) { o.Prefix, o.Key = "taken", []byte(strings.Repeat("k", MinKey)) }, store.ErrKey, "key"},
		"short key":      {plain.Addr, func(o *Options) { o.Key = key[:16] }, nil, "needs 32"},
		"odd prefix":     {plain.Addr, func(o *Options) { o.Prefix = "{x}" }, nil, "letters"},
		"nobody there":   {nobody, func(*Options) {}, store.ErrUnavailable, nobody},
		"no TLS there":   {plain.Addr, func(o *Options) { o.Address.TLS = true }, nil, "rediss://"},
		"user alone":     {plain.Addr, func(o *Options) { o.Address.User = "somebody" }, store.ErrRefused, "redis.password"},
		"sentinel user":  {plain.Addr, func(o *Options) { o.SentinelUser = "somebody" }, store.ErrRefused, "redis.sentinel_password"},
		"no cluster":     {plain.Addr, func(o *Options) { o.Address.Cluster = true }, store.ErrRefused, "write redis"},
		"no sentinel":    {plain.Addr, func(o *Options) { o.Address.Sentinel, o.Address.Master = true, "main" }, store.ErrRefused, "write redis"},
		"joined nothing": {lonely.Addr, func(o *Options) { o.Address.Cluster = true }, store.ErrRefused, "has joined no cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Address: at(t, "redis://"+tc.addr), Key: key, Password: ""}
			tc.change(&o)
			began := time.Now()
			s, err := Open(t.Context(), o)
			if err == nil {
				s.Close()
			}
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %v with %q", err, tc.want, tc.text)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestFullMemory fills the server: changes are refused and say why, what is there can be
// read, and what must be is taken, as are deletions.
func TestFullMemory(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	s, ctx := open(t, "redis://"+r.Addr, nil), t.Context()
	if _, err := s.Save(ctx, store.Entry{Name: "k", Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(ctx, "CONFIG", "SET", "maxmemory", "1mb"); err != nil {
		t.Fatal(err)
	}
	before, err := s.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(ctx, store.Entry{Name: "big", Value: make([]byte, store.MaxValue)}); !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "memory is full") {
		t.Errorf("save: %v", err)
	}
	e, err := s.Load(ctx, "k")
	if err != nil {
		t.Errorf("load: %v", err)
	}
	if _, err := s.Save(ctx, e); !errors.Is(err, store.ErrFull) {
		t.Errorf("save of what is there: %v", err)
	}
	if after, err := s.Mark(ctx); err != nil || after != before {
		t.Errorf("half of a change is there: %+v, %v; it was %+v", after, err, before)
	}
	e.Must = true
	if _, err := s.Save(ctx, e); err != nil {
		t.Errorf("save of what must be: %v", err)
	}
	if _, err := s.Save(ctx, e); !errors.Is(err, store.ErrConflict) {
		t.Errorf("save of what must be, of an older version: %v", err)
	}
	if err := s.Delete(ctx, "k"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if c, err := s.Changes(ctx, before, time.Second); err != nil || len(c) != 2 || c[0].Gone || !c[1].Gone {
		t.Errorf("others are told %+v, %v", c, err)
	}
	again, err := Open(ctx, Options{Address: at(t, "redis://"+r.Addr), Key: key})
	if err != nil {
		t.Fatalf("opened while it is full: %v", err)
	}
	again.Close()
}

// rule is what docs/replicas.md tells operators to give the user.
func rule(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/replicas.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if after, ok := strings.CutPrefix(line, "ACL SETUSER chaperone on >PASSWORD "); ok {
			return strings.Fields(after)
		}
	}
	t.Fatal("docs/replicas.md has no ACL rule")
	return nil
}

// TestAccessList does everything as a user that may do no more than the documented rule.
func TestAccessList(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	args := []any{"ACL", "SETUSER", "chaperone", "on", ">secret"}
	for _, a := range rule(t) {
		args = append(args, a)
	}
	if _, err := r.Do(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
	as := func(prefix string) func(*Options) {
		return func(o *Options) { o.Address.User, o.Password, o.Prefix = "chaperone", "secret", prefix }
	}
	s, ctx := open(t, "redis://"+r.Addr, as("")), t.Context()
	start, err := s.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(ctx, store.Entry{Name: "a/b", Expires: s.Now().Add(time.Hour)}); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, "a/b"); err != nil {
		t.Error(err)
	}
	for _, err := range s.Scan(ctx, "") {
		t.Error(err)
	}
	if c, err := s.Changes(ctx, start, time.Second); err != nil || len(c) != 2 {
		t.Errorf("changes: %v, %v", c, err)
	}
	o := Options{Address: at(t, "redis://"+r.Addr), Key: key}
	as("others")(&o)
	if s, err := Open(ctx, o); !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "access list") {
		t.Errorf("keys of others: %v, %v", s, err)
	}
}

// TestOverTLS reaches a server over TLS, by roots of its own.
func TestOverTLS(t *testing.T) {
	dir := t.TempDir()
	roots, err := testkit.WriteTLS(dir, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := testkit.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	started(t, testkit.RedisOptions{Args: []string{
		"--tls-port", port, "--tls-cert-file", filepath.Join(dir, "server.pem"), "--tls-key-file", filepath.Join(dir, "server.key"),
		"--tls-ca-cert-file", filepath.Join(dir, "roots.pem"), "--tls-auth-clients", "no",
	}})
	url := "rediss://localhost:" + port
	s := open(t, url, func(o *Options) { o.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12} })
	if _, err := s.Save(t.Context(), store.Entry{Name: "k"}); err != nil {
		t.Error(err)
	}
	refuses(t, url, "name that CA with redis.roots") // the system's roots do not know it
	refuses(t, "redis://localhost:"+port, "write rediss")
}

// refuses opens what cannot be opened as it is written.
func refuses(t *testing.T, url, want string) {
	t.Helper()
	s, err := Open(t.Context(), Options{Address: at(t, url), Key: key})
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", url, err, want)
	}
}

// TestSentinelIsNamed opens a sentinel that is written as a server, and a master that it
// does not know.
func TestSentinelIsNamed(t *testing.T) {
	addr := sentinels(t).Sentinel.Addr
	refuses(t, "redis://"+addr, "redis+sentinel")
	refuses(t, "redis+sentinel://"+addr+"/other", `no master "other"`)
}

// TestTrouble has the server slow, unreachable and back.
func TestTrouble(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	f, err := testkit.NewFaulty(r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := open(t, "redis://"+f.Addr(), nil)
	save := func(name string, limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := s.Save(ctx, store.Entry{Name: name})
		return err
	}
	f.Delay(30 * time.Millisecond)
	if err := save("slow", 10*time.Second); err != nil {
		t.Errorf("slow: %v", err)
	}
	for name, trouble := range map[string]func(){"held": f.Hold, "cut": f.Cut} {
		trouble()
		began := time.Now()
		if err := save(name, 500*time.Millisecond); !errors.Is(err, store.ErrUnavailable) || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
		f.Heal()
		if err := save(name+"/again", 10*time.Second); err != nil {
			t.Errorf("%s and back: %v", name, err)
		}
	}
}

// TestTooFewCopies has a server that wants copies before it takes changes: none is taken,
// whatever its version holds of scripts.
func TestTooFewCopies(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	s, ctx := open(t, "redis://"+r.Addr, nil), t.Context()
	e, err := s.Save(ctx, store.Entry{Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(ctx, "CONFIG", "SET", "min-replicas-to-write", "1"); err != nil {
		t.Fatal(err)
	}
	_, saved := s.Save(ctx, store.Entry{Name: "new"})
	e.Must = true
	_, must := s.Save(ctx, e)
	for what, err := range map[string]error{"save": saved, "what must be": must, "delete": s.Delete(ctx, "k")} {
		if !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "min-replicas-to-write") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Load(ctx, "k"); err != nil {
		t.Errorf("load: %v", err)
	}
}

// TestNewPassword changes the password while a store is open: it goes on with the new one,
// and with the old one where that cannot be read.
func TestNewPassword(t *testing.T) {
	r := started(t, testkit.RedisOptions{})
	set := func(password string) {
		t.Helper()
		for _, c := range [][]any{{"ACL", "SETUSER", "u", "on", "resetpass", ">" + password, "~*", "+@all"}, {"CLIENT", "KILL", "TYPE", "normal"}} {
			if _, err := r.Do(t.Context(), c...); err != nil {
				t.Fatal(err)
			}
		}
	}
	set("first")
	var now atomic.Value
	now.Store("first")
	s := open(t, "redis://"+r.Addr, func(o *Options) {
		o.Address.User, o.Password = "u", "first"
		o.Renew = func(context.Context) (string, error) {
			if now.Load() == "" {
				return "", errDamaged
			}
			return now.Load().(string), nil
		}
	})
	set("second")
	if _, err := s.Save(t.Context(), store.Entry{Name: "early"}); !errors.Is(err, store.ErrRefused) {
		t.Errorf("before it was told of the new one: %v", err)
	}
	now.Store("second")
	saved := func(name string) bool {
		_, err := s.Save(t.Context(), store.Entry{Name: name})
		return err == nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !saved("later") {
		select {
		case <-ctx.Done():
			t.Fatal("it does not go on with the new one")
		case <-time.After(50 * time.Millisecond):
		}
	}
	now.Store("")
	if _, err := r.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(t.Context(), store.Entry{Name: "unread"}); err != nil {
		t.Errorf("it cannot be read: %v", err)
	}
}
