package credential

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"chaperone/policy"
)

// Trade is what the proxy answers for a token endpoint: a client's library sent a
// handle there as if it were a refresh token, a client's secret or a signed statement,
// and gets the handle back as the access token. Nothing is forwarded.
type Trade struct {
	Handle  string
	Expires time.Time // of the handle

	app      *kept  // of GitHub; nil: it is an OAuth 2.0 token endpoint
	audience string // of ID tokens, where the credential gives those
}

// maxTraded is how long a traded handle is said to be good, in the way of access
// tokens. Asking again costs nothing.
const maxTraded = time.Hour

// Answer is the status and the JSON with which a trade is answered, at now to a caller of
// that scope.
func (t *Trade) Answer(now time.Time, scope []policy.Scope) (status int, body map[string]any) {
	left := min(t.Expires.Sub(now), maxTraded)
	if t.app != nil {
		return http.StatusCreated, installationAnswer(t.app, t.Handle, now.Add(left), scope)
	}
	body = map[string]any{ // RFC 6749 section 5.1, RFC 8693 section 2.2.1
		"access_token": t.Handle, "token_type": "Bearer", "expires_in": int64(left / time.Second),
		"issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
	}
	if t.audience != "" {
		body["id_token"] = identityStandIn(t.Handle, t.audience, now, now.Add(left))
	}
	return http.StatusOK, body
}

// Trade returns what to answer to a request that presents a handle at a token
// endpoint, and whether it is for the proxy to answer.
func (p *Presented) Trade() (Trade, bool) {
	if !p.traded {
		return Trade{}, false
	}
	t := Trade{Handle: p.spot.handle(), Expires: p.handle.Expires}
	switch {
	case p.cred == nil:
	case p.cred.Kind == KindGitHubApp:
		t.app = p.cred
	default:
		t.audience = p.cred.Settings[targetAudience]
	}
	return t, true
}

// trades reports whether a handle is traded by the request: its credential is for the
// services whose tokens the endpoint hands out. One that is for the endpoint itself, or
// that a service handed out, is not; and whatever else the endpoint does, it does not
// with what is another service's.
func (r *Request) trades(h *Handle, k *kept) bool {
	if k != nil && k.Kind == KindGitHubApp && r.asksInstallation() != "" {
		return true
	}
	return r.Mints && (k == nil || k.Session == "" && k.Service != r.Service) &&
		slices.ContainsFunc(r.Places.TokensOf, func(of string) bool { return of == h.Service || Covers(of, h.Service) || Covers(h.Service, of) })
}

// takesBack reports whether a handle stands for what the endpoint handed out: a
// refresh token.
func (r *Request) takesBack(h *Handle, k *kept) bool {
	return k != nil && k.Session != "" && slices.Contains(r.Places.TokensOf, h.Service)
}

// handle is the handle that stands in a spot, alone or in a signed statement.
func (s *spot) handle() string {
	if s.stated != "" {
		return s.stated
	}
	return s.text
}

// maxStatement bounds a signed statement that is looked into, in bytes.
const maxStatement = 16 << 10

// statedIn returns the handle that a signed statement (JWT, RFC 7519) names in the place
// of the key that signed it, or of the account in whose name it speaks: not every
// library names the key. Libraries that were given a key file make such statements by
// themselves, for a token endpoint or in the place of a token. The signature proves
// nothing here: the key is a stand-in, and the handle is the secret. Of a statement that
// holds another handle, or a session token, there is none.
func statedIn(text string) (handle string, ok bool) {
	if len(text) > maxStatement || !strings.HasPrefix(text, "eyJ") || strings.Count(text, ".") != 2 {
		return "", false
	}
	head, rest, _ := strings.Cut(text, ".")
	claims, signature, _ := strings.Cut(rest, ".")
	var said struct {
		KeyID  string `json:"kid"`
		Issuer string `json:"iss"`
	}
	plain, err := base64.RawURLEncoding.DecodeString(claims)
	if err != nil || json.Unmarshal(plain, &said) != nil {
		return "", false
	}
	said.KeyID = ""
	top, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil || json.Unmarshal(top, &said) != nil {
		return "", false
	}
	handle = said.KeyID
	if !IsHandle(handle) {
		handle, _, _ = strings.Cut(said.Issuer, "@")
	}
	if !IsHandle(handle) {
		return "", false
	}
	for _, part := range []string{string(top), string(plain), signature} {
		if part = strings.ReplaceAll(part, handle, ""); findEncoded(part) || findToken(part) {
			return "", false
		}
	}
	return handle, true
}
