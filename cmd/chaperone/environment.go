package main

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chaperone/cmd/chaperone/admin"
)

// pointsToProxy are the variables that name the proxy. Those of ALL_PROXY also catch
// the schemes that have no variable of their own, such as wss.
var pointsToProxy = [...]string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}

// replacesRoots are the variables that take the place of a client's roots. The
// merged bundle goes there.
var replacesRoots = [...]string{
	"SSL_CERT_FILE",      // OpenSSL, Go, Rust, .NET, Ruby, httpx, aiohttp, uv, git on OpenSSL
	"REQUESTS_CA_BUNDLE", // Python requests
	"CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "NPM_CONFIG_CAFILE",
	"YARN_HTTPS_CA_FILE_PATH",          // Yarn 2 and later
	"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC in C, Python, Ruby, PHP, Node
	"HTTPLIB2_CA_CERTS",                // Google's Python client
	"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "NIX_SSL_CERT_FILE",
	"BUNDLE_SSL_CA_CERT", "COMPOSER_CAFILE", "PERL_LWP_SSL_CA_FILE", "HEX_CACERTS_PATH",
	"WEBSOCKET_CLIENT_CA_BUNDLE", // Python websocket-client
}

// addsToRoots are the variables that add to a client's roots. The CA alone goes
// there.
var addsToRoots = [...]string{"NODE_EXTRA_CA_CERTS", "DENO_CERT"}

// misleads are the variables by which a client would find another proxy, none, or
// other roots, were they to stay as they were. They are matched without regard to
// case.
var misleads = [...]string{
	"SSL_CERT_DIR",   // where both are set some clients take the folder; its roots are in the bundle
	"GIT_SSL_CAPATH", // likewise
	"FTP_PROXY", "RSYNC_PROXY", "SOCKS_PROXY", "WS_PROXY", "WSS_PROXY", "GRPC_PROXY", "NO_GRPC_PROXY",
	"NPM_CONFIG_PROXY", "NPM_CONFIG_HTTP_PROXY", "NPM_CONFIG_HTTPS_PROXY", "NPM_CONFIG_NOPROXY", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY",
	"CARGO_HTTP_PROXY", "PIP_PROXY", "BUNDLE_HTTP_PROXY", "GIT_PROXY_COMMAND",
	"CLOUDSDK_PROXY_TYPE", "CLOUDSDK_PROXY_ADDRESS", "CLOUDSDK_PROXY_PORT", "CLOUDSDK_PROXY_USERNAME", "CLOUDSDK_PROXY_PASSWORD",
}

// assignment is a variable of the environment.
type assignment struct{ name, value string }

// surroundings are what the variables of a session follow from.
type surroundings struct {
	session *admin.Session
	proxy   string // URL of the proxy as the client reaches it, with agent and token
	trust   string // folder of the trust files as the client sees it
	local   string // host:port of a listener that adds agent and token; empty: there is none
	java    string // what JAVA_TOOL_OPTIONS held before
	node    string // what NODE_OPTIONS held before
	python  string // what PYTHONPATH held before
	files   []assignment
}

// here is where a client on this machine finds all that it needs.
func here(s *admin.Session) surroundings {
	return surroundings{session: s, proxy: s.ProxyURL, trust: s.Trust}
}

// surroundings are those of a command on this machine with a trust folder and a
// local listener of its own; what options of interpreters were set before stays.
func (a *app) surroundings(s *admin.Session, trust, local string) surroundings {
	out := surroundings{session: s, proxy: s.ProxyURL, trust: trust, local: local}
	out.java, _ = a.variable("JAVA_TOOL_OPTIONS")
	out.node, _ = a.variable("NODE_OPTIONS")
	out.python, _ = a.variable("PYTHONPATH")
	return out
}

