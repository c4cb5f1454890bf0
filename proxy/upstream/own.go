package upstream

import (
	"crypto/tls"
	"net/http"
)

// Own sends the program's own requests, such as those to token endpoints: through the
// same guard, roots and corporate proxy as everything else, and never what an agent
// sent. It follows no redirect.
func (c *Client) Own() http.RoundTripper { return c.own }

// OwnShowing is Own over connections that show a certificate, until end is called.
func (c *Client) OwnShowing(shown *tls.Certificate) (way http.RoundTripper, end func()) {
	t := c.transport(false)
	showing(t.TLSClientConfig, shown)
	return t, t.CloseIdleConnections
}

// showing makes connections show a certificate. Sessions are not resumed: one that
// was begun under another certificate would speak for that (RFC 8446 section 2.2).
func showing(cfg *tls.Config, shown *tls.Certificate) {
	cfg.Certificates = []tls.Certificate{*shown}
	cfg.ClientSessionCache = nil
}

// identity is what connections of one transport have in common.
type identity struct {
	h2    bool
	shown *tls.Certificate
}

// showing returns the transport whose connections show what r is to show.
func (c *Client) showing(r *Request, h2 bool) *http.Transport {
	switch {
	case r.Certificate != nil:
	case h2:
		return c.h2
	default:
		return c.h1
	}
	key := identity{h2, r.Certificate}
	if t, ok := c.shown.Load(key); ok {
		return t.(*http.Transport)
	}
	fresh := c.transport(h2)
	showing(fresh.TLSClientConfig, r.Certificate)
	t, _ := c.shown.LoadOrStore(key, fresh)
	return t.(*http.Transport)
}
