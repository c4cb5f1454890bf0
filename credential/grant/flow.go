package grant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"chaperone/credential/internal/secret"
)

var (
	// ErrIssuer is wrapped when an answer comes from another provider than was asked
	// (RFC 9207).
	ErrIssuer = errors.New("the answer is another provider's")
	// ErrPending is returned while a person has not yet answered.
	ErrPending = errors.New("the person has not answered yet")
	// ErrDenied is wrapped when the person, or the provider, said no.
	ErrDenied = errors.New("consent was not given")
	// ErrNoFlow is wrapped when a provider does not have the flow that is asked for.
	ErrNoFlow = errors.New("the provider does not have this way to log in")
)

// Provider is where people give consent.
type Provider struct {
	Issuer    string `json:"issuer"`
	Authorize string `json:"authorization_endpoint"`
	Token     string `json:"token_endpoint"`
	Device    string `json:"device_authorization_endpoint"`
	// NamesItself is set where every answer names its issuer (RFC 9207).
	NamesItself bool `json:"authorization_response_iss_parameter_supported"`
}

// Discover reads what a provider says of itself (RFC 8414, OpenID Connect Discovery).
func Discover(ctx context.Context, way http.RoundTripper, issuer string) (Provider, error) {
	if err := CheckURL(issuer); err != nil {
		return Provider{}, fmt.Errorf("issuer: %w", err)
	}
	var last error
	for _, name := range []string{"openid-configuration", "oauth-authorization-server"} {
		p, err := discover(ctx, way, issuer, strings.TrimSuffix(issuer, "/")+"/.well-known/"+name)
		if err == nil {
			return p, nil
		}
		last = err
	}
	return Provider{}, last
}

func discover(ctx context.Context, way http.RoundTripper, issuer, address string) (Provider, error) {
	if way == nil {
		return Provider{}, ErrUnreachable
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return Provider{}, err
	}
	resp, err := way.RoundTrip(r)
	if err != nil {
		return Provider{}, Unreached(ctx, err)
	}
	defer resp.Body.Close()
	var p Provider
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p); err != nil || resp.StatusCode != http.StatusOK {
		return Provider{}, fmt.Errorf("%w: %s answers %d", ErrEndpoint, address, resp.StatusCode)
	}
	if p.Issuer != issuer {
		return Provider{}, fmt.Errorf("%w: it calls itself %q", ErrIssuer, p.Issuer)
	}
	return p, nil
}

// Flow is one person's way to consent. It is used by one goroutine.
type Flow struct {
	c        *Client
	p        Provider
	cfg      oauth2.Config
	verifier string
	state    string
	device   *oauth2.DeviceAuthResponse
}

// Begin makes a flow. Redirect is where the provider sends the person's browser; it is
// empty for the device flow.
func Begin(c *Client, p Provider, redirect string) *Flow {
	f := &Flow{c: c, p: p, verifier: oauth2.GenerateVerifier(), state: oauth2.GenerateVerifier()}
	f.cfg = oauth2.Config{
		ClientID: c.ID, ClientSecret: secret.Text(c.Secret), RedirectURL: redirect, Scopes: c.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: p.Authorize, TokenURL: p.Token, DeviceAuthURL: p.Device, AuthStyle: c.style()},
	}
	return f
}

// URL is where the person gives consent in a browser: with PKCE (RFC 7636), and a state
// that only this flow knows.
func (f *Flow) URL() (string, error) {
	if err := CheckURL(f.p.Authorize); err != nil {
		return "", fmt.Errorf("%w: authorize: %w", ErrNoFlow, err)
	}
	return f.cfg.AuthCodeURL(f.state, oauth2.AccessTypeOffline, oauth2.S256ChallengeOption(f.verifier)), nil
}

// Answer is what a browser brings back.
type Answer struct {
	Code  string `json:"code"`
	State string `json:"state"`
	Iss   string `json:"iss"`
	Error string `json:"error"`
}

// Code trades what the browser brought back for tokens. An answer that belongs to
// another flow, or comes from another provider, is refused before anything is sent.
func (f *Flow) Code(ctx context.Context, a Answer) (Token, error) {
	switch {
	case a.State != f.state:
		return Token{}, fmt.Errorf("%w: its state belongs to another login", ErrIssuer)
	case a.Iss != "" && f.p.Issuer != "" && a.Iss != f.p.Issuer:
		return Token{}, fmt.Errorf("%w: it says that it is %q", ErrIssuer, a.Iss)
	case a.Iss == "" && f.p.NamesItself:
		return Token{}, fmt.Errorf("%w: it does not say whose it is", ErrIssuer)
	case a.Error != "":
		if !codeForm.MatchString(a.Error) {
			a.Error = "error"
		}
		return Token{}, fmt.Errorf("%w: %s", ErrDenied, a.Error)
	case a.Code == "":
		return Token{}, fmt.Errorf("%w: it brings no code", ErrDenied)
	}
	began := time.Now()
	got, err := f.cfg.Exchange(f.c.Context(ctx), a.Code, oauth2.VerifierOption(f.verifier))
	if err != nil {
		return Token{}, told(ctx, err, began)
	}
	return tokenOf(got)
}

// Device begins the device flow (RFC 8628), and returns the code that the person types,
// and where.
func (f *Flow) Device(ctx context.Context) (code, where string, err error) {
	if err := CheckURL(f.p.Device); err != nil {
		return "", "", fmt.Errorf("%w: device: %w", ErrNoFlow, err)
	}
	began := time.Now()
	if f.device, err = f.cfg.DeviceAuth(f.c.Context(ctx)); err != nil {
		return "", "", told(ctx, err, began)
	}
	return f.device.UserCode, f.device.VerificationURI, nil
}

// Wait asks until the person has answered, or ctx is done: then it returns
// [ErrPending], and may be called again.
func (f *Flow) Wait(ctx context.Context) (Token, error) {
	began := time.Now()
	got, err := f.cfg.DeviceAccessToken(f.c.Context(ctx), f.device)
	if err == nil {
		return tokenOf(got)
	}
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok && (e.ErrorCode == "access_denied" || e.ErrorCode == "expired_token") {
		return Token{}, fmt.Errorf("%w: %s", ErrDenied, e.ErrorCode)
	}
	if ctx.Err() != nil && time.Now().Before(f.device.Expiry) {
		return Token{}, ErrPending
	}
	return Token{}, told(ctx, err, began)
}

// tokenOf is a token of the library as this package has them. A refresh token also comes
// with an error: the one before it may be worth nothing any more.
func tokenOf(got *oauth2.Token) (Token, error) {
	var t Token
	if got.RefreshToken != "" {
		t.Refresh = secret.New(got.RefreshToken)
	}
	switch {
	case !tokenForm(got.AccessToken):
		return t, fmt.Errorf("%w: what it gives cannot be a token", ErrEndpoint)
	case !got.Expiry.IsZero() && !got.Expiry.After(time.Now()):
		return t, fmt.Errorf("%w: what it gives has ended already", ErrEndpoint)
	}
	t.Access = secret.New(got.AccessToken)
	if !got.Expiry.IsZero() { // of the library's clock, which is this machine's; the token's is its caller's
		t.Lives = max(time.Until(got.Expiry), 1)
	}
	t.Scope, _ = got.Extra("scope").(string)
	return t, nil
}
