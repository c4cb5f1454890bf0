package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
	"chaperone/credential/grant"
)

// LoginSpec begins a login: for whom, where, and under which id what comes of it is
// kept.
type LoginSpec struct {
	Service  string `json:"service"`
	Human    string `json:"human"`
	ID       string `json:"id"`
	Redirect string `json:"redirect,omitzero"` // empty: the device flow
}

// Login is a login that goes on.
type Login struct {
	Pending    bool                   `json:"pending,omitzero"`
	Credential *credential.Credential `json:"credential,omitzero"`
}

// Trial says how a credential is tried; an empty URL is the service's own way.
type Trial struct {
	URL  string `json:"url,omitzero"`
	User string `json:"user,omitzero"` // beside a credential of kind basic
}

func (s *Server) routeLogins(mux *http.ServeMux) {
	mux.Handle("POST /v1/logins", answer(s.beginLogin))
	mux.Handle("POST /v1/logins/{id}/finish", answer(s.finishLogin))
	mux.Handle("POST /v1/logins/{id}/wait", answer(s.waitLogin))
	mux.Handle("POST /v1/credentials/{id}/test", answer(s.testCredential))
}

func (s *Server) beginLogin(r *http.Request, in LoginSpec) (credential.Started, error) {
	app, err := s.o.App(r.Context(), in.Service)
	if err != nil {
		return credential.Started{}, err
	}
	if len(s.services(in.Service)) == 0 {
		return credential.Started{}, problem.Failure(fmt.Errorf("service is not known: %s", in.Service), "see `chaperone service list`")
	}
	if in.Redirect != "" {
		if u, err := url.Parse(in.Redirect); err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" {
			return credential.Started{}, problem.Misuse("the redirect is not on this machine", "use http://127.0.0.1:PORT/…")
		}
	}
	return s.logins.Begin(r.Context(), credential.Credential{ID: in.ID, Service: in.Service, Owner: "human:" + in.Human}, app, in.Redirect)
}

func (s *Server) finishLogin(r *http.Request, in grant.Answer) (Login, error) {
	c, err := s.logins.Finish(r.Context(), r.PathValue("id"), in)
	return Login{Credential: &c}, err
}

func (s *Server) waitLogin(r *http.Request, _ none) (Login, error) {
	c, err := s.logins.Wait(r.Context(), r.PathValue("id"))
	if errors.Is(err, grant.ErrPending) {
		return Login{Pending: true}, nil
	}
	return Login{Credential: &c}, err
}

func (s *Server) testCredential(r *http.Request, in Trial) (credential.Finding, error) {
	c, err := s.o.Vault.Find(r.PathValue("id"))
	if err != nil {
		return credential.Finding{}, err
	}
	p, known := credential.ProbeOf(&c)
	p.User = in.User
	if in.URL == "" {
		if known != nil {
			return credential.Finding{}, problem.Failure(known, "name a harmless address of the service with --url")
		}
		return s.tried(r.Context(), c, p)
	}
	u, err := url.Parse(in.URL)
	if err != nil || u.Port() != "" && u.Port() != "443" {
		return credential.Finding{}, problem.Misuse("the address cannot be read", "write https://HOST/PATH")
	}
	if service := s.o.Catalogue().ServiceFor(u.Hostname(), u.EscapedPath()); service == nil || !credential.Covers(c.Service, service.Name) {
		return credential.Finding{}, problem.Misuse(fmt.Sprintf("%s is not a host of service %s", u.Hostname(), c.Service), "a credential is sent to its own service only, see `chaperone service show`")
	}
	if own, err := url.Parse(p.URL); err != nil || own.RequestURI() != u.RequestURI() { // else it is the same, elsewhere
		p.Who, p.Listed = "", ""
	}
	p.Method, p.URL, p.Body = http.MethodGet, in.URL, ""
	return s.tried(r.Context(), c, p)
}

// tried tries a credential, and adds what its scopes allow beyond what policy can ever
// use.
func (s *Server) tried(ctx context.Context, c credential.Credential, p credential.Probe) (credential.Finding, error) {
	f, err := s.o.Vault.Test(ctx, c.ID, p)
	if errors.Is(err, credential.ErrNoProbe) {
		return f, problem.Failure(err, "name a harmless address of the service with --url")
	}
	if err != nil || len(f.Scopes) == 0 {
		return f, err
	}
	if usable, known := s.o.Usable(c); known {
		excess := credential.Exceeding(c.Service, f.Scopes, usable)
		f.Excess = &excess
	}
	return f, nil
}

// BeginLogin begins a login.
func (c *Client) BeginLogin(ctx context.Context, in LoginSpec) (credential.Started, error) {
	return ask[credential.Started](ctx, c, "POST", "/v1/logins", in)
}

// FinishLogin hands over what a browser brought back.
func (c *Client) FinishLogin(ctx context.Context, id string, in grant.Answer) (Login, error) {
	return ask[Login](ctx, c, "POST", "/v1/logins/"+url.PathEscape(id)+"/finish", in)
}

// WaitLogin waits a while for the person to type their code.
func (c *Client) WaitLogin(ctx context.Context, id string) (Login, error) {
	return ask[Login](ctx, c, "POST", "/v1/logins/"+url.PathEscape(id)+"/wait", none{})
}

// TestCredential tries a credential.
func (c *Client) TestCredential(ctx context.Context, id string, in Trial) (credential.Finding, error) {
	return ask[credential.Finding](ctx, c, "POST", "/v1/credentials/"+url.PathEscape(id)+"/test", in)
}
