package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"chaperone/audit"
	"chaperone/credential"
	"chaperone/credential/grant"
	"chaperone/credential/sigv4"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/proxy/identity"
	"chaperone/proxy/limit"
	"chaperone/proxy/oblige"
	"chaperone/proxy/upstream"
	"chaperone/store"
)

var (
	// errUnclear is wrapped when a request can be read in more than one way.
	errUnclear = errors.New("not one clear request")
	// errAuthority is wrapped when a request names another authority than its tunnel.
	errAuthority = errors.New("wrong authority")
	// errTrace refuses TRACE.
	errTrace = errors.New("TRACE is not forwarded")
	// errNotProxied is a request to the listener itself.
	errNotProxied = errors.New("not a proxy request")
	// errCleartext refuses to send a credential without TLS.
	errCleartext = errors.New("a credential would go out without TLS")
	// errFault stands for a panic.
	errFault = errors.New("fault of the proxy")
	// errBody is wrapped when the agent's body could not be read.
	errBody = errors.New("reading the request body")
)

func unclear(what string) error { return fmt.Errorf("%w: %s", errUnclear, what) }

// refusal is how one error is told: to the agent as status, title and hint, and
// to the record as a code of a fixed vocabulary, so that nothing which came from
// the agent or the service ends up in the log by way of an error.
type refusal struct {
	err    error
	status int
	code   string // outcome.error in the record
	alarm  string // alarm in the record, when it is one
	title  string
	hint   string
}

