package credential

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"chaperone/credential/internal/secret"
)

// Handout is a credential that a service gave out in an answer: a token, a key. It
// is kept for one session, and the agent gets a handle in its place.
type Handout struct {
	Service string
	Session string
	Owner   string    // of a credential without a parent: human:H, agent:A or org
	Parent  string    // the credential with which it was asked for, whose owner it has; or empty
	Of      string    // the handle of that credential, whose uses and revocation are this one's too; or empty
	Prefix  string    // the shape of the service's handles
	Expires time.Time // with the session
	// Secret is a token that goes where the service takes credentials. Of AWS it is the
	// key id, with Key and Token beside it.
	Secret, Key, Token Secret
}

// Received is what the agent gets in place of a credential that was handed out.
type Received struct {
	ID     string // of the credential that is kept
	Handle string
	Key    string // stands for the secret key of AWS; else empty
}

// maxHandles is how many handles a session may have before it is given no more for what
// services hand out: they are kept until it ends.
const maxHandles = 10_000

// Accept keeps what a service handed out. The credential ends with the session, at
// the latest at its expiry, and so does the handle.
func (v *Vault) Accept(ctx context.Context, h Handout) (Received, error) {
	v.mu.RLock()
	n := len(v.ofSession(h.Session))
	v.mu.RUnlock()
	if n >= maxHandles {
		return Received{}, fmt.Errorf("session %s has been given %d handles, which is all that one may have", h.Session, n)
	}
	c := Credential{Service: h.Service, Owner: h.Owner, Kind: KindBearer, Session: h.Session, Expires: h.Expires}
	from := h.Service
	if parent, err := v.Find(h.Parent); err == nil {
		from, c.Owner, c.Parent = parent.ID, parent.Owner, parent.ID
	}
	c.ID = from[:min(len(from), 48)] + ".given-" + random(8)
	s := h.Secret
	if !h.Key.Empty() {
		b, err := json.Marshal(map[string]string{"access_key_id": secret.Text(s), "secret_access_key": secret.Text(h.Key), "session_token": secret.Text(h.Token)})
		if err != nil {
			return Received{}, err
		}
		c.Kind, c.Service, s = KindAWS, "aws-*", NewSecret(b)
	}
	if err := v.Add(ctx, c, s); err != nil {
		return Received{}, err
	}
	stored := storedHandle{Credential: c.ID, Session: h.Session, Expires: h.Expires, Of: h.Of}
	v.mu.RLock()
	of := v.byID[h.Of]
	v.mu.RUnlock()
	if of != nil {
		stored.Limit = of.Limit
	}
	text, err := v.issue(ctx, stored, shapeOf(secret.Text(h.Secret), h.Prefix))
	if err == nil && h.Of != "" && (of == nil || of.Revoked()) { // meanwhile, and that did not know of it
		err = ErrHandleRevoked
	}
	if err != nil {
		v.Remove(ctx, c.ID) // what stays would be of no use to anybody, and ends by itself
		return Received{}, err
	}
	return Received{c.ID, text, v.StandIns(c.ID, text)["AWS_SECRET_ACCESS_KEY"]}, nil
}

// shapeOf is the prefix of handles for a token: the vendor's for that sort of token,
// else that of the service.
func shapeOf(token, standard string) string {
	for _, known := range vendors {
		if strings.HasPrefix(token, known.prefix) && strings.Trim(known.prefix, "._-") != "" && !strings.ContainsAny(known.prefix, ".") {
			return known.prefix
		}
	}
	return standard
}

// removeGiven forgets what was handed out to a session that is over.
func (v *Vault) removeGiven(ctx context.Context, session string) error {
	for _, h := range v.Handles(session) {
		if k := h.cred.Load(); k != nil && k.Session == session {
			if err := v.Remove(ctx, k.ID); err != nil {
				return fmt.Errorf("forgetting what a service handed out: %w", err)
			}
		}
	}
	return nil
}

// sweepGiven forgets in memory what the store has forgotten by itself.
func (v *Vault) sweepGiven(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, k := range v.credentials {
		if !k.Expires.IsZero() && now.After(k.Expires) {
			k.removed.Store(true)
			k.open.Store(nil)
			delete(v.credentials, id)
		}
	}
}
