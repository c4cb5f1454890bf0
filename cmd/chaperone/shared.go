package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/cmd/chaperone/revision"
	"chaperone/cmd/chaperone/settings"
	"chaperone/credential"
	"chaperone/proxy/identity"
	"chaperone/store"
	"chaperone/store/bolt"
	"chaperone/store/redis"
	"chaperone/store/replica"
)

// shared is what a replica has in common with others: the store, its view of it, and
// the list of who shares it.
type shared struct {
	kv       store.Feed
	clock    func() time.Time // the same for all replicas
	skew     func() time.Duration
	view     atomic.Pointer[store.View]
	registry *replica.Registry
	contact  *contact
	board    *revision.Board // nil: alone
	id       string
	alone    bool // nobody else can share this store
	draining atomic.Bool

	born     time.Time
	refused  atomic.Int64 // since born: the view was found too old then
	catching sync.Mutex
	caught   time.Time // when it last caught up; guarded by catching
}

// boltFile is the embedded store's file in the state directory.
const boltFile = "chaperone.db"

// openStore opens the store that text names, under the other settings.
func openStore(ctx context.Context, s *settings.Settings, text string, key credential.Key) (store.Feed, error) {
	if path, ok := boltPath(s, text); ok {
		db, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			return nil, err
		}
		return db, nil
	}
	address, err := redis.ParseAddress(text)
	if err != nil {
		return nil, err
	}
	o := redis.Options{Address: address, Key: key.Bytes(), Prefix: s.Redis.Prefix, SentinelUser: s.Redis.SentinelUser}
	if o.Password, err = secretText(ctx, "redis.password", s.Redis.Password); err != nil {
		return nil, err
	}
	if o.Password != "" {
		o.Renew = func(ctx context.Context) (string, error) { return secretText(ctx, "redis.password", s.Redis.Password) }
	}
	if o.SentinelPassword, err = secretText(ctx, "redis.sentinel_password", s.Redis.SentinelPassword); err != nil {
		return nil, err
	}
	if o.TLS, err = redisTLS(s.Redis); err != nil {
		return nil, err
	}
	redis.Silence()
	db, err := redis.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return db, nil
}

// redisTLS is how Redis is known, and how it knows this program.
func redisTLS(r settings.Redis) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(r.Roots) > 0 {
		c.RootCAs = x509.NewCertPool()
	}
	for _, path := range r.Roots {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading redis.roots: %w", err)
		}
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("reading redis.roots: %s holds no PEM certificate", path)
		}
	}
	if r.Cert == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
	if err != nil {
		return nil, fmt.Errorf("loading redis.cert: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// share opens the store, and what is kept of it in memory.
func (r *road) share(ctx context.Context, key credential.Key) error {
	r.shared = &shared{born: time.Now(), clock: time.Now, skew: func() time.Duration { return 0 }}
	sh := r.shared
	var err error
	if sh.id, err = replicaID(r.s); err != nil {
		return err
	}
	if sh.kv, err = openStore(ctx, r.s, r.s.Store, key); err != nil {
		return err
	}
	if err = whole(ctx, sh.kv); err != nil {
		return err
	}
	if db, ok := sh.kv.(*redis.Store); ok {
		sh.clock, sh.skew = db.Now, db.Skew
	} else {
		sh.alone = true
	}
	if r.vault, err = credential.Prepare(ctx, sh.kv, key); err != nil {
		return err
	}
	r.vault.Use(r.outside())
	if sh.alone {
		if err := r.vault.Unlock(ctx); err != nil {
			return err
		}
	}
	o := identity.Options{Store: sh.kv, Vault: r.vault, Followed: true, Replica: sh.id, Prefix: func(service string) string {
		for _, s := range r.catalogue.Load().Services() {
			if credential.Covers(service, s.Name) {
				return s.Handle
			}
		}
		return ""
	}}
	if !sh.alone {
		o.Now, o.Stale, o.CatchUp = sh.clock, r.stale, sh.catchUp
		o.Alive = func(id string) bool { return sh.deaf() || sh.registry.Alive(id) }
		sh.board = revision.NewBoard(sh.kv)
	}
	sh.contact = &contact{logger: r.logger, sh: sh, limit: r.s.StoreStale}
	sh.registry = replica.New(replica.Options{Store: sh.kv, Now: sh.clock, Self: r.self, Told: sh.contact.told})
	if r.directory, err = identity.Open(ctx, o); err != nil {
		return err
	}
	consumers := []store.Consumer{r.vault, r.directory, sh.registry}
	if sh.board != nil {
		consumers = append(consumers, sh.board)
	}
	v, err := store.OpenView(ctx, store.ViewOptions{Feed: sh.kv, Consumers: consumers, Lost: sh.contact.followed, Notice: r.notice})
	if err != nil {
		return err
	}
	sh.view.Store(v)
	return nil
}

// notice tells operators what happens to the view.
func (r *road) notice(what string, err error) {
	if err != nil {
		r.logger.Warn(what, "error", err.Error())
		return
	}
	r.logger.Info(what)
}

// stale returns an error once a view that others change is older than it may be.
func (r *road) stale() error {
	if r.shared.alone {
		return nil
	}
	return r.shared.stale(r.s.StoreStale)
}

// backPause is how long everything is refused after a view that was too old is current
// again: others, who could not write either, write what they revoked meanwhile.
const backPause = 3 * time.Second

// stale returns an error once the view is older than limit, or the store has taken
// nothing for longer: what is revoked elsewhere may be with another by then.
func (sh *shared) stale(limit time.Duration) error {
	v := sh.view.Load()
	if v == nil {
		return store.ErrStale
	}
	if v.Age() > limit || sh.registry.Silent() > limit {
		sh.refused.Store(int64(time.Since(sh.born)))
		return store.ErrStale
	}
	if at := sh.refused.Load(); at != 0 && time.Since(sh.born)-time.Duration(at) < backPause {
		return store.ErrStale
	}
	return nil
}

// The pace at which strangers can have the store asked.
const (
	catchUpTime  = 250 * time.Millisecond
	catchUpPause = 20 * time.Millisecond
)

// catchUp waits until the view has what the store has now. Whoever comes while
// another waits is served by the same question where that was asked after they came.
func (sh *shared) catchUp() {
	came := time.Now()
	sh.catching.Lock()
	defer sh.catching.Unlock()
	v := sh.view.Load()
	if v == nil || sh.caught.After(came) || v.Lost() != nil {
		return
	}
	if early := catchUpPause - time.Since(sh.caught); early > 0 {
		<-time.After(early)
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), catchUpTime)
	defer cancel()
	if m, err := sh.kv.Mark(ctx); err == nil && v.Reach(ctx, m.Seq) == nil {
		sh.caught = asked
	}
}

// join makes this replica known to the others.
func (r *road) join(ctx context.Context) error {
	if r.shared.alone {
		return nil
	}
	return r.shared.registry.Start(ctx)
}

// part takes this replica off the list and closes what it shared.
func (r *road) part() error {
	sh := r.shared
	if sh == nil || sh.kv == nil {
		return nil
	}
	if sh.registry != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		sh.contact.close()
		sh.registry.Close(ctx) // where the store is away, the entry expires by itself
	}
	if v := sh.view.Load(); v != nil {
		v.Close()
	}
	return sh.kv.Close()
}