// refusals is the one table from errors to what is said of them. The first row
// whose error is wrapped counts.
var refusals = []refusal{
	{identity.ErrNoCredentials, 407, "no_proxy_credentials", "", "Proxy credentials are missing", "Start the agent with `chaperone run --agent NAME -- CMD`, or set HTTPS_PROXY from `chaperone session create`."},
	{identity.ErrHandleAsPassword, 407, "handle_as_password", "handle_theft", "A handle is not a proxy password", "Use the session token as the proxy password, and handles only where the service takes credentials."},
	{identity.ErrBadCredentials, 407, "bad_proxy_credentials", "", "Proxy credentials are wrong", "Create a new session with `chaperone session create`; user is the agent's name, password is the session token."},
	{identity.ErrSessionExpired, 407, "session_expired", "", "The session has expired", "Create a new session with `chaperone session create`."},
	{identity.ErrSessionRevoked, 407, "session_revoked", "", "The session was revoked", "Ask the agent's owner why; then create a new session."},
	{identity.ErrAgentSuspended, 407, "agent_suspended", "", "The agent is suspended", "Ask the agent's owner; `chaperone agent resume NAME` lifts it."},
	{identity.ErrAgentRetired, 407, "agent_retired", "", "The agent is retired", "A retired agent does not come back; register another."},
	{identity.ErrHumanSuspended, 407, "human_suspended", "", "The human's delegations are suspended", "Ask an operator."},

	{store.ErrStale, 503, "store_stale", "", "Too little is known of what was revoked", "The proxy has lost its store for too long and refuses everything until it is back; try again in a moment."},

	{errNotProxied, 400, "not_proxied", "", "This is a forward proxy", "Set HTTPS_PROXY and HTTP_PROXY to this address and request the service by its own URL."},
	{errTrace, 400, "trace", "", "TRACE is not forwarded", "Its answer would repeat the credential."},
	{errAuthority, 421, "wrong_authority", "wrong_authority", "The request is for another authority than its tunnel", "Open a tunnel to the authority that the request names."},
	{errHandout, 502, "handout_kept_back", "", "The service handed out a credential that could not be kept", "It may be valid at the service; ask an operator to revoke it there. Nothing of the answer was passed on."},
	{credential.ErrBodyLong, 413, "body_too_long", "", "The body is too long to be signed", "Send it in parts of at most 16 MiB; AWS's clients and those that send Content-Digest can send the hash ahead."},
	{credential.ErrBody, 400, "body_unreadable", "", "The request body could not be read", "Send the body as its framing, and its digest, announce it."},
	{credential.ErrMissing, 400, "signature_component", "", "The request lacks what the service's signature covers", "Send what the detail names; `chaperone credential show` has all that is covered."},
	{errBody, 400, "body_unreadable", "", "The request body could not be read", "Send the body as its framing announces it."},
	{errUnclear, 400, "unclear_request", "", "This is not one clear request", "Send it in the plain form that HTTP/1.1 or HTTP/2 describes."},
	{action.ErrBodyCredential, 403, "foreign_credential", "foreign_credential", "The body carries a credential", "Leave it out of the body and put the handle where the service takes credentials in the head."},
	{action.ErrAmbiguous, 400, "unclear_request", "", "This is not one clear request", "Send path and parameters once, without needless encodings."},

	{errCleartext, 403, "cleartext", "cleartext", "A credential is not sent over plain HTTP", "Request the service by https://; an operator can set cleartext for a service on a trusted network."},
	{credential.ErrForeignCredential, 403, "foreign_credential", "foreign_credential", "The credential is not a handle of this session", "Remove it and use the handle that the session was given; ask for one with `chaperone credential add`."},
	{credential.ErrHandleTheft, 403, "handle_theft", "handle_theft", "The handle belongs to another session", "Use the handles of this session only."},
	{credential.ErrProxyToken, 403, "proxy_token", "handle_theft", "The session token is no credential", "It belongs into the proxy's address only."},
	{credential.ErrSignature, 403, "handle_signature", "handle_theft", "The request is not signed with the handle's secret", "Sign with the access key and the secret that the session was given, over the request as it is sent."},
	{credential.ErrSignatureTime, 403, "signature_time", "", "The signature is too old, or of the future", "Set this machine's clock, or sign again."},
	{sigv4.ErrMismatch, 403, "handle_signature", "handle_theft", "The request is not signed with the handle's secret", "Sign each chunk with the secret that the session was given."},
	{sigv4.ErrChunk, 400, "unclear_request", "", "The signed stream is not of its form", "Send chunks as AWS's documentation of streamed signatures describes."},
	{credential.ErrHandlePlace, 403, "handle_place", "handle_place", "A handle stands where the service takes no credentials", "Put the handle where the service's documentation puts the credential."},
	{credential.ErrWrongService, 403, "wrong_service", "handle_theft", "The handle is for another service", "Send it to its own service only."},
	{credential.ErrInstallation, 403, "wrong_installation", "", "The credential is for another installation of the app", "Use GITHUB_APP_INSTALLATION_ID; an operator can add a credential for the other one."},
	{credential.ErrNoIDToken, 403, "no_id_token", "", "The credential gives no ID tokens", "Ask an operator for a credential of kind google-service-account with the setting target_audience."},
	{credential.ErrHandleRevoked, 403, "handle_revoked", "", "The handle was revoked", "Create a new session."},
	{credential.ErrHandleExpired, 403, "handle_expired", "", "The handle has expired", "Create a new session."},
	{credential.ErrHandleSpent, 403, "handle_spent", "", "The handle was used as often as it may be", "Create a new session."},
	{credential.ErrUncounted, 503, "uses_uncounted", "", "A use of the handle could not be counted", "Try again in a moment; an operator can look at the store."},
	{credential.ErrHandleUnknown, 403, "handle_unknown", "handle_theft", "The handle is not known", "Use the handle as the session was given it, whole."},
	{credential.ErrAmbiguousCredential, 400, "ambiguous_credential", "", "The request presents more than one credential", "Send exactly one."},
	{credential.ErrSourceTimeout, 504, "credential_source_timeout", "", "The credential's source does not answer in time", "Try again later; an operator can look at `chaperone credential show`."},
	{credential.ErrSource, 502, "credential_source", "", "The credential's source gives no secret", "Ask an operator to look at `chaperone credential show`."},
	{grant.ErrGrant, 502, "grant_expired", "", "The service no longer takes the consent behind the credential", "Ask the credential's owner to run `chaperone credential login`, or an operator to replace it."},
	{grant.ErrClient, 502, "client_refused", "", "The service does not take the app behind the credential", "Ask an operator whether the app was revoked or has another secret."},
	{grant.ErrScope, 502, "grant_scope", "", "The service does not give what the delegation names", "Ask an operator: the consent or the app's permissions are narrower than the session's scope."},
	{grant.ErrClock, 502, "clock_skew", "", "The clocks of the proxy and the service differ", "Ask an operator to set the proxy's clock."},
	{grant.ErrRedirect, 502, "token_redirect", "token_redirect", "The token endpoint redirects", "Secrets are not sent on; ask an operator to look at the credential's token_url."},
	{grant.ErrTimeout, 504, "token_timeout", "", "The token endpoint does not answer in time", "Try again later."},
	{grant.ErrUnreachable, 502, "token_unreachable", "", "The token endpoint cannot be reached", "Try again later; an operator can look at the credential's token_url."},
	{grant.ErrEndpoint, 502, "token_endpoint", "", "The token endpoint gives no token", "Try again later; an operator can look at `chaperone credential show`."},
	{credential.ErrShape, 502, "credential_shape", "", "The secret is not of the form that its kind wants", "Ask an operator to replace it."},
	{credential.ErrUnavailable, 502, "credential_unavailable", "", "The credential could not be opened", "Ask an operator to look at `chaperone credential show`."},

	{limit.ErrExceeded, 429, "limit_exceeded", "", "A limit is used up", "Wait until the time that the reason names, or ask whoever keeps the policy for more."},
	{limit.ErrUncounted, 503, "limit_uncounted", "", "A limit could not be counted", "Try again in a moment; an operator can look at the store."},
	{oblige.ErrUnmet, 403, "obligation_unmet", "", "What policy obliges to cannot be done", "Send the request in a form that the reason allows, or ask whoever keeps the policy."},
	{errWithheld, 502, "answer_withheld", "", "The answer cannot be changed as policy obliges, and is withheld", "The request was carried out; ask whoever keeps the policy."},
	{policy.ErrApproval, 403, "approval_required", "", "A person must approve this first", "Ask the agent's owner to approve or to widen the policy."},
	{policy.ErrDenied, 403, "denied", "", "Denied by policy", "Ask whoever keeps the policy; name the decision id."},
	{policy.ErrPolicyFailed, 403, "policy_failed", "policy_failed", "The policy could not be evaluated", "Ask whoever keeps the policy; name the decision id."},
	{policy.ErrNoPolicy, 503, "no_policy", "", "No policy is loaded", "Ask an operator to run `chaperone policy check`."},
	{policy.ErrNoPermit, 403, "no_permit", "no_permit", "No permit covers this request", "This is a fault of the proxy; report it with the decision id."},
	{errStopped, 503, "shutting_down", "", "The proxy is shutting down", "Try again in a moment."},
	{audit.ErrClosed, 503, "shutting_down", "", "The proxy is shutting down", "Try again in a moment."},
	{audit.ErrLog, 503, "log_failed", "", "The decision cannot be recorded", "Ask an operator to look at the decision log's disk."},

	{upstream.ErrAddress, 403, "address_refused", "", "The address may not be dialled", "Private and special addresses are refused; an operator can name exceptions in upstream.allow_private."},
	{upstream.ErrTLS, 502, "upstream_tls", "", "The service's certificate was not accepted", "An operator can add roots in upstream.roots."},
	{upstream.ErrDial, 502, "upstream_unreachable", "", "The service cannot be reached", "Try again later."},
	{upstream.ErrTimeout, 504, "upstream_timeout", "", "The service did not answer in time", "Try again later; a write may have happened."},
	{upstream.ErrSentUnknown, 502, "upstream_lost", "", "The connection to the service was lost", "The request may have been carried out: check before repeating it."},
	{upstream.ErrProtocol, 502, "upstream_protocol", "", "The service's answer is not HTTP", "Ask an operator."},
	{upstream.ErrCanceled, 499, "agent_gone", "", "The agent went away", ""},
	{errAgentGone, 499, "agent_gone", "", "The agent went away", ""},
	{errServiceCut, 502, "upstream_cut", "", "The service ended its answer early", ""},
	{context.Canceled, 499, "agent_gone", "", "The agent went away", ""},
	{context.DeadlineExceeded, 504, "upstream_timeout", "", "The service did not answer in time", "Try again later; a write may have happened."},
}

