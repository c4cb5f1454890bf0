// Package upstream sends permitted requests to their services.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/policy"
)

var (
	// ErrAddress is wrapped when an address may not be dialled.
	ErrAddress = errors.New("address may not be dialled")
	// ErrDial is wrapped when a service cannot be reached; nothing was sent.
	ErrDial = errors.New("service cannot be reached")
	// ErrTLS is wrapped when a service's certificate is not accepted; nothing was sent.
	ErrTLS = errors.New("service's certificate is not accepted")
	// ErrTimeout is wrapped when a service does not answer in time.
	ErrTimeout = errors.New("service did not answer in time")
	// ErrProtocol is wrapped when a request or an answer is not HTTP.
	ErrProtocol = errors.New("not HTTP")
	// ErrCanceled is wrapped when the caller's context ended first.
	ErrCanceled = errors.New("exchange was cancelled")
	// ErrSentUnknown is wrapped when the connection was lost and nobody knows whether
	// the service carried the request out.
	ErrSentUnknown = errors.New("connection to the service was lost")
)

// Options of a [Client]; zero durations take the default beside them.
type Options struct {
	// AllowPrivate names networks (CIDR), addresses or host:port that may be dialled
	// although they are private or special.
	AllowPrivate []string
	// Resolve maps host or host:port, or *.suffix, to the address:port dialled in its
	// place. An address that stands here is allowed.
	Resolve map[string]string
	// Roots verify services; nil takes the system's.
	Roots *x509.CertPool
	// Proxy is a corporate proxy through which everything goes, or nil.
	Proxy *url.URL
	// Forbidden lists the listeners of this program; they are never dialled.
	Forbidden func() []netip.AddrPort
	// Lookup resolves names; nil takes the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	DialTimeout   time.Duration // 10 s
	TLSTimeout    time.Duration // 10 s
	HeaderTimeout time.Duration // from request to head of the answer; 0: none, since models think long
	IdleTimeout   time.Duration // 90 s
}

// Protocol is the version of HTTP to speak with a service.
type Protocol uint8

const (
	// Auto is HTTP/1.1, or HTTP/2 where the service speaks nothing else.
	Auto Protocol = iota
	// H2 is HTTP/2, for what needs it: gRPC.
	H2
)

// Request is what goes out.
type Request struct {
	Method         string
	Scheme         string
	Host           string // canonical, no port
	Port           int
	Path           string // escaped; sent as it is
	RawQuery       string
	HostHeader     string
	Header         http.Header // field names are sent as they are spelled
	Body           io.Reader   // nil: none
	ContentLength  int64       // -1: not known
	Trailer        http.Header // announced; values are read when Body has ended
	Protocol       Protocol
	Upgrade        bool // a WebSocket handshake
	ExpectContinue bool // the body waits for the service's 100
	// SentPath goes out in the place of Path, which is what the permit covers: it holds
	// a credential where Path has none. Empty: Path goes out.
	SentPath string
	// Certificate is shown to the service when the connection is made (mutual TLS); nil:
	// none is.
	Certificate *tls.Certificate
	// On1xx is told of interim answers.
	On1xx func(code int, h http.Header) error
}

// Target returns what a permit must cover.
func (r *Request) Target() policy.Target {
	return policy.Target{Method: r.Method, Scheme: r.Scheme, Host: r.Host, Port: r.Port, Path: r.Path}
}

func (r *Request) sentPath() string {
	if r.SentPath != "" {
		return r.SentPath
	}
	return r.Path
}

// Client dials services and sends what a permit covers. Certificates are verified
// always, redirects never followed, and nothing is kept between requests but idle
// connections. It is safe for concurrent use.
type Client struct {
	o      Options
	guard  *guard
	dialer net.Dialer
	tls    *tls.Config
	idle   pool
	opened atomic.Int64    // connections made for HTTP/1.1
	h1     *http.Transport // through a corporate proxy
	h2     *http.Transport
	own    *http.Transport // of the program's own requests
	shown  sync.Map        // transports by the certificate that they show
	onlyH2 sync.Map        // hosts that refuse HTTP/1.1
	someH2 atomic.Bool     // there are such
}

