// Package grant asks OAuth 2.0 token endpoints for tokens.
package grant

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"chaperone/credential/internal/secret"
)

var (
	// ErrGrant is wrapped when a provider takes the grant no longer: a refresh token
	// that has expired, was used twice or was revoked (RFC 6749 section 5.2).
	ErrGrant = errors.New("the provider no longer takes the grant")
	// ErrClient is wrapped when a provider does not take the client: the app was
	// revoked, or its secret is another one.
	ErrClient = errors.New("the provider does not take the client")
	// ErrScope is wrapped when a provider does not give what is asked for.
	ErrScope = errors.New("the provider does not give these scopes")
	// ErrEndpoint is wrapped when a token endpoint answers with 5xx, or not with a token.
	ErrEndpoint = errors.New("the token endpoint gives no token")
	// ErrRedirect is wrapped when a token endpoint redirects: a secret is not sent on.
	ErrRedirect = errors.New("the token endpoint redirects")
	// ErrTimeout is wrapped when a token endpoint does not answer in time.
	ErrTimeout = errors.New("the token endpoint does not answer in time")
	// ErrUnreachable is wrapped when a token endpoint cannot be reached.
	ErrUnreachable = errors.New("the token endpoint cannot be reached")
	// ErrClock is wrapped when a provider refuses, and its clock is another than ours.
	ErrClock = errors.New("the clocks of this machine and the provider differ")
)

// Token is what an endpoint gives.
type Token struct {
	Access  secret.Secret
	Refresh secret.Secret // empty: none, or the one before stays good
	Expires time.Time     // by the clock of the service; zero: it does not say, or says how long the token lives
	Lives   time.Duration // from when it was asked for at least; zero: it does not say, or says when it ends
	Scope   string        // empty: as asked for
}

// Client asks one token endpoint. It is safe for concurrent use.
type Client struct {
	HTTP   http.RoundTripper
	URL    string // https
	ID     string
	Secret secret.Secret
	// Auth is how the client shows who it is (RFC 6749 section 2.3): basic, post, or
	// none for a public client.
	Auth   string
	Scopes []string
	// More goes into every request: audience, resource.
	More url.Values
}

// CheckURL refuses an endpoint to which no secret is sent.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is not an https:// address", text)
	}
	return nil
}

// Refresh trades a refresh token for tokens (RFC 6749 section 6).
func (c *Client) Refresh(ctx context.Context, refresh secret.Secret) (Token, error) {
	return c.Ask(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {secret.Text(refresh)}})
}

// ForItself asks for a token of the client's own (RFC 6749 section 4.4).
func (c *Client) ForItself(ctx context.Context) (Token, error) { return c.Ask(ctx, nil) }

// Assert trades a signed statement for a token (RFC 7523 section 2.1).
func (c *Client) Assert(ctx context.Context, assertion secret.Secret) (Token, error) {
	return c.Ask(ctx, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {secret.Text(assertion)}})
}

// Party is whom a token speaks for.
type Party struct {
	Token secret.Secret
	Type  string // urn:ietf:params:oauth:token-type:…
}

// Exchange trades a subject's token for one with which an actor speaks for it (RFC
// 8693 section 2.1). The zero actor is none.
func (c *Client) Exchange(ctx context.Context, subject, actor Party) (Token, error) {
	v := url.Values{
		"grant_type":    {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token": {secret.Text(subject.Token)}, "subject_token_type": {subject.Type},
	}
	if !actor.Token.Empty() {
		v["actor_token"], v["actor_token_type"] = []string{secret.Text(actor.Token)}, []string{actor.Type}
	}
	return c.Ask(ctx, v)
}

// Ask sends one request to the endpoint and never a second one. An answer without a token
// that can be used is an error, with which a newer refresh token may come.
func (c *Client) Ask(ctx context.Context, params url.Values) (Token, error) {
	if c.HTTP == nil {
		return Token{}, fmt.Errorf("%w: there is no way out", ErrUnreachable)
	}
	for name, values := range c.More {
		if params == nil {
			params = url.Values{}
		}
		params[name] = values
	}
	cfg := clientcredentials.Config{
		ClientID: c.ID, ClientSecret: secret.Text(c.Secret), TokenURL: c.URL, Scopes: c.Scopes, EndpointParams: params, AuthStyle: c.style(),
	}
	began := time.Now()
	got, err := cfg.Token(c.Context(ctx))
	if err != nil {
		return Token{}, told(ctx, err, began)
	}
	return tokenOf(got)
}

// tokenForm reports whether a token can stand in a field (RFC 6750 section 2.1 allows
// less).
func tokenForm(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// Context is ctx with the way out for the library. Redirects are not followed.
func (c *Client) Context(ctx context.Context) context.Context {
	client := &http.Client{Transport: c.HTTP, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return context.WithValue(ctx, oauth2.HTTPClient, client)
}

func (c *Client) style() oauth2.AuthStyle {
	if c.Auth == "basic" {
		return oauth2.AuthStyleInHeader
	}
	return oauth2.AuthStyleInParams // without a secret: the id alone
}

// maxSkew is by how much clocks may differ before that is held to be the cause of a
// refusal.
const maxSkew = 2 * time.Minute

var codeForm = regexp.MustCompile(`^[a-z_]{1,40}$`)

// told says what an error of the library means. What the endpoint wrote is left out:
// it may repeat what was sent. Its code is one of a list.
func told(ctx context.Context, err error, began time.Time) error {
	e, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return Unreached(ctx, err)
	}
	code := e.ErrorCode
	if !codeForm.MatchString(code) {
		code = ""
	}
	why := fmt.Sprintf("it answers %d %s", e.Response.StatusCode, code)
	why = strings.TrimSpace(why)
	if date, derr := http.ParseTime(e.Response.Header.Get("Date")); derr == nil && e.Response.StatusCode < 500 {
		if skew := began.Sub(date); skew > maxSkew || skew < -maxSkew {
			return fmt.Errorf("%w by %v; %s", ErrClock, skew.Round(time.Second), why)
		}
	}
	switch {
	case e.Response.StatusCode >= 300 && e.Response.StatusCode < 400:
		return fmt.Errorf("%w: %s", ErrRedirect, why)
	case code == "invalid_grant", code == "bad_refresh_token":
		return fmt.Errorf("%w: %s", ErrGrant, why)
	case code == "invalid_client", code == "unauthorized_client", code == "incorrect_client_credentials", code == "access_denied":
		return fmt.Errorf("%w: %s", ErrClient, why)
	case code == "invalid_scope", code == "invalid_target":
		return fmt.Errorf("%w: %s", ErrScope, why)
	}
	return fmt.Errorf("%w: %s", ErrEndpoint, why)
}

// Unreached says what an error of the way to an endpoint means.
func Unreached(ctx context.Context, err error) error {
	var timeout interface{ Timeout() bool }
	var cert *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return ErrTimeout
	case errors.As(err, &cert):
		return fmt.Errorf("%w: its certificate is not accepted", ErrUnreachable)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return ErrUnreachable
	}
	return fmt.Errorf("%w: its answer cannot be read", ErrEndpoint)
}
