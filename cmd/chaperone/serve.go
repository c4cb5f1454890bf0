package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy/action"
)

func (a *app) serveVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: `Run the proxy until SIGINT or SIGTERM, which let exchanges end first (drain: in the
configuration). On first start it makes the state directory, the installation key
and the CA. SIGHUP, and a change in the policy folder, load policy and catalogue
again; when they have a fault the last good ones stay in force.`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			return a.serve(c.Context(), s)
		},
	}
}

// reserve is a part of the heap in which nothing is, in bytes, and which takes no memory
// as nobody touches it. What lives in the heap is some megabytes, as much as a thousand
// requests leave behind, so that Go would collect it every second; with the reserve it
// waits for three times as many. Where GOGC or GOMEMLIMIT is set, the operator has said
// what is wanted.
const reserve = 16 << 20

// serve runs the proxy until ctx is done.
func (a *app) serve(ctx context.Context, s *settings.Settings) error {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		defer runtime.KeepAlive(make([]byte, reserve))
	}
	logger := slog.New(slog.NewTextHandler(a.stderr, nil))
	r, err := assemble(ctx, s, logger)
	if err != nil {
		return err
	}
	defer r.close()
	up, err := r.start(ctx)
	if err != nil {
		return err
	}
	a.greet(r)
	logger.Info("serving", "listen", r.address, "policy", r.gate.Revision(), "services", len(r.catalogue.Load().Services()), "state", s.State)
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-up.failed:
	}
	return errors.Join(failed, up.stop())
}

// greet prints what somebody needs next.
func (a *app) greet(r *road) {
	flag := ""
	if a.config != defaultConfig {
		flag = " --config " + a.config
	}
	at := r.listenURL()
	fmt.Fprintf(a.stdout, "chaperone listens on %s\n", &at)
	fmt.Fprintf(a.stdout, "clients trust it by %s; `chaperone run` sets that up for a command\n", filepath.Join(trustDir(r.s), caFile))
	fmt.Fprintf(a.stdout, "next: chaperone%s agent add NAME --owner YOU@EXAMPLE.COM && chaperone%s run --agent NAME -- CMD\n", flag, flag)
}

// running is a road that listens.
type running struct {
	r       *road
	admin   *admin.Server
	metrics *http.Server
	door    *door // nil: there is none
	cancel  context.CancelFunc
	watched chan struct{}
	failed  chan error
}

// start opens all listeners, and serves on them only when all are open.
func (r *road) start(ctx context.Context) (*running, error) {
	var open []net.Listener
	give := func(ln net.Listener, err error) (net.Listener, error) {
		if err != nil {
			for _, o := range open {
				o.Close()
			}
			return nil, err
		}
		open = append(open, ln)
		return ln, nil
	}
	socket, err := give(admin.Listen(r.s.Admin))
	if err != nil {
		return nil, err
	}
	agents, err := give(r.listen())
	if err != nil {
		return nil, err
	}
	door, err := r.openDoor(give)
	if err != nil {
		return nil, err
	}
	if err := r.join(ctx); err != nil {
		give(nil, err)
		return nil, err
	}
	up := &running{r: r, door: door, failed: make(chan error, 4), watched: make(chan struct{})}
	if r.s.Metrics != "" {
		ln, err := give(net.Listen("tcp", r.s.Metrics))
		if err != nil {
			return nil, fmt.Errorf("listening for metrics: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", r.metrics.Handler())
		r.health(mux)
		up.metrics = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go up.serve(func() error { return up.metrics.Serve(ln) })
	}
	up.admin = admin.New(admin.Options{
		App: r.app, Usable: r.usable,
		Directory: r.directory, Vault: r.vault, Catalogue: func() *action.Catalogue { return r.catalogue.Load() },
		Metrics: r.metrics.Handler(), Unready: r.unready, Logger: r.logger, Status: r.status, Reload: r.reload, Stages: admin.Stages{Promote: r.promote, Rollback: r.rollback}, Flush: r.log.Flush, Sign: r.sign, ProxyURL: r.proxyURL,
		Replicas: r.shared.registry.List, Confirm: r.confirm, AskLog: r.askLog,
	})
	go up.serve(func() error { return up.admin.Serve(socket) })
	go up.serve(func() error { return r.server.Serve(agents) })
	if door != nil {
		go up.serve(door.serve)
	}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	up.cancel = cancel
	go up.watch(watch)
	r.ready.Store(true)
	return up, nil
}

func (u *running) serve(f func() error) {
	if err := f(); !errors.Is(err, http.ErrServerClosed) {
		u.failed <- fmt.Errorf("serving: %w", err)
	}
}

// stop has a balancer notice that this replica goes, drains exchanges for as long as the
// settings say, then cuts them.
func (u *running) stop() error {
	u.r.ready.Store(false)
	u.r.shared.draining.Store(true)
	if notice := u.r.s.DrainNotice; notice > 0 {
		u.r.server.Leave()
		u.r.logger.Info("stopping; /readyz says so, and new connections are still taken, for one exchange each", "drain_notice", notice)
		select {
		case <-time.After(notice):
		case err := <-u.failed:
			u.r.logger.Warn("a listener ended", "error", err.Error())
		}
	}
	u.r.logger.Info("stopping", "exchanges", u.r.server.Going(), "drain", u.r.s.Drain)
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), u.r.s.Drain)
	defer cancel()
	if cut := u.r.server.Shutdown(ctx); cut > 0 {
		u.r.logger.Warn("exchanges were cut that went on for longer", "exchanges", cut, "drain", u.r.s.Drain)
	} else {
		u.r.logger.Info("all exchanges have ended", "after", time.Since(began).Round(time.Millisecond))
	}
	u.cancel()
	<-u.watched
	err := u.admin.Close()
	if u.door != nil {
		err = errors.Join(err, u.door.Close())
	}
	if u.metrics != nil {
		err = errors.Join(err, u.metrics.Close())
	}
	return err
}

