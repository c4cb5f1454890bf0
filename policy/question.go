// Package policy states the question that is put to policy, the answer it
// gives, and the permit that an allow hands out. It evaluates nothing itself
// and imports nothing of this module, so every other package may speak in its
// terms.
package policy

// Access says how much an action can change, weakest first: read, list, write,
// delete, admin. AccessUnknown is what an action has that no catalogue names.
type Access string

// The access levels of an action.
const (
	AccessUnknown Access = "unknown"
	AccessRead    Access = "read"
	AccessList    Access = "list"
	AccessWrite   Access = "write"
	AccessDelete  Access = "delete"
	AccessAdmin   Access = "admin"
)

// Phase is the moment at which policy is asked.
type Phase string

const (
	// PhaseConnect asks whether an uninspected tunnel may be opened.
	PhaseConnect Phase = "connect"
	// PhaseRequest asks about one request, with its action known as far as it
	// can be.
	PhaseRequest Phase = "request"
)

// BodyState says what policy sees of the request's body.
type BodyState string

// The states of a body, as policy input spells them.
const (
	BodyAbsent     BodyState = "absent"     // the request has none
	BodyUnread     BodyState = "unread"     // there is one, and nothing asked for it
	BodyParsed     BodyState = "parsed"     // Request.Body holds it
	BodyTruncated  BodyState = "truncated"  // longer than may be read before the decision
	BodyUnparsable BodyState = "unparsable" // read, but not of the form its type promises
)

// Question is everything that a decision may depend on. It never holds a
// secret or a handle. A Question is filled by one goroutine and is read-only
// from the moment it is put to a [Gate].
type Question struct {
	Agent      Agent
	Instance   string
	Human      *Human   // nil: the agent acts for nobody; its owner answers for it
	Session    *Session // never nil for a request that identity passed
	Action     Action
	Resource   Resource
	Actions    []Act // all actions of the request when they are several, else empty
	Request    Request
	Credential *Credential // nil: the request carries none
	Phase      Phase
	Time       int64 // unix seconds
}

// Agent is a registered software principal.
type Agent struct {
	ID     string
	Owner  string
	Labels map[string]string
}

// Human is the person on whose behalf an agent acts: issuer and subject
// identify, the e-mail address is for reading.
type Human struct {
	Sub    string
	Iss    string
	Email  string
	Groups []string
}

// Session is a delegation as one instance presents it.
type Session struct {
	ID      string
	Purpose string
	Scope   []Scope // nil: not narrowed beyond the agent and the human
	Created int64   // unix seconds
	Expires int64   // unix seconds
	Parent  string  // the session it was derived from, or empty
	Chain   []Link  // from the first session to this one; one link for a session without a parent
}

// Scope narrows a session to action patterns on resource patterns, in the
// shape of RFC 9396 authorization_details.
type Scope struct {
	Actions   []string `json:"actions"`
	Resources []string `json:"resources,omitzero"` // nil: any resource
}

// Link is one step of a delegation chain. Earlier links inform the record
// only; decisions use the current one (RFC 8693 section 4.1).
type Link struct {
	Session  string `json:"session"`
	Agent    string `json:"agent"`
	Instance string `json:"instance"`
}

// Action names an operation of a service. The zero Action is not known: its ID
// and Keys are empty, so that no grant pattern reaches it.
type Action struct {
	ID        string // "github:issues/create"
	Service   string // "github"; set also when the operation is not known
	Operation string // "issues/create"
	Access    Access
	Known     bool
	// Keys are the grant patterns that would cover the action, exact first:
	// github:issues/create, github:issues/*, github:*, *:*.
	Keys []string
	// Why says what kept an action from being known ("no_route", "unknown_host",
	// …); it is empty for a known one.
	Why string
	// Mints says where the service's answer hands out a credential, as marks of the
	// catalogue have it. Policy does not see it.
	Mints []string
}

// Resource is the thing that an action would touch.
type Resource struct {
	Type string
	ID   string
	// Keys are the resource patterns that would cover ID, exact first:
	// acme/web, acme/*, *.
	Keys   []string
	Params []Param // path parameters (and named arguments), in order
}

// Param is one parameter of a resource under its documented name, decoded.
type Param struct{ Name, Value string }

// Act is one of several actions that a single request would perform.
type Act struct {
	Action   Action
	Resource Resource
}

// Request is the HTTP request as policy may see it.
type Request struct {
	Method   string
	Scheme   string
	Host     string // lower-case A-label, no port
	Port     int
	Path     string              // escaped, exactly as it will be sent
	RawQuery string              // exactly as it came
	Header   map[string][]string // hop-by-hop and proxy fields removed
	// HiddenHeaders and HiddenQuery name (in lower case) the places that carry
	// credentials; an [Engine] shows policy that they are present, never their value.
	HiddenHeaders []string
	HiddenQuery   []string
	Body          any // parsed JSON or form fields, when BodyState is BodyParsed
	BodyState     BodyState
	BodyDigest    [32]byte // SHA-256 of the body as it came, where policy reads it and it was read whole; zero: it is not bound
}

// Credential says which credential a request would use, never what it is.
type Credential struct {
	ID      string
	Owner   string // human:…, agent:… or org
	Kind    string
	Service string
}