// internal is what an error is that no row names.
var internal = refusal{nil, 502, "internal", "internal", "The request could not be passed on", "This is a fault of the proxy; report it with the decision id."}

func refusalFor(err error) refusal {
	for _, f := range refusals {
		if errors.Is(err, f.err) {
			return f
		}
	}
	return internal
}

// note puts an error into the record, whether or not the agent can still be told.
func (x *exchange) note(err error) refusal {
	f := refusalFor(err)
	x.rec.Outcome.Error = f.code
	x.rec.Alarm = f.alarm
	if x.departed.IsZero() { // refused before it went out
		x.describe()
		if len(x.rec.Decision.Reasons) == 0 && x.rec.Decision.Result != policy.Allow {
			x.rec.Decision.Reasons = []string{f.title + "."}
		}
		return f
	}
	x.rec.Outcome.Indeterminate = x.mayHaveHappened(err)
	return f
}

// mayHaveHappened reports whether a request that ended with err may have been
// carried out all the same. Safe methods change nothing (RFC 9110 section 9.2.1).
func (x *exchange) mayHaveHappened(err error) bool {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	if errors.Is(err, errHandout) {
		return true // it has, at the service
	}
	return x.rec.Outcome.Status == 0 && !errors.Is(err, upstream.ErrDial) && !errors.Is(err, upstream.ErrTLS) && !errors.Is(err, upstream.ErrAddress)
}

