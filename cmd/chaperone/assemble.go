package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/audit"
	"chaperone/audit/keep"
	"chaperone/audit/ship"
	"chaperone/certs"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/peers"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/credential"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/policy/opa/remote"
	"chaperone/proxy"
	"chaperone/proxy/identity"
	"chaperone/proxy/limit"
	"chaperone/proxy/upstream"
)

// road is the whole proxy, built and not yet listening.
type road struct {
	s      *settings.Settings
	logger *slog.Logger

	shared    *shared
	limits    *limit.Counter
	vault     *credential.Vault
	directory *identity.Directory
	ca        *certs.Authority
	log       *audit.Log
	keeper    *keep.Keeper
	sinks     []*ship.Sink
	mask      atomic.Pointer[opa.Mask] // nil: nothing is masked
	gate      *policy.Gate
	upstream  *upstream.Client
	metrics   *proxy.Metrics
	server    *proxy.Server

	catalogue atomic.Pointer[action.Catalogue]
	ready     atomic.Bool
	started   time.Time
	listening atomic.Pointer[[]netip.AddrPort]
	address   string
	identity  peers.Identity // by which replicas know each other
	door      string         // where other replicas read this one's log; empty: nowhere

	counting   atomic.Pointer[opa.Engine] // the one in the gate, for the metrics
	background background

	reloading sync.Mutex
	engine    *opa.Engine            // in the gate; changed while reloading is held
	shadowed  *opa.Engine            // beside it, or nil
	bundles   *remote.Follower       // where policy.path is a URL
	reloaded  atomic.Pointer[string] // the error of the last reload
}

// assemble opens everything that the road needs, and nothing that listens. Where
// something fails, all that was opened is closed again.
func assemble(ctx context.Context, s *settings.Settings, logger *slog.Logger) (_ *road, err error) {
	r := &road{s: s, logger: logger, gate: &policy.Gate{Obligations: policy.All()}, metrics: proxy.NewMetrics(), started: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.firstPolicy(ctx); err != nil {
		return nil, err
	}
	catalogue, err := loadCatalogue(s)
	if err != nil {
		return nil, err
	}
	r.catalogue.Store(catalogue)
	if err := r.openUpstream(); err != nil {
		return nil, err
	}
	if err := r.openState(ctx); err != nil {
		return nil, err
	}
	listener, err := r.listenerTLS()
	if err != nil {
		return nil, err
	}
	r.server, err = proxy.New(proxy.Options{
		Directory: r.directory, Catalogue: catalogue, Gate: r.gate, Log: r.log, Vault: r.vault, Upstream: r.upstream, CA: r.ca,
		Metrics: r.metrics, Logger: logger, Limits: r.limits, Now: r.shared.clock, TunnelUnknown: s.UnknownHosts == settings.TunnelUnknown, Trace: traced(s), TLS: listener,
		Relayed: s.Advertise != "",
	})
	if err != nil {
		return nil, fmt.Errorf("building proxy: %w", err)
	}
	r.mintAhead(catalogue)
	if err := r.adopt(ctx); err != nil {
		return nil, err
	}
	if err := r.noteStart(); err != nil {
		return nil, err
	}
	r.figures()
	return r, nil
}

// close closes what was opened, in the opposite order.
func (r *road) close() error {
	var errs error
	if r.vault != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lastWords)
		defer cancel()
		errs = r.vault.Close(ctx)
	}
	if r.upstream != nil {
		r.upstream.Close()
	}
	if r.directory != nil {
		r.directory.Close()
	}
	if r.bundles != nil {
		r.bundles.Close()
	}
	for _, e := range []*opa.Engine{r.engine, r.shadowed} {
		if e != nil {
			e.Close()
		}
	}
	if r.log != nil {
		errs = errors.Join(errs, r.log.Close())
	}
	if r.keeper != nil {
		r.keeper.Close()
	}
	errs = errors.Join(errs, r.closeSinks())
	if r.limits != nil {
		r.limits.Close()
	}
	return errors.Join(errs, r.part())
}

