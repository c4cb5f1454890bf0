package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
)

// App is an app that is registered with a provider, through which people give consent.
type App struct {
	Provider grant.Provider // what it leaves out is discovered by its issuer
	ClientID string
	Secret   Secret // empty: a public client
	Scopes   []string
	Auth     string // basic, post or none
}

// ErrLogin is wrapped when a login is not known, or has ended.
var ErrLogin = errors.New("the login is not known; it may have taken too long")

// Bounds of logins that have begun.
const (
	loginTime = 15 * time.Minute
	maxLogins = 100
	waitTime  = 20 * time.Second
)

// Logins walk people through OAuth and keep what comes of it under them. It never
// returns a token. It is safe for concurrent use.
type Logins struct {
	v *Vault

	mu  sync.Mutex
	all map[string]*login
}

// login is one that has begun.
type login struct {
	credential Credential
	client     *grant.Client
	flow       *grant.Flow
	until      time.Time
}

// NewLogins returns one that keeps credentials in v.
func NewLogins(v *Vault) *Logins { return &Logins{v: v, all: map[string]*login{}} }

// Started is a login that has begun: where the person goes, and what they type there.
type Started struct {
	ID    string `json:"id"`
	URL   string `json:"url"`
	Code  string `json:"code,omitzero"` // of the device flow
	State string `json:"-"`
}

// Begin begins a login for the credential that c describes: its id, service and owner.
// An empty redirect begins the device flow.
func (l *Logins) Begin(ctx context.Context, c Credential, app App, redirect string) (Started, error) {
	c.Kind, c.Settings = KindRefresh, nil
	if err := checkCredential(&c); err != nil {
		return Started{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	p := app.Provider
	if p.Token == "" || redirect == "" && p.Device == "" {
		found, err := grant.Discover(ctx, l.v.outside.HTTP, p.Issuer)
		if err != nil {
			return Started{}, err
		}
		p = found
	}
	if app.Auth == "" {
		app.Auth = "basic"
	}
	if app.Secret.Empty() {
		app.Auth = "none"
	}
	x := &login{credential: c, until: l.v.now().Add(loginTime), client: &grant.Client{HTTP: l.v.outside.HTTP, URL: p.Token, ID: app.ClientID, Secret: app.Secret, Auth: app.Auth, Scopes: app.Scopes}}
	if err := grant.CheckURL(p.Token); err != nil {
		return Started{}, err
	}
	x.flow = grant.Begin(x.client, p, redirect)
	s := Started{ID: NewID("l_", 22)}
	var err error
	if redirect != "" {
		s.URL, err = x.flow.URL()
	} else {
		s.Code, s.URL, err = x.flow.Device(ctx)
	}
	if err != nil {
		return Started{}, err
	}
	return s, l.keep(s.ID, x)
}

func (l *Logins) keep(id string, x *login) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for old, y := range l.all {
		if l.v.now().After(y.until) {
			delete(l.all, old)
		}
	}
	if len(l.all) >= maxLogins {
		return fmt.Errorf("%w: too many have begun", ErrLogin)
	}
	l.all[id] = x
	return nil
}

// take returns a login that has begun. One that is used up is taken out.
func (l *Logins) take(id string, out bool) (*login, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.all[id]
	if out {
		delete(l.all, id)
	}
	if x == nil || l.v.now().After(x.until) {
		return nil, ErrLogin
	}
	return x, nil
}

// Finish takes what the browser brought back, once.
func (l *Logins) Finish(ctx context.Context, id string, a grant.Answer) (Credential, error) {
	x, err := l.take(id, true)
	if err != nil {
		return Credential{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.v.outside.tokenTime())
	defer cancel()
	t, err := x.flow.Code(ctx, a)
	if err != nil {
		return Credential{}, err
	}
	return l.store(ctx, x, t)
}

// Wait waits a while for the person to type the code of the device flow. It returns
// [grant.ErrPending] while they have not.
func (l *Logins) Wait(ctx context.Context, id string) (Credential, error) {
	x, err := l.take(id, false)
	if err != nil {
		return Credential{}, err
	}
	wait, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	t, err := x.flow.Wait(wait)
	if errors.Is(err, grant.ErrPending) {
		return Credential{}, err
	}
	l.take(id, true)
	if err != nil {
		return Credential{}, err
	}
	return l.store(context.WithoutCancel(ctx), x, t)
}

// store keeps what came of a login: a refresh token where there is one, else the
// access token. What the person had under that id before is replaced.
func (l *Logins) store(ctx context.Context, x *login, t grant.Token) (Credential, error) {
	c := x.credential
	s := t.Access
	c.Kind = KindBearer
	if !t.Refresh.Empty() {
		fields := map[string]string{"refresh_token": secret.Text(t.Refresh)}
		c.Kind, c.Settings = KindRefresh, map[string]string{"token_url": x.client.URL, "client_id": x.client.ID, "auth": x.client.Auth}
		if x.client.Auth != "none" {
			fields["client_secret"] = secret.Text(x.client.Secret)
		}
		if len(x.client.Scopes) > 0 {
			c.Settings["scopes"] = strings.Join(x.client.Scopes, " ")
		}
		b, err := json.Marshal(fields)
		if err != nil {
			return c, err
		}
		s = secret.New(b)
	}
	old, err := l.v.Find(c.ID)
	if errors.Is(err, ErrUnknown) {
		err = l.v.Add(ctx, c, s)
	} else if err == nil {
		if old.Owner != c.Owner || old.Service != c.Service || old.Kind != c.Kind || fmt.Sprint(old.Settings) != fmt.Sprint(c.Settings) {
			return c, fmt.Errorf("%w: %s, of another owner, service or app", ErrDuplicate, c.ID)
		}
		err = l.v.Replace(ctx, c.ID, "", s)
	}
	if err != nil {
		return c, err
	}
	return l.v.Find(c.ID)
}