// problem is a refusal's body, RFC 9457.
type problem struct {
	Type       string   `json:"type"`
	Title      string   `json:"title"`
	Status     int      `json:"status"`
	Detail     string   `json:"detail"`
	DecisionID string   `json:"decision_id"`
	Reasons    []string `json:"reasons,omitempty"`
	Hint       string   `json:"hint,omitempty"`
}

// refuse tells the agent why its request is not forwarded. The body of the
// request is left unread: net/http ends the connection where that matters.
func (x *exchange) refuse(err error) {
	f := x.note(err)
	if x.started {
		return
	}
	reasons, decided := x.answer.Reasons, "deny"
	if x.rec.Decision.Result == policy.Allow { // what went wrong came after the decision
		reasons = nil
	}
	if !x.departed.IsZero() && f.status >= http.StatusInternalServerError {
		decided = "allow"
	}
	p := problem{Type: "about:blank", Title: f.title, Status: f.status, DecisionID: x.rec.ID, Reasons: reasons, Hint: f.hint}
	p.Detail = detail(f, err, reasons)
	h := x.w.Header()
	clear(h)
	h.Set("Content-Type", mediaType(x.r))
	h.Set("Cache-Control", "no-store")
	h.Set("Chaperone-Decision", decided+"; id="+x.rec.ID)
	if f.status == http.StatusProxyAuthRequired {
		h.Set("Proxy-Authenticate", `Basic realm="chaperone"`)
	}
	if e, ok := errors.AsType[*limit.Exceeded](err); ok && !e.Again.IsZero() {
		h.Set("Retry-After", strconv.Itoa(int(max(time.Until(e.Again), 0)/time.Second)+1))
	}
	if f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	body, merr := json.Marshal(p)
	if merr != nil {
		body = []byte("{}")
	}
	shape := ""
	if x.service != nil {
		shape = shapeFor(x.service.Refusal, x.r, x.q.Request.Host)
	}
	if ofGit(x.r, x.q.Request.Path) {
		shape = gitText
	}
	body = inShape(shape, body, f, &p, h)
	x.rec.Outcome.Status = f.status
	if x.r.ProtoMajor == 2 && speaksGRPC(x.r.Header.Get("Content-Type")) {
		x.refuseGRPC(f, &p)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	status := f.status
	if shape == slackSDK {
		status = http.StatusOK
	}
	x.w.WriteHeader(status)
	x.started = true
	if x.r.Method != http.MethodHead {
		n, _ := x.w.Write(body)
		x.received += int64(n)
	}
}

// field finds a field whichever way its name is written: a request that went out has
// its names as the agent wrote them.
func field(h http.Header, name string) []string {
	if v := h[name]; v != nil {
		return v
	}
	for n, v := range h {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return v
		}
	}
	return nil
}

// mediaType is that of a problem, or plain JSON for an agent that accepts JSON and
// not that (RFC 9110 section 12.5.1): its SDK would take the body for bytes.
func mediaType(r *http.Request) string {
	const problem, plain = "application/problem+json", "application/json"
	accept := field(r.Header, "Accept")
	if ofGaxios(r) {
		return plain
	}
	if len(accept) == 0 {
		return problem
	}
	all := strings.ToLower(strings.Join(accept, ","))
	if strings.Contains(all, "*/*") || strings.Contains(all, "application/*") || strings.Contains(all, problem) || !strings.Contains(all, "json") {
		return problem
	}
	return plain
}

// detail is the sentence that says why: policy's own reasons, what about the
// request was not clear, or the title. Other errors stay inside.
func detail(f refusal, err error, reasons []string) string {
	if len(reasons) > 0 {
		return reasons[0]
	}
	if errors.Is(err, errUnclear) || errors.Is(err, errAuthority) || errors.Is(err, action.ErrAmbiguous) || errors.Is(err, credential.ErrMissing) || errors.Is(err, credential.ErrBody) || errors.Is(err, credential.ErrBodyLong) {
		return err.Error()
	}
	return f.title + "."
}
