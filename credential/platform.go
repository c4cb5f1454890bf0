package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
)

// platformCall is a request to an API in which a platform gives tokens by a way of its
// own, beside OAuth.
type platformCall struct {
	method, url string
	with        secret.Secret // Authorization: Bearer; empty: none
	header      http.Header
	body        any        // JSON; nil: there is none
	form        url.Values // in its place
	success     int
	// means says what the platform's refusals mean, by status. What it leaves out is a
	// fault of the endpoint.
	means map[int]error
}

// send makes the call and reads the answer into got, JSON. Its errors are those of
// package grant.
func (v *Vault) send(ctx context.Context, c *platformCall, got any) error {
	if v.outside.HTTP == nil {
		return grant.ErrUnreachable
	}
	var body io.Reader
	h := http.Header{"User-Agent": {"chaperone"}}
	switch {
	case c.form != nil:
		body = strings.NewReader(c.form.Encode())
		h.Set("Content-Type", "application/x-www-form-urlencoded")
	case c.body != nil:
		b, err := json.Marshal(c.body)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
		h.Set("Content-Type", "application/json")
	}
	if !c.with.Empty() {
		h.Set("Authorization", "Bearer "+secret.Text(c.with))
	}
	maps.Copy(h, c.header)
	r, err := http.NewRequestWithContext(ctx, c.method, c.url, body)
	if err != nil {
		return err
	}
	r.Header = h
	resp, err := v.outside.HTTP.RoundTrip(r)
	if err != nil {
		return grant.Unreached(ctx, err)
	}
	defer resp.Body.Close()
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(got)
	why, known := c.means[resp.StatusCode]
	switch {
	case errors.Is(why, grant.ErrClient):
		why = skewed(resp, v.now(), why)
	case known:
	case err != nil && ctx.Err() != nil: // in the middle of its answer
		return grant.ErrTimeout
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		why = grant.ErrRedirect
	case resp.StatusCode != c.success || err != nil:
		why = grant.ErrEndpoint
	default:
		return nil
	}
	return fmt.Errorf("%w: it answers %d", why, resp.StatusCode)
}

// lasting is an error where a token that was just made out has ended by the clock here.
func lasting(expires, now time.Time) error {
	if expires.IsZero() || expires.After(now) {
		return nil
	}
	return fmt.Errorf("%w: a token that was just made ended at %s by the clock here", grant.ErrClock, expires.UTC().Format(time.RFC3339))
}

// skewed returns ErrClock for a refusal by somebody whose clock differs, else err.
func skewed(resp *http.Response, now time.Time, err error) error {
	if date, derr := http.ParseTime(resp.Header.Get("Date")); derr == nil && now.Sub(date).Abs() > 2*time.Minute {
		return grant.ErrClock
	}
	return err
}