// settleTime is how long the policy folder must be quiet before it is read again:
// editors and checkouts write in several steps.
const settleTime = 200 * time.Millisecond

// Between two reloads passes at least a second, and at least so many times what the
// last one took: changes that come faster are taken in together.
const (
	leastBetween = time.Second
	restFactor   = 10
)

// adoptAgain is when a policy that was put in force for all replicas, and could not be
// taken over, is tried again.
const adoptAgain = 5 * time.Second

// watch reloads at SIGHUP and when the policy folder changed, until ctx is done.
func (u *running) watch(ctx context.Context) {
	defer close(u.watched)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	events, errs, end := u.watchFolder()
	defer end()
	quiet, standing := time.NewTimer(0), time.NewTimer(0)
	<-quiet.C
	<-standing.C
	var next time.Time // not before
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			quiet.Reset(max(0, time.Until(next)))
		case e := <-events:
			if policyFile(e.Name) {
				quiet.Reset(max(settleTime, time.Until(next)))
			}
		case err := <-errs:
			u.r.logger.Warn("watching policy folder", "error", err.Error())
		case <-u.r.shared.board.Changed():
			standing.Reset(0)
		case <-standing.C:
			if u.r.adopt(ctx) != nil {
				standing.Reset(adoptAgain)
			}
		case <-quiet.C:
			began := time.Now()
			u.r.reload(ctx) // logs, counts and keeps its error itself
			next = time.Now().Add(max(leastBetween, restFactor*time.Since(began)))
		}
	}
}

// watchFolder watches the policy folder and those in it. Where that cannot be done,
// SIGHUP still works.
func (u *running) watchFolder() (<-chan fsnotify.Event, <-chan error, func()) {
	root := u.r.s.Policy.Path
	if root == "" || settings.Remote(root) {
		return nil, nil, func() {}
	}
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		root = filepath.Dir(root) // of a bundle
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		u.r.logger.Warn("policy folder is not watched; use SIGHUP", "error", err.Error())
		return nil, nil, func() {}
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return w.Add(path)
	})
	if err != nil {
		u.r.logger.Warn("policy folder is not watched wholly; use SIGHUP", "error", err.Error())
	}
	return w.Events, w.Errors, func() { w.Close() }
}

// policyFile reports whether a policy may be made of a file of that name; editors
// leave others in the folder for a moment.
func policyFile(name string) bool {
	switch filepath.Ext(name) {
	case ".rego", ".yaml", ".yml", ".json", ".gz":
		return !strings.HasPrefix(filepath.Base(name), ".")
	}
	return filepath.Ext(name) == "" // a folder
}
