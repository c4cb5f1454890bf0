package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What --egress tries unless told otherwise: addresses of public resolvers, which
// answer on many ports, and the address at which clouds tell a machine its secrets.
const (
	defaultResolver = "1.1.1.1:53"
	defaultName     = "example.com"
	attemptTime     = 3 * time.Second
)

var defaultTargets = []string{
	"1.1.1.1:443", "1.1.1.1:80", "1.1.1.1:53", "1.1.1.1:853", "8.8.8.8:443",
	"[2606:4700:4700::1111]:443", "[2606:4700:4700::1111]:80", "169.254.169.254:80",
}

// doors are sockets of the file system behind which a program with a way out of its
// own listens.
var unixDoors = []string{"/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/dbus/system_bus_socket"}

// egress is the search for ways out past the proxy.
type egress struct {
	on             bool
	targets        []string
	resolver, name string
}

// look tries every way at once. It uses no proxy and reads no variable, as a client
// whose environment was cleared.
func (e *egress) look(ctx context.Context) findings {
	targets := e.targets
	if len(targets) == 0 {
		targets = defaultTargets
	}
	type attempt struct {
		what, mend string
		try        func(context.Context) error
	}
	const filter = "let nothing but the proxy out: docs/egress.md"
	var attempts []attempt
	for _, t := range targets {
		attempts = append(attempts, attempt{"TCP to " + t, filter, func(ctx context.Context) error { return reach(ctx, t) }})
	}
	attempts = append(attempts,
		attempt{"DNS over UDP to " + e.resolver, filter, func(ctx context.Context) error { return e.ask(ctx, "udp") }},
		attempt{"DNS over TCP to " + e.resolver, filter, func(ctx context.Context) error { return e.ask(ctx, "tcp") }},
		attempt{"looking up " + e.name + " by the machine's own resolver", "a name can carry data out: give the agent's machine no resolver, the proxy looks names up", func(ctx context.Context) error {
			_, err := net.DefaultResolver.LookupHost(ctx, e.name)
			if no, ok := errors.AsType[*net.DNSError](err); ok && no.IsNotFound {
				return nil // somebody said so
			}
			return err
		}})
	for _, path := range unixDoors {
		attempts = append(attempts, attempt{"the socket " + path, "who speaks to it can have programs run with a way out of their own: take it from the agent's user", func(context.Context) error { return openable(path) }})
	}
	results := make([]error, len(attempts))
	var wg sync.WaitGroup
	for i, t := range attempts {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, attemptTime)
			defer cancel()
			results[i] = t.try(ctx)
		})
	}
	wg.Wait()
	var f findings
	for i, t := range attempts {
		if err := results[i]; err != nil {
			f.ok("no way out by %s (%s)", t.what, why(err))
		} else {
			f.broken(t.mend, "a way out past the proxy: %s", t.what)
		}
	}
	return f
}

// reach opens a connection. One that is refused got out all the same: the answer
// came from there.
func reach(ctx context.Context, target string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		if host, _, serr := net.SplitHostPort(target); serr == nil && errors.Is(err, syscall.ECONNREFUSED) && !net.ParseIP(host).IsLoopback() {
			return nil
		}
		return err
	}
	return c.Close()
}

// ask asks a name server for a name. Any answer shows that there is a way.
func (e *egress) ask(ctx context.Context, network string) error {
	asked := false
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, e.resolver)
		asked = asked || err == nil && network == "tcp"
		return c, err
	}}
	_, err := r.LookupHost(ctx, strings.TrimSuffix(e.name, ".")+".")
	if no, ok := errors.AsType[*net.DNSError](err); ok && no.IsNotFound || asked {
		return nil
	}
	return err
}

// openable reports whether a socket takes connections of this user.
func openable(path string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	c, err := net.DialTimeout("unix", path, attemptTime)
	if err != nil {
		return err
	}
	return c.Close()
}

// why is the last cause of an error, in the system's words.
func why(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if slices.ContainsFunc([]error{os.ErrDeadlineExceeded, context.DeadlineExceeded}, func(e error) bool { return errors.Is(err, e) }) {
		return "no answer"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsTimeout {
			return "no answer"
		}
		err = errors.New(dns.Err) // it wraps nothing
	}
	text := fmt.Sprint(err)
	return strings.TrimSpace(text[strings.LastIndex(text, ": ")+1:])
}
