package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chaperone/cmd/chaperone/problem"
)

// formatNames are the keys of formats.
const formatNames = "env|json|docker|github-actions|kubernetes"

// mounted is where a container finds the trust files.
const mounted = "/run/chaperone"

func (a *app) formats() map[string]func(surroundings) error {
	return map[string]func(surroundings) error{
		"env": a.formatEnv, "json": a.formatJSON, "docker": a.formatDocker, "github-actions": a.formatActions, "kubernetes": a.formatKubernetes,
	}
}

// from is s as it looks from where the format is used: the proxy at another address
// if one is given, and the trust files where a container has them.
func (s surroundings) from(address, format string) (surroundings, error) {
	if format == "docker" || format == "kubernetes" {
		s.trust = mounted
	}
	if address == "" {
		return s, nil
	}
	u, err := url.Parse(s.proxy)
	if err != nil {
		return s, errors.New("the proxy's URL is none") // the parser's words would repeat the token
	}
	u.Host = address
	s.proxy = u.String()
	return s, nil
}

// checkAddress sees what --proxy says before anything is made.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if address != "" && (err != nil || host == "" || port == "" || strings.ContainsAny(address, "/@?# ")) {
		return problem.Misuse(fmt.Sprintf("%q is not HOST:PORT", address), "write it such as proxy.internal:8080")
	}
	return nil
}

// shellQuote makes one word of s for any POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (a *app) formatEnv(s surroundings) error {
	for _, name := range misleads {
		if _, err := fmt.Fprintf(a.stdout, "unset %s %s\n", name, strings.ToLower(name)); err != nil {
			return err
		}
	}
	for _, v := range s.variables() {
		if _, err := fmt.Fprintf(a.stdout, "export %s=%s\n", v.name, beside(v)); err != nil {
			return err
		}
	}
	return nil
}

// beside is the value of a variable for a shell: what options of interpreters are set
// there already stays, in the order in which a command under run has them.
func beside(v assignment) string {
	switch v.name {
	case "NODE_OPTIONS", "JAVA_TOOL_OPTIONS":
		return `"${` + v.name + `:+$` + v.name + ` }"` + shellQuote(v.value)
	case "PYTHONPATH":
		return shellQuote(v.value) + `"${PYTHONPATH:+:$PYTHONPATH}"`
	}
	return shellQuote(v.value)
}

// printedSession is what session create prints as JSON.
type printedSession struct {
	Session  string            `json:"session"`
	Instance string            `json:"instance"`
	Token    string            `json:"token"`
	ProxyURL string            `json:"proxy_url"`
	Expires  time.Time         `json:"expires"`
	Env      map[string]string `json:"env"`
	Handles  map[string]string `json:"handles"`
}

func (a *app) formatJSON(s surroundings) error {
	p := printedSession{Session: s.session.ID, Instance: s.session.Instance, Token: s.session.Token, ProxyURL: s.proxy, Expires: s.session.Expires,
		Env: map[string]string{}, Handles: s.session.Handles}
	for _, v := range s.variables() {
		p.Env[v.name] = v.value
	}
	a.json = true
	return a.print(p, nil)
}

// formatDocker prints an environment file: a line is a name and everything behind
// the sign, without quotes.
func (a *app) formatDocker(s surroundings) error {
	_, err := fmt.Fprintf(a.stdout, "# docker run --env-file FILE --volume %s:%s:ro IMAGE\n# It holds the session's token: keep it to yourself, and remove it after the run.\n",
		shellQuote(s.session.Trust), mounted)
	for _, v := range s.variables() {
		if err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s=%s\n", v.name, v.value)
		}
	}
	a.hintLoopback(s)
	return err
}

// hintLoopback says so where a container is given an address that leads to itself.
func (a *app) hintLoopback(s surroundings) {
	u, err := url.Parse(s.proxy)
	if err != nil {
		return
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
		fmt.Fprintf(a.stderr, "chaperone: hint: in a container %s is the container itself: have the proxy listen where the container reaches it, and name that with --proxy HOST:PORT\n", u.Hostname())
	}
}

// formatActions hands the variables to the steps that follow, by the file that the
// runner names, and has the runner mask the secrets in its logs.
func (a *app) formatActions(s surroundings) error {
	name, _ := a.variable("GITHUB_ENV")
	if name == "" {
		return problem.Misuse("GITHUB_ENV is not set", "call it in a step of a workflow, where the runner sets it")
	}
	secrets := []string{s.session.Token}
	for _, id := range s.session.Credentials {
		secrets = append(secrets, s.session.Handles[id])
	}
	for _, secret := range secrets {
		if _, err := fmt.Fprintf(a.stdout, "::add-mask::%s\n", secret); err != nil {
			return err
		}
	}
	var text strings.Builder
	for _, v := range s.variables() {
		fmt.Fprintf(&text, "%s=%s\n", v.name, v.value)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening GITHUB_ENV: %w", err)
	}
	_, err = f.WriteString(text.String())
	return errors.Join(err, f.Close())
}

// object is one object of Kubernetes, as far as it is needed here.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata,omitzero"`
	Type       string            `json:"type,omitzero"`
	StringData map[string]string `json:"stringData,omitzero"`
	BinaryData map[string][]byte `json:"binaryData,omitzero"`
	Items      []object          `json:"items,omitzero"`
}

// formatKubernetes prints a list of two objects, in JSON, which kubectl takes.
func (a *app) formatKubernetes(s surroundings) error {
	name := "chaperone-" + strings.ToLower(strings.ReplaceAll(s.session.ID, "_", "-"))
	name = strings.Trim(name, "-")
	secret := object{APIVersion: "v1", Kind: "Secret", Metadata: map[string]string{"name": name}, Type: "Opaque", StringData: map[string]string{}}
	for _, v := range s.variables() {
		secret.StringData[v.name] = v.value
	}
	files := object{APIVersion: "v1", Kind: "ConfigMap", Metadata: map[string]string{"name": name + "-trust"}, BinaryData: map[string][]byte{}}
	for _, f := range [...]string{caFile, bundleFile, javaFile, wgetInside, phpFile, nodeFile, pythonFile} {
		b, err := os.ReadFile(filepath.Join(s.session.Trust, f))
		if err != nil {
			return fmt.Errorf("reading trust files: %w", err)
		}
		files.BinaryData[f] = b
	}
	a.hintLoopback(s)
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(object{APIVersion: "v1", Kind: "List", Items: []object{secret, files}})
}
