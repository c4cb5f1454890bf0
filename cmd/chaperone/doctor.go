package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

// finding is one thing that doctor looked at.
type finding struct {
	Level string `json:"level"` // ok, note or broken
	What  string `json:"what"`
	Mend  string `json:"mend,omitzero"`
}

// findings are all of them, in the order of the checks.
type findings []finding

func (f *findings) ok(format string, args ...any) {
	*f = append(*f, finding{"ok", fmt.Sprintf(format, args...), ""})
}

func (f *findings) note(mend, format string, args ...any) {
	*f = append(*f, finding{"note", fmt.Sprintf(format, args...), mend})
}

func (f *findings) broken(mend, format string, args ...any) {
	*f = append(*f, finding{"broken", fmt.Sprintf(format, args...), mend})
}

func (a *app) doctorVerb() *cobra.Command {
	var e egress
	var limit time.Duration
	c := &cobra.Command{
		Use: "doctor [-- CMD…]", Short: "Check trust, clock, state, policy, reachability and clients, and say how to mend each",
		Long: `Check trust, clock, state, policy, reachability and clients, and say how to mend each.

With a command it runs that with all that chaperone run sets, but against a proxy of
its own which answers every request by itself: nothing goes out and no other proxy has
to run. It says whether the client comes to the proxy, sends the password and trusts
the CA, and what to do if not. What the command prints goes to standard error.

With --egress it tries to get out past the proxy from where it is called, and says what
got out; call it there where the agent runs, such as
chaperone run --isolate --agent NAME -- chaperone doctor --egress.`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case e.on && len(args) > 0:
				return problem.Misuse(errNothing.Error(), "see `chaperone doctor --help`")
			case e.on:
				return a.printFindings(e.look(c.Context()))
			case len(args) > 0:
				return a.diagnose(c.Context(), args, limit)
			}
			return a.checkup(c.Context())
		},
	}
	c.Flags().BoolVar(&e.on, "egress", false, "try to get out past the proxy")
	c.Flags().StringArrayVar(&e.targets, "target", nil, "`ADDRESS:PORT` to try by TCP in place of the usual ones; may be repeated")
	c.Flags().StringVar(&e.resolver, "resolver", defaultResolver, "`ADDRESS:PORT` of a name server to ask by UDP")
	c.Flags().StringVar(&e.name, "name", defaultName, "`NAME` to look up")
	c.Flags().DurationVar(&limit, "limit", time.Minute, "how long a command may run")
	c.Flags().SetInterspersed(false)
	return c
}

// checkup looks at the installation.
func (a *app) checkup(ctx context.Context) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	var f findings
	f.configuration(s)
	f.policy(s)
	f.state(s)
	f.trust(s, time.Now())
	f.log(s)
	f.proxy(ctx, s)
	f.clients()
	if own := a.ownSettings(); len(own) > 0 {
		f.note("remove it where an agent runs: it goes before HTTPS_PROXY", "settings speak of a proxy of their own: %s", strings.Join(own, ", "))
	}
	if list, _ := a.variable("NO_PROXY"); list != "" {
		f.note("chaperone run empties it for its command", "NO_PROXY is set: clients started otherwise go past the proxy for what it lists")
	}
	return a.printFindings(f)
}

func (a *app) printFindings(f findings) error {
	broken := false
	for _, x := range f {
		broken = broken || x.Level == "broken"
	}
	err := a.print(f, func(w io.Writer) {
		for i, x := range f {
			fmt.Fprintf(w, "%-6s  %s\n", x.Level, x.What)
			again := i+1 < len(f) && f[i+1].Mend == x.Mend // said once, behind the last that it mends
			if x.Mend != "" && !again {
				fmt.Fprintf(w, "        -> %s\n", x.Mend)
			}
		}
	})
	if err != nil {
		return err
	}
	if broken {
		return errors.New("something is broken, see above")
	}
	return nil
}

func (f *findings) configuration(s *settings.Settings) {
	if s.File == "" {
		f.note("write a config.yaml, or name one with --config", "no configuration file: the defaults hold")
		return
	}
	f.ok("configuration %s", s.File)
}

func (f *findings) policy(s *settings.Settings) {
	engine, err := loadPolicy(s, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		f.broken("run `chaperone policy check`", "policy: %v", err)
	} else {
		f.ok("policy compiles, revision %s", engine.Revision())
		if why := engine.Slow(); why != "" {
			f.note("see Cost in docs/policy.md", "policy is answered by OPA's own evaluator, which is slower: %s", why)
		}
	}
	catalogue, err := loadCatalogue(s)
	if err != nil {
		f.broken("mend services: in the configuration", "catalogue: %v", err)
		return
	}
	f.ok("catalogue names %d services", len(catalogue.Services()))
	if engine == nil {
		return
	}
	if _, err := denied(s, engine, catalogue); err != nil {
		f.broken(problem.Of(err).Hint, "policy: the proxy does not start with it: %v", err)
	}
}

