package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"chaperone/credential/grant"
)

// Probe is a harmless call by which a credential is tried.
type Probe struct {
	Method string
	URL    string // https; HANDLE stands for a credential of kind path
	Body   string // JSON, where there is one
	User   string // the user name beside a credential of kind basic
	At     string // where a key stands of which is only known that it is one secret; empty: Authorization: Bearer
	Before string // what stands in front of it there
	Who    string // where the answer says whose the credential is: members with dots between
	Scopes string // field of the answer that lists scopes
	Listed string // member of the answer that lists them
	Header http.Header
}

// probes are the services' own ways to say whose a credential is, after their
// references. All of them change nothing.
var probes = map[string]Probe{
	"anthropic":    {URL: "https://api.anthropic.com/v1/models", At: "header:X-Api-Key", Header: http.Header{"Anthropic-Version": {"2023-06-01"}}},
	"asana":        {URL: "https://app.asana.com/api/1.0/users/me", Who: "data.email"},
	"aws-*":        {URL: "https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15", Who: "GetCallerIdentityResponse.GetCallerIdentityResult.Arn", Header: http.Header{"Accept": {"application/json"}}},
	"cloudflare":   {URL: "https://api.cloudflare.com/client/v4/user/tokens/verify"},
	"datadog":      {URL: "https://api.datadoghq.com/api/v1/validate", At: "header:DD-API-KEY"},
	"digitalocean": {URL: "https://api.digitalocean.com/v2/account", Who: "account.email"},
	"gemini":       {URL: "https://generativelanguage.googleapis.com/v1beta/models", At: "header:X-Goog-Api-Key"},
	"github":       {URL: "https://api.github.com/user", Who: "login", Scopes: "X-Oauth-Scopes"},
	"gitlab":       {URL: "https://gitlab.com/api/v4/user", Who: "username"},
	"google-*":     {URL: "https://oauth2.googleapis.com/tokeninfo", At: "query:access_token", Who: "email", Listed: "scope"},
	"hubspot":      {URL: "https://api.hubapi.com/account-info/v3/details", Who: "portalId"},
	"linear":       {Method: "POST", URL: "https://api.linear.app/graphql", Body: `{"query":"{viewer{email}}"}`, At: "header:Authorization", Who: "data.viewer.email"},
	"msgraph":      {URL: "https://graph.microsoft.com/v1.0/me", Who: "userPrincipalName"},
	"notion":       {URL: "https://api.notion.com/v1/users/me", Who: "name", Header: http.Header{"Notion-Version": {"2022-06-28"}}},
	"openai":       {URL: "https://api.openai.com/v1/models"},
	"pagerduty":    {URL: "https://api.pagerduty.com/abilities", At: "header:Authorization", Before: "Token token="},
	"sendgrid":     {URL: "https://api.sendgrid.com/v3/scopes", Listed: "scopes"},
	"slack":        {Method: "POST", URL: "https://slack.com/api/auth.test", Who: "user", Scopes: "X-Oauth-Scopes"},
	"stripe":       {URL: "https://api.stripe.com/v1/account", Who: "id"},
	"twilio":       {URL: "https://api.twilio.com/2010-04-01/Accounts.json"},
}

// ErrNoProbe is wrapped when nobody knows a harmless call at a service.
var ErrNoProbe = errors.New("there is no call by which a credential of this service could be tried")

// ProbeOf returns how a credential is tried.
func ProbeOf(c *Credential) (Probe, error) {
	switch {
	case c.Kind == KindGitHubApp: // whose tokens are nobody's, so that /user is not for them
		api := strings.TrimSuffix(c.Settings["api_url"], "/")
		if api == "" {
			api = gitHubAPI
		}
		return Probe{URL: api + "/installation/repositories?per_page=1"}, nil
	case c.Settings[targetAudience] != "":
		return Probe{URL: "https://oauth2.googleapis.com/tokeninfo", At: "query:id_token", Who: "email"}, nil
	case c.Service == "msgraph" && (c.Kind == KindClient || c.Kind == KindJWT): // for which there is no /me
		return Probe{URL: "https://graph.microsoft.com/v1.0/users?$top=1"}, nil
	}
	if p, ok := probes[c.Service]; ok {
		return p, nil
	}
	for family, p := range probes {
		if Covers(family, c.Service) {
			return p, nil
		}
	}
	return Probe{}, fmt.Errorf("%w: %s", ErrNoProbe, c.Service)
}

// Finding is what trying a credential told.
type Finding struct {
	Works  bool     `json:"works"`
	Status int      `json:"status"`
	Who    string   `json:"who,omitzero"` // at the service
	Scopes []string `json:"scopes,omitzero"`
	// Excess is what the scopes allow beyond what policy can ever use; nil where there are
	// none, or it cannot be told.
	Excess *Excess `json:"excess,omitzero"`
}

// Test tries a credential by a harmless call. It is the operator's own request: no agent
// has a hand in it.
func (v *Vault) Test(ctx context.Context, id string, p Probe) (Finding, error) {
	v.mu.RLock()
	k := v.credentials[id]
	v.mu.RUnlock()
	if k == nil {
		return Finding{}, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	if err := grant.CheckURL(p.URL); err != nil {
		return Finding{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, v.outside.tokenTime())
	defer cancel()
	how, err := v.opened(ctx, k)
	if err != nil {
		return Finding{}, v.troubled(k, err)
	}
	t := &trial{v, k, how, &p}
	r, shown, err := t.request(ctx)
	if err != nil {
		return Finding{}, v.troubled(k, err)
	}
	resp, body, err := t.ask(r, shown)
	if err != nil {
		return Finding{}, err
	}
	f := found(resp, body, p)
	if m, ok := how.(*minted); ok && f.Works {
		if by, ok := m.by.(teller); ok {
			by.tell(ctx, &f)
		}
	}
	if f.Works && len(f.Scopes) == 0 { // the service does not say; those that were asked for are the most that it gave
		f.Scopes = scopes(k.Settings["scopes"])
	}
	slices.Sort(f.Scopes)
	return f, nil
}

// teller is a minter that knows more of its tokens than an answer with one says.
type teller interface {
	tell(ctx context.Context, f *Finding)
}

// found reads the answer. Only what names somebody is taken out of it.
func found(resp *http.Response, body []byte, p Probe) Finding {
	f := Finding{Status: resp.StatusCode, Works: resp.StatusCode/100 == 2}
	var answer any
	if json.Unmarshal(body, &answer) == nil {
		if said, ok := answer.(map[string]any); ok && said["ok"] == false {
			f.Works = false // Slack answers 200 to everything
		}
		if who := member(answer, p.Who); f.Works && len(who) <= 200 {
			f.Who = who
		}
	}
	for _, line := range resp.Header[p.Scopes] {
		f.Scopes = append(f.Scopes, scopes(line)...)
	}
	if f.Works && p.Listed != "" {
		f.Scopes = append(f.Scopes, listed(answer, p.Listed)...)
	}
	return f
}

// member is the text or number at a path of members.
func member(v any, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return ""
}

// listed are the texts of a member that is a list, or one text with spaces between.
func listed(v any, name string) (out []string) {
	m, _ := v.(map[string]any)
	switch list := m[name].(type) {
	case string:
		return scopes(list)
	case []any:
		for _, x := range list {
			if text, ok := x.(string); ok && len(out) < maxListed {
				out = append(out, text)
			}
		}
	}
	return out
}

// maxListed bounds the scopes that are taken out of an answer.
const maxListed = 1000
