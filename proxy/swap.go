package proxy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"

	"chaperone/credential"
	"chaperone/policy"
)

// hidden is what the request carries in its path and body in the place of a
// credential. It was taken out before anybody looked at them.
type hidden struct {
	path *credential.Inside
	body []*credential.Inside
	head []byte    // of the body, as it came
	tail io.Reader // the rest of the body; nil: there is none
}

// readHead reads n bytes of the body, or all of it. They are sent on in front of the
// rest.
func (x *exchange) readHead(n int) (head []byte, whole bool, err error) {
	rest := x.out.Body
	head, err = io.ReadAll(io.LimitReader(rest, int64(n)+1))
	if why := x.sent.refused(); why != nil {
		return nil, false, why
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errBody, err)
	}
	x.hidden.head, x.hidden.tail = head, nil
	if len(head) > n {
		x.hidden.tail = rest
		x.out.Body = io.MultiReader(bytes.NewReader(head), rest)
		return head, false, nil
	}
	x.out.Body, x.out.ContentLength = bytes.NewReader(head), int64(len(head))
	return head, true, nil
}

// WholeBody implements [credential.Body]. A body that is longer than max is an error.
func (x *exchange) WholeBody(max int) ([]byte, error) {
	if x.out.Body == nil {
		return nil, nil
	}
	if x.hidden.head != nil && x.hidden.tail == nil {
		return x.hidden.head, nil
	}
	head, whole, err := x.readHead(max)
	if err == nil && !whole {
		err = fmt.Errorf("%w: it is longer than %d bytes, and its signature is over the whole", credential.ErrBodyLong, max)
	}
	return head, err
}

// bound refuses to send another body than the one that policy read, unless policy had
// it changed.
func (x *exchange) bound() error {
	sum, bound := x.permit.BodyDigest()
	if !bound || x.edited || x.hidden.tail == nil && sha256.Sum256(x.hidden.head) == sum {
		return nil
	}
	return fmt.Errorf("%w: the body is another than the one that policy read", policy.ErrNoPermit)
}

// swap puts the credential where its handle was.
func (x *exchange) swap() error {
	if err := x.bound(); err != nil {
		return err
	}
	out := &x.swapped
	if x.presented.Credential == nil {
		out.Target = x.q.Request.Target()
		return x.s.o.Vault.Swap(x.r.Context(), x.permit, &x.presented, out)
	}
	*out = credential.Outgoing{
		Target: x.q.Request.Target(), Header: x.out.Header, Path: x.out.Path, RawQuery: x.q.Request.RawQuery, HostHeader: x.out.HostHeader,
		Head: x.hidden.head, Tail: x.hidden.tail, ContentLength: x.out.ContentLength, Caller: x.credentialCaller(),
	}
	if x.hidden.head == nil {
		out.Tail = x.out.Body
	}
	head := out.Head
	if err := x.s.o.Vault.Swap(x.r.Context(), x.permit, &x.presented, out); err != nil {
		return err
	}
	announced := max(x.out.ContentLength, 0)
	x.out.RawQuery, x.out.SentPath, x.out.Certificate, x.out.ContentLength = out.RawQuery, out.SentPath, out.Certificate, out.ContentLength
	if x.out.Body != nil && (out.Rewritten || !same(head, out.Head)) {
		x.out.Body = out.Tail
		if len(out.Head) > 0 {
			x.out.Body = bytes.NewReader(out.Head)
		}
		if len(out.Head) > 0 && out.Tail != nil {
			x.out.Body = io.MultiReader(bytes.NewReader(out.Head), out.Tail)
		}
		if x.meter != nil && x.hidden.head != nil { // else what it was made of is metered
			x.out.Body = &meteredReader{r: x.out.Body, m: x.meter, free: announced}
		}
	}
	return nil
}

// same reports whether two slices are one.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// credentialCaller says for whom a credential is used.
func (x *exchange) credentialCaller() credential.Caller {
	c := credential.Caller{Agent: x.q.Agent.ID, Instance: x.q.Instance, Session: x.q.Session.ID, Scope: x.q.Session.Scope}
	if h := x.q.Human; h != nil {
		c.Human = h.Email
		if c.Human == "" {
			c.Human = h.Sub
		}
	}
	return c
}

// renewed sends a request once more that the service refused as unauthorised, with
// another token, where there is one: the service may have ended the one before its
// time. Only a request without a body can be sent twice. The first answer stands
// where anything stands in the way, and policy is asked for a permit of its own.
func (x *exchange) renewed(first *http.Response) (*http.Response, error) {
	again, err := x.s.o.Vault.Renew(x.r.Context(), &x.presented, &x.swapped)
	if err != nil {
		x.rec.Outcome.Error = refusalFor(err).code // beside the 401 which the agent gets
	}
	if err != nil || !again || x.out.Body != nil || x.out.Upgrade {
		return first, nil
	}
	permit, answer, err := x.s.o.Gate.Decide(x.r.Context(), &x.q)
	if err != nil || answer.Result != policy.Allow || x.caller.Live() != nil {
		return first, nil
	}
	if x.duties != nil || answer.Revision != x.answer.Revision {
		return first, nil // what is on record counted one request, and is another policy's
	}
	x.presented.Restore(&x.swapped)
	x.permit = permit
	if err := x.swap(); err != nil {
		return first, nil
	}
	respell(x.out.Header, x.head.Spelled)
	first.Body.Close()
	x.rec.Outcome.Renewed = true
	return x.s.o.Upstream.Send(x.r.Context(), x.permit, &x.out)
}