// New returns a client.
func New(o Options) (*Client, error) {
	g, err := newGuard(o.AllowPrivate, o.Forbidden)
	if err != nil {
		return nil, fmt.Errorf("allow_private: %w", err)
	}
	for from, to := range o.Resolve {
		if _, err := netip.ParseAddrPort(to); err != nil {
			return nil, fmt.Errorf("resolve: %s: %q is not an address with a port, such as 127.0.0.1:9443", from, to)
		}
	}
	o.DialTimeout = orDefault(o.DialTimeout, 10*time.Second)
	o.TLSTimeout = orDefault(o.TLSTimeout, 10*time.Second)
	o.IdleTimeout = orDefault(o.IdleTimeout, 90*time.Second)
	c := &Client{o: o, guard: g}
	c.dialer = net.Dialer{Timeout: o.DialTimeout, ControlContext: g.control}
	c.tls = c.tlsConfig("http/1.1")
	c.idle.limit = o.IdleTimeout
	c.h1, c.h2, c.own = c.transport(false), c.transport(true), c.transport(false)
	return c, nil
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

func (c *Client) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		RootCAs: c.o.Roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1024), NextProtos: protocols,
		DynamicRecordSizingDisabled: true, // a short request is one write also when its connection is young
	}
}

func (c *Client) transport(h2 bool) *http.Transport {
	t := &http.Transport{
		DialContext:            c.dial,
		TLSClientConfig:        c.tlsConfig(),
		TLSHandshakeTimeout:    c.o.TLSTimeout,
		ResponseHeaderTimeout:  c.o.HeaderTimeout,
		IdleConnTimeout:        c.o.IdleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxIdleConns:           4096,
		MaxIdleConnsPerHost:    1024,
		MaxResponseHeaderBytes: 1 << 20,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
	}
	if c.o.Proxy != nil {
		t.Proxy = http.ProxyURL(c.o.Proxy)
		t.OnProxyConnectResponse = func(_ context.Context, u *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			return fmt.Errorf("%w: the corporate proxy %s answers %d", ErrDial, u.Host, resp.StatusCode)
		}
	}
	t.Protocols.SetHTTP1(!h2)
	t.Protocols.SetHTTP2(h2)
	return t
}

// Close ends idle connections, and those that become idle.
func (c *Client) Close() {
	c.idle.close(true)
	c.h1.CloseIdleConnections()
	c.h2.CloseIdleConnections()
	c.own.CloseIdleConnections()
	c.shown.Range(func(_, t any) bool { t.(*http.Transport).CloseIdleConnections(); return true })
}

