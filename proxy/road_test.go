package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/audit"
	"chaperone/certs"
	"chaperone/credential"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
	"chaperone/store/bolt"
)

// canary is a secret that must never be seen anywhere but at the service.
const canary = "ghp_canaryCANARYcanaryCANARYcanaryCANARY0"

const roadPolicy = `package chaperone

default decision := {"result": "deny", "reasons": ["Not granted."]}

decision := {"result": "allow"} if {
	input.action.service in {"github", "acme", "aws-s3", "aws-dynamodb"}
	input.action.known
	input.action.access in {"read", "list", "write"}
}

decision := {"result": "allow"} if {
	not input.action.known
	input.request.host == "raw.example.com"
}

decision := {"result": "allow", "reasons": ["It had the handle."]} if input.action.operation == "handle/trade"

decision := {"result": "ask", "reasons": ["A person must say yes."]} if input.action.access == "admin"
`

// seen is a request as a service received it.
type seen struct {
	Method, URI, Host, Proto string
	Header                   http.Header
	Body                     []byte
	Trailer                  http.Header
}

// road is a whole proxy with a service behind it.
type road struct {
	t         testing.TB
	server    *Server
	addr      string
	log       string
	dir       *identity.Directory
	vault     *credential.Vault
	kv        *bolt.Store
	gate      *policy.Gate
	ca        *certs.Authority
	ahead     atomic.Int64 // of the directory's clock, in nanoseconds
	session   identity.Created
	handle    string
	service   *httptest.Server
	mu        sync.Mutex
	seen      []seen
	serve     http.HandlerFunc // what the service answers; nil: an echo
	operation *bytes.Buffer
}

