package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
	"chaperone/proxy/identity"
)

// Client speaks with the proxy behind one socket. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the socket at path. Nothing is opened yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{socket: path, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial}}}
}

// call sends in, unless it is nil, and decodes the answer into out. An error of the
// proxy comes back as the [*problem.Problem] that it sent.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("asking the proxy: %w", err)
		}
	}
	r, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		p := new(problem.Problem)
		if err := json.NewDecoder(resp.Body).Decode(p); err != nil || p.Message == "" {
			return fmt.Errorf("asking the proxy: it answered %s", resp.Status)
		}
		return p
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("reading the proxy's answer: %w", err)
	}
	return nil
}

func (c *Client) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, reader)
	if err != nil {
		return nil, fmt.Errorf("asking the proxy: %w", err)
	}
	return r, nil
}

// ask is call with the answer as its result.
func ask[Out any](ctx context.Context, c *Client, method, path string, in any) (Out, error) {
	var out Out
	err := c.call(ctx, method, path, in, &out)
	return out, err
}

func (c *Client) unreachable(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return problem.Failure(fmt.Errorf("opening %s: %w", c.socket, os.ErrPermission), "run this as the user who runs `chaperone serve`")
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return problem.Failure(fmt.Errorf("no proxy answers at %s", c.socket),
			"start it with `chaperone serve`, or name its configuration with --config FILE")
	}
	return fmt.Errorf("asking the proxy: %w", err)
}

// AddAgent registers an agent.
func (c *Client) AddAgent(ctx context.Context, in AgentSpec) (identity.Agent, error) {
	return ask[identity.Agent](ctx, c, "POST", "/v1/agents", in)
}

// Agents lists agents by name.
func (c *Client) Agents(ctx context.Context) ([]identity.Agent, error) {
	return ask[[]identity.Agent](ctx, c, "GET", "/v1/agents", nil)
}

// Agent returns one agent.
func (c *Client) Agent(ctx context.Context, name string) (identity.Agent, error) {
	return ask[identity.Agent](ctx, c, "GET", "/v1/agents/"+url.PathEscape(name), nil)
}

// AddCredential seals a secret.
func (c *Client) AddCredential(ctx context.Context, in CredentialSpec) (credential.Credential, error) {
	return ask[credential.Credential](ctx, c, "POST", "/v1/credentials", in)
}

// Credentials lists credentials by id.
func (c *Client) Credentials(ctx context.Context) ([]credential.Credential, error) {
	return ask[[]credential.Credential](ctx, c, "GET", "/v1/credentials", nil)
}

// Credential returns one credential, never its secret.
func (c *Client) Credential(ctx context.Context, id string) (Credential, error) {
	return ask[Credential](ctx, c, "GET", "/v1/credentials/"+url.PathEscape(id), nil)
}

// ReplaceCredential puts another secret or source behind a credential.
func (c *Client) ReplaceCredential(ctx context.Context, id string, in Material) (credential.Credential, error) {
	return ask[credential.Credential](ctx, c, "POST", "/v1/credentials/"+url.PathEscape(id)+"/replace", in)
}

// RemoveCredential forgets a credential and revokes its handles.
func (c *Client) RemoveCredential(ctx context.Context, id string) error {
	_, err := ask[none](ctx, c, "DELETE", "/v1/credentials/"+url.PathEscape(id), nil)
	return err
}

// CreateSession makes an instance and its session.
func (c *Client) CreateSession(ctx context.Context, in identity.Spec) (Session, error) {
	return ask[Session](ctx, c, "POST", "/v1/sessions", in)
}

// Sessions lists sessions, newest first.
func (c *Client) Sessions(ctx context.Context) ([]identity.Session, error) {
	return ask[[]identity.Session](ctx, c, "GET", "/v1/sessions", nil)
}

// Session returns one session, never its token.
func (c *Client) Session(ctx context.Context, id string) (Shown, error) {
	return ask[Shown](ctx, c, "GET", "/v1/sessions/"+url.PathEscape(id), nil)
}

// Heartbeat renews the lease of a session.
func (c *Client) Heartbeat(ctx context.Context, id string) error {
	_, err := ask[none](ctx, c, "POST", "/v1/sessions/"+url.PathEscape(id)+"/heartbeat", none{})
	return err
}

// Reload has the proxy read policy and catalogue again.
func (c *Client) Reload(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "POST", "/v1/reload", none{})
}

// Flush has the proxy bring what was decided into the file of the decision log.
func (c *Client) Flush(ctx context.Context) error {
	_, err := ask[none](ctx, c, "POST", "/v1/log/flush", none{})
	return err
}

// Sign has the proxy sign a checkpoint of the decision log.
func (c *Client) Sign(ctx context.Context) error {
	_, err := ask[none](ctx, c, "POST", "/v1/log/sign", none{})
	return err
}

// Status returns the state of the proxy.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "GET", "/v1/status", nil)
}
