package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/elazarl/goproxy"

	"chaperone/certs"
)

// host is the service's name to everybody. The bare proxies dial the address that
// the file service.addr in their folder names, the program resolves it by config.
const (
	host    = "api.github.com"
	secret  = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
	plain   = "/repos/acme/web/issues"
	stream  = "/repos/acme/web/issues/events"
	lean    = "/repos/acme/web/issues?per_page=1"
	slow    = "/repos/acme/web/issues?state=all"
	large10 = "/repos/acme/web/issues/comments"
	closing = "/repos/acme/web/issues?page=2"
)

// events is the number of events of a stream, and tick the time between them.
const (
	events = 100
	tick   = 5 * time.Millisecond

	slowness = 500 * time.Millisecond
)

// start runs this program again in a role, and returns where it listens.
func start(role, dir string) (addr string, pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, nil, fmt.Errorf("starting %s: %w", role, err)
	}
	cmd := exec.Command(self, "role", role, dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, nil, fmt.Errorf("starting %s: %w", role, err)
	}
	if err := cmd.Start(); err != nil {
		return "", 0, nil, fmt.Errorf("starting %s: %w", role, err)
	}
	stop = func() {
		cmd.Process.Kill() // it has nothing to save
		cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", 0, nil, fmt.Errorf("starting %s: %w", role, err)
	}
	addr = strings.TrimSpace(line)
	if role == "service" {
		err = os.WriteFile(filepath.Join(dir, "service.addr"), []byte(addr), 0o600)
	}
	return addr, cmd.Process.Pid, stop, err
}

// play is what a process does in its role, until it is killed.
func play(role, dir string) error {
	ca, err := certs.Open(dir)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	fmt.Println(ln.Addr())
	quiet := log.New(io.Discard, "", 0)
	switch role {
	case "service":
		return serveService(ln, ca, quiet)
	case "http":
		tr, err := transport(dir, ca)
		if err != nil {
			return err
		}
		inner := make(tunnels)
		s := &http.Server{Handler: forward(tr), ErrorLog: quiet}
		go s.Serve(inner)
		conf := ca.ServerConfig() // offers HTTP/2 too
		return (&http.Server{ErrorLog: quiet, Handler: intercept(inner, conf)}).Serve(ln)
	case "goproxy":
		tr, err := transport(dir, ca)
		if err != nil {
			return err
		}
		return (&http.Server{ErrorLog: quiet, Handler: bareGoproxy(tr, ca, quiet)}).Serve(ln)
	}
	return fmt.Errorf("no role %q", role)
}

// service answers 1 KiB of JSON, a large body, or a stream of times, takes large
// bodies, and tells in headers how many connections there were, and how many of them
// resumed a TLS session.
type service struct {
	conns, resumed atomic.Int64
	small, large   []byte
	takers
}

// firstKey is under which a connection's context says whether it was seen.
type firstKey struct{}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if seen := r.Context().Value(firstKey{}).(*atomic.Bool); !seen.Swap(true) && r.TLS.DidResume {
		s.resumed.Add(1)
	}
	w.Header().Set("X-Conns", strconv.FormatInt(s.conns.Load(), 10))
	w.Header().Set("X-Resumed", strconv.FormatInt(s.resumed.Load(), 10))
	switch {
	case r.Host != host:
		if !s.takes(w, r) {
			w.Write(s.small)
		}
		return
	case r.Header.Get("Authorization") != "Bearer "+secret:
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	fields := answerFields
	if r.URL.RequestURI() == lean {
		fields = leanAnswer
	}
	setFields(w.Header(), fields)
	switch {
	case r.Method == http.MethodPost:
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprint(w, n)
		return
	case r.URL.Path == stream:
		sendTimes(w, r.Context())
		return
	case r.URL.Path == large10:
		w.Header().Set("Content-Length", strconv.Itoa(len(s.large)))
		w.Write(s.large) // the client's own affair
		return
	case r.URL.RequestURI() == slow:
		<-time.After(slowness)
	case r.URL.RequestURI() == closing:
		w.Header().Set("Connection", "close")
	}
	w.Write(s.small)
}

