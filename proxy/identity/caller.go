package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"strings"
	"time"

	"chaperone/credential"
	"chaperone/policy"
)

// Caller is who a request comes from. Its fields are shared by all requests of the
// session and must not be changed.
type Caller struct {
	Agent    policy.Agent
	Instance string
	Human    *policy.Human // nil: nobody
	Session  *policy.Session

	s *session
	d *Directory
}

// Live returns nil while the caller may act, and else why not. It takes no lock.
func (c *Caller) Live() error {
	now := c.d.o.Now()
	if err := c.d.may(c.s, now); err != nil {
		return err
	}
	if c.s.info.Idle > 0 {
		c.s.used.Store(now.UnixNano())
	}
	return nil
}

// may returns why nothing may be done in a session now, or nil.
func (d *Directory) may(s *session, now time.Time) error {
	if d.o.Stale != nil {
		if err := d.o.Stale(); err != nil {
			return err
		}
	}
	return s.live(now)
}

// Attach has conn closed when the session ends or is barred; detach undoes it.
// conn's Close must be safe to call more than once and from any goroutine. While it is
// attached the session is not idle; where conn has a method InUse() bool, while that says so.
func (c *Caller) Attach(conn io.Closer) (detach func()) { return c.s.attach(conn, c.Live) }

// Identify finds the caller by the value of Proxy-Authorization: Basic with the
// agent's name and the session token, or the token as Bearer (RFC 9110 section
// 11.7.2, RFC 7617, RFC 6750). Where the session is known but barred, the caller
// is returned beside the error, for the record.
func (d *Directory) Identify(value string) (*Caller, error) {
	if value == "" {
		return nil, ErrNoCredentials
	}
	name, token, err := parseProxyAuthorization(value)
	if err != nil {
		return nil, err
	}
	if credential.IsHandle(token) || credential.IsHandle(name) {
		return nil, ErrHandleAsPassword
	}
	if !credential.IsSessionToken(token) {
		return nil, ErrBadCredentials
	}
	sum := d.o.Vault.TokenSum(token)
	s := d.find(sum)
	if s == nil && d.o.CatchUp != nil { // made on another replica a moment ago, perhaps
		d.o.CatchUp()
		s = d.find(sum)
	}
	if s == nil || name != "" && name != s.info.Agent {
		return nil, ErrBadCredentials
	}
	c := &Caller{Agent: s.agent.asked, Instance: s.info.Instance, Human: s.human, Session: s.asked, s: s, d: d}
	return c, c.Live()
}

// find looks a session up by the keyed hash of its token, which tells nothing about
// where a guess went wrong.
func (d *Directory) find(sum [sha256.Size]byte) *session {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.byToken[sum]
}

// parseProxyAuthorization returns the agent's name, empty for Bearer, and the token.
func parseProxyAuthorization(value string) (name, token string, err error) {
	scheme, rest, _ := strings.Cut(value, " ")
	rest = strings.TrimLeft(rest, " ")
	if strings.EqualFold(scheme, "bearer") {
		return "", rest, nil
	}
	if !strings.EqualFold(scheme, "basic") {
		return "", "", ErrBadCredentials
	}
	b, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return "", "", ErrBadCredentials
	}
	name, token, ok := strings.Cut(string(b), ":")
	if !ok || name == "" {
		return "", "", ErrBadCredentials
	}
	return name, token, nil
}
