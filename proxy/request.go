package proxy

import (
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"chaperone/credential"
	"chaperone/proxy/authority"
	"chaperone/proxy/http1"
)

// clarify makes sure that there is exactly one way to read the request, fills in
// what it asks for, and removes what ends at this hop.
func (x *exchange) clarify() error {
	switch x.r.Method {
	case http.MethodConnect:
		return unclear("CONNECT inside a tunnel")
	case http.MethodTrace, "TRACK":
		return errTrace // an answer to TRACE repeats the credential, RFC 9110 section 9.3.8
	}
	if err := x.target(); err != nil {
		return err
	}
	h := x.r.Header
	x.out.Upgrade = upgrades(x.r)
	if err := stripHop(h, x.r.ProtoMajor == 2); err != nil {
		return err
	}
	x.out.Header = h
	x.out.ContentLength = x.r.ContentLength
	if x.r.ContentLength != 0 && x.r.Body != nil && x.r.Body != http.NoBody {
		x.sent = countingReader{r: x.r.Body}
		x.out.Body = &x.sent
		if x.r.Method == http.MethodPost && x.r.ContentLength < 0 && len(h["Content-Type"]) == 0 {
			h["Content-Type"] = octets
		}
	}
	if h.Get("Expect") != "" {
		x.out.ExpectContinue = true
		delete(h, "Expect")
	}
	x.trailers()
	x.q.Request.Header = h
	return nil
}

// octets is what a stream without a type may be taken for (RFC 9110 section 8.3). It
// is said, so that no service takes it for a form in which another method stands:
// a stream is not read to its end before it is decided about.
var octets = []string{"application/octet-stream"}

// target establishes scheme, authority, path and query. Inside a tunnel the
// authority is the tunnel's, and a request that names another is refused (RFC
// 9110 section 7.4). Path and query keep the bytes in which they came.
func (x *exchange) target() error {
	scheme, name, rest, err := x.split()
	if err != nil {
		return err
	}
	standard := 443
	if scheme == "http" {
		standard = 80
	}
	host, port, err := authority.Parse(name, standard)
	if err != nil {
		return unclear(err.Error())
	}
	if t := x.door.tunnel; t != nil {
		if host != t.host || port != t.port || scheme != t.scheme {
			return fmt.Errorf("%w: the request names another authority than its tunnel", errAuthority)
		}
		if other := x.r.Header["Host"]; x.r.ProtoMajor == 2 && len(other) > 0 && (len(other) > 1 || !strings.EqualFold(other[0], x.r.Host)) {
			return fmt.Errorf("%w: host and :authority differ", errAuthority)
		}
		delete(x.r.Header, "Host")
	}
	path, query, _ := strings.Cut(rest, "?")
	if path == "" {
		path = "/"
	}
	q := &x.q.Request
	q.Method, q.Scheme, q.Host, q.Port, q.Path, q.RawQuery = x.r.Method, scheme, host, port, path, query
	o := &x.out
	o.Method, o.Scheme, o.Host, o.Port, o.Path, o.RawQuery = x.r.Method, scheme, host, port, path, query
	o.HostHeader = authority.Format(host, port, standard)
	return nil
}

// split takes the request target apart. The authority of an absolute target
// counts, else Host; beside an absolute target Host is ignored and rewritten
// (RFC 9112 section 3.2.2).
func (x *exchange) split() (scheme, name, rest string, err error) {
	uri := x.r.RequestURI
	if t := x.door.tunnel; t != nil && strings.HasPrefix(uri, "/") {
		return t.scheme, x.r.Host, uri, nil
	}
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || len(scheme) > 5 {
		return "", "", "", errNotProxied
	}
	scheme = strings.ToLower(scheme)
	if scheme != "http" && (scheme != "https" || x.door.tunnel == nil) {
		return "", "", "", unclear("only http:// in absolute form; https needs CONNECT")
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		return scheme, rest, "", nil
	}
	return scheme, rest[:end], rest[end:], nil
}

// hopByHop are the fields that end at this hop (RFC 9110 section 7.6.1), the
// proxy's own, and those by which somebody on the agent's side could speak for
// the network in between.
var hopByHop = [...]string{
	"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Proxy-Authentication-Info",
	"Http2-Settings", "Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	"X-Forwarded-Port", "X-Real-Ip", "Alt-Used",
}

// stripHop removes the fields that Connection names, then those of hopByHop. A
// Connection that names a field which decides what the request means is refused.
func stripHop(h http.Header, h2 bool) error {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			name = http1.Canonical(strings.TrimSpace(name))
			switch name {
			case "", "Close", "Keep-Alive", "Upgrade", "Te":
				continue
			case "Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding":
				return unclear("connection field names " + strings.ToLower(name))
			}
			delete(h, name)
		}
	}
	trailers := h2 && len(h["Te"]) == 1 && strings.EqualFold(h["Te"][0], "trailers")
	for _, name := range hopByHop {
		delete(h, name)
	}
	if trailers {
		h["Te"] = teTrailers
	}
	return nil
}

var teTrailers = []string{"trailers"}

// upgrades reports whether r is a WebSocket handshake (RFC 6455 section 4.1), the
// only upgrade that is passed on. Others are ignored, as RFC 9110 section 7.8
// allows: the request goes on without them.
func upgrades(r *http.Request) bool {
	u := r.Header["Upgrade"]
	return r.ProtoMajor == 1 && r.Method == http.MethodGet && r.ContentLength == 0 &&
		len(u) == 1 && strings.EqualFold(u[0], "websocket") &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade")
}

// trailers passes announced trailer fields on, once the body has ended, except
// those that frame, route or authenticate, which have no business behind a body
// (RFC 9110 section 6.5.1). Fields that were not announced are dropped. One that holds
// a handle or a session token breaks the request off.
func (x *exchange) trailers() {
	for name := range x.r.Trailer {
		if !allowedTrailer(name) {
			continue
		}
		if x.out.Trailer == nil {
			x.out.Trailer = http.Header{}
			x.sent.end = x.fillTrailers
		}
		x.out.Trailer[name] = nil
	}
}

func (x *exchange) fillTrailers() error {
	for name := range x.out.Trailer {
		values := x.r.Trailer[name]
		if err := credential.CheckTrailer(name, values); err != nil {
			return err
		}
		if x.places.TakesField(name) {
			continue
		}
		x.out.Trailer[name] = values
	}
	return nil
}

func allowedTrailer(name string) bool {
	switch name {
	case "Authorization", "Cookie", "Set-Cookie", "Host", "Content-Length", "Content-Type",
		"Content-Encoding", "Transfer-Encoding", "Trailer", "Te", "Connection":
		return false
	}
	return !strings.HasPrefix(name, "Proxy-")
}

// respell gives the fields back the spelling in which the agent sent them.
func respell(h http.Header, spelled []string) {
	for _, name := range spelled {
		c := http1.Canonical(name)
		if v, ok := h[c]; ok && c != name {
			delete(h, c)
			h[name] = v
		}
	}
}
