// Package oblige carries out what an allow obliges to.
package oblige

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"chaperone/policy"
	"chaperone/proxy/limit"
)

// ErrUnmet is wrapped when something that policy obliges to cannot be done. The
// request is then refused.
var ErrUnmet = errors.New("obligation cannot be met")

// Unmet says which obligation it is.
type Unmet struct{ Name, Why string }

// Error says it.
func (u *Unmet) Error() string { return fmt.Sprintf("obligation %s cannot be met: %s", u.Name, u.Why) }

// Unwrap returns ErrUnmet.
func (u *Unmet) Unwrap() error { return ErrUnmet }

func unmet(name, format string, args ...any) error { return &Unmet{name, fmt.Sprintf(format, args...)} }

// Duties are the obligations of one answer, read and checked.
type Duties struct {
	Limits  []Limit
	Headers struct {
		Fields
		Answer Fields `json:"answer"`
	}
	Body struct {
		Request Edit `json:"request"`
		Answer  Edit `json:"answer"`
	}
	Attribution []Attribution
}

// Fields are header fields to set and to remove.
type Fields struct {
	Set    map[string]string `json:"set"`
	Remove []string          `json:"remove"`
}

// Limit is one bound as policy writes it.
type Limit struct {
	Of    string      `json:"of"`    // requests, bytes or money
	Per   words       `json:"per"`   // session, agent, human, action, service, resource; several together
	Max   json.Number `json:"max"`   // in requests, bytes, or the currency
	Every string      `json:"every"` // a duration; empty: the limit holds for good
	Price json.Number `json:"price"` // of this request, for money
	Name  string      `json:"name"`  // sets limits apart that are alike otherwise

	max, price int64
	every      time.Duration
}

// words is a string or a list of them.
type words []string

