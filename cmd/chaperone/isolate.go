package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/loopback"
	"chaperone/cmd/chaperone/problem"
)

// insideVerb is the hidden verb that run --isolate starts in the new namespaces.
const insideVerb = "inside"

// doorTime bounds how long a door dials, in the parent.
const doorTime = 10 * time.Second

// errIsolate is wrapped when the kernel makes no namespaces for this user.
var errIsolate = errors.New("isolating the command")

// isolateHint says what to do about errIsolate.
const isolateHint = "the kernel has to let this user make user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, " +
	"kernel.apparmor_restrict_unprivileged_userns), and a container has to show its /proc unmasked; docs/egress.md has other ways"

// relay passes connections of a Unix socket on to an address that the namespace
// cannot reach by itself.
type relay struct {
	ln   net.Listener
	dial func(context.Context) (net.Conn, error)

	ctx  context.Context // done when the relay is closed
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// openRelay listens at path.
func openRelay(path string, dial func(context.Context) (net.Conn, error)) (*relay, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening relay: %w", err)
	}
	r := &relay{ln: ln, dial: dial}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.wg.Go(func() { serveRelay(r.ctx, &r.wg, ln, dial) })
	return r, nil
}

// Close cuts every connection and waits for them.
func (r *relay) Close() error {
	err := r.ln.Close()
	r.stop()
	r.wg.Wait()
	return err
}

// serveRelay passes connections on until the listener is closed.
func serveRelay(ctx context.Context, wg *sync.WaitGroup, ln net.Listener, dial func(context.Context) (net.Conn, error)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			to, err := dial(ctx)
			if err != nil {
				return
			}
			defer to.Close()
			defer context.AfterFunc(ctx, func() { to.Close() })()
			loopback.Splice(c, to)
		})
	}
}

// isolation is what a command in namespaces of its own is reached by: two sockets in
// the trust folder, and the addresses inside that lead to them.
type isolation struct {
	relays []*relay
	doors  []string // ADDRESS=SOCKET, for the verb inside
}

// Close ends the relays.
func (i *isolation) Close() error {
	var errs error
	for _, r := range i.relays {
		errs = errors.Join(errs, r.Close())
	}
	return errs
}

// command is the verb inside with its doors and the command, in new namespaces.
func (i *isolation) command(command []string) *exec.Cmd {
	args := []string{insideVerb}
	for _, d := range i.doors {
		args = append(args, "--door", d)
	}
	cmd := exec.Command("/proc/self/exe", append(append(args, "--"), command...)...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = dieTogether()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	apart(cmd.SysProcAttr)
	return cmd
}

// isolate opens the ways from the inside to proxy and local listener, and has s name
// the addresses inside. A proxy under TLS is spoken to here, so that inside no name
// has to be looked up.
func isolate(s *surroundings) (*isolation, error) {
	u, err := url.Parse(s.proxy)
	if err != nil {
		return nil, errors.New("isolating: the proxy's URL is none") // the parser's words would repeat the token
	}
	dial, err := dialer(u, s.file(bundleFile))
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "8080"
	}
	u.Scheme, u.Host = "http", net.JoinHostPort("127.0.0.1", port)
	var d net.Dialer
	local := s.local
	ways := []struct {
		name, inside string
		dial         func(context.Context) (net.Conn, error)
	}{
		{"proxy.sock", u.Host, dial},
		{"local.sock", local, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", local) }},
	}
	out := new(isolation)
	for _, w := range ways {
		r, err := openRelay(filepath.Join(s.trust, w.name), w.dial)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		out.relays, out.doors = append(out.relays, r), append(out.doors, w.inside+"="+filepath.Join(s.trust, w.name))
	}
	s.proxy = u.String()
	return out, nil
}

// dialer opens connections to a proxy, by TLS where its URL says so.
func dialer(u *url.URL, bundle string) (func(context.Context) (net.Conn, error), error) {
	d := &net.Dialer{Timeout: doorTime}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	if u.Scheme != "https" {
		return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }, nil
	}
	b, err := os.ReadFile(bundle)
	if err != nil {
		return nil, fmt.Errorf("reading trust files: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b)
	t := &tls.Dialer{NetDialer: d, Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: u.Hostname()}}
	return func(ctx context.Context) (net.Conn, error) { return t.DialContext(ctx, "tcp", address) }, nil
}

// inside is the verb that run --isolate starts: it is the first process of the new
// namespaces, opens the doors and runs the command.
func (a *app) inside() *cobra.Command {
	var doors []string
	c := &cobra.Command{
		Use: insideVerb, Short: "Run a command behind the doors of run --isolate", Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return problem.Misuse("this verb is for chaperone run --isolate", "see `chaperone run --help`")
			}
			if err := settle(); err != nil {
				return problem.Failure(fmt.Errorf("%w: %w", errIsolate, err), isolateHint)
			}
			var wg sync.WaitGroup
			ctx, stop := context.WithCancel(context.Background())
			defer wg.Wait()
			defer stop()
			for _, door := range doors {
				address, socket, _ := strings.Cut(door, "=")
				ln, err := net.Listen("tcp", address)
				if err != nil {
					return fmt.Errorf("opening door: %w", err)
				}
				defer ln.Close()
				var d net.Dialer
				wg.Go(func() {
					serveRelay(ctx, &wg, ln, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) })
				})
			}
			return a.runInside(args)
		},
	}
	c.Flags().StringArrayVar(&doors, "door", nil, "`ADDRESS=SOCKET` to listen at and to lead to")
	c.Flags().SetInterspersed(false)
	return c
}