func (f *findings) state(s *settings.Settings) {
	info, err := os.Stat(s.State)
	if errors.Is(err, fs.ErrNotExist) {
		f.note("start `chaperone serve` once", "state directory %s does not exist yet", s.State)
		return
	}
	if err != nil {
		f.broken("see who owns it", "state directory: %v", err)
		return
	}
	if info.Mode().Perm()&0o077 != 0 {
		f.broken("chmod 700 "+shellQuote(s.State), "state directory %s can be entered by others (%v)", s.State, info.Mode().Perm())
	} else {
		f.ok("state directory %s is closed to others", s.State)
	}
	for _, path := range secretFiles(s) {
		info, err := os.Stat(path)
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			f.broken("chmod 600 "+shellQuote(path), "%s can be read by others (%v)", path, info.Mode().Perm())
		}
	}
}

func (f *findings) trust(s *settings.Settings, now time.Time) {
	b, err := os.ReadFile(caCertificate(s))
	if errors.Is(err, fs.ErrNotExist) {
		return // state has said so
	}
	block, _ := pem.Decode(b)
	if err != nil || block == nil {
		f.broken("see ca: in the configuration", "CA certificate %s cannot be read", caCertificate(s))
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		f.broken("see ca: in the configuration", "CA certificate: %v", err)
	case now.Before(cert.NotBefore):
		f.broken("set the clock", "the clock is wrong, or the CA is of the future: it is valid from %s", moment(cert.NotBefore))
	case now.After(cert.NotAfter):
		f.broken("replace it: move ca.pem and ca.key away, start `chaperone serve`, and have clients trust the new one", "the CA expired on %s", day(cert.NotAfter))
	default:
		f.ok("CA is valid until %s", day(cert.NotAfter))
	}
}

func (f *findings) log(s *settings.Settings) {
	if _, err := os.Stat(s.Log.Path); err != nil {
		return
	}
	report, err := audit.Verify(s.Log.Path, "")
	switch {
	case err != nil:
		f.broken("see who owns it", "decision log: %v", err)
	case report.Bad != nil:
		f.broken("keep the file as it is; see `chaperone log verify`", "decision log was altered: %v", report.Bad)
	default:
		f.ok("decision log has %d lines and its chain holds", report.Lines)
	}
}

func (f *findings) proxy(ctx context.Context, s *settings.Settings) {
	status, err := admin.NewClient(s.Admin).Status(ctx)
	if err != nil {
		f.note("chaperone serve", "no proxy runs with this configuration")
		return
	}
	if !status.Ready {
		f.broken("see its messages", "the proxy is not ready")
	}
	if status.Reload != "" {
		f.broken("mend it; the last good one is in force", "the last reload failed: %s", status.Reload)
	}
	if status.Log != "" {
		f.broken("make room or mend the disk; requests are refused until then", "the decision log cannot be written: %s", status.Log)
	}
	for _, id := range slices.Sorted(maps.Keys(status.Troubles)) {
		t := status.Troubles[id]
		f.note(t.Hint, "credential %s could not be used at %s: %s", id, moment(t.Time), t.What)
	}
	c, err := net.DialTimeout("tcp", status.Listen, 2*time.Second)
	if err != nil {
		f.broken("see listen: in the configuration and the machine's firewall", "the proxy cannot be reached: %v", err)
		return
	}
	c.Close()
	f.ok("proxy answers at %s, policy %s", status.Listen, status.Policy)
	f.replicas(ctx, admin.NewClient(s.Admin))
	if _, err := os.Stat(filepath.Join(status.Trust, bundleFile)); err != nil {
		f.broken("start `chaperone serve` again, which writes them", "trust files are missing: %v", err)
	}
}

// clients names the traps of those that are installed.
func (f *findings) clients() {
	traps := []struct{ program, trap, mend string }{
		{"node", "Node's libraries that heed no proxy variable (fetch before 24, ws, stripe) are led to the proxy by a file in NODE_OPTIONS", "keep NODE_OPTIONS where a script sets its own"},
		{"python3", "Python's aiohttp, gsutil, httplib2 (Google's client) and stripe are led to proxy and CA by a file in PYTHONPATH", "keep PYTHONPATH; do not start Python with -I, -E or -S"},
		{"java", "Java sends no proxy password of its own: with session create it wants an Authenticator", "use chaperone run, whose local listener adds it, or set a java.net.Authenticator in the program"},
		{"go", "Go programs skip the proxy for localhost and 127.0.0.1, and on macOS ignore SSL_CERT_FILE", "on macOS see `chaperone ca install`"},
		{"git", "git shows of a push that is refused for one of its refs the status alone", "chaperone log query --result deny"},
		{"chromium", "Chromium sends no proxy password and reads no CA from a variable", "see docs/clients.md"},
		{"docker", "docker pull is made by its daemon, which has a proxy setting of its own; containers get theirs by --env-file", "chaperone session create --format docker; see docs/egress.md"},
	}
	for _, t := range traps {
		if _, err := exec.LookPath(t.program); err == nil {
			f.note(t.mend, "%s", t.trap)
		}
	}
}
