package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"chaperone/certs"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/echo"
	"chaperone/cmd/chaperone/loopback"
	"chaperone/cmd/chaperone/problem"
)

// The users by whose names the echo tells the ways to it apart.
const (
	byItself   = "doctor"
	byListener = "listener"
)

// diagnose runs a command with all that run sets, but with a proxy that answers by
// itself, and says what about its way there does not work. Nothing goes out.
func (a *app) diagnose(ctx context.Context, command []string, limit time.Duration) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return problem.Failure(fmt.Errorf("starting command: %w", err), "see that it is installed and in PATH")
	}
	dir, err := os.MkdirTemp("", "chaperone-doctor-*")
	if err != nil {
		return fmt.Errorf("making folder: %w", err)
	}
	defer os.RemoveAll(dir)
	ca, err := certs.Open(filepath.Join(dir, "ca"))
	if err != nil {
		return err
	}
	if err := writeTrust(ca, filepath.Join(dir, "made")); err != nil {
		return fmt.Errorf("writing trust files: %w", err)
	}
	trust := filepath.Join(dir, "trust")
	if err := os.Mkdir(trust, 0o700); err != nil {
		return err
	}
	if err := a.copyTrust(filepath.Join(dir, "made"), trust); err != nil {
		return err
	}
	password := "chs_" + rand.Text()
	proxy, err := echo.Listen(ca, password)
	if err != nil {
		return err
	}
	defer proxy.Close()
	local, err := loopback.Listen(loopback.Options{Proxy: &url.URL{Scheme: "http", Host: proxy.Addr(), User: url.UserPassword(byListener, password)}})
	if err != nil {
		return err
	}
	defer local.Close()
	at := url.URL{Scheme: "http", Host: proxy.Addr(), User: url.UserPassword(byItself, password)}
	around := a.surroundings(&admin.Session{ProxyURL: at.String()}, trust, local.Addr())
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, command[1:]...)
	cmd.Args[0], cmd.WaitDelay = command[0], 2*time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stderr, a.stderr
	cmd.Env = withVariables(a.env, around.variables())
	err = cmd.Run()
	ended := "exit code 0"
	switch {
	case ctx.Err() != nil:
		ended = fmt.Sprintf("no end within %v", limit)
	case cmd.ProcessState == nil:
		return fmt.Errorf("starting command: %w", err)
	case err != nil:
		ended = cmd.ProcessState.String()
	}
	return a.printFindings(judge(programOf(command), proxy.Visits(), ended, a.ownSettings()))
}

// judge says what the visits of a client mean. ended is how the command ended,
// settings are files of the client's own that speak of a proxy.
func judge(program string, visits []echo.Visit, ended string, settings []string) findings {
	var f findings
	if len(visits) == 0 {
		f.broken(bypassMend(program, settings), "%s never came to the proxy (%s)", program, ended)
		return f
	}
	first := func(is func(v *echo.Visit) bool) *echo.Visit {
		if i := slices.IndexFunc(visits, func(v echo.Visit) bool { return is(&v) }); i >= 0 {
			return &visits[i]
		}
		return nil
	}
	came := func(v *echo.Visit) bool { return v.Password == echo.Sent || v.Password == echo.AfterAsked }
	if v := first(func(v *echo.Visit) bool { return v.Password == echo.Wrong }); v != nil {
		f.broken("it has a proxy setting of its own beside HTTPS_PROXY: remove it"+among(settings), "%s sends another proxy password than the session's", program)
	}
	if first(came) == nil && len(f) == 0 {
		f.broken("point its own proxy setting to $CHAPERONE_LOCAL_PROXY, which run opens for clients that send none", "%s came to the proxy and sends no password", program)
	}
	if v := first(func(v *echo.Visit) bool { return came(v) && v.Tunnel && !v.Trusted }); v != nil {
		f.broken(trustMend(program, v.Fault), "%s does not trust the CA: the handshake for %s ended with %q", program, v.Target, alert(v.Fault))
	}
	if v := first(func(v *echo.Visit) bool { return v.User == byListener }); v != nil {
		f.note("start it by `chaperone run`, which opens the listener; with session create it would need an own authenticator", "%s goes by the local listener, as it sends no password of its own", program)
	}
	if v := first(func(v *echo.Visit) bool { return came(v) && !v.Tunnel }); v != nil {
		f.note("use https: a credential never goes out without TLS", "%s asks for http://%s in clear", program, v.Target)
	}
	if v := first(func(v *echo.Visit) bool { return slices.Equal(v.Protocols, []string{"h2"}) }); v != nil {
		f.note("", "%s speaks HTTP/2 alone; the proxy does too", program)
	}
	f.requests(program, visits, ended)
	return f
}

