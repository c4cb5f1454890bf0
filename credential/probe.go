package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"chaperone/credential/grant"
	"chaperone/credential/sigv4"
)

// Probe is a harmless call by which a credential is tried.
type Probe struct {
	Method string
	URL    string // https
	Body   string // JSON, where there is one
	Who    string // where the answer says whose the credential is: members with dots between
	Scopes string // field of the answer that lists scopes
	Header http.Header
}

// probes are the services' own ways to say whose a credential is. All of them change
// nothing.
var probes = map[string]Probe{
	"github":    {Method: "GET", URL: "https://api.github.com/user", Who: "login", Scopes: "X-Oauth-Scopes"},
	"slack":     {Method: "POST", URL: "https://slack.com/api/auth.test", Who: "user", Scopes: "X-Oauth-Scopes"},
	"stripe":    {Method: "GET", URL: "https://api.stripe.com/v1/account", Who: "id"},
	"openai":    {Method: "GET", URL: "https://api.openai.com/v1/models"},
	"anthropic": {Method: "GET", URL: "https://api.anthropic.com/v1/models", Header: http.Header{"Anthropic-Version": {"2023-06-01"}}},
	"gitlab":    {Method: "GET", URL: "https://gitlab.com/api/v4/user", Who: "username"},
	"linear":    {Method: "POST", URL: "https://api.linear.app/graphql", Body: `{"query":"{viewer{email}}"}`, Who: "data.viewer.email"},
	"notion":    {Method: "GET", URL: "https://api.notion.com/v1/users/me", Who: "name", Header: http.Header{"Notion-Version": {"2022-06-28"}}},
	"google-*":  {Method: "GET", URL: "https://openidconnect.googleapis.com/v1/userinfo", Who: "email"},
	"aws-*":     {Method: "GET", URL: "https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15", Who: "GetCallerIdentityResponse.GetCallerIdentityResult.Arn", Header: http.Header{"Accept": {"application/json"}}},
}

// ErrNoProbe is wrapped when nobody knows a harmless call at a service.
var ErrNoProbe = errors.New("there is no call by which a credential of this service could be tried")

// ProbeOf returns how credentials of a service are tried.
func ProbeOf(service string) (Probe, error) {
	if p, ok := probes[service]; ok {
		return p, nil
	}
	for family, p := range probes {
		if Covers(family, service) {
			return p, nil
		}
	}
	return Probe{}, fmt.Errorf("%w: %s", ErrNoProbe, service)
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
	r, err := v.probing(ctx, k, how, p)
	if err != nil {
		return Finding{}, v.troubled(k, err)
	}
	if v.outside.HTTP == nil {
		return Finding{}, grant.ErrUnreachable
	}
	resp, err := v.outside.HTTP.RoundTrip(r)
	if err != nil {
		return Finding{}, grant.Unreached(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return Finding{}, fmt.Errorf("%w: its answer ends early", grant.ErrEndpoint)
	}
	v.troubled(k, nil)
	f := found(resp, body, p)
	if f.Works && len(f.Scopes) == 0 { // the service does not say; those that were asked for are the most that it gave
		f.Scopes = scopes(k.Settings["scopes"])
		slices.Sort(f.Scopes)
	}
	return f, nil
}

// probing is the request with the credential in it.
func (v *Vault) probing(ctx context.Context, k *kept, how applier, p Probe) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, p.Method, p.URL, strings.NewReader(p.Body))
	if err != nil {
		return nil, fmt.Errorf("%w: the address cannot be read", ErrInvalid)
	}
	if p.Body == "" {
		r.Body, r.ContentLength = nil, 0
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("User-Agent", "chaperone")
	maps.Copy(r.Header, p.Header)
	if keys, ok := how.(interface {
		keysFor(context.Context, *Caller) (sigv4.Keys, error)
	}); ok {
		k, err := keys.keysFor(ctx, &Caller{Agent: "chaperone", Instance: "credential-test", Session: "credential-test"})
		if err == nil {
			sigv4.New(&sigv4.Request{Method: r.Method, Host: r.URL.Host, Path: "/", RawQuery: r.URL.RawQuery, Header: r.Header}, k, "us-east-1", "sts", []byte(p.Body), v.now())
		}
		return r, err
	}
	u, err := standing(k.place, r)
	if err != nil {
		return nil, err
	}
	u.out.Caller = Caller{Agent: "chaperone", Instance: "credential-test", Session: "credential-test"}
	if err := how.apply(ctx, u); err != nil {
		return nil, err
	}
	r.URL.RawQuery = u.out.RawQuery
	return r, nil
}

// standing puts something into the place where a handle would stand.
func standing(at Place, r *http.Request) (*use, error) {
	s := spot{place: at, text: Hidden}
	query := r.URL.RawQuery
	switch at.kind {
	case KindBearer:
		s.field = "Authorization"
		r.Header.Set(s.field, "Bearer "+Hidden)
	case KindBasic:
		s.field = "Authorization"
		r.Header.Set(s.field, "Basic "+base64.StdEncoding.EncodeToString([]byte("x:"+Hidden)))
	case KindHeader:
		s.field = at.name
		r.Header[at.name] = []string{Hidden}
	case KindCookie:
		s.field = "Cookie"
		r.Header.Set("Cookie", at.name+"="+Hidden)
	case KindQuery:
		query = strings.TrimPrefix(query+"&"+url.QueryEscape(at.name)+"="+Hidden, "&")
	default:
		return nil, fmt.Errorf("%w: of its kind", ErrNoProbe)
	}
	return &use{&Presented{spot: s}, &Outgoing{Header: r.Header, Path: r.URL.Path, RawQuery: query}}, nil
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
	slices.Sort(f.Scopes)
	return f
}

// member is the text at a path of members.
func member(v any, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[name]
	}
	s, _ := v.(string)
	return s
}
