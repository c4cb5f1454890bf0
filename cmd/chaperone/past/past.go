// Package past makes of a record the question that was put when it was written.
package past

import (
	"slices"
	"strings"
	"time"

	"chaperone/policy"
	"chaperone/policy/opa"
)

// Decision is a recorded decision with its question.
type Decision struct {
	ID       string
	Time     time.Time
	Result   policy.Result
	Reasons  []string
	Policy   string // revision that answered; empty: the request was refused before policy was asked
	Unmet    string // obligation that could not be met, so that an allow became a deny
	Session  string
	Shadow   *Shadow // what the policy in the shadow answered, where it answered otherwise
	Reports  []string
	Question policy.Question

	session policy.Session // the question's

	older bool // written before records held all that policy is asked
	query bool
}

// Shadow is what another policy answered.
type Shadow struct {
	Result  policy.Result `json:"result"`
	Reasons []string      `json:"reasons"`
	Policy  string        `json:"policy"`
}

// Unknown says what of its question a record does not hold although a policy with
// these reads looks at it. The zero Reads stands for a policy that looks at everything.
func (d *Decision) Unknown(r opa.Reads) string {
	var parts []string
	state := d.Question.Request.BodyState
	for what, unknown := range map[string]bool{
		"values of the query":              r.Query && d.query,
		"header fields":                    r.Headers,
		"the body":                         r.Body && state != policy.BodyAbsent,
		"owner and kind of the credential": r.Credential && d.Question.Credential != nil,
		"times and parent of the session":  r.Times,
		"labels, groups and scope, which older records lack": r.Person && d.older,
	} {
		if unknown {
			parts = append(parts, what)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Older reports whether the record was written before records held all that policy
// is asked.
func (d *Decision) Older() bool { return d.older }
