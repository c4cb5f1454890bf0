package audit

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap/zapcore"

	"chaperone/policy"
)

// Record is the life of one request. Its fields are filled from left to right as
// the request passes the stations; what is not known stays zero and is absent in
// the log. It belongs to one goroutine and must not be used after Close.
type Record struct {
	ID          string    // time-ordered, unique
	Arrived     time.Time // by this machine's clock; see Time
	Agent       Agent
	Human       *policy.Human
	Session     string
	Purpose     string
	Scope       []policy.Scope // what the session was narrowed to; nil: not narrowed
	Chain       []policy.Link
	Traceparent string // W3C trace context as the agent sent it
	Action      policy.Action
	Resource    policy.Resource
	Actions     []policy.Act // when they are several
	Request     Request
	Decision    Decision
	Credential  Credential
	Alarm       string // kind of alarm that the request raises
	Outcome     Outcome

	log       *Log
	ahead     time.Duration
	committed bool
}

// Agent says which agent and instance called.
type Agent struct {
	ID, Instance, Owner string
	Labels              map[string]string
}

// Request is what is recorded of the HTTP request: never a query value, a field
// value or a body.
type Request struct {
	Method    string
	Scheme    string // recorded when it is not https
	Host      string // with the port when it is not the standard one
	Path      string
	QueryKeys []string
	BodyState policy.BodyState // what policy could see of the body
	Protocol  string
	Client    string // address of the agent's end
}

// Decision is what policy answered.
type Decision struct {
	Result      policy.Result
	Reasons     []string
	Policy      string // revision
	Obligations map[string]any
	Shadow      *policy.Answer // of the policy in the shadow, where it differs
	Unmet       string         // the obligation that could not be met, so that an allow became a deny
}

// Credential says which credential was presented. Handle is a keyed fingerprint;
// Session is whose handle it is, where that is another session's. Beside is what was
// presented besides, because it belongs to it.
type Credential struct {
	ID, Handle, Session string
	Beside              Beside
}

// Beside is a second credential of a request: a client's own, beside the refresh token
// that was handed out to it.
type Beside struct{ ID, Handle string }

// Outcome is how the exchange ended.
type Outcome struct {
	Status        int
	BytesIn       int64 // of the request body that the service took
	BytesOut      int64 // of the answer's body that the agent took
	Total         time.Duration
	Upstream      time.Duration // from sending the request to the head of the answer
	Added         time.Duration // by the proxy itself, until the head of the answer went on
	Error         string        // a code of the proxy's vocabulary, never foreign text
	Scrubbed      int           // secrets swapped back in the answer
	Unsearched    string        // why the answer could not be searched for them; empty: it was
	Indeterminate bool          // a write may have happened although it failed here
	Renewed       bool          // the service answered 401 and was sent the request again, with a fresh token
}

// Open starts the record of a request that arrived at now. A record that is
// neither committed nor closed leaves no trace.
func (l *Log) Open(now time.Time) *Record {
	r := new(Record)
	l.Reopen(r, now)
	return r
}

// Reopen starts another record in the place of r, which is new or closed.
func (l *Log) Reopen(r *Record, now time.Time) {
	var id ulid.ULID
	ahead := l.o.Ahead()
	id.SetTime(ulid.Timestamp(now.Add(ahead)))
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		id[6+i] = byte(hi >> (8 * i))
	}
	id[14], id[15] = byte(lo), byte(lo>>8)
	*r = Record{ID: id.String(), Arrived: now, log: l, ahead: ahead}
}

// Time is when the request arrived by the clock that dates records.
func (r *Record) Time() time.Time { return r.Arrived.Add(r.ahead) }

// Commit writes the decision and returns when it is with the kernel, or on disk
// where the log syncs always. The request must not go on if it fails; the error
// wraps [ErrLog].
func (r *Record) Commit() error {
	err := r.log.append(r.log.encode((*decisionEvent)(r)))
	r.committed = err == nil
	return err
}

// Close writes the outcome, and before it the alarm that the request raised; where the request was refused before its decision was
// committed it writes the decision as well. The outcome of a committed record is
// waited for only if too many wait already.
func (r *Record) Close() error {
	outcome := r.log.encode((*outcomeEvent)(r))
	if !r.committed {
		if err := r.log.append(r.log.encode((*decisionEvent)(r))); err != nil {
			return err
		}
	}
	if r.Alarm != "" {
		if alarm := r.log.encode(alarmOf(r)); !r.log.later(alarm) {
			if err := r.log.append(alarm); err != nil {
				return err
			}
		}
	}
	if r.log.later(outcome) {
		return nil
	}
	return r.log.append(outcome)
}