func newRoad(t testing.TB, change ...func(*Options, *upstream.Options)) *road {
	t.Helper()
	d := &road{t: t, operation: &bytes.Buffer{}}
	dir := t.TempDir()
	kv, err := bolt.Open(filepath.Join(dir, "s"), bolt.Options{})
	check(t, err)
	key, err := credential.NewKey()
	check(t, err)
	d.kv = kv
	d.vault, err = credential.Open(t.Context(), kv, key)
	check(t, err)
	d.dir, err = identity.Open(t.Context(), identity.Options{Store: kv, Vault: d.vault, Prefix: func(string) string { return "ghp_" },
		Now: func() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }})
	check(t, err)
	d.log = filepath.Join(dir, "decisions.jsonl")
	log, err := audit.Open(audit.Options{Path: d.log})
	check(t, err)
	d.ca, err = certs.Open(dir)
	check(t, err)
	engine, err := opa.Load(opa.Options{FS: fstest.MapFS{"p.rego": {Data: []byte(roadPolicy)}}, Timeout: 10 * time.Second})
	check(t, err)
	d.gate = &policy.Gate{}
	d.gate.Use(engine)
	catalogue, err := action.Load(action.Shipped(), []action.Service{{Name: "acme", Hosts: []string{"api.acme.dev"}, Places: []string{"bearer", "header:X-Api-Key", "query:key"},
		Paths: map[string]map[string]string{"/{path+}": {"GET": "get read", "POST": "post write", "PUT": "put write", "DELETE": "delete delete"}}}})
	check(t, err)
	roots := d.startService()
	uo := upstream.Options{Roots: roots, Resolve: map[string]string{"*.example.com": d.service.Listener.Addr().String(), "api.acme.dev": d.service.Listener.Addr().String(), "api.github.com": d.service.Listener.Addr().String()}}
	o := Options{Directory: d.dir, Catalogue: catalogue, Gate: d.gate, Log: log, Vault: d.vault, CA: d.ca, Metrics: NewMetrics(), Logger: slog.New(slog.NewTextHandler(d.operation, nil)),
		HandshakeTimeout: time.Minute, HeadTimeout: time.Minute} // a loaded machine is no test of them
	for _, f := range change {
		f(&o, &uo)
	}
	o.Upstream, err = upstream.New(uo)
	check(t, err)
	d.server, err = New(o)
	check(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	d.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() { d.server.Serve(ln); close(done) }()
	t.Cleanup(func() {
		d.server.Close()
		<-done
		d.service.Close()
		o.Upstream.Close()
		log.Close()
		d.dir.Close()
		kv.Close()
	})
	d.enrol()
	return d
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *road) startService() *x509.CertPool {
	leafs, err := certs.Open(d.t.TempDir())
	check(d.t, err)
	d.service = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		if d.serve == nil {
			body, _ = io.ReadAll(r.Body)
		}
		d.mu.Lock()
		d.seen = append(d.seen, seen{r.Method, r.RequestURI, r.Host, r.Proto, r.Header.Clone(), body, r.Trailer.Clone()})
		serve := d.serve
		d.mu.Unlock()
		if serve != nil {
			serve(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"method":%q,"uri":%q,"bytes":%d}`, r.Method, r.RequestURI, len(body))
	}))
	d.service.EnableHTTP2 = true
	d.service.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return leafs.Leaf(h.ServerName) }}
	d.service.StartTLS()
	pool := x509.NewCertPool()
	pool.AddCert(leafs.Certificate())
	return pool
}

func (d *road) enrol() {
	ctx := d.t.Context()
	_, err := d.dir.AddAgent(ctx, "bot", "team:dev", nil)
	check(d.t, err)
	for _, c := range []credential.Credential{{ID: "gh", Service: "github", Owner: "org", Kind: credential.KindBearer}, {ID: "acme", Service: "acme", Owner: "org", Kind: credential.KindBearer}} {
		check(d.t, d.vault.Add(ctx, c, credential.NewSecret([]byte(canary))))
	}
	d.session, err = d.dir.CreateSession(ctx, identity.Spec{Agent: "bot", Human: "alice@acme.com", Purpose: "test", Credentials: []string{"gh", "acme"}})
	check(d.t, err)
	d.handle = d.session.Handles["gh"]
}

// client returns an HTTP client that goes through the proxy as the session.
func (d *road) client(h2 bool) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.ca.PEM())
	t := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: d.addr, User: url.UserPassword("bot", d.session.Token)}),
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols), DisableCompression: true,
	}
	t.Protocols.SetHTTP1(!h2)
	t.Protocols.SetHTTP2(h2)
	d.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 2 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (d *road) received() []seen {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]seen(nil), d.seen...)
}

// records returns the exchanges in the log, once n of them have an outcome.
func (d *road) records(n int) []audit.Exchange {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var out []audit.Exchange
		whole := 0
		for x, err := range audit.Exchanges(d.log, audit.Filter{}) {
			check(d.t, err)
			out = append(out, x)
			if x.Outcome != nil {
				whole++
			}
		}
		if whole >= n {
			return out
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatalf("%d whole records, want %d: %+v", whole, n, out)
		}
	}
}

func TestRoad(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", h2), func(t *testing.T) {
			d := newRoad(t)
			c := d.client(h2)
			req, _ := http.NewRequest("POST", "https://api.github.com/repos/Acme/Web/issues?per_page=5", strings.NewReader(`{"title":"x"}`))
			req.Header.Set("Authorization", "token "+d.handle)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Via", "1.1 evil")
			req.Header.Set("X-Forwarded-For", "10.0.0.1")
			resp, err := c.Do(req)
			check(t, err)
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Chaperone-Decision"), "allow; id=") || !strings.Contains(string(body), `"bytes":13`) {
				t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, body)
			}
			got := d.received()[0]
			if got.URI != "/repos/Acme/Web/issues?per_page=5" || got.Host != "api.github.com" || got.Header.Get("Authorization") != "token "+canary {
				t.Errorf("the service received %+v", got)
			}
			for _, name := range []string{"Via", "X-Forwarded-For", "Proxy-Authorization", "Proxy-Connection", "Forwarded"} {
				if got.Header.Get(name) != "" {
					t.Errorf("%s reached the service: %v", name, got.Header)
				}
			}
			del, _ := http.NewRequest("DELETE", "https://api.github.com/repos/acme/web/issues/comments/5", nil)
			del.Header.Set("Authorization", "Bearer "+d.handle)
			resp, err = c.Do(del)
			check(t, err)
			body, _ = io.ReadAll(resp.Body)
			var p problem
			check(t, json.Unmarshal(body, &p))
			if resp.StatusCode != 403 || p.Title != "Denied by policy" || p.DecisionID == "" || len(p.Reasons) != 1 || p.Hint == "" || resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(body), `"message":`) {
				t.Errorf("refusal: %d %s", resp.StatusCode, body)
			}
			if len(d.received()) != 1 {
				t.Error("a denied request reached the service")
			}
			rs := d.records(2)
			a, b := rs[0], rs[1]
			if a.Decision.Agent.ID != "bot" || a.Decision.Agent.Instance != d.session.Instance || a.Decision.Human.Email != "alice@acme.com" || a.Decision.Action.ID != "github:issues/create" ||
				a.Decision.ResourceID() != "acme/web" || a.Decision.Decision.Result != "allow" || a.Decision.Credential.ID != "gh" || a.Outcome.Outcome.Status != 200 ||
				a.Outcome.Outcome.BytesIn != 13 || a.Outcome.Outcome.AddedUS <= 0 || a.Decision.Request.Query[0] != "per_page" || a.Decision.Decision.Policy != d.gate.Revision() {
				t.Errorf("record %s\n%s", a.Decision.Raw, a.Outcome.Raw)
			}
			if b.Decision.Decision.Result != "deny" || b.Decision.ID != p.DecisionID || b.Outcome.Outcome.Error != "denied" || b.Outcome.Outcome.Status != 403 {
				t.Errorf("record %s\n%s", b.Decision.Raw, b.Outcome.Raw)
			}
			for _, x := range rs {
				if s := string(x.Decision.Raw) + string(x.Outcome.Raw); strings.Contains(s, canary) || strings.Contains(s, d.handle) || strings.Contains(s, d.session.Token) {
					t.Errorf("a secret is in the log: %s", s)
				}
			}
		})
	}
}

func TestAbsoluteForm(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Host, r.Header.Get("Authorization"))
	}))
	defer plain.Close()
	d := newRoad(t, func(_ *Options, u *upstream.Options) { u.Resolve["api.acme.dev:80"] = plain.Listener.Addr().String() })
	ask := func(auth string) string {
		req, _ := http.NewRequest("GET", "http://api.acme.dev/x/y?z", nil)
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		resp, err := d.client(false).Do(req)
		check(t, err)
		body, _ := io.ReadAll(resp.Body)
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
	if got := ask(""); got != "200 GET /x/y?z api.acme.dev " {
		t.Errorf("without a credential: %s", got)
	}
	if got := ask("Bearer " + d.session.Handles["acme"]); !strings.HasPrefix(got, "403 ") || !strings.Contains(got, "plain HTTP") {
		t.Errorf("a credential in clear: %s", got)
	}
	c, err := action.Load(action.Shipped(), []action.Service{{Name: "acme", Hosts: []string{"api.acme.dev"}, Places: []string{"bearer"}, Cleartext: true,
		Paths: map[string]map[string]string{"/{path+}": {"GET": "get read"}}}})
	check(t, err)
	check(t, d.server.UseCatalogue(c))
	if got := ask("Bearer " + d.session.Handles["acme"]); got != "200 GET /x/y?z api.acme.dev Bearer "+d.session.Handles["acme"] {
		t.Errorf("where the operator allows it: %s", got)
	}
	if r := d.records(1)[0]; r.Decision.Agent.ID != "bot" || r.Decision.Request.Host != "api.acme.dev" {
		t.Errorf("record %s", r.Decision.Raw)
	}
}

// TestChallenge is what git does: CONNECT without credentials, then again on the
// same connection.
func TestChallenge(t *testing.T) {
	d := newRoad(t)
	conn, err := net.Dial("tcp", d.addr)
	check(t, err)
	defer conn.Close()
	br := bufio.NewReader(conn)
	for i, auth := range []string{"", basicAuth("bot", "wrong"), basicAuth("bot", d.session.Token)} {
		fmt.Fprintf(conn, "CONNECT api.github.com:443 HTTP/1.1\r\nHost: api.github.com:443\r\n")
		if auth != "" {
			fmt.Fprintf(conn, "Proxy-Authorization: %s\r\n", auth)
		}
		io.WriteString(conn, "\r\n")
		resp, err := http.ReadResponse(br, &http.Request{Method: "CONNECT"})
		check(t, err)
		want := 407
		if i == 2 {
			want = 200
		}
		if resp.StatusCode != want {
			t.Fatalf("step %d: %d", i, resp.StatusCode)
		}
		if want == 407 {
			if resp.Header.Get("Proxy-Authenticate") != `Basic realm="chaperone"` || resp.Close {
				t.Errorf("step %d: %v", i, resp.Header)
			}
			io.Copy(io.Discard, io.LimitReader(br, resp.ContentLength))
		}
	}
}

func basicAuth(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

// TestRefusalsAreNegotiated gives SDKs that accept JSON only the same body as JSON.
func TestRefusalsAreNegotiated(t *testing.T) {
	for accept, want := range map[string]string{
		"": "application/problem+json", "*/*": "application/problem+json", "text/html": "application/problem+json", "application/json, */*": "application/problem+json",
		"application/vnd.github.v3+json": "application/json", "application/json": "application/json", "application/problem+json, application/json": "application/problem+json",
	} {
		h := http.Header{}
		if accept != "" {
			h.Set("Accept", accept)
		}
		if got := mediaType(&http.Request{Header: h}); got != want {
			t.Errorf("%q: got %s, want %s", accept, got, want)
		}
		h.Set("User-Agent", "google-api-nodejs-client/22.0.1 (gzip)")
		if got := mediaType(&http.Request{Header: h}); got != "application/json" {
			t.Errorf("%q: Google's library for Node gets %s", accept, got)
		}
	}
}

// TestPassThrough opens uninspected tunnels to hosts that no service names, where
// policy allows it at CONNECT, and never with a credential.
func TestPassThrough(t *testing.T) {
	d := newRoad(t, func(o *Options, _ *upstream.Options) { o.TunnelUnknown = true })
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.ca.PEM())
	conn, err := d.tunnelTo("raw.example.com:443", "raw.example.com")
	if err == nil {
		t.Fatalf("the tunnel was intercepted: %v", conn.ConnectionState().PeerCertificates[0].Issuer)
	}
	conn.Close()
	c := d.client(false)
	c.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true // the service's own certificate, as the agent sees it
	req, _ := http.NewRequest("GET", "https://raw.example.com/x", nil)
	req.Header.Set("Authorization", "Bearer "+d.handle)
	resp, err := c.Do(req)
	check(t, err)
	io.Copy(io.Discard, resp.Body)
	if got := d.received(); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer "+d.handle {
		t.Errorf("the service received %+v", got)
	}
	if _, err := d.client(false).Get("https://other.example.com/"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("a tunnel that policy does not allow: %v", err)
	}
	c.CloseIdleConnections()
	known := d.request("GET", "https://api.acme.dev/x", nil)
	resp, err = d.client(false).Do(known)
	check(t, err)
	if resp.Header.Get("Chaperone-Decision") == "" {
		t.Error("a known host passed uninspected")
	}
	rs := d.records(4)
	for _, x := range rs {
		if x.Decision.Request.Method == "CONNECT" && x.Decision.Decision.Result == "allow" && (x.Decision.Agent.ID != "bot" || x.Decision.Credential.ID != "") {
			t.Errorf("record %s", x.Decision.Raw)
		}
	}
}
