package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/credential"
	"chaperone/policy/action"
	"chaperone/policy/opa"
	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
)

// kindsRoad is a road whose service takes credentials in the path and in bodies, with
// a token endpoint.
func kindsRoad(t *testing.T, ahead *atomic.Int64) *road {
	d := newRoad(t, func(o *Options, u *upstream.Options) {
		var err error
		o.Catalogue, err = action.Load(action.Shipped(), []action.Service{{Name: "acme", Hosts: []string{"api.acme.dev"}, Places: []string{"bearer", "path:/bot*", "body:token"},
			Paths: map[string]map[string]string{"/botHANDLE/{method}": {"POST": "bot/call write"}, "/{path+}": {"GET": "get read", "POST": "post write"}}}})
		check(t, err)
		u.Resolve["login.acme.dev"] = u.Resolve["api.acme.dev"]
		u.Resolve["nobody.acme.dev"] = "127.0.0.1:1"
		u.Resolve["alien.acme.dev"] = alien(t)
	})
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	d.vault.Use(credential.Outside{HTTP: d.server.o.Upstream.Own(), Now: now})
	return d
}

// alien is a service whose certificate nobody trusts.
func alien(t *testing.T) string {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// holds makes a session with one credential and returns its handle.
func (d *road) holds(c credential.Credential, secret string) string {
	d.t.Helper()
	c.Service, c.Owner = "acme", "org"
	check(d.t, d.vault.Add(d.t.Context(), c, credential.NewSecret([]byte(secret))))
	var err error
	d.session, err = d.dir.CreateSession(d.t.Context(), identity.Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{c.ID}})
	check(d.t, err)
	return d.session.Handles[c.ID]
}