type (
	decisionEvent    Record
	outcomeEvent     Record
	agentObject      Record
	humanObject      policy.Human
	actionObject     policy.Action
	resourceObject   policy.Resource
	actObject        policy.Act
	requestObject    Request
	decisionObject   Decision
	credentialObject Credential
	besideObject     Beside
	outcomeObject    Outcome
	linkObject       policy.Link
	scopeObject      policy.Scope
	labelObject      map[string]string
	shadowObject     policy.Answer

	textArray  []string
	scopeArray []policy.Scope
	linkArray  []policy.Link
	actArray   []policy.Act
)

// MarshalLogObject writes the decision event.
func (r *decisionEvent) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddTime("time", (*Record)(r).Time())
	e.AddString("id", r.ID)
	e.AddString("event", "decision")
	if r.Agent.ID != "" {
		object(e, "agent", (*agentObject)(r))
	}
	if r.Human != nil {
		object(e, "human", (*humanObject)(r.Human))
	}
	text(e, "session", r.Session)
	text(e, "purpose", r.Purpose)
	if r.Scope != nil {
		e.AddArray("scope", (*scopeArray)(&r.Scope))
	}
	if len(r.Chain) > 1 {
		e.AddArray("chain", (*linkArray)(&r.Chain))
	}
	text(e, "traceparent", r.Traceparent)
	if r.Action.Service != "" || r.Action.Known || r.Action.Why != "" {
		object(e, "action", (*actionObject)(&r.Action))
	}
	if r.Resource.ID != "" || len(r.Resource.Params) > 0 {
		object(e, "resource", (*resourceObject)(&r.Resource))
	}
	if len(r.Actions) > 1 {
		e.AddArray("actions", (*actArray)(&r.Actions))
	}
	object(e, "request", (*requestObject)(&r.Request))
	object(e, "decision", (*decisionObject)(&r.Decision))
	if r.Credential != (Credential{}) {
		object(e, "credential", (*credentialObject)(&r.Credential))
	}
	text(e, "alarm", r.Alarm)
	text(e, "replica", r.log.o.Replica)
	return nil
}

// MarshalLogObject writes the outcome event.
func (r *outcomeEvent) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddTime("time", (*Record)(r).Time().Add(r.Outcome.Total))
	e.AddString("id", r.ID)
	e.AddString("event", "outcome")
	object(e, "outcome", (*outcomeObject)(&r.Outcome))
	return nil
}

func (r *agentObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("id", r.Agent.ID)
	text(e, "instance", r.Agent.Instance)
	text(e, "owner", r.Agent.Owner)
	if len(r.Agent.Labels) > 0 {
		object(e, "labels", labelObject(r.Agent.Labels))
	}
	return nil
}

func (h *humanObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "sub", h.Sub)
	text(e, "iss", h.Iss)
	text(e, "email", h.Email)
	if len(h.Groups) > 0 {
		e.AddArray("groups", (*textArray)(&h.Groups))
	}
	return nil
}

func (a *actionObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "id", a.ID)
	text(e, "service", a.Service)
	text(e, "operation", a.Operation)
	text(e, "access", string(a.Access))
	text(e, "unknown", a.Why)
	return nil
}

func (r *resourceObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "type", r.Type)
	text(e, "id", r.ID)
	for i := range r.Params {
		if name := r.Params[i].Name; name != "type" && name != "id" {
			e.AddString(name, r.Params[i].Value)
		}
	}
	return nil
}

func (a *actObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	object(e, "action", (*actionObject)(&a.Action))
	if a.Resource.ID != "" || len(a.Resource.Params) > 0 {
		object(e, "resource", (*resourceObject)(&a.Resource))
	}
	return nil
}

func (r *requestObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "method", r.Method)
	if r.Scheme != "https" {
		text(e, "scheme", r.Scheme)
	}
	text(e, "host", r.Host)
	text(e, "path", r.Path)
	if len(r.QueryKeys) > 0 {
		e.AddArray("query", (*textArray)(&r.QueryKeys))
	}
	text(e, "body_state", string(r.BodyState))
	text(e, "protocol", r.Protocol)
	text(e, "client", r.Client)
	return nil
}

