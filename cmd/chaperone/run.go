package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/loopback"
	"chaperone/cmd/chaperone/problem"
	"chaperone/proxy/identity"
)

// A session of run ends leaseTime after the last sign of life, which is given
// every heartbeatTime: this is what ends it when run itself is killed. A machine that
// is busy for a while, or was asleep, must not end the session of a run that lives.
const (
	leaseTime     = 20 * time.Second
	heartbeatTime = 2 * time.Second
)

func (a *app) runVerb() *cobra.Command {
	var d delegation
	var apart bool
	c := &cobra.Command{
		Use:   "run --agent A [--human H] [--credential C]… -- CMD…",
		Short: "Run one command as an instance of an agent",
		Long: `Run one command as an instance of an agent. It gets a session of its own, the variables
by which its clients use and trust the proxy, and handles in the place of credentials.
For clients that cannot send a proxy password, such as Java, it opens a listener on
127.0.0.1 ($CHAPERONE_LOCAL_PROXY) that adds it; on Linux it serves this user alone.
However the command ends, the session ends with it. The exit code is the command's.

With --isolate the command runs in a network of its own in which there is nothing but
the way to the proxy, without root (Linux); what goes past the proxy fails. It sees no
processes but its own. Sockets in the file system stay reachable.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return problem.Misuse("chaperone run wants a command", "write it after --, such as: chaperone run --agent NAME -- curl https://api.github.com/user")
			}
			spec, err := d.spec()
			if err != nil {
				return err
			}
			spec.Lease = leaseTime
			client, err := a.admin()
			if err != nil {
				return err
			}
			return a.runCommand(c.Context(), client, spec, args, apart)
		},
	}
	d.flags(c)
	c.Flags().BoolVar(&apart, "isolate", false, "let the command reach nothing but the proxy")
	c.Flags().SetInterspersed(false)
	return c
}

// runCommand makes the session, runs the command in it, apart if asked, and ends it.
func (a *app) runCommand(ctx context.Context, client *admin.Client, spec identity.Spec, command []string, apart bool) (err error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return problem.Failure(fmt.Errorf("starting command: %w", err), "see that it is installed and in PATH")
	}
	ctx = context.WithoutCancel(ctx) // signals are the command's, see below
	s, err := client.CreateSession(ctx, spec)
	if err != nil {
		return err
	}
	defer func() {
		_, rerr := client.Revoke(ctx, admin.Revocation{Target: identity.Target{Session: s.ID}, Change: admin.Change{Reason: "the command ended", By: a.user()}})
		if rerr != nil {
			fmt.Fprintf(a.stderr, "chaperone: the session could not be ended (%v); it ends by itself within %v\n", rerr, leaseTime)
		}
	}()
	trust, err := a.privateTrust(s.Trust)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(trust.Name()), trust.Close()) }()
	local, err := listenLocally(&s, trust.Name())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	beat, stop := context.WithCancel(ctx)
	beaten := make(chan struct{})
	go func() { defer close(beaten); a.heartbeat(beat, client, s.ID) }()
	defer func() { stop(); <-beaten }()
	around := a.surroundings(&s, trust.Name(), local.Addr())
	if err := around.writeFiles(trust.Name()); err != nil {
		return err
	}
	cmd := exec.Command(path, command[1:]...)
	cmd.Args[0] = command[0]
	if apart {
		ways, err := isolate(&around)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ways.Close()) }()
		cmd = ways.command(command)
	} else {
		cmd.SysProcAttr = dieTogether()
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.Env = withVariables(a.env, around.variables())
	if err = wait(cmd, nil); apart {
		return isolated(err)
	}
	return err
}

// listenLocally opens the door for clients that cannot send the session's
// credentials. It stays open as long as the command runs.
func listenLocally(s *admin.Session, trust string) (*loopback.Listener, error) {
	u, err := url.Parse(s.ProxyURL)
	if err != nil {
		return nil, errors.New("opening local listener: the proxy's URL is none") // the parser's words would repeat the token
	}
	roots := x509.NewCertPool()
	b, err := os.ReadFile(filepath.Join(trust, bundleFile))
	if err != nil {
		return nil, fmt.Errorf("reading trust files: %w", err)
	}
	roots.AppendCertsFromPEM(b)
	return loopback.Listen(loopback.Options{Proxy: u, Roots: roots})
}

// heartbeat renews the session until ctx is done. A proxy that does not answer is
// asked again: it may be restarting.
func (a *app) heartbeat(ctx context.Context, client *admin.Client, session string) {
	tick := time.NewTicker(heartbeatTime)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := client.Heartbeat(ctx, session)
		if err != nil && ctx.Err() == nil && !told {
			fmt.Fprintf(a.stderr, "chaperone: session %s: %v\n", session, err)
		}
		told = err != nil
	}
}

// wait runs cmd, passes signals on, and turns how it ended into an exit code, as
// shells do: 128 and the signal's number for one that a signal ended.
// prepare is called on the thread that starts cmd; nil: nothing is to be prepared.
func wait(cmd *exec.Cmd, prepare func() error) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	ended := make(chan error, 1)
	if err := start(cmd, prepare, ended); err != nil {
		return fmt.Errorf("starting command: %w", err)
	}
	for {
		select {
		case s := <-signals:
			if !atTerminal(cmd) || s != syscall.SIGINT && s != syscall.SIGQUIT {
				cmd.Process.Signal(s) // it may have ended meanwhile
			}
		case err := <-ended:
			return exitOf(err)
		}
	}
}

// atTerminal reports whether the command reads from a terminal, which then sends it
// the signals of its keys by itself.
func atTerminal(cmd *exec.Cmd) bool {
	f, ok := cmd.Stdin.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	nothing, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, nothing)
}

func exitOf(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return fmt.Errorf("running command: %w", err)
	}
	if w, ok := e.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitCode(128 + int(w.Signal()))
	}
	return exitCode(e.ExitCode())
}
