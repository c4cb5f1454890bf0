package policy

import (
	"context"
	"errors"
)

// Result is what policy pronounces.
type Result string

// The results. Anything else counts as Deny.
const (
	Allow Result = "allow"
	Deny  Result = "deny"
	Ask   Result = "ask"
)

// Answer is the outcome of one question.
type Answer struct {
	Result      Result
	Reasons     []string       // sentences for people
	Obligations map[string]any // what must be done along with an allow; unknown names deny
	// Each has the obligations that come with each of Question.Actions, where there are
	// several: what one action takes of limits is taken for it alone.
	Each     []map[string]any
	Revision string  // of the policy that answered
	Shadow   *Answer // of the policy in the shadow, where it differs
}

// Engine evaluates questions. Implementations are safe for concurrent use and
// immutable: a new policy is a new Engine. An engine that cannot answer returns
// an error, which a [Gate] turns into a refusal.
type Engine interface {
	Eval(ctx context.Context, q *Question) (Answer, error)
	// Revision identifies the policy and its data.
	Revision() string
	// ReadsBody reports whether the policy refers to the request's body, so that
	// it must be read and parsed before the question is put.
	ReadsBody() bool
}

var (
	// ErrDenied is wrapped by every refusal that policy itself pronounced.
	ErrDenied = errors.New("denied by policy")
	// ErrApproval is wrapped when policy answers ask: a person must approve first.
	ErrApproval = errors.New("approval required")
	// ErrPolicyFailed is wrapped when policy could not be evaluated: an error, an
	// undefined or malformed result, or a budget that ran out.
	ErrPolicyFailed = errors.New("policy could not be evaluated")
	// ErrNoPolicy is returned while no policy has been loaded.
	ErrNoPolicy = errors.New("no policy loaded")
	// ErrNoPermit is returned where a permit is missing, spent, or for another request.
	ErrNoPermit = errors.New("no permit covers this request")
)
