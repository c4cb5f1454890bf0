package credential

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
)

// Kinds whose tokens are minted.
const (
	KindRefresh       = "oauth2-refresh"
	KindClient        = "oauth2-client"
	KindJWT           = "oauth2-jwt"
	KindExchange      = "oauth2-exchange"
	KindGitHubApp     = "github-app"
	KindGoogleAccount = "google-service-account"
	KindGoogleFederal = "google-workload"
)

// Settings that several kinds have.
var (
	tokenURL   = Setting{"token_url", "address of the token endpoint, https://…", true}
	clientID   = Setting{"client_id", "the app's id at the provider", true}
	scopeList  = Setting{"scopes", "scopes to ask for, with spaces between", false}
	clientAuth = Setting{"auth", "how the client shows who it is: basic, post or none (basic)", false}
	audience   = Setting{"audience", "for whom the token is", false}
	resource   = Setting{"resource", "at which the token is used (RFC 8707)", false}
)

// mintedKinds are those whose tokens are short-lived and got when they are needed.
func mintedKinds() []Kind {
	kind := func(name, doc, material string, settings []Setting, open func(*opening) (minter, error)) Kind {
		return Kind{Name: name, Doc: doc, Material: material, Settings: settings, place: mintedPlace, open: func(o *opening) (applier, error) {
			by, err := open(o)
			if err != nil {
				return nil, err
			}
			return newMinted(o, by), nil
		}}
	}
	return []Kind{
		kind(KindRefresh, "OAuth 2.0: access tokens for a refresh token, which may rotate (RFC 6749)",
			`the refresh token, or {"refresh_token": …, "client_secret": …}`, []Setting{tokenURL, clientID, scopeList, clientAuth, audience, resource}, openRefresh),
		kind(KindClient, "OAuth 2.0: access tokens for the client itself (RFC 6749 section 4.4)",
			`the client's secret, or {"client_secret": …}`, []Setting{tokenURL, clientID, scopeList, clientAuth, audience, resource}, openClient),
		kind(KindJWT, "OAuth 2.0: access tokens for a statement signed here (RFC 7523)",
			"the private key in PEM", []Setting{tokenURL, {"issuer", "who makes the statement", true}, {"subject", "whom it is about; the issuer when left out", false}, {"audience", "for whom the statement is; token_url when left out", false}, {"key_id", "the key's name at the provider", false}, scopeList}, openJWT),
		kind(KindExchange, "OAuth 2.0: a person's token traded for one with which the agent acts for them (RFC 8693)",
			`{"subject_token": …, "client_secret": …, "actor_key": PEM with which the agent's name is signed}, or the subject's token alone: a workload's own`,
			[]Setting{tokenURL, {"client_id", "the app's id at the provider, where it wants one", false}, {"requested_token_type", "urn:ietf:params:oauth:token-type:access_token, where it wants to be told", false}, scopeList, clientAuth, audience, resource, {"subject_token_type", "urn:ietf:params:oauth:token-type:access_token when left out", false}}, openExchange),
		kind(KindGitHubApp, "installation tokens of a GitHub App, narrowed to the repositories and permissions of the session's scope",
			"the app's private key in PEM", []Setting{{"app_id", "the app's id or client id", true}, {"installation_id", "the id of the installation", true}, {"permissions", "at most these, such as issues:write,contents:read", false}, {"api_url", "https://api.github.com when left out", false}}, openGitHubApp),
		kind(KindGoogleAccount, "access tokens of a Google service account",
			"the account's key file, JSON", []Setting{{"scopes", "scopes to ask for, with spaces between", false}, {"subject", "a person of the domain for whom the account acts", false}, {targetAudience, "in the place of scopes: ID tokens for that service, as Cloud Run takes them, https://…", false}}, openGoogleAccount),
		kind(KindGoogleFederal, "access tokens of Google for a workload's own token (workload identity federation), of a service account where one is named",
			"the workload's token, a JWT; best left at its source, as --source file:/var/run/secrets/…/token", []Setting{{"audience", "the provider, //iam.googleapis.com/projects/…/locations/global/workloadIdentityPools/…/providers/…", true}, {"service_account", "whose token it is to be, NAME@PROJECT.iam.gserviceaccount.com", false}, {"scopes", "scopes to ask for, with spaces between", true}, {"subject_token_type", "urn:ietf:params:oauth:token-type:jwt when left out", false}}, openGoogleWorkload),
	}
}

