// Package problem turns errors into what a person at a terminal reads: what went
// wrong, what to do next, and the program's exit code.
package problem

import (
	"errors"
	"syscall"

	"chaperone/audit"
	"chaperone/certs"
	"chaperone/credential"
	"chaperone/credential/grant"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/proxy/identity"
	"chaperone/store"
	"chaperone/store/replica"
)

// Exit codes of the program.
const (
	Done    = 0
	Failed  = 1
	Misused = 2
	Refused = 3 // policy said no
)

// Problem is an error with advice. It also is what the admin socket sends.
type Problem struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitzero"`
	Code    int    `json:"code"`

	err error
}

// Error returns the message without the hint.
func (p *Problem) Error() string { return p.Message }

// Unwrap returns the error that the problem was made of, if any.
func (p *Problem) Unwrap() error { return p.err }

// Failure returns err with a hint.
func Failure(err error, hint string) *Problem {
	return &Problem{Message: err.Error(), Hint: hint, Code: Failed, err: err}
}

// Misuse returns the error of a command line that cannot be carried out.
func Misuse(message, hint string) *Problem {
	return &Problem{Message: message, Hint: hint, Code: Misused}
}

// hints says what to do next about each error that an operator can meet. The first
// row whose error is wrapped counts.
var hints = []struct {
	err  error
	hint string
}{
	{identity.ErrUnknownAgent, "see `chaperone agent list`, or register it with `chaperone agent add NAME --owner HUMAN`"},
	{identity.ErrUnknownSession, "see `chaperone session list`"},
	{identity.ErrDuplicate, "see `chaperone agent show NAME`; choose another name, since names are never used twice"},
	{identity.ErrAgentSuspended, "`chaperone agent resume NAME` lifts the suspension"},
	{identity.ErrAgentRetired, "a retired agent does not come back; register another under a new name"},
	{identity.ErrHumanSuspended, "`chaperone human resume HUMAN` lifts the suspension; ask whoever asked for it"},
	{identity.ErrSessionExpired, "create a new session with `chaperone session create`"},
	{identity.ErrSessionRevoked, "create a new session with `chaperone session create`"},
	{identity.ErrScope, "a child session may have a part of what its parent has, see `chaperone session show PARENT`"},
	{identity.ErrCredentialOwner, "name that human with --human, or use a credential of the agent or of org; see `chaperone credential list`"},
	{identity.ErrInvalid, "see the verb's --help for the accepted forms"},
	{credential.ErrDuplicate, "choose another id, or `chaperone credential remove ID` first"},
	{credential.ErrUnknown, "see `chaperone credential list`"},
	{credential.ErrLogin, "run `chaperone credential login` again"},
	{grant.ErrIssuer, "begin again; if it stays, somebody is between you and the provider, or issuer: in config.yaml is another's"},
	{grant.ErrDenied, "run `chaperone credential login` again and consent"},
	{grant.ErrNoFlow, "see logins: in config.yaml; --device wants device_url, the browser wants authorize_url"},
	{grant.ErrGrant, "the consent has ended: run `chaperone credential login` again, or `chaperone credential replace`"},
	{grant.ErrClient, "see that the app still exists at the provider, and that its id and secret are these"},
	{grant.ErrClock, "set this machine's clock"},
	{grant.ErrUnreachable, "see that the proxy reaches the provider; upstream.roots and upstream.proxy in config.yaml apply"},
	{grant.ErrTimeout, "try again later"},
	{grant.ErrRedirect, "name the endpoint to which it redirects, if you trust that"},
	{grant.ErrEndpoint, "see that the address is that of the provider's endpoint"},
	{credential.ErrShape, "`chaperone credential kinds` says what each kind wants"},
	{credential.ErrSource, "see that the source can be reached from where `chaperone serve` runs, as its user"},
	{credential.ErrInvalid, "see `chaperone credential add --help` for the accepted forms"},
	{credential.ErrKey, "use the key with which this state directory was begun; without it the credentials in it cannot be opened"},
	{identity.ErrUnsaved, "mend the store: other replicas hear of it then, and refuse everything once their view is older than store_stale"},
	{identity.ErrUnknownTarget, "see `chaperone session list` and `chaperone credential list`; nothing was revoked"},
	{store.ErrStale, "the store has been away for longer than store_stale allows; see `chaperone replicas`"},
	{store.ErrUnavailable, "see that Redis runs and can be reached from here; what is known goes on for as long as store_stale says, and nothing new can be made meanwhile"},
	{store.ErrFull, "give Redis more memory (maxmemory), or remove what else it keeps; what is revoked meanwhile is taken all the same"},
	{store.ErrRefused, "mend Redis as the message says; docs/replicas.md has what it needs"},
	{store.ErrKey, "give all replicas the same installation key: copy state/key of the first, or set key: in config.yaml"},
	{store.ErrConflict, "another replica changed it at the same time; look at it and try again"},
	{replica.ErrTwin, "each replica needs a state directory of its own; delete state/replica in a copied one"},
	{store.ErrInUse, "stop the other `chaperone serve`, or give this one a state directory of its own (state: in config.yaml)"},
	{store.ErrDamaged, "put a copy from before in its place; without one move it away, and make agents, credentials and sessions anew"},
	{audit.ErrInUse, "stop the other program that writes this log, or set log.path in config.yaml"},
	{audit.ErrLog, "see that the disk has room and that the log's directory can be written"},
	{certs.ErrCA, "see ca: in config.yaml: the key must belong to the certificate, be ECDSA or RSA in PEM, and be readable by nobody else (chmod 600)"},
	{certs.ErrNoRoots, "install the system's root certificates (ca-certificates)"},
	{policy.ErrNoPolicy, "run `chaperone policy check`"},
	{action.ErrAmbiguous, "write the URL in its plain form"},
	{syscall.EADDRINUSE, "another program listens there: stop it, or change the address in config.yaml"},
	{syscall.ENOSPC, "the disk is full; make room and try again, nothing was lost"},
	{syscall.EROFS, "the file system is read-only; set state: in config.yaml to a directory that can be written"},
	{syscall.EACCES, "see who owns the file and its permissions; `chaperone doctor` checks all of them"},
}

// Of returns err as a problem: itself when it is one, else with the hint of the
// error that it wraps.
func Of(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return &Problem{Message: err.Error(), Hint: p.Hint, Code: p.Code, err: err}
	}
	p := &Problem{Message: err.Error(), Code: Failed, err: err}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			p.Hint = h.hint
			break
		}
	}
	return p
}
