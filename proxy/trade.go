package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"chaperone/credential"
	"chaperone/policy"
)

// maxTraded is how long a traded handle is said to be good, in the way of access
// tokens. Asking again costs nothing.
const maxTraded = time.Hour

// trade answers a client's library that trades a handle at a token endpoint for what it
// takes for an access token: with that handle. Policy is not asked: nothing is forwarded,
// and nobody gets anything that was not theirs. It is on record like every request.
func (x *exchange) trade(t credential.Trade) error {
	if err := x.caller.Live(); err != nil {
		return err
	}
	x.answer = policy.Answer{Result: policy.Allow, Reasons: []string{"Answered here: the handle stands for its own access token, and nothing was forwarded."}}
	if err := x.commit(); err != nil {
		return err
	}
	left := min(t.Expires.Sub(x.s.o.Now()), maxTraded)
	body, err := json.Marshal(map[string]any{ // RFC 6749 section 5.1, RFC 8693 section 2.2.1
		"access_token": t.Handle, "token_type": "Bearer", "expires_in": int64(left / time.Second),
		"issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
	})
	if err != nil {
		return err
	}
	h := x.w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Chaperone-Decision"] = []string{"allow; id=" + x.rec.ID}
	x.rec.Outcome.Status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	x.started = true
	n, err := x.w.Write(body)
	x.received += int64(n)
	if err != nil {
		return x.because(errAgentGone)
	}
	return nil
}
