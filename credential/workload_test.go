package credential

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"chaperone/credential/grant"
	"chaperone/internal/testkit"
	"chaperone/policy"
)

// workload is a token by which a platform says who a workload is.
const workload = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary"

// everywhere is a way out that comes to h whatever host is asked for.
func everywhere(t *testing.T, h http.HandlerFunc) http.RoundTripper {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	tr := s.Client().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.ServerName = "example.com"
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// google is Google's part in workload identity federation.
func google(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	w.Header().Set("Content-Type", "application/json")
	switch f := r.PostForm; {
	case r.Host == "sts.googleapis.com" && r.URL.Path == "/v1/token" && f.Get("subject_token") == workload && f.Get("subject_token_type") == "urn:ietf:params:oauth:token-type:jwt" && f.Get("requested_token_type") == "urn:ietf:params:oauth:token-type:access_token" &&
		f.Get("audience") == "//iam.googleapis.com/projects/1/p" && r.Header.Get("Authorization") == "":
		fmt.Fprintf(w, `{"access_token":"federated-for-%s","token_type":"Bearer","expires_in":3600}`, f.Get("scope"))
	case r.Host == "iamcredentials.googleapis.com" && r.URL.Path == "/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken" && r.Header.Get("Authorization") == "Bearer federated-for-https://www.googleapis.com/auth/cloud-platform":
		fmt.Fprintf(w, `{"accessToken":"ya29.account","expireTime":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	default:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_request","error_description":"`+workload+`"}`)
	}
}

func TestGoogleWorkload(t *testing.T) {
	b := vault(t)
	b.Use(Outside{HTTP: everywhere(t, google)})
	settings := map[string]string{"audience": "//iam.googleapis.com/projects/1/p", "scopes": "https://www.googleapis.com/auth/drive"}
	own := b.with(t, Credential{ID: "own", Kind: KindGoogleFederal, Settings: settings}, workload)
	if got, err := b.authorization(t, own, Caller{}); err != nil || got != "Bearer federated-for-https://www.googleapis.com/auth/drive" {
		t.Errorf("%q, %v", got, err)
	}
	with := map[string]string{"service_account": "a@p.iam.gserviceaccount.com"}
	maps.Copy(with, settings)
	account := b.with(t, Credential{ID: "account", Kind: KindGoogleFederal, Settings: with}, workload)
	if got, err := b.authorization(t, account, Caller{}); err != nil || got != "Bearer ya29.account" {
		t.Errorf("%q, %v", got, err)
	}
	for name, tc := range map[string]struct{ setting, value, secret, want string }{
		"no JWT":      {"", "", "not-a-token", "no JWT"},
		"no audience": {"audience", "https://acme.com", workload, "setting audience"},
		"no account":  {"service_account", "a/../b", workload, "setting service_account"},
	} {
		s := map[string]string{"audience": "//iam.googleapis.com/x", "scopes": "a"}
		if tc.setting != "" {
			s[tc.setting] = tc.value
		}
		err := b.Add(t.Context(), Credential{ID: "bad", Kind: KindGoogleFederal, Service: "google-drive", Owner: "org", Settings: s}, NewSecret([]byte(tc.secret)))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), tc.secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWorkloadRefusals has the endpoints fail in each of their ways: every one is told
// apart, and none repeats what was sent.
func TestWorkloadRefusals(t *testing.T) {
	googleSettings := map[string]string{"audience": "//iam.googleapis.com/x", "scopes": "a", "service_account": "a@p.iam.gserviceaccount.com"}
	second := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "sts.googleapis.com" {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"access_token":"federated","token_type":"Bearer","expires_in":3600}`)
				return
			}
			w.WriteHeader(status)
			fmt.Fprint(w, workload)
		}
	}
	first := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	awsSettings := map[string]string{"role_arn": "arn:aws:iam::123456789012:role/reader"}
	for name, tc := range map[string]struct {
		kind     string
		settings map[string]string
		answer   http.HandlerFunc
		want     error
	}{
		"the token has expired":   {KindGoogleFederal, googleSettings, first(400, `{"error":"invalid_grant"}`), grant.ErrGrant},
		"the pool refuses":        {KindGoogleFederal, googleSettings, first(403, `{"error":"unauthorized_client"}`), grant.ErrClient},
		"rubbish":                 {KindGoogleFederal, googleSettings, first(200, `{"access`), grant.ErrEndpoint},
		"may not speak for it":    {KindGoogleFederal, googleSettings, second(403), grant.ErrClient},
		"no such account":         {KindGoogleFederal, googleSettings, second(404), grant.ErrGrant},
		"the account redirects":   {KindGoogleFederal, googleSettings, second(302), grant.ErrRedirect},
		"the account is down":     {KindGoogleFederal, googleSettings, second(503), grant.ErrEndpoint},
		"the account is rubbish":  {KindGoogleFederal, googleSettings, second(200), grant.ErrEndpoint},
		"AWS: expired":            {KindAWSWeb, awsSettings, first(400, `<ErrorResponse><Error><Code>ExpiredTokenException</Code></Error></ErrorResponse>`), grant.ErrGrant},
		"AWS: not for this role":  {KindAWSWeb, awsSettings, first(403, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>`+workload+`</Message></Error></ErrorResponse>`), grant.ErrClient},
		"AWS: rubbish":            {KindAWSWeb, awsSettings, first(200, `<a>`), grant.ErrEndpoint},
		"AWS: a redirect":         {KindAWSWeb, awsSettings, first(307, ``), grant.ErrRedirect},
		"AWS: the service's down": {KindAWSWeb, awsSettings, first(500, ``), grant.ErrEndpoint},
	} {
		t.Run(name, func(t *testing.T) {
			b := vault(t)
			b.Use(Outside{HTTP: everywhere(t, tc.answer)})
			if err := b.Add(t.Context(), Credential{ID: "w", Kind: tc.kind, Service: "acme", Owner: "org", Settings: tc.settings}, NewSecret([]byte(workload))); err != nil {
				t.Fatal(err)
			}
			how, err := b.opened(t.Context(), b.credentials["w"])
			if err != nil {
				t.Fatal(err)
			}
			var m *minted
			switch how := how.(type) {
			case *minted:
				m = how
			case *awsRole:
				m = how.minted
			}
			_, err = m.current(t.Context(), &Caller{Instance: "i_1"}, nil)
			if !errors.Is(err, tc.want) || strings.Contains(fmt.Sprint(err), "canary") || strings.Contains(fmt.Sprint(err), workload) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// TestAWSWebIdentity has a workload's token traded for keys that are made out to the
// session.
func TestAWSWebIdentity(t *testing.T) {
	var asked string
	sts := testkit.STS(aws.Credentials{}, workload, aws.Credentials{AccessKeyID: "ASIAGIVEN00000000001", SecretAccessKey: "given", SessionToken: "token"})
	b := vault(t)
	b.Use(Outside{HTTP: everywhere(t, func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		asked = r.PostForm.Encode()
		again, _ := http.NewRequest(r.Method, r.URL.String(), strings.NewReader(asked))
		if r.Host != "sts.eu-west-1.amazonaws.com" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s was asked with %v", r.Host, r.Header)
		}
		sts.ServeHTTP(w, again)
	})})
	if err := b.Add(t.Context(), Credential{ID: "w", Kind: KindAWSWeb, Service: "aws-*", Owner: "org", Settings: map[string]string{"role_arn": "arn:aws:iam::123456789012:role/reader", "region": "eu-west-1"}}, NewSecret([]byte(workload))); err != nil {
		t.Fatal(err)
	}
	how, err := b.opened(t.Context(), b.credentials["w"])
	if err != nil {
		t.Fatal(err)
	}
	k, err := how.(*awsRole).keysFor(t.Context(), &Caller{Instance: "i_1", Human: "alice@acme.com", Scope: []policy.Scope{{Actions: []string{"aws-s3:GetObject"}}}})
	if err != nil || k.ID != "ASIAGIVEN00000000001" {
		t.Fatalf("%+v, %v", k.ID, err)
	}
	for _, want := range []string{"Action=AssumeRoleWithWebIdentity", "RoleSessionName=i_1", "Policy=", "s3%3AGetObject"} {
		if !strings.Contains(asked, want) {
			t.Errorf("asked with %s, want %s", asked, want)
		}
	}
	if strings.Contains(asked, "SourceIdentity") {
		t.Errorf("AWS takes the person from the token: %s", asked)
	}
}
