package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
	"chaperone/policy"
)

// installation mints tokens of a GitHub App's installation, for each delegation one
// that can do no more than the delegation says
// (docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app).
type installation struct {
	v       *Vault
	signer  *grant.Signer
	app     string
	url     string
	highest map[string]string // permissions that are asked for at most; nil: all
}

func openGitHubApp(o *opening) (minter, error) {
	signer, err := grant.NewSigner(o.secret, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShape, err)
	}
	api := o.setting("api_url")
	if api == "" {
		api = "https://api.github.com"
	}
	if err := grant.CheckURL(api); err != nil {
		return nil, fmt.Errorf("setting api_url: %w", err)
	}
	id := o.setting("installation_id")
	if strings.Trim(id, "0123456789") != "" {
		return nil, fmt.Errorf("setting installation_id: %q is not a number", id)
	}
	i := &installation{v: o.v, signer: signer, app: o.setting("app_id"), url: strings.TrimSuffix(api, "/") + "/app/installations/" + id + "/access_tokens"}
	for _, p := range scopes(o.setting("permissions")) {
		name, level, ok := strings.Cut(p, ":")
		if !ok || level != "read" && level != "write" && level != "admin" {
			return nil, fmt.Errorf("setting permissions: %q is not NAME:read, NAME:write or NAME:admin", p)
		}
		if i.highest == nil {
			i.highest = map[string]string{}
		}
		i.highest[name] = level
	}
	return i, nil
}

// narrowed is the body of the request: what the token may do at most.
type narrowed struct {
	Repositories []string          `json:"repositories,omitempty"`
	Permissions  map[string]string `json:"permissions,omitempty"`
}

func (i *installation) narrow(c *Caller) narrowed {
	return narrowed{repositoriesOf(c.Scope), within(permissionsOf(c.Scope), i.highest)}
}

func (i *installation) audience(c *Caller) string {
	n := i.narrow(c)
	if n.Repositories == nil && len(c.Scope) == 0 {
		return ""
	}
	b, err := json.Marshal(n) // with sorted keys
	if err != nil {
		return c.Session
	}
	return string(b)
}

func (i *installation) mint(ctx context.Context, c *Caller, _ secret.Secret) (grant.Token, error) {
	if i.v.outside.HTTP == nil {
		return grant.Token{}, grant.ErrUnreachable
	}
	statement, err := state(i.signer, i.v.now(), map[string]any{"iss": i.app})
	if err != nil {
		return grant.Token{}, err
	}
	body, err := json.Marshal(i.narrow(c))
	if err != nil {
		return grant.Token{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, bytes.NewReader(body))
	if err != nil {
		return grant.Token{}, err
	}
	r.Header = http.Header{
		"Authorization": {"Bearer " + secret.Text(statement)}, "Accept": {"application/vnd.github+json"},
		"Content-Type": {"application/json"}, "User-Agent": {"chaperone"}, "X-Github-Api-Version": {"2022-11-28"},
	}
	resp, err := i.v.outside.HTTP.RoundTrip(r)
	if err != nil {
		return grant.Token{}, grant.Unreached(ctx, err)
	}
	defer resp.Body.Close()
	var got struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&got)
	switch why := fmt.Sprintf("it answers %d", resp.StatusCode); {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return grant.Token{}, fmt.Errorf("%w: %s", skewed(resp, i.v.now(), grant.ErrClient), why)
	case resp.StatusCode == http.StatusNotFound:
		return grant.Token{}, fmt.Errorf("%w: %s: the app is not installed there any more", grant.ErrGrant, why)
	case resp.StatusCode == http.StatusUnprocessableEntity:
		return grant.Token{}, fmt.Errorf("%w: %s: the installation does not have what the scope names", grant.ErrScope, why)
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return grant.Token{}, fmt.Errorf("%w: %s", grant.ErrRedirect, why)
	case resp.StatusCode != http.StatusCreated || err != nil || got.Token == "":
		return grant.Token{}, fmt.Errorf("%w: %s", grant.ErrEndpoint, why)
	}
	return grant.Token{Access: secret.New(got.Token), Expires: got.Expires}, lasting(got.Expires, i.v.now())
}

// lasting is an error where a token that was just made out has ended by the clock here.
func lasting(expires, now time.Time) error {
	if expires.IsZero() || expires.After(now) {
		return nil
	}
	return fmt.Errorf("%w: a token that was just made ended at %s by the clock here", grant.ErrClock, expires.UTC().Format(time.RFC3339))
}

// skewed returns ErrClock for a refusal by somebody whose clock differs, else err.
func skewed(resp *http.Response, now time.Time, err error) error {
	if date, derr := http.ParseTime(resp.Header.Get("Date")); derr == nil && now.Sub(date).Abs() > 2*time.Minute {
		return grant.ErrClock
	}
	return err
}

// repositoriesOf returns the repositories to which every part of a scope is narrowed,
// by name; nil where one of them is not, or names more than a list can say.
func repositoriesOf(scope []policy.Scope) []string {
	var names []string
	for _, s := range scope {
		if len(s.Resources) == 0 {
			return nil
		}
		for _, r := range s.Resources {
			_, name, ok := strings.Cut(r, "/")
			if !ok || strings.ContainsAny(r, "*?{") || strings.Contains(name, "/") {
				return nil
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// permissionOf maps the beginning of an operation's name to the permission of an
// installation that covers it.
var permissionOf = map[string]string{
	"issues": "issues", "pulls": "pull_requests", "git": "contents", "actions": "actions", "checks": "checks",
	"dependabot": "vulnerability_alerts", "code-scanning": "security_events", "secret-scanning": "secret_scanning_alerts", "packages": "packages",
}

// permissionsOf returns the permissions that a scope needs at most; nil where that
// cannot be told, so that they are not narrowed beyond the app's own.
func permissionsOf(scope []policy.Scope) map[string]string {
	out := map[string]string{}
	for _, s := range scope {
		for _, pattern := range s.Actions {
			operation, ok := strings.CutPrefix(pattern, "github:")
			group, _, deeper := strings.Cut(operation, "/")
			if !ok {
				continue // of another service
			}
			name := permissionOf[group]
			if !deeper || name == "" {
				return nil
			}
			out[name] = "write"
		}
	}
	if len(out) == 0 {
		return nil
	}
	out["metadata"] = "read"
	return out
}

// within keeps of wanted what highest has, at most as high.
func within(wanted, highest map[string]string) map[string]string {
	switch {
	case highest == nil:
		return wanted
	case wanted == nil:
		return highest
	}
	out := map[string]string{}
	for name, level := range wanted {
		top, ok := highest[name]
		switch {
		case ok && top == "read":
			out[name] = "read"
		case ok:
			out[name] = level
		case name == "metadata":
			out[name] = "read"
		}
	}
	return out // never empty, which would stand for all: metadata is always in it
}
