package credential

import (
	"context"
	"encoding/json"
	"fmt"
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
	url     string            // of the installation
	highest map[string]string // permissions that are asked for at most; nil: all
}

const gitHubAPI = "https://api.github.com"

func openGitHubApp(o *opening) (minter, error) {
	signer, err := grant.NewSigner(o.secret, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShape, err)
	}
	api := o.setting("api_url")
	if api == "" {
		api = gitHubAPI
	}
	if err := grant.CheckURL(api); err != nil {
		return nil, fmt.Errorf("setting api_url: %w", err)
	}
	id := o.setting("installation_id")
	if strings.Trim(id, "0123456789") != "" {
		return nil, fmt.Errorf("setting installation_id: %q is not a number", id)
	}
	i := &installation{v: o.v, signer: signer, app: o.setting("app_id"), url: strings.TrimSuffix(api, "/") + "/app/installations/" + id}
	i.highest = permissions(o.setting("permissions"))
	for name, level := range i.highest {
		if level != "read" && level != "write" && level != "admin" {
			return nil, fmt.Errorf("setting permissions: %q is not NAME:read, NAME:write or NAME:admin", strings.TrimSuffix(name+":"+level, ":"))
		}
	}
	return i, nil
}

// asksInstallation returns the id of the installation for which a request asks a token, or
// the empty string: the request that mint makes too.
func (r *Request) asksInstallation() string {
	_, rest, ok := strings.Cut(r.Path, "/app/installations/")
	id, tail, _ := strings.Cut(rest, "/")
	if !ok || !r.Mints || tail != "access_tokens" {
		return ""
	}
	return id
}

// installationAnswer is how GitHub hands out a token of an installation.
func installationAnswer(k *kept, handle string, expires time.Time, scope []policy.Scope) map[string]any {
	i := installation{highest: permissions(k.Settings["permissions"])}
	n := i.narrow(&Caller{Scope: scope})
	body := map[string]any{"token": handle, "expires_at": expires.UTC().Format(time.RFC3339), "permissions": n.Permissions, "repository_selection": "all"}
	if n.Permissions == nil {
		body["permissions"] = map[string]string{} // all that the app has, which is not known here
	}
	if n.Repositories != nil {
		body["repository_selection"] = "selected"
	}
	return body
}

// permissions reads names with their levels; nil where there are none.
func permissions(text string) map[string]string {
	var out map[string]string
	for _, p := range scopes(text) {
		if out == nil {
			out = map[string]string{}
		}
		name, level, _ := strings.Cut(p, ":")
		out[name] = level
	}
	return out
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
	statement, err := i.statement()
	if err != nil {
		return grant.Token{}, err
	}
	var got struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	err = i.v.send(ctx, &platformCall{
		method: http.MethodPost, url: i.url + "/access_tokens", with: statement, header: gitHubHeader, body: i.narrow(c), success: http.StatusCreated,
		means: map[int]error{
			http.StatusUnauthorized: grant.ErrClient, http.StatusForbidden: grant.ErrClient,
			http.StatusNotFound:            fmt.Errorf("%w: the app is not installed there any more", grant.ErrGrant),
			http.StatusUnprocessableEntity: fmt.Errorf("%w: the installation does not have what the scope names", grant.ErrScope),
		},
	}, &got)
	if err == nil && got.Token == "" {
		err = fmt.Errorf("%w: its answer has no token", grant.ErrEndpoint)
	}
	if err != nil {
		return grant.Token{}, err
	}
	return grant.Token{Access: secret.New(got.Token), Expires: got.Expires}, lasting(got.Expires, i.v.now())
}

var gitHubHeader = http.Header{"Accept": {"application/vnd.github+json"}, "X-Github-Api-Version": {"2022-11-28"}}

// statement is by what the app says who it is.
func (i *installation) statement() (secret.Secret, error) {
	return state(i.signer, i.v.now(), map[string]any{"iss": i.app})
}

// tell implements [teller]: a token says of itself neither whose it is nor what it may.
func (i *installation) tell(ctx context.Context, f *Finding) {
	statement, err := i.statement()
	if err != nil {
		return
	}
	var got struct {
		App         string `json:"app_slug"`
		Account     struct{ Login string }
		Permissions map[string]string
	}
	if i.v.send(ctx, &platformCall{method: http.MethodGet, url: i.url, with: statement, header: gitHubHeader, success: http.StatusOK}, &got) != nil {
		return // what it says is only more
	}
	f.Who = got.App + "[bot] at " + got.Account.Login
	f.Scopes = nil
	for name, level := range got.Permissions {
		top, asked := i.highest[name]
		switch {
		case name == "metadata", i.highest != nil && !asked: // which every token has, or none of these
		case top == "read":
			f.Scopes = append(f.Scopes, name+":read")
		default:
			f.Scopes = append(f.Scopes, name+":"+level)
		}
	}
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
