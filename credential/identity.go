package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
)

// ErrNoIDToken is wrapped when a library asks an ID token of a credential that gives
// access tokens.
var ErrNoIDToken = errors.New("the credential gives no ID tokens")

// targetAudience is the setting by which Google's service accounts get ID tokens in the
// place of access tokens: for services that run on Google's platform, as Cloud Run's do
// (cloud.google.com/run/docs/authenticating/service-to-service).
const targetAudience = "target_audience"

// identifying mints ID tokens.
type identifying struct{ *stating }

func (i *identifying) mint(ctx context.Context, _ *Caller, _ secret.Secret) (grant.Token, error) {
	statement, err := state(i.signer, i.v.now(), i.claims)
	if err != nil {
		return grant.Token{}, err
	}
	var got struct {
		Token string `json:"id_token"`
	}
	err = i.v.send(ctx, &platformCall{
		method: http.MethodPost, url: i.client.URL, success: http.StatusOK,
		form:  url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {secret.Text(statement)}},
		means: map[int]error{http.StatusBadRequest: fmt.Errorf("%w: the account is not taken", grant.ErrClient), http.StatusUnauthorized: grant.ErrClient},
	}, &got)
	if err != nil {
		return grant.Token{}, err
	}
	claims, ok := claimsOf(got.Token)
	if !ok || claims.Expires == 0 {
		return grant.Token{}, fmt.Errorf("%w: its answer has no ID token", grant.ErrEndpoint)
	}
	expires := time.Unix(claims.Expires, 0)
	return grant.Token{Access: secret.New(got.Token), Expires: expires}, lasting(expires, i.v.now())
}

// tokenClaims are those of a token that count here.
type tokenClaims struct {
	Expires  int64  `json:"exp"`
	Audience string `json:"target_audience"`
}

// claimsOf reads a token's (JWT, RFC 7519) without verifying it.
func claimsOf(text string) (c tokenClaims, ok bool) {
	_, rest, _ := strings.Cut(text, ".")
	part, _, ok := strings.Cut(rest, ".")
	plain, err := base64.RawURLEncoding.DecodeString(part)
	return c, ok && err == nil && json.Unmarshal(plain, &c) == nil
}

// asksIdentity reports whether a signed statement asks for an ID token.
func (s *spot) asksIdentity() bool {
	if s.stated == "" {
		return false
	}
	c, ok := claimsOf(s.text)
	return ok && c.Audience != ""
}

// identityStandIn has the form of an ID token, for libraries that look when theirs ends.
// It is known by the handle, which it has for its key; its signature is none.
func identityStandIn(handle, audience string, now, expires time.Time) string {
	part := func(format string, args ...any) string {
		return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, format, args...))
	}
	return part(`{"alg":"RS256","typ":"JWT","kid":%q}`, handle) + "." +
		part(`{"iss":"https://accounts.google.com","aud":%q,"iat":%d,"exp":%d}`, audience, now.Unix(), expires.Unix()) + "." + part("stand-in")
}