// mintedPlace is where the handle may stand besides where the service says: bearer
// when nothing else is said.
func mintedPlace(c *Credential) (Place, error) {
	if c.Place == "" {
		return Place{kind: KindBearer}, nil
	}
	return parsePlace(c.Place)
}

// client makes a client of the settings.
func (o *opening) client(id string, key secret.Secret) (*grant.Client, error) {
	c := &grant.Client{HTTP: o.v.outside.HTTP, URL: o.setting("token_url"), ID: id, Secret: key, Auth: o.setting("auth"), Scopes: scopes(o.setting("scopes")), More: url.Values{}}
	if err := grant.CheckURL(c.URL); err != nil {
		return nil, fmt.Errorf("setting token_url: %w", err)
	}
	switch c.Auth {
	case "":
		c.Auth = "basic"
		if key.Empty() {
			c.Auth = "none"
		}
	case "basic", "post", "none":
	default:
		return nil, fmt.Errorf("setting auth: %q is not basic, post or none", c.Auth)
	}
	for _, name := range []string{"audience", "resource", "requested_token_type"} {
		if v := o.setting(name); v != "" {
			c.More.Set(name, v)
		}
	}
	return c, nil
}

// refreshing mints by a refresh token.
type refreshing struct {
	client *grant.Client
	first  secret.Secret // the token that was put in; later ones are in the store
}

func openRefresh(o *opening) (minter, error) {
	fields, err := o.plainOr("refresh_token")
	if err != nil {
		return nil, err
	}
	first, err := want(fields, "refresh_token")
	if err != nil {
		return nil, err
	}
	c, err := o.client(o.setting("client_id"), fields["client_secret"])
	return &refreshing{c, first}, err
}

// plainOr reads material that is a JSON object, or else the one field of that name.
func (o *opening) plainOr(name string) (map[string]secret.Secret, error) {
	if b := secret.Reveal(o.secret); len(b) > 0 && b[0] == '{' {
		return o.fields()
	}
	text, err := plainText(o.k.Service, o.secret)
	return map[string]secret.Secret{name: secret.New(text)}, err
}

func (r *refreshing) mint(ctx context.Context, _ *Caller, refresh secret.Secret) (grant.Token, error) {
	if refresh.Empty() {
		refresh = r.first
	}
	return r.client.Refresh(ctx, refresh)
}

func (*refreshing) audience(*Caller) string { return "" }

// asClient mints for the client itself.
type asClient struct{ client *grant.Client }

func openClient(o *opening) (minter, error) {
	fields, err := o.plainOr("client_secret")
	if err != nil {
		return nil, err
	}
	key, err := want(fields, "client_secret")
	if err != nil {
		return nil, err
	}
	c, err := o.client(o.setting("client_id"), key)
	return &asClient{c}, err
}

func (a *asClient) mint(ctx context.Context, _ *Caller, _ secret.Secret) (grant.Token, error) {
	t, err := a.client.ForItself(ctx)
	t.Refresh = secret.Secret{} // RFC 6749 section 4.4.3: there should be none, and none is needed
	return t, err
}

func (*asClient) audience(*Caller) string { return "" }

// Times of statements: they are made as they are needed, and clocks differ a little.
const (
	statementLife = 5 * time.Minute
	statementBack = 30 * time.Second
)

// stating mints by statements that are signed here.
type stating struct {
	v      *Vault
	client *grant.Client
	signer *grant.Signer
	claims map[string]any
}

func openJWT(o *opening) (minter, error) {
	signer, err := grant.NewSigner(o.secret, o.setting("key_id"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShape, err)
	}
	c, err := o.client("", secret.Secret{})
	if err != nil {
		return nil, err
	}
	c.More = nil // the audience is the statement's
	claims := map[string]any{"iss": o.setting("issuer"), "sub": o.setting("issuer"), "aud": c.URL}
	if s := o.setting("subject"); s != "" {
		claims["sub"] = s
	}
	if a := o.setting("audience"); a != "" {
		claims["aud"] = a
	}
	return &stating{o.v, c, signer, claims}, nil
}

// tell implements [teller]: tokens of machines name nobody.
func (s *stating) tell(_ context.Context, f *Finding) {
	for _, claim := range [...]string{"sub", "iss"} {
		if who, ok := s.claims[claim].(string); ok && f.Who == "" {
			f.Who = who
		}
	}
}

