package main

import (
	"path/filepath"
	"slices"
	"strings"
)

// mend is what helps the clients of one kind.
type mend struct {
	programs string // their names, without a version at the end
	bypass   string // where they go past the proxy
	trust    string // where they do not trust the CA
}

// mends are those that were found by trying. A name stands once.
var mends = []mend{
	{"python pip uv gunicorn",
		"PYTHONPATH is not heeded (python -I, -E, -S): then Google's httplib2 wants pysocks, aiohttp trust_env=True; or requests and httpx are told trust_env=False",
		"a library brings roots of its own: give it $SSL_CERT_FILE (verify=, ca_certs=, CAINFO)"},
	{"node npx tsx deno bun",
		"a connection without TLS, or NODE_OPTIONS is not heeded: send https, or give the library an agent",
		"a library is given roots of its own (ca:): add $NODE_EXTRA_CA_CERTS to them"},
	{"npm yarn pnpm", "see `npm config get https-proxy`, `proxy` and `noproxy`: they go before HTTPS_PROXY", "see `npm config get cafile`: give it $SSL_CERT_FILE"},
	{"java mvn gradle kotlin sbt",
		"Java heeds JAVA_TOOL_OPTIONS alone: it was lost on the way, or the program sets -Dhttps.proxyHost or a ProxySelector of its own",
		"it sets a trust store of its own: give it -Djavax.net.ssl.trustStore as in JAVA_TOOL_OPTIONS"},
	{"git git-lfs", "see `git config --show-origin --get-regexp proxy`: http.proxy goes before HTTPS_PROXY", "see `git config --show-origin --get-regexp ssl`: give it $SSL_CERT_FILE as http.sslCAInfo"},
	{"curl", "it is told --proxy or --noproxy, here or in .curlrc", "give it --cacert $SSL_CERT_FILE, or nothing: it reads CURL_CA_BUNDLE"},
	{"wget", "it is told a proxy or no_proxy by -e or in .wgetrc", "give it --ca-certificate=$SSL_CERT_FILE, or nothing: it reads WGETRC"},
	{"cargo", "see http.proxy in .cargo/config.toml: it goes before HTTPS_PROXY", "see http.cainfo in .cargo/config.toml"},
	{"go gh terraform", "Go programs skip the proxy for localhost and 127.0.0.1", "on macOS Go reads the system's roots alone: chaperone ca install"},
	{"gcloud gsutil", "see `gcloud config list proxy` and [Boto] proxy in .boto: gcloud config unset proxy/type", "PYTHONPATH or CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE was lost on the way; gsutil takes -o Boto:ca_certificates_file=$SSL_CERT_FILE"},
	{"kubectl helm", "Go programs skip the proxy for localhost and 127.0.0.1; a kubeconfig may name a proxy-url of its own", "a kubeconfig names the cluster's own CA: give it --certificate-authority=$SSL_CERT_FILE"},
	{"docker podman nerdctl", "its daemon makes the requests and has a proxy setting of its own: start that under `chaperone run`, or give it the variables of `chaperone session create --format docker`",
		"its daemon reads SSL_CERT_FILE from its own environment"},
	{"dotnet pwsh", "an HttpClientHandler with UseProxy = false, or with a Proxy of its own", "SSL_CERT_FILE was lost on the way, or the program checks certificates by itself"},
	{"chromium chrome google-chrome", "start it with --proxy-server=$CHAPERONE_LOCAL_PROXY",
		"import the CA: certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n chaperone -i $NODE_EXTRA_CA_CERTS, see docs/clients.md"},
}

// starters start another program, which may lose the environment on its way.
const starters = "env sudo su doas systemd-run nice nohup timeout time stdbuf setsid xargs ssh faketime"

// Mends for what is in no row.
const (
	anyBypass = "see whether it has a proxy setting of its own, and point that to $HTTPS_PROXY, or to $CHAPERONE_LOCAL_PROXY if it takes no password"
	anyTrust  = "give it $SSL_CERT_FILE by whatever option it has for a CA file, or have the machine trust the CA: chaperone ca install"
	lostBy    = "what it starts may have lost the environment (env -i, sudo without -E, a daemon): hand on the variables of `chaperone session create --format env`"
)

// versionless is a program's name without its version: python3.11 is python.
func versionless(program string) string {
	return strings.TrimRight(filepath.Base(program), "0123456789.")
}

func oneOf(names, name string) bool { return slices.Contains(strings.Fields(names), name) }

// mendFor finds the row of a program.
func mendFor(program string) mend {
	for _, m := range mends {
		if oneOf(m.programs, versionless(program)) {
			return m
		}
	}
	return mend{"", anyBypass, anyTrust}
}

// programOf names the client within a command: what a starter or a shell's script
// begins, as far as it is one that is known; a starter stands in front.
func programOf(command []string) string {
	first := filepath.Base(command[0])
	var words []string
	switch {
	case oneOf(starters, first):
		words = command[1:]
	case len(command) > 2 && oneOf("sh bash dash zsh", first) && strings.HasPrefix(command[1], "-") && strings.HasSuffix(command[1], "c"):
		words = strings.FieldsFunc(command[2], func(r rune) bool { return strings.ContainsRune(" \t\n;|&()'\"", r) })
	}
	for _, w := range words {
		if w = filepath.Base(w); mendFor(w).programs != "" {
			if oneOf(starters, first) {
				return first + " " + w
			}
			return w
		}
	}
	return first
}

// bypassMend is what helps a client that goes past the proxy.
func bypassMend(program string, settings []string) string {
	mend := mendFor(program).bypass
	if first, rest, _ := strings.Cut(program, " "); oneOf(starters, first) {
		mend = lostBy
		if m := mendFor(rest); m.programs != "" {
			mend += "; " + m.bypass
		}
	}
	return mend + among(settings) + "; `run --isolate` makes what goes past the proxy fail"
}

// trustMend is what helps a client that does not trust the CA; fault is what it said.
func trustMend(program, fault string) string {
	if strings.Contains(fault, "expired certificate") {
		return "set the clock: certificates hold for a day, from a while before they are made"
	}
	return mendFor(program[strings.LastIndexByte(program, ' ')+1:]).trust + "; if it speaks of a date, set the clock"
}