// variables are all that make a client use the proxy in a session.
func (s surroundings) variables() []assignment {
	var out []assignment
	add := func(name, value string) { out = append(out, assignment{name, value}) }
	for _, name := range pointsToProxy {
		add(name, s.proxy)
	}
	// Empty, not absent: a list that was set before would let requests bypass.
	add("NO_PROXY", "")
	add("no_proxy", "")
	add("NODE_USE_ENV_PROXY", "1")
	// git asks for a 407 before it sends the password, unless told the scheme.
	add("GIT_HTTP_PROXY_AUTHMETHOD", "basic")
	for _, name := range replacesRoots {
		add(name, s.file(bundleFile))
	}
	for _, name := range addsToRoots {
		add(name, s.file(caFile))
	}
	add("WGETRC", s.file(s.wgetName()))
	add("PHP_INI_SCAN_DIR", ":"+s.trust) // the empty part stands for PHP's own folder
	add("JAVA_TOOL_OPTIONS", s.javaOptions())
	add("NODE_OPTIONS", s.nodeOptions())
	add("PYTHONPATH", s.pythonPath())
	if s.local != "" {
		add("CHAPERONE_LOCAL_PROXY", "http://"+s.local)
	}
	for _, id := range s.session.Credentials {
		parts := s.session.StandIns[id]
		for _, name := range slices.Sorted(maps.Keys(parts)) {
			add(name, parts[name])
		}
		for _, name := range s.session.Variables[id] {
			if _, own := parts[name]; !own {
				add(name, s.session.Handles[id])
			}
		}
	}
	return append(out, s.files...)
}

// writeFiles writes the files in which SDKs look for credentials into dir, readable by
// this user alone, and has their variables name them. A variable that two credentials
// would set is the first one's.
func (s *surroundings) writeFiles(dir string) error {
	if len(s.session.Files) == 0 {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("making the folder of credential files: %w", err)
	}
	named := map[string]bool{}
	for _, id := range s.session.Credentials {
		files := s.session.Files[id]
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if named[name] {
				continue
			}
			named[name] = true
			path := filepath.Join(dir, strings.ToLower(name))
			if err := replace(path, []byte(files[name])); err != nil { // of mode 0600, as temporary files are
				return fmt.Errorf("writing %s: %w", path, err)
			}
			s.files = append(s.files, assignment{name, path})
		}
	}
	return nil
}

// wgetName is the file that names the bundle where the client sees it.
func (s surroundings) wgetName() string {
	if s.trust == mounted {
		return wgetInside
	}
	return wgetFile
}

func (s surroundings) file(name string) string { return filepath.Join(s.trust, name) }

// javaOptions set proxy and trust store of a Java machine. Java takes no password
// from a property, so it is sent to the local listener, which adds it. Where there
// is none the program has to have an Authenticator, and must be told that Basic is
// fit for tunnels (JDK 8u111 and later). An option that comes twice holds as it
// comes last.
func (s surroundings) javaOptions() string {
	host, port := "", ""
	if u, err := url.Parse(s.proxy); err == nil {
		host, port = u.Hostname(), u.Port()
	}
	if s.local != "" {
		i := strings.LastIndexByte(s.local, ':')
		host, port = strings.Trim(s.local[:i], "[]"), s.local[i+1:]
	}
	options := []string{
		"-Dhttp.proxyHost=" + host, "-Dhttp.proxyPort=" + port, "-Dhttps.proxyHost=" + host, "-Dhttps.proxyPort=" + port,
		"-Dhttp.nonProxyHosts=", "-Djdk.http.auth.tunneling.disabledSchemes=",
		"-Djavax.net.ssl.trustStore=" + s.file(javaFile), "-Djavax.net.ssl.trustStoreType=PKCS12",
		"-Djavax.net.ssl.trustStorePassword=" + javaPassword,
		"-Daether.connector.http.useSystemProperties=true", // Maven's own transport looks at no property without
	}
	if s.java != "" {
		options = append([]string{s.java}, options...)
	}
	return strings.Join(options, " ")
}

// mislead reports whether a variable has to go because a client would heed it.
func mislead(name string) bool {
	for _, m := range misleads {
		if strings.EqualFold(name, m) {
			return true
		}
	}
	return false
}

// withVariables is env with vars in the place of what they name, in whichever case,
// and without what misleads.
func withVariables(env []string, vars []assignment) []string {
	set := map[string]bool{}
	for _, v := range vars {
		set[strings.ToUpper(v.name)] = true
	}
	out := make([]string, 0, len(env)+len(vars))
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); !set[strings.ToUpper(name)] && !mislead(name) {
			out = append(out, e)
		}
	}
	for _, v := range vars {
		out = append(out, v.name+"="+v.value)
	}
	return out
}