func (d *decisionObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "result", string(d.Result))
	if len(d.Reasons) > 0 {
		e.AddArray("reasons", (*textArray)(&d.Reasons))
	}
	text(e, "policy", d.Policy)
	text(e, "unmet", d.Unmet)
	if d.Shadow != nil {
		object(e, "shadow", (*shadowObject)(d.Shadow))
	}
	if len(d.Obligations) > 0 {
		return e.AddReflected("obligations", d.Obligations)
	}
	return nil
}

func (c *credentialObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "id", c.ID)
	text(e, "handle", c.Handle)
	text(e, "session", c.Session)
	if c.Beside != (Beside{}) {
		object(e, "beside", (*besideObject)(&c.Beside))
	}
	return nil
}

func (b *besideObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "id", b.ID)
	text(e, "handle", b.Handle)
	return nil
}

func (o *outcomeObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	if o.Status != 0 {
		e.AddInt("status", o.Status)
	}
	e.AddInt64("bytes_in", o.BytesIn)
	e.AddInt64("bytes_out", o.BytesOut)
	e.AddInt64("total_us", o.Total.Microseconds())
	if o.Upstream > 0 {
		e.AddInt64("upstream_us", o.Upstream.Microseconds())
	}
	e.AddInt64("added_us", o.Added.Microseconds())
	text(e, "error", o.Error)
	if o.Scrubbed > 0 {
		e.AddInt("scrubbed", o.Scrubbed)
	}
	text(e, "unsearched", o.Unsearched)
	if o.Indeterminate {
		e.AddBool("indeterminate", true)
	}
	if o.Renewed {
		e.AddBool("renewed", true)
	}
	return nil
}

func (l *linkObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("session", l.Session)
	e.AddString("agent", l.Agent)
	e.AddString("instance", l.Instance)
	return nil
}

func (a *textArray) MarshalLogArray(e zapcore.ArrayEncoder) error {
	for _, s := range *a {
		e.AppendString(clean(s))
	}
	return nil
}

func (a *shadowObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	text(e, "result", string(a.Result))
	if len(a.Reasons) > 0 {
		e.AddArray("reasons", (*textArray)(&a.Reasons))
	}
	text(e, "policy", a.Revision)
	if len(a.Obligations) > 0 {
		return e.AddReflected("obligations", a.Obligations)
	}
	return nil
}

// MarshalLogObject writes the labels in the order of their names.
func (l labelObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	for _, name := range slices.Sorted(maps.Keys(l)) {
		e.AddString(name, clean(l[name]))
	}
	return nil
}

func (s *scopeObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	if err := e.AddArray("actions", (*textArray)(&s.Actions)); err != nil {
		return err
	}
	if s.Resources != nil {
		return e.AddArray("resources", (*textArray)(&s.Resources))
	}
	return nil
}

func (a *scopeArray) MarshalLogArray(e zapcore.ArrayEncoder) error {
	for i := range *a {
		if err := e.AppendObject((*scopeObject)(&(*a)[i])); err != nil {
			return err
		}
	}
	return nil
}

func (a *linkArray) MarshalLogArray(e zapcore.ArrayEncoder) error {
	for i := range *a {
		if err := e.AppendObject((*linkObject)(&(*a)[i])); err != nil {
			return err
		}
	}
	return nil
}

func (a *actArray) MarshalLogArray(e zapcore.ArrayEncoder) error {
	for i := range *a {
		if err := e.AppendObject((*actObject)(&(*a)[i])); err != nil {
			return err
		}
	}
	return nil
}

func object(e zapcore.ObjectEncoder, key string, m zapcore.ObjectMarshaler) {
	// The marshalers of this package return errors only from obligations, which
	// came out of JSON and go back into it.
	_ = e.AddObject(key, m)
}

func text(e zapcore.ObjectEncoder, key, value string) {
	if value != "" {
		e.AddString(key, clean(value))
	}
}

// maxText bounds one text of a record, in bytes; a longer one is cut and marked.
const maxText = 8 << 10

func clean(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// Moment is when a request arrived, to the millisecond, as its id says; false where
// the id is none of this log's.
func Moment(id string) (time.Time, bool) {
	u, err := ulid.ParseStrict(id)
	return ulid.Time(u.Time()), err == nil
}
