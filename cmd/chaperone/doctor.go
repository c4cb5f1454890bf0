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
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chaperone/audit"
	"chaperone/cmd/chaperone/admin"
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
	return &cobra.Command{
		Use: "doctor", Short: "Check trust, clock, state, policy, reachability and clients, and say how to mend each", Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
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
			f.proxy(c.Context(), s)
			f.clients()
			return a.printFindings(f)
		},
	}
}

func (a *app) printFindings(f findings) error {
	broken := false
	for _, x := range f {
		broken = broken || x.Level == "broken"
	}
	err := a.print(f, func(w io.Writer) {
		for _, x := range f {
			fmt.Fprintf(w, "%-6s  %s\n", x.Level, x.What)
			if x.Mend != "" {
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
	engine, err := loadPolicy(s, slog.New(slog.DiscardHandler))
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
	c, err := net.DialTimeout("tcp", status.Listen, 2*time.Second)
	if err != nil {
		f.broken("see listen: in the configuration and the machine's firewall", "the proxy cannot be reached: %v", err)
		return
	}
	c.Close()
	f.ok("proxy answers at %s, policy %s", status.Listen, status.Policy)
	if _, err := os.Stat(filepath.Join(status.Trust, bundleFile)); err != nil {
		f.broken("start `chaperone serve` again, which writes them", "trust files are missing: %v", err)
	}
}

// clients names the traps of those that are installed.
func (f *findings) clients() {
	traps := []struct{ program, trap, mend string }{
		{"node", "Node before 24 ignores proxy variables in fetch; the ws package ignores them always", "use Node 24 or later (run sets NODE_USE_ENV_PROXY=1), or undici's EnvHttpProxyAgent"},
		{"python3", "aiohttp ignores proxy variables", "create its ClientSession with trust_env=True"},
		{"java", "Java sends no proxy password of its own: with session create it wants an Authenticator", "use chaperone run, whose local listener adds it, or set a java.net.Authenticator in the program"},
		{"go", "Go programs skip the proxy for localhost and 127.0.0.1, and on macOS ignore SSL_CERT_FILE", "on macOS see `chaperone ca install`"},
		{"git", "git sends its proxy password after a first 407, which is no failure", ""},
	}
	for _, t := range traps {
		if _, err := exec.LookPath(t.program); err == nil {
			f.note(t.mend, "%s", t.trap)
		}
	}
}
