package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/admin"
	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
	"chaperone/credential/grant"
)

// providers are those whose addresses are known, by service.
var providers = map[string]grant.Provider{
	"github": {Authorize: "https://github.com/login/oauth/authorize", Token: "https://github.com/login/oauth/access_token", Device: "https://github.com/login/device/code"},
	"gitlab": {Issuer: "https://gitlab.com"},
	"google": {Issuer: "https://accounts.google.com"},
	"linear": {Authorize: "https://linear.app/oauth/authorize", Token: "https://api.linear.app/oauth/token"},
}

// app is the app that the configuration names for a service.
func (r *road) app(ctx context.Context, service string) (credential.App, error) {
	l, ok := r.s.Logins[service]
	if !ok {
		return credential.App{}, problem.Failure(fmt.Errorf("there is no app for people to log in to %s", service),
			"register one with the provider and name it under logins: in config.yaml, which says how")
	}
	family, _, _ := strings.Cut(service, "-")
	app := credential.App{
		Provider: grant.Provider{Issuer: l.Issuer, Authorize: l.AuthorizeURL, Token: l.TokenURL, Device: l.DeviceURL},
		ClientID: l.ClientID, Scopes: l.Scopes, Auth: l.Auth,
	}
	if l.Issuer == "" && l.TokenURL == "" {
		app.Provider = providers[family]
	}
	if app.Provider.Issuer == "" && app.Provider.Token == "" {
		return app, problem.Failure(fmt.Errorf("the addresses of the provider of %s are not known", service), "set issuer, or authorize_url and token_url, under logins: in config.yaml")
	}
	if s := l.ClientSecret; s.Named() {
		b, err := refer(ctx, s)
		if err != nil {
			return app, fmt.Errorf("reading the app's secret: %w", err)
		}
		app.Secret = credential.NewSecret([]byte(strings.TrimSpace(string(b))))
	}
	return app, nil
}

// loginLife is how long a person may take.
const loginLife = 10 * time.Minute

func (a *app) credentialLogin() *cobra.Command {
	var in admin.LoginSpec
	var device, quiet bool
	c := &cobra.Command{
		Use:   "login SERVICE --human H [--id ID] [--device]",
		Short: "Have a person consent by OAuth, and keep what comes of it under them",
		Long: `Have a person consent in their browser, and keep what comes of it, sealed, as a credential
of theirs. No token is ever shown. The browser comes back to this machine; with --device
the person types a code on any machine instead. The app is the one that logins: in
config.yaml names for the service.`,
		Args: arguments("SERVICE"),
		RunE: func(c *cobra.Command, args []string) error {
			in.Service = args[0]
			if in.Human == "" {
				return problem.Misuse("--human is missing", "say whose the credential will be, such as --human alice@acme.com")
			}
			if in.ID == "" {
				in.ID = defaultID(in.Human, in.Service)
			}
			client, err := a.admin()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), loginLife)
			defer cancel()
			var made *credential.Credential
			if device {
				made, err = a.loginByDevice(ctx, client, in)
			} else {
				made, err = a.loginByBrowser(ctx, client, in, !quiet)
			}
			if err != nil {
				return err
			}
			return a.print(made, func(w io.Writer) {
				fmt.Fprintf(w, "credential %s of %s for %s is kept; give a handle to an agent with --credential %s\n", made.ID, made.Owner, made.Service, made.Service)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&in.Human, "human", "", "`HUMAN` who consents")
	f.StringVar(&in.ID, "id", "", "`ID` of the credential; made of human and service when left out")
	f.BoolVar(&device, "device", false, "show a code to type on another machine")
	f.BoolVar(&quiet, "no-browser", false, "show the address and open no browser")
	return c
}

// defaultID is an id of a person's credential for a service.
func defaultID(human, service string) string {
	name := human
	if i := strings.LastIndexByte(name, '#'); i >= 0 {
		name = name[i+1:]
	}
	name, _, _ = strings.Cut(name, "@")
	id := name + "-" + service
	if !credential.IsName(id) {
		return service
	}
	return id
}

// loginByBrowser opens a port on loopback for the browser to come back to (RFC 8252
// section 7.3).
func (a *app) loginByBrowser(ctx context.Context, client *admin.Client, in admin.LoginSpec, open bool) (*credential.Credential, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the browser: %w", err)
	}
	in.Redirect = "http://" + ln.Addr().String() + "/callback"
	answers := make(chan grant.Answer, 1)
	state := new(atomic.Pointer[string])
	server := &http.Server{Handler: callback(answers, state), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(ln) }()
	defer func() { server.Close(); <-served }()
	s, err := client.BeginLogin(ctx, in)
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(s.URL); err == nil {
		state.Store(new(u.Query().Get("state")))
	}
	fmt.Fprintf(a.stderr, "chaperone: consent at\n  %s\n", s.URL)
	if open {
		browse(s.URL)
	}
	select {
	case got := <-answers:
		done, err := client.FinishLogin(ctx, s.ID, got)
		return done.Credential, err
	case <-ctx.Done():
		return nil, problem.Failure(fmt.Errorf("nobody consented within %v", loginLife), "run it again, or use --device where this machine has no browser")
	}
}