// requests says what was asked, or that nothing was.
func (f *findings) requests(program string, visits []echo.Visit, ended string) {
	var all []echo.Request
	how, clear := "sends its password at once", 0
	for _, v := range visits {
		if !v.Tunnel {
			clear += len(v.Requests)
		} else {
			all = append(all, v.Requests...)
		}
		if v.Password == echo.AfterAsked {
			how = "sends its password after a first 407"
		}
	}
	if len(all) == 0 && clear > 0 {
		if slices.ContainsFunc(*f, func(x finding) bool { return x.Level == "broken" }) {
			return
		}
		f.ok("%s comes to the proxy and %s; whether it trusts the CA is not known, as it asks nothing by https", program, how)
		return
	}
	if len(all) == 0 {
		if len(*f) == 0 {
			f.broken("see what it printed; if it speaks of a certificate: "+trustMend(program, ""),
				"%s hung up behind the handshake and asked nothing (%s): it most likely does not trust the CA", program, ended)
		}
		return
	}
	f.ok("%s comes to the proxy, %s and trusts the CA: %s https://%s%s by %s, %d in all", program, how, all[0].Method, all[0].Host, all[0].Path, all[0].Protocol, len(all))
	if ended != "exit code 0" {
		f.note("the answers were the doctor's own, which is no answer of the service; a service would say more", "%s ended with %s", program, ended)
	}
}

// alert is the part of a TLS error that says what the client said.
func alert(fault string) string {
	if i := strings.LastIndex(fault, ": "); i >= 0 {
		fault = fault[i+2:]
	}
	if fault == "bad record MAC" { // some send their alert without the keys that hold by then
		return "the client broke it off"
	}
	if fault == "EOF" || strings.Contains(fault, "reset by peer") {
		return "the client hung up"
	}
	return fault
}

func among(settings []string) string {
	if len(settings) == 0 {
		return ""
	}
	return " (look into " + strings.Join(settings, ", ") + ")"
}

var speaksOfProxy = regexp.MustCompile(`(?im)^\s*[^#;!\s/]*proxy`)

// namesProxy reports whether a file of settings speaks of a proxy.
func namesProxy(path string) bool {
	b, err := os.ReadFile(path)
	return err == nil && (speaksOfProxy.Match(b) || strings.Contains(string(b), "<proxy>"))
}

// ownSettings are files of the person's, of the folder and of the machine by which a client may have a proxy of its
// own, as far as they speak of one.
func (a *app) ownSettings() []string {
	home, ok := a.variable("HOME")
	if !ok {
		return nil
	}
	var found []string
	for _, name := range []string{".curlrc", ".wgetrc", ".gitconfig", ".config/git/config", ".npmrc", ".yarnrc.yml", ".config/pip/pip.conf", ".pip/pip.conf",
		".condarc", ".cargo/config.toml", ".gradle/gradle.properties", ".m2/settings.xml", ".docker/config.json", ".boto", ".kube/config", ".config/gcloud/properties"} {
		if namesProxy(filepath.Join(home, name)) {
			found = append(found, "~/"+name)
		}
	}
	for _, name := range []string{".npmrc", ".yarnrc.yml", ".cargo/config.toml", ".git/config", "gradle.properties", "/etc/gitconfig", "/etc/wgetrc", "/etc/pip.conf", "/etc/boto.cfg"} {
		if here, err := filepath.Abs(name); err == nil && filepath.Dir(here) != filepath.Clean(home) && namesProxy(name) {
			found = append(found, name)
		}
	}
	return found
}

// errNothing is what --egress and a command together mean.
var errNothing = errors.New("doctor takes a command or --egress, not both")
