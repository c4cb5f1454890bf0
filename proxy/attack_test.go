package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"chaperone/certs"
	"chaperone/proxy/upstream"
)

// tunnelTo opens a tunnel by hand and speaks TLS in it.
func (d *road) tunnelTo(authority, sni string, protos ...string) (*tls.Conn, error) {
	conn, err := net.Dial("tcp", d.addr)
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: %s\r\n\r\n", authority, authority, basicAuth("bot", d.session.Token))
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 39)), &http.Request{Method: "CONNECT"})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != 200 {
		return nil, fmt.Errorf("CONNECT: %s", resp.Status)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.ca.PEM())
	tc := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: sni, NextProtos: protos})
	return tc, tc.Handshake()
}

// raw sends bytes through a door and returns what comes back until the other side
// closes or answers once. In the text AUTH stands for a good credential.
func (d *road) raw(door, text string) string {
	d.t.Helper()
	var conn net.Conn
	var err error
	service := "acme"
	if door == "tunnel" {
		conn, err = d.tunnelTo("api.acme.dev:443", "api.acme.dev")
	} else {
		conn, err = net.Dial("tcp", d.addr)
	}
	check(d.t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	text = strings.ReplaceAll(text, "AUTH", "Authorization: Bearer "+d.session.Handles[service])
	if door == "front" {
		text = strings.Replace(text, "\r\n", "\r\nProxy-Authorization: "+basicAuth("bot", d.session.Token)+"\r\n", 1)
	}
	_, err = io.WriteString(conn, text)
	check(d.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "closed"
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}

// TestAttacks sends bytes that have walked around other proxies, through both
// doors. The names begin with the row of docs/threats.md. Nothing may reach the
// service, and each must be on record.
func TestAttacks(t *testing.T) {
	const host = "Host: api.acme.dev\r\n"
	for name, tc := range map[string]struct {
		text string // TARGET is / in a tunnel, and http://api.acme.dev/ at the front door
		want string // how the answer begins
		only string // the door, when it makes sense at one only
	}{
		"B1 host is not the tunnel's":         {"GET /x HTTP/1.1\r\nHost: evil.example.com\r\nAUTH\r\n\r\n", "421", "tunnel"},
		"B4 port is not the tunnel's":         {"GET /x HTTP/1.1\r\nHost: api.acme.dev:8443\r\nAUTH\r\n\r\n", "421", "tunnel"},
		"B5 absolute form for another host":   {"GET https://evil.example.com/x HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "421", "tunnel"},
		"B5 absolute form for another scheme": {"GET http://api.acme.dev/x HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "421", "tunnel"},
		"B5 https in absolute form":           {"GET https://api.acme.dev/x HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", "front"},
		"B6 CONNECT inside":                   {"CONNECT evil.example.com:443 HTTP/1.1\r\nHost: evil.example.com:443\r\n\r\n", "400", "tunnel"},
		"B7 userinfo":                         {"GET http://api.acme.dev@evil.example.com/x HTTP/1.1\r\nHost: evil.example.com\r\nAUTH\r\n\r\n", "400", "front"},
		"B7 userinfo in host":                 {"GET /x HTTP/1.1\r\nHost: api.acme.dev@evil.example.com\r\nAUTH\r\n\r\n", "400", "tunnel"},
		"B8 HTTP/1.0":                         {"GET TARGETx HTTP/1.0\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"B8 no host":                          {"GET TARGETx HTTP/1.1\r\nAUTH\r\n\r\n", "400", ""},
		"B8 two hosts":                        {"GET TARGETx HTTP/1.1\r\n" + host + "Host: evil.example.com\r\nAUTH\r\n\r\n", "400", ""},
		"B12 odd host":                        {"GET http://api%2eacme.dev/x HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", "front"},
		"B15 octal address":                   {"GET http://0177.0.0.1/x HTTP/1.1\r\nHost: x\r\n\r\n", "400", "front"},
		"B15 decimal address":                 {"GET http://2130706433/x HTTP/1.1\r\nHost: x\r\n\r\n", "400", "front"},
		"B15 zone":                            {"GET http://[fe80::1%25lo]/x HTTP/1.1\r\nHost: x\r\n\r\n", "400", "front"},
		"F1 length beside chunked":            {"POST TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", ""},
		"F1 chunked beside length":            {"POST TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", "400", ""},
		"F2 two lengths":                      {"POST TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400", ""},
		"F2 huge length":                      {"POST TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nContent-Length: 99999999999999999999\r\n\r\n", "400", ""},
		"F3 chunked twice":                    {"POST TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "400", ""},
		"F3 xchunked":                         {"POST TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400", ""},
		"F6 bare LF":                          {"GET TARGETx HTTP/1.1\r\n" + host + "X: a\nY: b\r\nAUTH\r\n\r\n", "400", ""},
		"F6 folded field":                     {"GET TARGETx HTTP/1.1\r\n" + host + "X: a\r\n b\r\nAUTH\r\n\r\n", "400", ""},
		"F6 NUL":                              {"GET TARGETx HTTP/1.1\r\n" + host + "X: a\x00b\r\nAUTH\r\n\r\n", "400", ""},
		"F6 space before the colon":           {"GET TARGETx HTTP/1.1\r\n" + host + "X : a\r\nAUTH\r\n\r\n", "400", ""},
		"F6 odd method":                       {"G\xc3\xa9T TARGETx HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"F7 connection nominates host":        {"GET TARGETx HTTP/1.1\r\n" + host + "Connection: host\r\nAUTH\r\n\r\n", "400", ""},
		"F8 authorization twice":              {"GET TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nAUTH\r\n\r\n", "400", ""},
		"F10 HTTP/2 without TLS":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", ""},
		"A1 dot segments":                     {"GET TARGETa/../b HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A1 encoded dots":                     {"GET TARGETa/%2e%2e/b HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A1 matrix parameter":                 {"GET TARGETa;x=y/b HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A2 encoded slash":                    {"GET TARGETa%2Fb HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A2 backslash":                        {"GET TARGETa\\b HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A3 double encoding":                  {"GET TARGETa%252e%252e/b HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A4 two slashes":                      {"GET //evil.example.com/x HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", "tunnel"},
		"A5 fragment":                         {"GET TARGETa#b HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A5 raw non-ASCII":                    {"GET TARGETa\xc3\xa9 HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A7 broken escape in the query":       {"GET TARGETa?b=%zz HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"A8 method override":                  {"POST TARGETx HTTP/1.1\r\n" + host + "AUTH\r\nX-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n", "400", ""},
		"C5 TRACE":                            {"TRACE TARGETx HTTP/1.1\r\n" + host + "AUTH\r\n\r\n", "400", ""},
		"C17 foreign token":                   {"GET TARGETx HTTP/1.1\r\n" + host + "Authorization: Bearer ghp_realrealrealrealrealrealrealrealreal\r\n\r\n", "403", ""},
		"C17 foreign cookie":                  {"GET TARGETx HTTP/1.1\r\n" + host + "Cookie: session=abc\r\n\r\n", "403", ""},
		"C17 foreign key in the query":        {"GET TARGETx?access_token=abc HTTP/1.1\r\n" + host + "\r\n", "403", ""},
		"C19 session token as a credential":   {"GET TARGETx HTTP/1.1\r\n" + host + "Authorization: Bearer TOKEN\r\n\r\n", "403", ""},
		"C2 handle in another field":          {"GET TARGETx HTTP/1.1\r\n" + host + "X-Note: HANDLE\r\n\r\n", "403", ""},
		"C2 handle in the path":               {"GET TARGETHANDLE HTTP/1.1\r\n" + host + "\r\n", "403", ""},
		"C1 handle of another service":        {"GET TARGETx HTTP/1.1\r\n" + host + "Authorization: Bearer GITHUB\r\n\r\n", "403", ""},
		"origin form at the front door":       {"GET /x HTTP/1.1\r\n" + host + "\r\n", "400", "front"},
	} {
		for _, door := range []string{"tunnel", "front"} {
			if tc.only != "" && tc.only != door {
				continue
			}
			t.Run(name+", "+door, func(t *testing.T) {
				d := newRoad(t)
				target := "/"
				if door == "front" {
					target = "http://api.acme.dev/"
				}
				text := strings.NewReplacer("TARGET", target, "TOKEN", d.session.Token, "HANDLE", d.session.Handles["acme"], "GITHUB", d.handle).Replace(tc.text)
				if got := d.raw(door, text); !strings.HasPrefix(got, tc.want) {
					t.Errorf("answer %q, want %s", got, tc.want)
				}
				if got := d.received(); len(got) > 0 {
					t.Errorf("it reached the service: %+v", got)
				}
				rs := d.records(1)
				x := rs[len(rs)-1]
				if x.Decision.Decision.Result != "deny" || x.Outcome.Outcome.Error == "" || len(x.Decision.Decision.Reasons) == 0 {
					t.Errorf("record %s\n%s", x.Decision.Raw, x.Outcome.Raw)
				}
				if strings.HasPrefix(name, "C") && name[1] == '1' && x.Decision.Alarm == "" {
					t.Errorf("no alarm: %s", x.Decision.Raw)
				}
			})
		}
	}
}

// TestSmuggledRequest pipelines a second request behind one that is refused, and
// behind a body that is not what it announces.
func TestSmuggledRequest(t *testing.T) {
	const host = "Host: api.acme.dev\r\n"
	for name, text := range map[string]string{
		"F12 behind a refusal":           "POST /a/../b HTTP/1.1\r\n" + host + "Content-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
		"F12 behind a denied request":    "DELETE /x HTTP/1.1\r\n" + host + "Content-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
		"F4 behind a broken chunk":       "POST /x HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\nGET /smuggled HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
		"F4 behind a chunk with bare LF": "POST /x HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\nGET /smuggled HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := newRoad(t)
			d.raw("tunnel", text)
			d.records(1)
			for _, r := range d.received() {
				if strings.Contains(r.URI, "smuggled") {
					t.Errorf("a smuggled request reached the service: %+v", r)
				}
			}
		})
	}
}

// TestFronting asks in TLS for another name than the tunnel's (B2).
func TestFronting(t *testing.T) {
	d := newRoad(t)
	if c, err := d.tunnelTo("api.acme.dev:443", "evil.example.com"); err == nil {
		t.Errorf("the handshake succeeded: %+v", c.ConnectionState())
	}
	if x := d.records(1)[0]; x.Decision.Alarm != "wrong_authority" || x.Decision.Agent.ID != "bot" {
		t.Errorf("record %s", x.Decision.Raw)
	}
}

// TestNoServerName is a client that sends none (B3): the tunnel's host counts.
func TestNoServerName(t *testing.T) {
	d := newRoad(t)
	conn, err := d.tunnelTo("127.0.0.1:9", "127.0.0.1")
	check(t, err)
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	check(t, err)
	if resp.StatusCode != 403 {
		t.Errorf("got %d", resp.StatusCode)
	}
}

// TestHTTP2Attacks speaks HTTP/2 frames by hand (B9, B10, F14).
func TestHTTP2Attacks(t *testing.T) {
	for name, tc := range map[string]struct {
		fields [][2]string
		want   string // status, or "reset"
	}{
		"B9 host differs":            {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/x"}, {"host", "evil.example.com"}}, "421"},
		"B9 authority of another":    {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "evil.example.com"}, {":path", "/x"}}, "421"},
		"B9 no path":                 {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}}, "reset"},
		"B9 path twice":              {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/x"}, {":path", "/y"}}, "reset"},
		"F14 upper-case name":        {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/x"}, {"X-Upper", "y"}}, "reset"},
		"F14 connection field":       {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/x"}, {"connection", "close"}}, "400"},
		"F14 line break in a value":  {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/x"}, {"x", "a\r\nb"}}, "reset"},
		"F14 te other than trailers": {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/x"}, {"te", "gzip"}}, "400"},
		"A1 dot segments":            {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/a/../b"}}, "400"},
		"B6 CONNECT":                 {[][2]string{{":method", "CONNECT"}, {":authority", "evil.example.com:443"}}, "400"},
		"fine":                       {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.acme.dev"}, {":path", "/x"}}, "200"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newRoad(t)
			conn, err := d.tunnelTo("api.acme.dev:443", "api.acme.dev", "h2")
			check(t, err)
			if got := h2Request(t, conn, tc.fields); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if got := d.received(); (len(got) > 0) != (tc.want == "200") {
				t.Errorf("the service received %+v", got)
			}
		})
	}
}

func h2Request(t *testing.T, conn net.Conn, fields [][2]string) string {
	t.Helper()
	io.WriteString(conn, http2.ClientPreface)
	fr := http2.NewFramer(conn, conn)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	check(t, fr.WriteSettings())
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		check(t, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	check(t, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}))
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return "reset"
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}

// TestPrivateAddresses are refused when they are dialled, whatever name led there
// (B15, B16, B17).
func TestPrivateAddresses(t *testing.T) {
	d := newRoad(t, func(_ *Options, u *upstream.Options) { delete(u.Resolve, "*.example.com") })
	for _, host := range []string{"127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "100.64.0.1", "0.0.0.0"} {
		resp, err := d.client(false).Get("https://" + host + ":4443/x")
		if err != nil {
			continue // refused at CONNECT
		}
		if resp.StatusCode != 403 {
			t.Errorf("%s: %d", host, resp.StatusCode)
		}
	}
	if len(d.received()) > 0 {
		t.Error("a private address was reached")
	}
}

// TestSpellingAndBytesAreKept compares what the service receives with what was sent.
func TestSpellingAndBytesAreKept(t *testing.T) {
	lines := make(chan string, 1)
	ca, err := certs.Open(t.TempDir())
	check(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate())
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(h.ServerName) }})
	check(t, err)
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		var head strings.Builder
		for {
			l, err := br.ReadString('\n')
			if head.WriteString(l); err != nil || l == "\r\n" {
				break
			}
		}
		lines <- head.String()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-ODD-Name: kept\r\nAlt-Svc: h3=\":443\"\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\nok")
	}()
	d := newRoad(t, func(_ *Options, u *upstream.Options) {
		u.Resolve["api.acme.dev"] = ln.Addr().String()
		u.Roots = pool
	})
	got := d.raw("tunnel", "POST /a/b%20c/%E2%9C%93?q=a+b&x=%41&& HTTP/1.1\r\nHost: api.acme.dev\r\nx-custom-NAME: v\r\nuser-agent: mine\r\nauthorization: Bearer "+d.session.Handles["acme"]+"\r\nContent-Length: 2\r\n\r\nhi")
	if got != "200 ok" {
		t.Fatal(got)
	}
	head := <-lines
	if !strings.HasPrefix(head, "POST /a/b%20c/%E2%9C%93?q=a+b&x=%41&& HTTP/1.1\r\n") {
		t.Errorf("request line: %q", head)
	}
	for _, want := range []string{"\r\nx-custom-NAME: v\r\n", "\r\nuser-agent: mine\r\n", "\r\nauthorization: Bearer " + canary + "\r\n", "\r\nContent-Length: 2\r\n", "\r\nHost: api.acme.dev\r\n"} {
		if !strings.Contains(head, want) {
			t.Errorf("%q is not in %q", want, head)
		}
	}
	if strings.Count(strings.ToLower(head), "user-agent") != 1 || strings.Contains(head, "Go-http-client") || strings.Contains(strings.ToLower(head), "accept-encoding") || strings.Contains(strings.ToLower(head), "connection") {
		t.Errorf("something was added: %q", head)
	}
}

// TestRefusedTokensAreNotLogged has an agent put what it holds where no credential
// belongs. That is refused, and what it put there must not stand in the log.
func TestRefusedTokensAreNotLogged(t *testing.T) {
	for name, text := range map[string]string{
		"path":                  "GET /a/SECRET/b HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
		"path, percent":         "GET /a/%63ENCODED HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
		"name in the query":     "GET /a?SECRET=1 HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
		"trace":                 "GET /a HTTP/1.1\r\nHost: api.acme.dev\r\nTraceparent: SECRET\r\n\r\n",
		"method":                "SECRET /a HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
		"path of a bad request": "GET /a/../SECRET HTTP/1.1\r\nHost: api.acme.dev\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := newRoad(t)
			for _, secret := range []string{d.session.Token, d.session.Handles["acme"]} {
				if got := d.raw("tunnel", strings.NewReplacer("SECRET", secret, "%63ENCODED", fmt.Sprintf("%%%x%s", secret[0], secret[1:])).Replace(text)); !strings.HasPrefix(got, "4") {
					t.Errorf("answer %q", got)
				}
			}
			for _, x := range d.records(2) {
				s := string(x.Decision.Raw) + string(x.Outcome.Raw)
				for _, secret := range []string{d.session.Token, d.session.Handles["acme"]} {
					if strings.Contains(s, secret[1:]) {
						t.Errorf("the log holds it: %s", s)
					}
				}
			}
		})
	}
}