// dial connects to address, or to what the operator named in its place, through
// the guard.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := dial{authority: strings.ToLower(address), trusted: c.resolve(strings.ToLower(address))}
	if c.o.Proxy != nil && sameAuthority(c.o.Proxy, address) {
		d.trusted = address // the operator's own word
	}
	ctx = context.WithValue(ctx, dialKey{}, d)
	if d.trusted != "" {
		return c.dialer.DialContext(ctx, network, d.trusted)
	}
	if c.o.Lookup == nil {
		return c.dialer.DialContext(ctx, network, address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := c.o.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%s has no address", host)
	for _, a := range addrs {
		var conn net.Conn
		if conn, err = c.dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func sameAuthority(u *url.URL, address string) bool {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port) == address
}

// resolve returns what the operator named in place of an authority, or nothing.
func (c *Client) resolve(authority string) string {
	if len(c.o.Resolve) == 0 {
		return ""
	}
	if to, ok := c.o.Resolve[authority]; ok {
		return to
	}
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		return ""
	}
	if to, ok := c.o.Resolve[host]; ok {
		return to
	}
	for i := strings.IndexByte(host, '.'); i >= 0; {
		if to, ok := c.o.Resolve["*"+host[i:]]; ok {
			return to
		}
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return ""
}

// Send spends the permit and sends r. It returns when the head of the answer is
// there; the body streams. On 101 the answer's body is an [io.ReadWriteCloser].
func (c *Client) Send(ctx context.Context, p *policy.Permit, r *Request) (*http.Response, error) {
	if err := p.Redeem(ctx, r.Target()); err != nil {
		return nil, err
	}
	resp, err := c.carry(ctx, r)
	if err != nil {
		return nil, classify(ctx, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols && !r.Upgrade {
		resp.Body.Close()
		return nil, protocolError("the service switches protocols unasked")
	}
	return resp, nil
}

// carry chooses who sends r: this package's own HTTP/1.1, or net/http for HTTP/2
// and for everything behind a corporate proxy.
func (c *Client) carry(ctx context.Context, r *Request) (*http.Response, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if c.o.Proxy != nil {
		if err := c.guard.literal(r.Host, r.Port); err != nil {
			return nil, err
		}
	}
	if r.Scheme == "https" && (r.Protocol == H2 || c.refused(r.Host)) {
		return c.showing(r, true).RoundTrip(r.request(ctx))
	}
	if c.o.Proxy != nil {
		req := r.request(ctx)
		if r.Scheme == "http" { // a proxy takes the absolute form (RFC 9112 section 3.2.2)
			req.URL.Opaque = "//" + r.HostHeader + r.sentPath()
		}
		return c.showing(r, false).RoundTrip(req)
	}
	resp, err := c.roundTrip(ctx, r)
	if refusesHTTP1(err) { // during the handshake: nothing was sent
		c.onlyH2.Store(r.Host, true)
		c.someH2.Store(true)
		return c.showing(r, true).RoundTrip(r.request(ctx))
	}
	return resp, err
}

// refused reports whether a host was seen to refuse HTTP/1.1.
func (c *Client) refused(host string) bool {
	if !c.someH2.Load() {
		return false
	}
	_, h2 := c.onlyH2.Load(host)
	return h2
}

// errHandshake is wrapped when TLS did not come about; nothing was sent.
var errHandshake = errors.New("speaking TLS")

// refusesHTTP1 reports whether a service refused HTTP/1.1 in ALPN (RFC 7301 section
// 3.2). crypto/tls has no type for the alert.
func refusesHTTP1(err error) bool {
	return errors.Is(err, errHandshake) && strings.Contains(err.Error(), "no application protocol")
}

// request is r as net/http takes it.
func (r *Request) request(ctx context.Context) *http.Request {
	if r.On1xx != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error { return r.On1xx(code, http.Header(h)) },
		})
	}
	target := r.sentPath()
	if strings.HasPrefix(target, "//") { // net/http would take it for an authority
		target = "//" + r.HostHeader + target
	}
	req := &http.Request{
		Method: r.Method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: r.Header, Host: r.HostHeader,
		// An opaque path is the only one that net/http does not re-encode.
		URL:           &url.URL{Scheme: r.Scheme, Host: net.JoinHostPort(r.Host, strconv.Itoa(r.Port)), Opaque: target, RawQuery: r.RawQuery},
		ContentLength: r.ContentLength, Trailer: r.Trailer,
	}
	if r.Body != nil && r.ContentLength != 0 {
		req.Body = io.NopCloser(r.Body)
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = []string{""} // none of net/http's own; the agent's may be spelled otherwise
	}
	if r.Upgrade {
		r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if r.ExpectContinue {
		r.Header["Expect"] = []string{"100-continue"}
	}
	return req.WithContext(ctx)
}

// classify tells what an error of net/http means for the exchange.
func classify(ctx context.Context, err error) error {
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrAddress), errors.Is(err, ErrDial), errors.Is(err, ErrProtocol), errors.Is(err, ErrCanceled):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrCanceled, err)
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"), errors.As(err, new(*net.DNSError)):
		return fmt.Errorf("%w: %w", ErrDial, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case errors.Is(err, errHandshake), errors.As(err, &cert), errors.As(err, &record):
		return fmt.Errorf("%w: %w", ErrTLS, err)
	case strings.Contains(err.Error(), "malformed"), strings.Contains(err.Error(), "invalid"):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return fmt.Errorf("%w: %w", ErrSentUnknown, err)
}
