package credential

import (
	"errors"
	"time"

	"chaperone/credential/grant"
)

// Trouble is why a credential could not be used when that was last tried.
type Trouble struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
	Hint string    `json:"hint,omitzero"` // what an operator can do about it
}

// mends are the errors that are trouble of a credential, and what an operator does about
// each. The first that is wrapped counts. What is in no row is the agent's affair: a handle
// that is spent, a body that ends early.
var mends = []struct {
	err  error
	hint string
}{
	{ErrSourceTimeout, "run what the source names by hand, as the proxy's user; where it needs longer, raise sources.timeout in config.yaml"},
	{ErrSource, "run or read what the source names by hand, as the proxy's user, and look at `sources:` in config.yaml"},
	{grant.ErrGrant, "`chaperone credential login` has the owner consent again; `chaperone credential replace` puts another refresh token in"},
	{grant.ErrClient, "look at the app at the provider: whether it was revoked, and whether its secret is the one that is kept here; then `chaperone credential replace`"},
	{grant.ErrScope, "widen the app's permissions or the consent at the provider, or narrow the session's scope"},
	{grant.ErrClock, "set this machine's clock, and let NTP keep it"},
	{grant.ErrRedirect, "no secret is sent on to another address: remove the credential and add it with the token_url that the provider documents"},
	{grant.ErrTimeout, "look at the provider's status; where its endpoint needs longer, raise sources.token_timeout in config.yaml"},
	{grant.ErrUnreachable, "try `curl` to its token_url from this machine; upstream.proxy, roots and allow_private in config.yaml hold for it as well"},
	{grant.ErrEndpoint, "look at the provider's status, and whether its token_url is the one that it documents"},
	{ErrShape, "`chaperone credential kinds` says what the kind wants; `chaperone credential replace` puts another secret in"},
	{ErrUnavailable, "where the trouble names a setting, remove the credential and add it again; else see that the store can be reached, and that the installation key is the one that sealed it: `chaperone doctor`"},
}

func mend(err error) (hint string, ok bool) {
	for _, m := range mends {
		if errors.Is(err, m.err) {
			return m.hint, true
		}
	}
	return "", false
}

// troubled notes why a credential could not be used, or that it could, and returns err.
// Operators are told of each change, and not of each request.
func (v *Vault) troubled(k *kept, err error) error {
	was := k.trouble.Load()
	if err == nil {
		if was != nil && k.trouble.CompareAndSwap(was, nil) {
			v.tell(k.ID, nil)
		}
		return nil
	}
	if hint, ok := mend(err); ok {
		now := &Trouble{v.now().UTC().Truncate(time.Second), err.Error(), hint}
		if k.trouble.CompareAndSwap(was, now) && (was == nil || was.Hint != hint) {
			v.tell(k.ID, now)
		}
	}
	return err
}

func (v *Vault) tell(id string, t *Trouble) {
	if v.outside.Told != nil {
		v.outside.Told(id, t)
	}
}

// Trouble returns why a credential could not be used when that was last tried, or nil.
func (v *Vault) Trouble(id string) *Trouble {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if k := v.credentials[id]; k != nil {
		return k.trouble.Load()
	}
	return nil
}

// Troubles returns that of all credentials that have one, by id.
func (v *Vault) Troubles() map[string]*Trouble {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var all map[string]*Trouble
	for id, k := range v.credentials {
		if t := k.trouble.Load(); t != nil {
			if all == nil {
				all = map[string]*Trouble{}
			}
			all[id] = t
		}
	}
	return all
}