// openState opens what lies in the state directory, which it makes.
func (r *road) openState(ctx context.Context) error {
	for _, dir := range []string{r.s.State, filepath.Dir(r.s.Log.Path), filepath.Dir(r.s.Admin)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making state directory: %w", err)
		}
	}
	key, err := installationKey(ctx, r.s)
	if err != nil {
		return err
	}
	if r.identity, err = peers.NewIdentity(key.Bytes()); err != nil {
		return err
	}
	if err := r.share(ctx, key); err != nil {
		return err
	}
	r.limits = limit.New(r.shared.kv, r.shared.clock)
	if r.ca, err = r.openCA(ctx, key); err != nil {
		return fmt.Errorf("opening certificate authority: %w", err)
	}
	if err := writeTrust(r.ca, trustDir(r.s)); err != nil {
		return fmt.Errorf("writing trust files: %w", err)
	}
	l := r.s.Log
	r.log, err = audit.Open(audit.Options{
		Leaves: true,
		Path:   l.Path, Sync: l.Sync, MaxSize: l.MaxSize, MaxAge: l.MaxAge, Keep: l.Keep, Replica: r.shared.id, Ahead: r.shared.skew,
		Notice: func(message string) { r.logger.Warn("decision log", "notice", message) },
	})
	if err != nil {
		return fmt.Errorf("opening decision log: %w", err)
	}
	if err := r.keepLog(); err != nil {
		return err
	}
	return r.openSinks(ctx)
}

func (r *road) openUpstream() error {
	u := r.s.Upstream
	o := upstream.Options{AllowPrivate: u.AllowPrivate, Resolve: u.Resolve, HeaderTimeout: u.HeaderTimeout, Forbidden: func() []netip.AddrPort {
		if own := r.listening.Load(); own != nil {
			return *own
		}
		return nil
	}}
	if len(u.Roots) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return fmt.Errorf("reading the system's roots: %w", err)
		}
		for _, path := range u.Roots {
			b, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("reading upstream.roots: %w", err)
			}
			if !pool.AppendCertsFromPEM(b) {
				return fmt.Errorf("reading upstream.roots: %s holds no PEM certificate", path)
			}
		}
		o.Roots = pool
	}
	if u.Proxy != "" {
		p, err := url.Parse(u.Proxy)
		if err != nil {
			return fmt.Errorf("reading upstream.proxy: %w", err)
		}
		o.Proxy = p
	}
	client, err := upstream.New(o)
	if err != nil {
		return fmt.Errorf("reading upstream: %w", err)
	}
	r.upstream = client
	return nil
}

func (r *road) listenerTLS() (*tls.Config, error) {
	if r.s.TLS.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(r.s.TLS.Cert, r.s.TLS.Key)
	if err != nil {
		return nil, fmt.Errorf("loading the listener's certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}

// listen opens the proxy's port.
func (r *road) listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", r.s.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for agents: %w", err)
	}
	own := ln.Addr().(*net.TCPAddr).AddrPort()
	if r.s.TLS.Cert == "" && !own.Addr().Unmap().IsLoopback() {
		r.logger.Warn("agents send their session tokens in clear to an address that others can reach; set tls: in the configuration", "listen", own.String())
	}
	forbidden := []netip.AddrPort{own}
	if m, err := netip.ParseAddrPort(r.s.Metrics); err == nil {
		forbidden = append(forbidden, m)
	}
	r.listening.Store(&forbidden)
	r.address = reachable(own)
	return ln, nil
}

// reachable is an address under which this machine reaches a listener: loopback for
// one that listens everywhere.
func reachable(a netip.AddrPort) string {
	if !a.Addr().Unmap().IsUnspecified() {
		return a.String()
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port()).String()
}

// proxyURL is the address that agents put into HTTPS_PROXY: the balancer's before
// several replicas, else the listener's.
func (r *road) proxyURL(agent, token string) string {
	u := r.listenURL()
	if out, err := url.Parse(r.s.Advertise); err == nil && out.Host != "" {
		u = url.URL{Scheme: out.Scheme, Host: out.Host}
	}
	u.User = url.UserPassword(agent, token)
	return u.String()
}