// confirm asks the replicas whether they know what was changed.
func (r *road) confirm(ctx context.Context) ([]replica.Ack, error) {
	if r.shared.alone {
		host, _ := os.Hostname() // it is shown only
		return []replica.Ack{{ID: r.shared.id, Host: host, Done: true}}, nil
	}
	return r.shared.registry.Confirm(ctx)
}

// self is what this replica tells of itself.
func (r *road) self() replica.Status {
	host, _ := os.Hostname() // it is shown only
	s := replica.Status{
		ID: r.shared.id, Host: host, PID: os.Getpid(), Listen: r.address, Log: r.door, Version: version(), Policy: r.gate.Revision(),
		Config: configDigest(r.s), Parts: configParts(r.s), Started: r.started.UTC(), Skew: r.shared.skew(), Draining: r.shared.draining.Load(),
	}
	if r.ca != nil {
		s.CA = digest(r.ca.PEM())
	}
	if r.directory != nil {
		s.Sessions = r.directory.Open()
	}
	if v := r.shared.view.Load(); v != nil {
		s.Applied, s.Age, s.Reloads = v.Mark().Seq, r.shared.age(), v.Reloads()
		r.shared.contact.show(&s)
		s.Stale = r.stale() != nil
	}
	return s
}

// version is that of the program: its module's, or the revision that it was built of.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return "devel"
}

// common is a setting that should be the same for all replicas.
type common struct {
	key   string
	value any
}

func commonSettings(s *settings.Settings) []common {
	all := []common{{"unknown_hosts", s.UnknownHosts}, {"services", s.Services}, {"upstream.allow_private", s.Upstream.AllowPrivate}, {"upstream.resolve", s.Upstream.Resolve},
		{"upstream.proxy", s.Upstream.Proxy}, {"store_stale", s.StoreStale}, {"tls", s.TLS.Cert != ""}}
	if s.Advertise != "" { // older versions have the same digest as long as it is not set
		all = append(all, common{"advertise", s.Advertise})
	}
	return all
}

// configDigest is of the settings that should be the same for all replicas.
func configDigest(s *settings.Settings) string {
	var values []any
	for _, c := range commonSettings(s) {
		values = append(values, c.value)
	}
	return digestOf(values)
}

// configParts are digests of the same settings, each by itself.
func configParts(s *settings.Settings) map[string]string {
	parts := map[string]string{}
	for _, c := range commonSettings(s) {
		parts[c.key] = digestOf(c.value)
	}
	return parts
}

func digestOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "unknown"
	}
	return digest(b)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%x", sum[:6])
}

// replicaID is this replica's name among others: made once, kept in the state directory.
func replicaID(s *settings.Settings) (string, error) {
	path := filepath.Join(s.State, "replica")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(credential.NewID("r_", 8))
		err = writeOnce(path, b)
	}
	if err != nil {
		return "", fmt.Errorf("keeping the replica's id: %w", err)
	}
	return string(b), nil
}

// boltPath is the file that text names, if it is one of the embedded store: bolt, or
// bolt:PATH where one is given to a verb.
func boltPath(s *settings.Settings, text string) (string, bool) {
	if text == "bolt" {
		return filepath.Join(s.State, boltFile), true
	}
	return strings.CutPrefix(text, "bolt:")
}
