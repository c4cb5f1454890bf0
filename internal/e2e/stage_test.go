package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// newStage starts the worlds for rows whose scripts are in dir.
func newStage(t *testing.T, dir string) *stage {
	t.Helper()
	s := &stage{up: begin(t), scripts: dir}
	s.down = s.up.without(t)
	s.straight = tunnels(t, s.up.resolve)
	store, err := certs.TrustStore(s.up.roots, "changeit")
	if err != nil {
		t.Fatal(err)
	}
	trust := s.trust()
	if err := os.MkdirAll(trust, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"ca.pem": s.up.roots, "truststore.p12": store, "wgetrc": []byte("ca_certificate = " + filepath.Join(trust, "ca.pem") + "\n")} {
		if err := os.WriteFile(filepath.Join(trust, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.stale = s.up.expiredToken(t)
	return s
}

// trust is the folder of the stand-ins' own roots.
func (s *stage) trust() string { return filepath.Join(s.up.dir, "straight") }

// expiredToken is the token of a session that lasted a second.
func (w *world) expiredToken(t *testing.T) string {
	t.Helper()
	var made struct{ Session, Token string }
	out := w.verb(t, "", "session", "create", "--agent", agent, "--human", human, "--ttl", "1s", "--format", "json")
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of a session", func() bool { return !strings.Contains(w.verb(t, "", "session", "list", "--json"), made.Session) })
	return made.Token
}

// tunnels is a proxy that only makes tunnels to where resolve says, to see what a
// client sends without the program on its way.
func tunnels(t *testing.T, resolve map[string]string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go tunnel(c, resolve)
		}
	}()
	return ln.Addr().String()
}

func tunnel(c net.Conn, resolve map[string]string) {
	defer c.Close()
	in := bufio.NewReader(c)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	host, _, _ := net.SplitHostPort(r.Host)
	to, err := net.Dial("tcp", resolve[host])
	if err != nil {
		fmt.Fprint(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer to.Close()
	fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(to, in)
		to.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, to)
}

// compare plays the same calls through the program and straight, and holds what the
// services received against each other.
func (s *stage) compare(t *testing.T, r row, purpose string) {
	for _, call := range []string{reading, writing} {
		if !r.can(call) {
			continue
		}
		p := play{call: call, purpose: purpose}
		through := s.up.collect(func() { s.shown(t, s.up.play(t, r, s.scripts, p), r.want(call)) })
		p.wrap = "straight " + s.straight + " " + s.trust()
		straight := s.up.collect(func() { s.up.play(t, r, s.scripts, p) })
		if len(straight) == 0 {
			t.Errorf("%s: nothing was received without the program", call)
		}
		if a, b := strings.Join(readable(straight, through), "\n"), strings.Join(through, "\n"); a != b {
			t.Errorf("%s: services received without the program\n%s\nand through it\n%s", call, a, b)
		}
	}
}

// readable is what the services received straight as the program passes it on. Beside
// the credential and fields of one hop it changes this alone, where it says why:
// answers have to come in a form in which a repeated secret can be found (package
// proxy, askReadable), and a streamed POST without a type says that it has none
// (octets).
func readable(straight, through []string) []string {
	out := slices.DeleteFunc(slices.Clone(straight), func(one string) bool { return strings.HasPrefix(one, "POST oauth2.googleapis.com/") }) // the program answers itself
	for i, one := range out {
		one = strings.Replace(one, ", compress", "", 1)
		one = unreadable.ReplaceAllString(one, "")
		if typed := strings.Replace(one, "\n  User-Agent", "\n  Content-Type: application/octet-stream\n  User-Agent", 1); strings.HasPrefix(one, "POST ") &&
			!strings.Contains(one, "Content-Type") && slices.Contains(through, typed) {
			one = typed
		}
		out[i] = one
	}
	slices.Sort(out)
	return out
}

var unreadable = regexp.MustCompile(`\n  (Grpc-Accept-Encoding|Connect-Accept-Encoding|Sec-Websocket-Extensions): .*`)

// collect returns what services received while f ran, in a form that two runs of a
// client have in common.
func (w *world) collect(f func()) []string {
	before := map[string]int{}
	for host, s := range w.services {
		before[host] = len(s.Received())
	}
	f()
	var out []string
	for host, s := range w.services {
		for _, r := range s.Received()[before[host]:] {
			out = append(out, described(r))
		}
	}
	slices.Sort(out)
	return out
}

// changing are fields that differ from one run of a client to the next, and those
// of one hop (RFC 9110 section 7.6.1). Content-Length is framing: it may come with a
// body that had none of its own, and the body's digest is compared.
var changing = regexp.MustCompile(`(?i)^(connection|content-length|keep-alive|te|upgrade|proxy-.*|idempotency-key|x-stripe-client-telemetry|sec-websocket-key|traceparent|date|x-amz-date|amz-sdk-invocation-id|amz-sdk-request|x-goog-api-client|b3|kubectl-command|kubectl-session|grpc-timeout|npm-session)$`)

// bounds are parts of values that a client makes up anew.
var bounds = regexp.MustCompile(`(docker|tiny)-\d+| m/[A-Za-z0-9,]+ cfg|boundary=\S+|_state=[^&]+|Signature=\w+|/\d{8}/|fields=[^&]+|invocation-id/[0-9a-f]+|alambic/media/[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}`)

// varied are targets whose bodies a client makes up anew.
var varied = regexp.MustCompile(`git-|/info/lfs/|/alambic/`)

func described(r testkit.Received) string {
	var lines []string
	for name, values := range r.Header {
		added := name == "Cache-Control" && r.Header.Get("Pragma") != "" // by the stand-in's own net/http
		if !changing.MatchString(name) && !added {
			lines = append(lines, "  "+name+": "+bounds.ReplaceAllString(strings.Join(slices.Sorted(slices.Values(values)), " | "), "…"))
		}
	}
	slices.Sort(lines)
	digest := r.Digest
	if strings.Contains(r.Header.Get("Content-Type"), "multipart/") || varied.MatchString(r.Target) { // a commit differs with the second
		digest = ""
	}
	return strings.Join(append([]string{r.Method + " " + strings.TrimSuffix(r.Host, ":443") + bounds.ReplaceAllString(r.Target, "…") + " " + digest}, lines...), "\n")
}

// withToken runs a command with another proxy password: with-token TOKEN CMD…
func withToken() {
	u, err := url.Parse(os.Getenv("HTTPS_PROXY"))
	if err != nil {
		panic("the proxy's URL is none")
	}
	token, _ := u.User.Password()
	become(os.Args[2:], func(_, value string) string { return strings.ReplaceAll(value, token, os.Args[1]) })
}

var javaProxy = regexp.MustCompile(`-D(https?)\.proxy(Host|Port)=\S+`)

// straight runs a command with the true secrets, past the program: straight
// ADDRESS-OF-A-PROXY FOLDER-OF-TRUST CMD…
func straight() {
	address, trust := os.Args[1], os.Args[2]
	host, port, _ := net.SplitHostPort(address)
	proxy, local := os.Getenv("HTTPS_PROXY"), os.Getenv("CHAPERONE_LOCAL_PROXY")
	become(os.Args[3:], func(name, value string) string {
		for _, a := range accounts {
			a.parts(func(variable, secret, _ string) {
				if name == variable {
					value = secret
				}
			})
		}
		if name == "WGETRC" {
			return filepath.Join(trust, "wgetrc")
		}
		for _, file := range []string{"bundle.pem", "ca.pem"} {
			if filepath.Base(value) == file {
				return filepath.Join(trust, "ca.pem")
			}
		}
		value = strings.NewReplacer(proxy, "http://"+address, local, "http://"+address).Replace(value)
		value = regexp.MustCompile(`\S+truststore.p12`).ReplaceAllString(value, "-Djavax.net.ssl.trustStore="+filepath.Join(trust, "truststore.p12"))
		return javaProxy.ReplaceAllStringFunc(value, func(old string) string {
			if strings.Contains(old, "Host") {
				return old[:strings.Index(old, "=")+1] + host
			}
			return old[:strings.Index(old, "=")+1] + port
		})
	})
}

// become runs a command in the place of this process, with changed variables.
func become(command []string, change func(name, value string) string) {
	env := os.Environ()
	for i, e := range env {
		name, value, _ := strings.Cut(e, "=")
		env[i] = name + "=" + change(name, value)
	}
	path, err := exec.LookPath(command[0])
	if err == nil {
		err = syscall.Exec(path, command, env)
	}
	panic(err)
}
