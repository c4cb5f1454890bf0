// Package redis keeps a [store.Store] on a Redis server, a Sentinel group or a
// cluster, for many processes.
package redis

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chaperone/store"
)

// Options of a [Store]. Address and Key must be set.
type Options struct {
	Address Address
	// Key seals what is kept; at least [MinKey] bytes, the same for all replicas.
	Key []byte
	// Prefix begins the names of all keys; "chaperone" when empty. Everything lies in
	// the slot of its hash tag.
	Prefix   string
	Password string
	// Renew reads the password again, before a connection logs in; nil: it stays as it is.
	// Where it fails, the one that was known last is tried.
	Renew            func(context.Context) (string, error)
	SentinelUser     string
	SentinelPassword string
	TLS              *tls.Config // roots and certificate, where the address says TLS; nil: the system's roots
	// Now tells the time by which entries expire; the server's when nil.
	Now func() time.Time
	// Local is this machine's clock; time.Now when nil. It may be wrong: it is corrected
	// by the server's.
	Local func() time.Time
	// History is how many changes are remembered, roughly; 65,536 when zero.
	History int64
	// MinVersion of the server; 6.2 when empty, which has all that is used.
	MinVersion string
}

// Store is a [store.Feed] on Redis. A change is with the server when its caller hears
// of it; whether it outlives the server is the server's configuration.
type Store struct {
	o      Options
	db     redis.UniversalClient
	seal   *seal
	lax    bool         // the server lets scripts write where it lets nobody else
	offset atomic.Int64 // the server's clock less ours, in nanoseconds
	sent   atomic.Int64 // commands
}

var _ store.Feed = (*Store)(nil)

// Time-outs of one command. A server that takes longer does not answer.
const (
	dialTimeout    = 2 * time.Second
	commandTimeout = 3 * time.Second
)

var prefixForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:_.-]{0,63}$`)

// CheckPrefix returns an error unless keys may begin with p.
func CheckPrefix(p string) error {
	if !prefixForm.MatchString(p) {
		return fmt.Errorf("%q cannot begin names of keys (letters, digits, : _ . - and at most 64 of them)", p)
	}
	return nil
}

// Open connects and looks whether the server can be used: its version, that it takes
// writes and drops nothing by itself, and that the store was begun with this key.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Prefix == "" {
		o.Prefix = "chaperone"
	}
	if o.Local == nil {
		o.Local = time.Now
	}
	if o.History == 0 {
		o.History = 1 << 16
	}
	if o.MinVersion == "" {
		o.MinVersion = "6.2"
	}
	s := &Store{o: o}
	err := CheckPrefix(o.Prefix)
	if err == nil {
		s.seal, err = newSeal(o.Key)
	}
	if err == nil {
		s.db = connect(o)
		s.db.AddHook(counter{&s.sent})
		err = s.examine(ctx)
	}
	if err == nil {
		return s, nil
	}
	if s.db != nil {
		s.db.Close()
	}
	return nil, fmt.Errorf("opening %s: %w", o.Address, err)
}

func connect(o Options) redis.UniversalClient {
	u := &redis.UniversalOptions{
		Addrs: o.Address.Hosts, Username: o.Address.User, Password: o.Password, DB: o.Address.DB, MasterName: o.Address.Master,
		SentinelUsername: o.SentinelUser, SentinelPassword: o.SentinelPassword,
		DialTimeout: dialTimeout, ReadTimeout: commandTimeout, WriteTimeout: commandTimeout, PoolTimeout: commandTimeout,
		MaxRetries: 2, DialerRetries: 2, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if o.Renew != nil {
		u.CredentialsProviderContext = (&renewed{o: o, known: o.Password}).credentials
	}
	if o.Address.TLS {
		u.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if o.TLS != nil {
			u.TLSConfig = o.TLS.Clone()
		}
	}
	switch {
	case o.Address.Cluster:
		return watchful(redis.NewClusterClient(u.Cluster()))
	case o.Address.Sentinel:
		return redis.NewFailoverClient(u.Failover())
	}
	return redis.NewClient(u.Simple())
}

// renewed is a password that may change while the store is open.
type renewed struct {
	o     Options
	mu    sync.Mutex
	known string
	read  time.Time
}

// renewPause is how long a password that was read is not read again: where it is wrong,
// many connections want it.
const renewPause = time.Second

func (r *renewed) credentials(ctx context.Context) (user, password string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.read) > renewPause {
		r.read = now
		if p, err := r.o.Renew(ctx); err == nil {
			r.known = p
		}
	}
	return r.o.Address.User, r.known, nil
}

// key returns the full name of one of the store's keys.
func (s *Store) key(name string) string { return "{" + s.o.Prefix + "}:" + name }

// examine refuses a server that would not keep what it is given.
func (s *Store) examine(ctx context.Context) error {
	if err := s.meet(ctx); err != nil {
		return err
	}
	info, err := s.info(ctx, "server")
	if err != nil {
		return err
	}
	if !atLeast(info["redis_version"], s.o.MinVersion) {
		return fmt.Errorf("%w: it is version %s, and %s is the least that will do", store.ErrRefused, info["redis_version"], s.o.MinVersion)
	}
	s.lax = !atLeast(info["redis_version"], "7.0")
	if info, err = s.info(ctx, "replication"); err != nil {
		return err
	}
	if role := info["role"]; role != "master" {
		return fmt.Errorf("%w: it is a read-only copy (role %s); name its master, or use redis+sentinel", store.ErrRefused, role)
	}
	if info, err = s.info(ctx, "memory"); err != nil {
		return err
	}
	if policy := info["maxmemory_policy"]; info["maxmemory"] != "0" && policy != "noeviction" {
		return fmt.Errorf("%w: it drops entries when its memory is full (maxmemory-policy %s); set noeviction", store.ErrRefused, policy)
	}
	return s.sameKey(ctx)
}

// meet asks the server anything, and says why it does not answer.
func (s *Store) meet(ctx context.Context) error {
	a := s.o.Address
	if a.User != "" && s.o.Password == "" { // the client would go as the server's default user, who may do more
		return fmt.Errorf("%w: user %s has no password; name where it is with redis.password", store.ErrRefused, a.User)
	}
	if s.o.SentinelUser != "" && s.o.SentinelPassword == "" {
		return fmt.Errorf("%w: user %s of the sentinels has no password; name where it is with redis.sentinel_password", store.ErrRefused, s.o.SentinelUser)
	}
	err := s.db.Ping(ctx).Err()
	if err == nil {
		err = infoScript.Run(ctx, s.db, []string{s.key("head")}, "server").Err()
	}
	return a.meant(err)
}

// sameKey notes the key with the first opening, and compares it with later ones.
func (s *Store) sameKey(ctx context.Context) error {
	check, err := s.db.HGet(ctx, s.key("head"), "key").Result()
	if errors.Is(err, redis.Nil) { // not else: a full server would refuse it
		if err := s.db.HSetNX(ctx, s.key("head"), "key", s.seal.check).Err(); err != nil {
			return told(err)
		}
		check, err = s.db.HGet(ctx, s.key("head"), "key").Result()
	}
	if err != nil {
		return told(err)
	}
	if check != s.seal.check {
		return store.ErrKey
	}
	_, err = s.Mark(ctx) // sets the clock
	return err
}

// info asks the server that has the entries.
func (s *Store) info(ctx context.Context, section string) (map[string]string, error) {
	text, err := infoScript.Run(ctx, s.db, []string{s.key("head")}, section).Text()
	if err != nil {
		return nil, told(err)
	}
	out := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[k] = v
		}
	}
	return out, nil
}

// atLeast compares versions by their first two numbers.
func atLeast(version, least string) bool {
	v, l := numbers(version), numbers(least)
	return v[0] > l[0] || v[0] == l[0] && v[1] >= l[1]
}

func numbers(version string) (n [2]int) {
	for i, part := range strings.SplitN(version, ".", 3) {
		if i < len(n) {
			n[i], _ = strconv.Atoi(part)
		}
	}
	return n
}

// Now is the time by which entries expire: the server's, which is the same for all
// who use it. It does not ask the server.
func (s *Store) Now() time.Time {
	if s.o.Now != nil {
		return s.o.Now()
	}
	return s.o.Local().Add(time.Duration(s.offset.Load()))
}

// Skew is how far the server's clock is ahead of this machine's.
func (s *Store) Skew() time.Duration { return time.Duration(s.offset.Load()) }

// clock is what scripts are told of the time: nothing where they ask the server.
func (s *Store) clock() string {
	if s.o.Now == nil {
		return ""
	}
	return digits(s.o.Now())
}

// Close implements [store.Store].
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return told(err)
	}
	return nil
}

// newTag marks a change.
func newTag() string { return rand.Text()[:13] }

// Silence keeps the client library from writing to standard error of its own accord:
// all that it would say is in the errors of this package. A program calls it once,
// before the first Open.
func Silence() { redis.SetLogger(silent{}) }

type silent struct{}

// Printf implements the library's logger.
func (silent) Printf(context.Context, string, ...any) {}
