package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"chaperone/certs"
)

// The services that the demo stands in for.
const (
	githubHost = "api.github.com"
	slackHost  = "slack.com"
	streamPath = "/repos/acme/web/events"
)

// Secrets that only the proxy and the stand-ins know.
const (
	githubSecret = "ghp_the_real_secret_of_acme"
	slackSecret  = "xoxb-the-real-secret-of-acme"
)

// standIns are both services on one loopback port, each under its own name and with
// a certificate of a CA of their own.
type standIns struct {
	address string // host:port
	roots   string // file of their CA
	server  *http.Server
	served  chan error

	mu   sync.Mutex
	last string // what was received last, for people
}

func openStandIns(dir string) (*standIns, error) {
	ca, err := certs.Open(dir)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &standIns{address: ln.Addr().String(), roots: filepath.Join(dir, certs.CertFile), served: make(chan error, 1)}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(hello.ServerName) },
	}}
	go func() { s.served <- s.server.ServeTLS(ln, "", "") }()
	return s, nil
}

func (s *standIns) close() {
	s.server.Close()
	<-s.served
}

// take returns what was received since it was last called.
func (s *standIns) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last
	s.last = ""
	return last
}

// ServeHTTP answers as the services do, for the few requests of the demo.
func (s *standIns) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.last = fmt.Sprintf("%s https://%s%s\n                    Authorization: %s", r.Method, r.Host, r.URL.Path, r.Header.Get("Authorization"))
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	secret := githubSecret
	if r.Host == slackHost {
		secret = slackSecret
	}
	if r.Header.Get("Authorization") != "Bearer "+secret {
		http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
		return
	}
	switch {
	case r.URL.Path == streamPath:
		stream(w, r)
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"number":2,"title":"It is slow"}`)
	default:
		io.WriteString(w, `[{"number":1,"title":"It is broken"}]`)
	}
}

// stream sends events until the reader goes away.
func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		fmt.Fprintf(w, "data: event %d\n\n", n)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// agentClient is an HTTP client as an agent sets it up: a proxy, and trust in its
// CA.
func agentClient(proxyURL, caPath string) (*http.Client, error) {
	proxy, err := url.Parse(proxyURL)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(caPath)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, errors.New(strings.TrimSpace(caPath) + " holds no certificate")
	}
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}, nil
}