func (s *stating) mint(ctx context.Context, _ *Caller, _ secret.Secret) (grant.Token, error) {
	statement, err := state(s.signer, s.v.now(), s.claims)
	if err != nil {
		return grant.Token{}, err
	}
	t, err := s.client.Assert(ctx, statement)
	t.Refresh = secret.Secret{}
	return t, err
}

func (*stating) audience(*Caller) string { return "" }

// state signs claims with their times and a name of their own (RFC 7523 section 3).
func state(s *grant.Signer, now time.Time, claims map[string]any) (secret.Secret, error) {
	all := map[string]any{"iat": now.Add(-statementBack).Unix(), "exp": now.Add(statementLife).Unix(), "jti": NewID("", 22)}
	maps.Copy(all, claims)
	return s.Sign(all)
}

// openGoogleAccount reads the key file that Google's console hands out.
func openGoogleAccount(o *opening) (minter, error) {
	var file struct {
		Type     string `json:"type"`
		Email    string `json:"client_email"`
		Key      string `json:"private_key"`
		KeyID    string `json:"private_key_id"`
		Endpoint string `json:"token_uri"`
	}
	if err := json.Unmarshal(secret.Reveal(o.secret), &file); err != nil || file.Type != "service_account" {
		return nil, fmt.Errorf("%w: this is not the JSON key file of a Google service account", ErrShape)
	}
	signer, err := grant.NewSigner(secret.New(file.Key), file.KeyID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShape, err)
	}
	if err := grant.CheckURL(file.Endpoint); err != nil {
		return nil, fmt.Errorf("%w: token_uri: %w", ErrShape, err)
	}
	claims := map[string]any{"iss": file.Email, "aud": file.Endpoint, "scope": o.setting("scopes")}
	if s := o.setting("subject"); s != "" {
		claims["sub"] = s
	}
	s := &stating{o.v, &grant.Client{HTTP: o.v.outside.HTTP, URL: file.Endpoint, Auth: "none"}, signer, claims}
	switch target := o.setting(targetAudience); {
	case (target == "") == (o.setting("scopes") == ""):
		return nil, fmt.Errorf("kind %s wants either of the settings scopes and %s", KindGoogleAccount, targetAudience)
	case target == "":
		return s, nil
	default:
		delete(claims, "scope")
		claims[targetAudience] = target
		return &identifying{s}, nil
	}
}

// exchanging trades the person's token for one of each agent that acts for them.
type exchanging struct {
	v       *Vault
	client  *grant.Client
	subject grant.Party
	signer  *grant.Signer // of the agent's name; nil: the client is the actor
	issuer  string
}

func openExchange(o *opening) (minter, error) {
	fields, err := o.plainOr("subject_token")
	if err != nil {
		return nil, err
	}
	subject, err := want(fields, "subject_token")
	if err != nil {
		return nil, err
	}
	c, err := o.client(o.setting("client_id"), fields["client_secret"])
	if err != nil {
		return nil, err
	}
	e := &exchanging{v: o.v, client: c, subject: grant.Party{Token: subject, Type: o.setting("subject_token_type")}, issuer: c.ID}
	if e.subject.Type == "" {
		e.subject.Type = "urn:ietf:params:oauth:token-type:access_token"
	}
	if key := fields["actor_key"]; !key.Empty() {
		if e.signer, err = grant.NewSigner(key, o.setting("key_id")); err != nil {
			return nil, fmt.Errorf("%w: actor_key: %w", ErrShape, err)
		}
	}
	return e, nil
}

func (e *exchanging) mint(ctx context.Context, c *Caller, _ secret.Secret) (grant.Token, error) {
	var actor grant.Party
	if e.signer != nil {
		statement, err := state(e.signer, e.v.now(), map[string]any{"iss": e.issuer, "sub": c.Agent, "aud": e.client.URL})
		if err != nil {
			return grant.Token{}, err
		}
		actor = grant.Party{Token: statement, Type: "urn:ietf:params:oauth:token-type:jwt"}
	}
	t, err := e.client.Exchange(ctx, e.subject, actor)
	t.Refresh = secret.Secret{} // it would outlive the exchange (RFC 8693 section 2.2.1)
	return t, err
}

// audience is the agent: the token says that it is that one who acts.
func (e *exchanging) audience(c *Caller) string {
	if e.signer == nil {
		return ""
	}
	return c.Agent
}
