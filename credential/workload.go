package credential

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
)

// openAWSWeb reads a workload's token, for which AWS gives keys of a role.
func openAWSWeb(o *opening) (applier, error) {
	token, err := o.workloadToken()
	if err != nil {
		return nil, err
	}
	return o.assuming(&assumed{web: token})
}

// workloadToken is a token by which a platform says who a workload is: three parts, as
// a JWT in compact form has (RFC 7519 section 3).
func (o *opening) workloadToken() (secret.Secret, error) {
	text, err := plainText(o.k.Service, o.secret)
	if err != nil {
		return secret.Secret{}, err
	}
	if strings.Count(text, ".") != 2 {
		return secret.Secret{}, fmt.Errorf("%w: this is no JWT, by which a platform says who a workload is", ErrShape)
	}
	return secret.New(text), nil
}

// Endpoints of Google's, after cloud.google.com/iam/docs/workload-identity-federation
// and the reference of generateAccessToken.
const (
	googleExchange    = "https://sts.googleapis.com/v1/token"
	googleImpersonate = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
)

// federated trades a workload's token for one of Google's, and that for one of a
// service account.
type federated struct {
	v       *Vault
	client  *grant.Client
	subject grant.Party
	account string   // empty: the token is the workload's
	scopes  []string // of the account's token
}

func openGoogleWorkload(o *opening) (minter, error) {
	token, err := o.workloadToken()
	if err != nil {
		return nil, err
	}
	f := &federated{v: o.v, subject: grant.Party{Token: token, Type: o.setting("subject_token_type")}, account: o.setting("service_account"), scopes: scopes(o.setting("scopes"))}
	if f.subject.Type == "" {
		f.subject.Type = "urn:ietf:params:oauth:token-type:jwt"
	}
	if f.account != "" && (strings.ContainsAny(f.account, "/?#%: ") || !strings.Contains(f.account, "@")) {
		return nil, fmt.Errorf("setting service_account: %q is not NAME@PROJECT.iam.gserviceaccount.com", f.account)
	}
	if !strings.HasPrefix(o.setting("audience"), "//iam.googleapis.com/") {
		return nil, fmt.Errorf("setting audience: %q is not //iam.googleapis.com/projects/…", o.setting("audience"))
	}
	f.client = &grant.Client{HTTP: o.v.outside.HTTP, URL: googleExchange, Auth: "none", Scopes: f.scopes,
		More: url.Values{"audience": {o.setting("audience")}, "requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"}}}
	if f.account != "" {
		f.client.Scopes = []string{"https://www.googleapis.com/auth/cloud-platform"} // to speak for an account
	}
	return f, nil
}

func (*federated) audience(*Caller) string { return "" }

func (f *federated) mint(ctx context.Context, _ *Caller, _ secret.Secret) (grant.Token, error) {
	t, err := f.client.Exchange(ctx, f.subject, grant.Party{})
	t.Refresh = secret.Secret{}
	if err != nil || f.account == "" {
		return t, err
	}
	return f.impersonate(ctx, t.Access)
}

// impersonate gets a token of the service account with one of the workload's.
func (f *federated) impersonate(ctx context.Context, with secret.Secret) (grant.Token, error) {
	var got struct {
		Token   string    `json:"accessToken"`
		Expires time.Time `json:"expireTime"`
	}
	may := fmt.Errorf("%w: the workload may not speak for the service account", grant.ErrClient)
	err := f.v.send(ctx, &platformCall{
		method: http.MethodPost, url: googleImpersonate + url.PathEscape(f.account) + ":generateAccessToken", with: with, body: map[string]any{"scope": f.scopes}, success: http.StatusOK,
		means: map[int]error{http.StatusUnauthorized: may, http.StatusForbidden: may, http.StatusNotFound: fmt.Errorf("%w: there is no such service account", grant.ErrGrant)},
	}, &got)
	if err == nil && got.Token == "" {
		err = fmt.Errorf("%w: its answer has no token", grant.ErrEndpoint)
	}
	if err != nil {
		return grant.Token{}, err
	}
	return grant.Token{Access: secret.New(got.Token), Expires: got.Expires}, lasting(got.Expires, f.v.now())
}
