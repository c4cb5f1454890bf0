package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"chaperone/policy"
)

// looks is a policy that reads bodies, allows everything and tells what it was bound to.
type looks struct {
	allows
	at chan [32]byte
}

func (looks) ReadsBody() bool { return true }

func (l looks) Eval(_ context.Context, q *policy.Question) (policy.Answer, error) {
	l.at <- q.Request.BodyDigest
	return policy.Answer{Result: policy.Allow}, nil
}

// TestPermitIsBoundToTheBody shows that what policy read is what goes out, and that
// another body has no permit.
func TestPermitIsBoundToTheBody(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		l := looks{at: make(chan [32]byte, 4)}
		d.gate.Use(l)
		for body, bound := range map[string]bool{`{"title":"x"}`: true, strings.Repeat("x", 4*maxPolicyBody+1): false} {
			r := d.request("POST", "https://api.acme.dev/x", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			resp, err := c.Do(r)
			check(t, err)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			got := d.received()
			if sum := <-l.at; resp.StatusCode != 200 || string(got[len(got)-1].Body) != body || (sum == sha256.Sum256([]byte(body))) != bound || !bound && sum != [32]byte{} {
				t.Errorf("%.20s: %d, bound to %x", body, resp.StatusCode, sum)
			}
		}
	})
	q := &policy.Question{}
	q.Request.BodyDigest = sha256.Sum256([]byte("body"))
	var gate policy.Gate
	gate.Use(allows{})
	permit, _, err := gate.Decide(t.Context(), q)
	check(t, err)
	for name, tc := range map[string]struct {
		hidden hidden
		edited bool
		want   error
	}{
		"the same":              {hidden: hidden{head: []byte("body")}},
		"another":               {hidden: hidden{head: []byte("b0dy")}, want: policy.ErrNoPermit},
		"more behind it":        {hidden: hidden{head: []byte("body"), tail: strings.NewReader("more")}, want: policy.ErrNoPermit},
		"none":                  {want: policy.ErrNoPermit},
		"changed as is obliged": {hidden: hidden{head: []byte("b0dy")}, edited: true},
	} {
		x := exchange{permit: permit, hidden: tc.hidden, edited: tc.edited}
		if err := x.bound(); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