// callback takes what the browser brings back, once. What has another state than this
// login is no answer to it (RFC 6749 section 10.12): any page can send a browser here,
// and none shall end a login that is under way.
func callback(answers chan<- grant.Answer, state *atomic.Pointer[string]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.Path != "/callback" || q.Get("state") == "" {
			http.NotFound(w, r)
			return
		}
		if want := state.Load(); want == nil || subtle.ConstantTimeCompare([]byte(*want), []byte(q.Get("state"))) != 1 {
			http.Error(w, "This is no answer to the login that is under way.", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Referrer-Policy", "no-referrer")
		select {
		case answers <- grant.Answer{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss"), Error: q.Get("error")}:
			io.WriteString(w, "Back to the terminal: it says how it ended. This window can be closed.\n")
		default:
			http.Error(w, "This login has had its answer.", http.StatusConflict)
		}
	})
}

// browse opens the person's browser where there is one.
func browse(address string) {
	opener := "xdg-open"
	if runtime.GOOS == "darwin" {
		opener = "open"
	}
	if path, err := exec.LookPath(opener); err == nil {
		if cmd := exec.Command(path, address); cmd.Start() == nil {
			cmd.Process.Release() // it is the person's own from here on
		}
	}
}

// loginByDevice shows a code to type elsewhere (RFC 8628).
func (a *app) loginByDevice(ctx context.Context, client *admin.Client, in admin.LoginSpec) (*credential.Credential, error) {
	s, err := client.BeginLogin(ctx, in)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.stderr, "chaperone: type %s at\n  %s\n", s.Code, s.URL)
	for {
		done, err := client.WaitLogin(ctx, s.ID)
		if err != nil || !done.Pending {
			return done.Credential, err
		}
	}
}

// describeScopes tells which scopes a credential has, and which are more than policy
// can use.
func describeScopes(w io.Writer, x *credential.Finding) {
	if len(x.Scopes) == 0 {
		fmt.Fprintln(w, "which scopes it has, the service does not say")
		return
	}
	fmt.Fprintf(w, "its scopes are %s\n", strings.Join(x.Scopes, ", "))
	e := x.Excess
	if e == nil {
		fmt.Fprintln(w, "what of them the policy can use cannot be told: it does not decide by its grants, or grants requests without a name")
		return
	}
	if len(e.Unneeded) > 0 {
		fmt.Fprintf(w, "no grant of the policy needs %s: leave that out\n", strings.Join(e.Unneeded, ", "))
	}
	for _, wide := range slices.Sorted(maps.Keys(e.Narrower)) {
		fmt.Fprintf(w, "for all that the policy grants, %s would do in place of %s\n", e.Narrower[wide], wide)
	}
	if len(e.Unknown) > 0 {
		fmt.Fprintf(w, "what %s opens is not known here\n", strings.Join(e.Unknown, ", "))
	}
	if len(e.Unneeded)+len(e.Narrower)+len(e.Unknown) == 0 {
		fmt.Fprintln(w, "the policy can use all of them")
	}
}

func (a *app) credentialTest() *cobra.Command {
	var in admin.Trial
	c := &cobra.Command{
		Use: "test ID", Short: "Try a credential by a harmless call", Args: arguments("ID"),
		Long: `Try a credential by a call that changes nothing, and say whether the service takes it,
whose it is there, which scopes it has, and which of them no grant of the policy can ever
use. For services whose own call is not known, name a harmless address of theirs with
--url; it is got with GET. HANDLE in its path stands for a credential of kind path.`,
		Example: "  chaperone credential test gh\n  chaperone credential test jira --user alice@acme.com --url https://acme.atlassian.net/rest/api/3/myself",
		RunE: a.withAdmin(func(ctx context.Context, client *admin.Client, args []string) error {
			x, err := client.TestCredential(ctx, args[0], in)
			if err != nil {
				return err
			}
			if !x.Works {
				return notTaken(args[0], x.Status, in)
			}
			return a.print(x, func(w io.Writer) {
				fmt.Fprintf(w, "credential %s works (the service answers %d)\n", args[0], x.Status)
				if x.Who != "" {
					fmt.Fprintf(w, "it is %s's there\n", x.Who)
				}
				describeScopes(w, &x)
			})
		}),
	}
	c.Flags().StringVar(&in.URL, "url", "", "`ADDRESS` to get instead of the service's own call")
	c.Flags().StringVar(&in.User, "user", "", "`NAME` of the user beside a credential of kind basic")
	return c
}

// notTaken says what an answer other than yes means.
func notTaken(id string, status int, in admin.Trial) error {
	said := fmt.Sprintf("credential %s: the service answers %d", id, status)
	switch {
	case status == http.StatusForbidden:
		return problem.Failure(errors.New(said+": it does not allow this call"), "it may take the credential for others: see its rights there, or name another address with --url")
	case status == http.StatusTooManyRequests || status >= 500:
		return problem.Failure(errors.New(said+", which says nothing of the credential"), "try again later")
	case status == http.StatusUnauthorized || in.URL == "":
		return problem.Failure(errors.New(said+" and does not take it"), "replace it with `chaperone credential replace`, or log in again; of kind basic say the user with --user")
	}
	return problem.Failure(errors.New(said+", which says nothing of the credential"), "name another address with --url")
}