// UnmarshalJSON implements json.Unmarshaler.
func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// Read takes obligations apart. What is not of the agreed form is an error that wraps
// [ErrUnmet]; no obligations are nil.
func Read(obligations map[string]any) (*Duties, error) {
	if len(obligations) == 0 {
		return nil, nil
	}
	var d Duties
	for name, value := range obligations {
		into := map[string]any{"limits": &d.Limits, "headers": &d.Headers, "body": &d.Body, "attribution": &d.Attribution, "report": new(any)}[name]
		if into == nil {
			return nil, unmet(name, "this program has none of that name")
		}
		b, err := json.Marshal(value)
		if err != nil {
			return nil, unmet(name, "it is no JSON")
		}
		dec := json.NewDecoder(strings.NewReader(string(b)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			return nil, unmet(name, "%v", err)
		}
	}
	for i := range d.Limits {
		if err := d.Limits[i].check(); err != nil {
			return nil, err
		}
	}
	return &d, errors.Join(d.Headers.check(), d.Headers.Answer.check(), d.Body.Request.check("body"), d.Body.Answer.check("body"), checkAttribution(d.Attribution))
}

var subjects = []string{"session", "agent", "human", "action", "service", "resource"}

func (l *Limit) check() error {
	for _, p := range l.Per {
		if !slices.Contains(subjects, p) {
			return unmet("limits", "per %q is none of %s", p, strings.Join(subjects, ", "))
		}
	}
	if l.Every != "" {
		d, err := time.ParseDuration(l.Every)
		if err != nil || d < time.Second {
			return unmet("limits", "every %q is no duration of a second or more", l.Every)
		}
		l.every = d
	}
	unit := int64(1)
	switch l.Of {
	case "money":
		unit = 1_000_000
	case "requests", "bytes":
		if l.Price != "" {
			return unmet("limits", "price is for a limit of money")
		}
	default:
		return unmet("limits", "of %q is none of requests, bytes, money", l.Of)
	}
	var ok bool
	if l.max, ok = units(l.Max, unit); !ok {
		return unmet("limits", "max %q is no amount", l.Max)
	}
	if l.price, ok = units(l.Price, unit); !ok && l.Of == "money" {
		return unmet("limits", "price %q is no amount, and there is no price without one", l.Price)
	}
	return nil
}

// units reads a decimal amount exactly; a part of a unit counts as a whole one.
func units(n json.Number, unit int64) (int64, bool) {
	r, ok := new(big.Rat).SetString(string(n))
	if !ok || r.Sign() < 0 || len(n) > 30 || strings.ContainsAny(string(n), "/eEpPxX_") {
		return 0, false
	}
	r.Mul(r, new(big.Rat).SetInt64(unit))
	up := new(big.Int).Add(r.Num(), new(big.Int).Sub(r.Denom(), big.NewInt(1)))
	up.Quo(up, r.Denom())
	return up.Int64(), up.IsInt64()
}

// Claims makes of the limits what one request takes of each. Of bytes it takes those
// that are announced; what passes is taken as it passes, see [Duties.Bytes].
func (d *Duties) Claims(q *policy.Question) ([]limit.Claim, error) {
	var out []limit.Claim
	for i := range d.Limits {
		l := &d.Limits[i]
		c, err := l.claim(q)
		if err != nil {
			return nil, err
		}
		switch l.Of {
		case "requests":
			c.Amount = 1
		case "money":
			c.Amount = l.price
		}
		out = append(out, c)
	}
	return out, nil
}

// Bytes returns the claims of limits of bytes, without an amount.
func (d *Duties) Bytes(q *policy.Question) []limit.Claim {
	var out []limit.Claim
	for i := range d.Limits {
		if c, err := d.Limits[i].claim(q); err == nil && d.Limits[i].Of == "bytes" {
			out = append(out, c)
		}
	}
	return out
}

func (l *Limit) claim(q *policy.Question) (limit.Claim, error) {
	c := limit.Claim{Max: l.max, Every: l.every}
	var key, who strings.Builder
	fmt.Fprintf(&key, "%s\x00%s\x00%s", l.Of, l.Name, l.Every)
	for _, p := range l.Per {
		value := subject(p, q)
		if value == "" {
			return c, unmet("limits", "the request has no %s to count by", p)
		}
		fmt.Fprintf(&key, "\x00%s\x00%s", p, value)
		fmt.Fprintf(&who, " for %s %s", p, value)
		if p == "session" {
			c.Until = time.Unix(q.Session.Expires, 0).Add(time.Hour)
		}
	}
	c.Key = key.String()
	amount := string(l.Max)
	if l.Of != "money" {
		amount += " " + l.Of
	}
	c.Title = "The limit of " + amount
	if l.Every != "" {
		c.Title += " every " + l.Every
	}
	c.Title += who.String()
	return c, nil
}

func subject(name string, q *policy.Question) string {
	switch name {
	case "session":
		return q.Session.ID
	case "agent":
		return q.Agent.ID
	case "action":
		return q.Action.ID
	case "service":
		return q.Action.Service
	case "resource":
		return q.Resource.ID
	case "human":
		if q.Human == nil {
			return ""
		}
		if q.Human.Email != "" {
			return q.Human.Email
		}
		return q.Human.Iss + "#" + q.Human.Sub
	}
	return ""
}

// kept are the fields that frame, route or authenticate: they are not policy's to change.
var kept = map[string]bool{
	"Host": true, "Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Te": true, "Upgrade": true, "Expect": true,
	"Content-Type": true, "Content-Encoding": true, "Authorization": true, "Cookie": true, "Set-Cookie": true, "Chaperone-Decision": true, "Keep-Alive": true,
}

func (f *Fields) check() error {
	for name, value := range f.Set {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return unmet("headers", "%q is no header field", name)
		}
		if taboo(name) {
			return unmet("headers", "%s is not policy's to set", name)
		}
	}
	for _, name := range f.Remove {
		if taboo(name) {
			return unmet("headers", "%s is not policy's to remove", name)
		}
	}
	return nil
}

func taboo(name string) bool {
	name = http.CanonicalHeaderKey(name)
	return kept[name] || strings.HasPrefix(name, "Proxy-")
}

// Empty reports whether there is nothing to do.
func (f *Fields) Empty() bool { return len(f.Set) == 0 && len(f.Remove) == 0 }

// Apply changes h, whatever the spelling of its fields. Fields in which a credential
// stands, by their lower-case names, are left alone, which is an error.
func (f *Fields) Apply(h http.Header, credentials []string) error {
	for _, name := range f.Remove {
		if slices.Contains(credentials, strings.ToLower(name)) {
			return unmet("headers", "%s holds the credential", name)
		}
		remove(h, name)
	}
	for name, value := range f.Set {
		if slices.Contains(credentials, strings.ToLower(name)) {
			return unmet("headers", "%s holds the credential", name)
		}
		remove(h, name)
		h[http.CanonicalHeaderKey(name)] = []string{value}
	}
	return nil
}

func remove(h http.Header, name string) {
	for k := range h {
		if strings.EqualFold(k, name) {
			delete(h, k)
		}
	}
}