// listenURL is where the listener is.
func (r *road) listenURL() url.URL {
	if r.s.TLS.Cert != "" {
		return url.URL{Scheme: "https", Host: r.address}
	}
	return url.URL{Scheme: "http", Host: r.address}
}

// reload builds policy and catalogue anew, behind what requests need. Both are swapped
// in or neither is.
func (r *road) reload(ctx context.Context) (err error) {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	r.background.run(func() { err = r.rebuild(ctx) })
	return err
}

func (r *road) rebuild(ctx context.Context) error {
	catalogue, err := r.freshCatalogue()
	if err == nil {
		err = proxy.CheckCatalogue(catalogue)
	}
	r.metrics.Reloaded("catalogue", err)
	engine, perr := r.freshPolicy()
	perr = errors.Join(perr, r.freshMask(ctx), r.shadow())
	r.metrics.Reloaded("policy", perr)
	if err = errors.Join(err, perr); err != nil {
		r.reloaded.Store(new(err.Error()))
		r.logger.Error("reload failed; the last good policy and catalogue stay in force", "error", err.Error())
		r.alarm("reload_failed", "a reload failed; the last good policy and catalogue stay in force")
		return err
	}
	r.usePolicy(engine)
	r.noted("reload")
	r.catalogue.Store(catalogue)
	r.server.UseCatalogue(catalogue)
	r.mintAhead(catalogue)
	r.reloaded.Store(nil)
	r.logger.Info("reloaded", "policy", engine.Revision(), "services", len(catalogue.Services()))
	return nil
}

// mintAhead makes certificates for the hosts of the catalogue that are names, so that
// no agent's first tunnel waits for one. It is no error if one cannot be made: the
// tunnel will tell.
func (r *road) mintAhead(c *action.Catalogue) {
	for _, s := range c.Services() {
		for _, host := range slices.Concat(s.Hosts, s.GitHosts) {
			if !strings.Contains(host, "*") {
				r.ca.Leaf(host)
			}
		}
	}
}

// freshCatalogue reads the services of the configuration again; what else changed
// in it takes effect at the next start.
func (r *road) freshCatalogue() (*action.Catalogue, error) {
	s := r.s
	if s.File != "" {
		var err error
		if s, err = settings.Load(s.File); err != nil {
			return nil, err
		}
	}
	return loadCatalogue(s)
}

// status is what the admin socket tells.
func (r *road) status() admin.Status {
	s := admin.Status{
		Ready: r.ready.Load(), Listen: r.address, Started: r.started.UTC().Truncate(time.Second), Policy: r.gate.Revision(),
		Services: len(r.catalogue.Load().Services()), Trust: trustDir(r.s), Troubles: r.vault.Troubles(),
	}
	if e := r.reloaded.Load(); e != nil {
		s.Reload = *e
	}
	if err := r.log.Failed(); err != nil {
		s.Log = err.Error()
	}
	return s
}

// loadCatalogue lays the configuration's catalogue files over what is shipped, and
// its services over both.
func loadCatalogue(s *settings.Settings) (*action.Catalogue, error) {
	var own []action.Service
	for _, file := range s.Catalogues {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, problem.Failure(fmt.Errorf("reading catalogue: %w", err), "mend catalogues: in config.yaml")
		}
		one, err := action.Parse(file, b)
		if err != nil {
			return nil, problem.Failure(fmt.Errorf("reading catalogue: %w", err), "mend the file; it is reported whole")
		}
		own = append(own, *one)
	}
	c, err := action.Load(action.Shipped(), append(own, s.Services...))
	if err != nil {
		return nil, problem.Failure(fmt.Errorf("loading catalogue: %w", err), "mend services: and catalogues: in config.yaml")
	}
	return c, nil
}

// secretFiles are the files that nobody else may read.
func secretFiles(s *settings.Settings) []string {
	return slices.DeleteFunc([]string{filepath.Join(s.State, "key"), filepath.Join(s.State, "ca.key"), filepath.Join(s.State, boltFile), logKeyFile(s), s.Log.Path, s.Log.Path + ".ring", s.Key.File, s.CA.Key, s.TLS.Key},
		func(p string) bool { return p == "" })
}
