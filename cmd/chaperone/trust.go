package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"chaperone/certs"
	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/settings"
)

// Files by which clients trust the CA.
const (
	caFile     = "ca.pem"         // the CA alone, for variables that add to the roots
	bundleFile = "bundle.pem"     // the system's roots and the CA, for variables that replace them
	javaFile   = "truststore.p12" // the CA for Java
)

// javaPassword opens the trust store, which holds nothing secret.
const javaPassword = "changeit"

func trustDir(s *settings.Settings) string { return filepath.Join(s.State, "trust") }

// writeTrust writes the trust files into dir.
func writeTrust(ca *certs.Authority, dir string) error {
	bundle, err := ca.Bundle()
	if err != nil {
		return err
	}
	java, err := ca.TrustStore(javaPassword)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{caFile: ca.PEM(), bundleFile: bundle, javaFile: java} {
		if err := replace(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file whole: a reader sees the old content or the new.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// replacesRoots are the variables that take the place of a client's roots. The
// merged bundle goes there.
var replacesRoots = [...]string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "PIP_CERT",
	"CARGO_HTTP_CAINFO", "NPM_CONFIG_CAFILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}

// addsToRoots are the variables that add to a client's roots. The CA alone goes
// there.
var addsToRoots = [...]string{"NODE_EXTRA_CA_CERTS", "DENO_CERT"}

// assignment is a variable of the environment.
type assignment struct{ name, value string }

// variables are all that make a client use the proxy in a session, with the trust
// files of dir.
func variables(s *admin.Session, dir string) []assignment {
	var out []assignment
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		out = append(out, assignment{name, s.ProxyURL})
	}
	// Empty, not absent: a list that was set before would let requests bypass.
	out = append(out, assignment{"NO_PROXY", ""}, assignment{"no_proxy", ""}, assignment{"NODE_USE_ENV_PROXY", "1"})
	for _, name := range replacesRoots {
		out = append(out, assignment{name, filepath.Join(dir, bundleFile)})
	}
	for _, name := range addsToRoots {
		out = append(out, assignment{name, filepath.Join(dir, caFile)})
	}
	out = append(out, assignment{"JAVA_TOOL_OPTIONS", javaOptions(s.ProxyURL, dir)})
	for _, id := range s.Credentials {
		for _, name := range s.Variables[id] {
			out = append(out, assignment{name, s.Handles[id]})
		}
	}
	return out
}

// javaOptions sets proxy and trust store of a Java machine. JDK 8u111 and later
// refuse Basic in tunnels unless told otherwise; the password itself the program's
// own authenticator must give.
func javaOptions(proxyURL, dir string) string {
	_, at, _ := strings.Cut(proxyURL, "@")
	host, port := at, ""
	if i := strings.LastIndexByte(at, ':'); i >= 0 {
		host, port = strings.Trim(at[:i], "[]"), at[i+1:]
	}
	return strings.Join([]string{
		"-Dhttp.proxyHost=" + host, "-Dhttp.proxyPort=" + port, "-Dhttps.proxyHost=" + host, "-Dhttps.proxyPort=" + port,
		"-Dhttp.nonProxyHosts=", "-Djdk.http.auth.tunneling.disabledSchemes=",
		"-Djavax.net.ssl.trustStore=" + filepath.Join(dir, javaFile), "-Djavax.net.ssl.trustStoreType=PKCS12",
		"-Djavax.net.ssl.trustStorePassword=" + javaPassword,
	}, " ")
}

// privateTrust copies the trust files of dir into a new folder of mode 0700, and
// adds to the bundle what the caller's own variables name, so that a company's
// roots stay trusted.
func (a *app) privateTrust(dir string) (string, error) {
	folder, err := os.MkdirTemp("", "chaperone-trust-*")
	if err != nil {
		return "", err
	}
	if err := a.copyTrust(dir, folder); err != nil {
		return "", errors.Join(err, os.RemoveAll(folder))
	}
	return folder, nil
}

func (a *app) copyTrust(from, to string) error {
	for _, name := range []string{caFile, bundleFile, javaFile} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("reading trust files: %w", err)
		}
		if name == bundleFile {
			b = a.withOwnRoots(b)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return fmt.Errorf("writing trust files: %w", err)
		}
	}
	return nil
}

// withOwnRoots adds the files that the caller's variables name. One that cannot be
// read would not have been of use to the client either.
func (a *app) withOwnRoots(bundle []byte) []byte {
	seen := map[string]bool{}
	for _, name := range replacesRoots {
		path, ok := a.variable(name)
		if !ok || path == "" || seen[path] {
			continue
		}
		seen[path] = true
		if own, err := os.ReadFile(path); err == nil {
			bundle = append(append(bundle, '\n'), own...)
		}
	}
	return bundle
}