func serveService(ln net.Listener, ca *certs.Authority, quiet *log.Logger) error {
	all, err := ways()
	if err != nil {
		return err
	}
	h := &service{takers: takers{all}, small: []byte(`{"fill":"` + strings.Repeat("x", 1013) + `"}`), large: bytes.Repeat([]byte{'x'}, bulk)}
	s := &http.Server{Handler: h, ErrorLog: quiet,
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				h.conns.Add(1)
			}
		},
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, firstKey{}, new(atomic.Bool))
		},
		TLSConfig: &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(hello.ServerName) }},
	}
	asking := s.TLSConfig.Clone()
	asking.ClientAuth = tls.RequestClientCert
	s.TLSConfig.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName == kindHost {
			return asking, nil
		}
		return nil, nil
	}
	return s.ServeTLS(ln, "", "")
}

func sendTimes(w http.ResponseWriter, ctx context.Context) {
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	t := time.NewTicker(tick)
	defer t.Stop()
	for range events {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
		if rc.Flush() != nil {
			return
		}
	}
}

// transport is tuned as a careful author would: enough idle connections, a session
// cache, no decompression, HTTP/1.1.
func transport(dir string, ca *certs.Authority) (*http.Transport, error) {
	addr, err := os.ReadFile(filepath.Join(dir, "service.addr"))
	if err != nil {
		return nil, fmt.Errorf("looking for the service: %w", err)
	}
	return &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool(ca.PEM()), ClientSessionCache: tls.NewLRUClientSessionCache(1024)},
		MaxIdleConnsPerHost: 1024, MaxIdleConns: 4096, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", string(addr))
		},
	}, nil
}

func pool(pem []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p
}

// tunnels is a listener whose connections come from CONNECT.
type tunnels chan net.Conn

func (t tunnels) Accept() (net.Conn, error) { return <-t, nil }
func (t tunnels) Close() error              { return nil }
func (t tunnels) Addr() net.Addr            { return &net.TCPAddr{} }

// tunnel knows the name that its CONNECT was for.
type tunnel struct {
	net.Conn
	name string
}

// ServerName is what certs asks for.
func (t tunnel) ServerName() string { return t.name }

func intercept(inner tunnels, conf *tls.Config) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, err := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "CONNECT only", http.StatusBadRequest)
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			c.Close()
			return
		}
		inner <- tls.Server(tunnel{c, name}, conf)
	})
}

func forward(tr *http.Transport) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host, r.RequestURI = "https", r.Host, ""
		if r.ContentLength == 0 {
			r.Body = nil
		}
		resp, err := tr.RoundTrip(r)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		if resp.ContentLength >= 0 {
			io.Copy(w, resp.Body)
			return
		}
		relay(w, resp.Body)
	})
}

// relay flushes after every read.
func relay(w http.ResponseWriter, body io.Reader) {
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil || rc.Flush() != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// bareGoproxy is goproxy's own interception, given leaves from a cache and a
// transport that keeps its connections.
func bareGoproxy(tr *http.Transport, ca *certs.Authority, quiet *log.Logger) http.Handler {
	p := goproxy.NewProxyHttpServer()
	p.Logger, p.Tr = quiet, tr
	mitm := &goproxy.ConnectAction{Action: goproxy.ConnectMitm, TLSConfig: func(h string, _ *goproxy.ProxyCtx) (*tls.Config, error) {
		name, _, err := net.SplitHostPort(h)
		if err != nil {
			return nil, err
		}
		leaf, err := ca.Leaf(name)
		if err != nil {
			return nil, err
		}
		return &tls.Config{Certificates: []tls.Certificate{*leaf}}, nil
	}}
	p.OnRequest().HandleConnectFunc(func(h string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) { return mitm, h })
	return p
}
