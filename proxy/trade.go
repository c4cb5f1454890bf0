package proxy

import (
	"encoding/json"
	"strconv"

	"chaperone/credential"
)

// trade answers a client's library that trades a handle at a token endpoint for what it
// takes for an access token: with that handle. Policy is asked for that act, and not for
// what the endpoint would do: nothing is forwarded, and nobody gets what was not theirs.
// Of what an allow obliges to, its limits count; there is nothing else that it could
// change.
func (x *exchange) trade(t credential.Trade) error {
	x.q.Action = x.service.Trade()
	if err := x.decide(); err != nil {
		return err
	}
	if err := x.oblige((*exchange).takeLimits); err != nil {
		return err
	}
	if err := x.commit(); err != nil {
		return err
	}
	if err := x.caller.Live(); err != nil { // revoked since it was identified
		return err
	}
	if err := x.permit.Redeem(x.r.Context(), x.q.Request.Target()); err != nil {
		return err
	}
	x.hold = nil // what was taken of limits is used, although nothing goes out
	return x.handBack(t)
}

// handBack writes the answer of a token endpoint with the handle in it.
func (x *exchange) handBack(t credential.Trade) error {
	status, answer := t.Answer(x.s.o.Now(), x.q.Session.Scope)
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	h := x.w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Chaperone-Decision"] = []string{"allow; id=" + x.rec.ID}
	x.rec.Outcome.Status = status
	x.w.WriteHeader(status)
	x.started = true
	n, err := x.w.Write(body)
	x.received += int64(n)
	if err != nil {
		return x.because(errAgentGone)
	}
	return nil
}