func (d *road) do(method, url, auth, body string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	check(d.t, err)
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.client(false).Do(req)
	check(d.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	check(d.t, err)
	return resp.StatusCode, string(b)
}

func (d *road) unseen(n int, texts ...string) {
	d.t.Helper()
	for _, x := range d.records(n) {
		for _, text := range append(texts, d.session.Token) {
			if s := string(x.Decision.Raw) + string(x.Outcome.Raw); strings.Contains(s, text) {
				d.t.Errorf("the log shows what it must not: %s", s)
			}
		}
	}
	if s := d.operation.String(); strings.Contains(s, "canary") {
		d.t.Errorf("told: %s", s)
	}
}

func TestCredentialInPathAndBody(t *testing.T) {
	d := kindsRoad(t, new(atomic.Int64))
	h := d.holds(credential.Credential{ID: "tg", Kind: credential.KindPath}, "77:canary/x")
	if code, body := d.do("POST", "https://api.acme.dev/bot"+h+"/send", "", `{}`); code != 200 {
		t.Fatal(code, body)
	}
	if got := d.received()[0]; got.URI != "/bot77:canary%2Fx/send" {
		t.Errorf("the service received %s", got.URI)
	}
	if x := d.records(1)[0]; x.Decision.Action.ID != "acme:bot/call" || x.Decision.Request.Path != "/botHANDLE/send" || x.Decision.Credential.ID != "tg" {
		t.Errorf("record %s", x.Decision.Raw)
	}
	if code, _ := d.do("POST", "https://api.acme.dev/bot99:stolen/send", "", `{}`); code != 403 {
		t.Errorf("a real token in the path: %d", code)
	}
	b := d.holds(credential.Credential{ID: "bd", Kind: credential.KindBody}, `can"ary`)
	long := strings.Repeat("x", 200<<10) // more than is looked into
	if code, body := d.do("POST", "https://api.acme.dev/x", "", `{"token":"`+b+`","text":"`+long+`"}`); code != 200 {
		t.Fatal(code, body)
	}
	got := d.received()[1]
	if want := `{"token":"can\"ary","text":"` + long + `"}`; string(got.Body) != want || got.Header.Get("Content-Length") != fmt.Sprint(len(want)) {
		t.Errorf("the service received %d bytes: %.60s, Content-Length %s", len(got.Body), got.Body, got.Header.Get("Content-Length"))
	}
	if x := d.records(3)[2]; x.Decision.Credential.ID != "bd" {
		t.Errorf("record %s", x.Decision.Raw)
	}
	d.unseen(3, h, b, "canary", `can\"ary`, "stolen")
}

// TestUnauthorizedIsRenewedOnce has a service end a token before its time.
func TestUnauthorizedIsRenewedOnce(t *testing.T) {
	var ahead, minted, refused atomic.Int64
	d := kindsRoad(t, &ahead)
	good := "bearer canary-access-1"
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == "login.acme.dev":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":"canary-access-%d","token_type":"bearer","expires_in":3600}`, minted.Add(1))
		case r.Header.Get("Authorization") != good:
			refused.Add(1)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"invalid_token"}`)
		default:
			io.WriteString(w, "fine")
		}
	}
	h := d.holds(credential.Credential{ID: "o", Kind: credential.KindRefresh, Settings: map[string]string{"token_url": "https://login.acme.dev/token", "client_id": "app"}}, "canary-refresh")
	ask := func(method, body string, want int) {
		t.Helper()
		if code, text := d.do(method, "https://api.acme.dev/me", "bearer "+h, body); code != want {
			t.Errorf("%d %s, want %d", code, text, want)
		}
	}
	ask("GET", "", 200)
	d.mu.Lock()
	good = "bearer canary-access-2"
	d.mu.Unlock()
	ask("GET", "", 401) // it was just made: another would not help
	ahead.Store(int64(time.Minute))
	good = "bearer canary-access-2"
	ask("GET", "", 200)
	if minted.Load() != 2 || refused.Load() != 2 {
		t.Errorf("%d tokens, %d refusals", minted.Load(), refused.Load())
	}
	good = "bearer canary-access-3"
	ahead.Store(int64(2 * time.Minute))
	ask("POST", `{}`, 401) // a body is sent once
	good = "bearer canary-access-3"
	ask("POST", `{}`, 200) // with the token that was got meanwhile
	good = "bearer canary-access-4"
	ahead.Store(int64(3 * time.Minute))
	serve := d.serve
	d.serve = func(w http.ResponseWriter, r *http.Request) { // policy changes while the service answers
		if r.Host == "api.acme.dev" {
			engine, err := opa.Load(opa.Options{FS: fstest.MapFS{"p.rego": {Data: []byte(roadPolicy + "\nnewer := true\n")}}, Timeout: 10 * time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			d.gate.Use(engine)
		}
		serve(w, r)
	}
	ask("GET", "", 401) // the record is of a decision by the policy before
	d.serve = serve
	broken := d.serve
	ahead.Store(int64(4 * time.Minute))
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "login.acme.dev" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			io.WriteString(w, `{"error":"invalid_grant"}`)
			return
		}
		broken(w, r)
	}
	good = "bearer canary-access-5"
	ask("GET", "", 401) // there is no other token, and the record says why
	d.unseen(7, h, "canary")
	for i, x := range d.records(7) {
		if o := x.Outcome.Outcome; o.Renewed != (i == 2) || (o.Error == "grant_expired") != (i == 6) {
			t.Errorf("%d: %s", i, x.Outcome.Raw)
		}
	}
}

// sourced is holds for a credential whose secret is elsewhere.
func (d *road) sourced(c credential.Credential) string {
	d.t.Helper()
	if c.Owner = "org"; c.Service == "" {
		c.Service = "acme"
	}
	check(d.t, d.vault.Add(d.t.Context(), c, credential.Secret{}))
	var err error
	d.session, err = d.dir.CreateSession(d.t.Context(), identity.Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{c.ID}})
	check(d.t, err)
	return d.session.Handles[c.ID]
}

// clientCertificate is a certificate for a name with its key, in PEM.
func clientCertificate(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	check(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// TestClientCertificates shows each session's own, and never on another's connection.
func TestClientCertificates(t *testing.T) {
	d := kindsRoad(t, new(atomic.Int64))
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		fmt.Fprint(w, name)
	}
	none := d.session
	sessions := map[string]identity.Created{"nobody": none}
	for _, name := range []string{"one", "two"} {
		d.holds(credential.Credential{ID: name, Kind: credential.KindMTLS}, clientCertificate(t, name))
		sessions[name] = d.session
	}
	for range 3 {
		for name, s := range sessions {
			d.session = s
			if code, got := d.do("GET", "https://api.acme.dev/me", "", ""); code != 200 || got != name {
				t.Errorf("%s: %d, the service saw %s", name, code, got)
			}
		}
	}
	for _, x := range d.records(9) {
		if (x.Decision.Session == none.ID) != (x.Decision.Credential.ID == "") {
			t.Errorf("record %s", x.Decision.Raw)
		}
	}
	d.unseen(9, "PRIVATE")
}

// TestTheftTellsWhose: the alarm says who used the handle, from where, what they would
// have reached, and whose it was.
func TestTheftTellsWhose(t *testing.T) {
	d := newRoad(t)
	victim, stolen := d.session.ID, d.session.Handles["acme"]
	var err error
	d.session, err = d.dir.CreateSession(t.Context(), identity.Spec{Agent: "bot", Human: "mallory@acme.com"})
	check(t, err)
	if code, _ := d.do("GET", "https://api.acme.dev/payroll", "Bearer "+stolen, ""); code != 403 {
		t.Fatal(code)
	}
	x := d.records(1)[0].Decision
	if x.Alarm != "handle_theft" || x.Credential.Session != victim || x.Credential.ID != "acme" || x.Session != d.session.ID || x.Human.Email != "mallory@acme.com" ||
		!strings.HasPrefix(x.Request.Client, "127.0.0.1:") || x.Action.ID != "acme:get" || x.ResourceID() != "payroll" {
		t.Errorf("record %s", x.Raw)
	}
	if len(d.received()) > 0 {
		t.Error("it reached the service")
	}
}
