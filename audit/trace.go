package audit

import (
	"encoding/hex"

	"github.com/oklog/ulid/v2"
)

// SpanOf is the id of a request's span in its trace: the last eight bytes of its
// decision id. It is false where the id is none of this log's.
func SpanOf(id string) (span [8]byte, ok bool) {
	u, err := ulid.ParseStrict(id)
	copy(span[:], u[8:])
	return span, err == nil && span != [8]byte{}
}

// Traceparent makes the trace context (W3C Trace Context, version 00) under which a
// request goes on to its service: that of the agent with this request as parent, or
// where the agent sent none that is valid a new trace, whose id is the decision id's
// bytes. The second value is what belongs into the record: the agent's own, or the new one.
func Traceparent(agents, id string) (next, record string) {
	u, err := ulid.ParseStrict(id)
	span, ok := SpanOf(id)
	if err != nil || !ok {
		return agents, agents
	}
	if validParent(agents) {
		return agents[:36] + hex.EncodeToString(span[:]) + agents[52:55], agents
	}
	next = "00-" + hex.EncodeToString(u[:]) + "-" + hex.EncodeToString(span[:]) + "-01"
	return next, next
}

// validParent reports whether a text is a traceparent of version 00 (W3C Trace Context
// section 3.2.2).
func validParent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	return hexadecimal(s[3:35]) && hexadecimal(s[36:52]) && flags(s[53:])
}

// hexadecimal reports whether a text is lower-case hexadecimal and not all zeros.
func hexadecimal(s string) bool {
	zero := true
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
		zero = zero && c == '0'
	}
	return !zero
}

func flags(s string) bool { return s == "00" || hexadecimal(s) }
