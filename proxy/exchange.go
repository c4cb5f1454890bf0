package proxy

import (
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"chaperone/audit"
	"chaperone/credential"
	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/proxy/authority"
	"chaperone/proxy/http1"
	"chaperone/proxy/identity"
	"chaperone/proxy/limit"
	"chaperone/proxy/oblige"
	"chaperone/proxy/upstream"
)

// exchange is one request on its way down the road. Its fields are filled from
// left to right; one goroutine owns it.
type exchange struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	door *door
	rec  audit.Record

	head      http1.Head
	caller    *identity.Caller
	names     *naming
	service   *action.Service // nil: no catalogue names the host
	places    *credential.Places
	q         policy.Question
	presented credential.Presented
	hidden    hidden
	swapped   credential.Outgoing // what the service is sent in the credential's places
	permit    *policy.Permit
	trace     string // traceparent for the service; empty: as the agent sent it
	answer    policy.Answer
	out       upstream.Request
	duties    *oblige.Duties // nil: the allow obliges to nothing
	edited    bool           // the body was changed as the allow obliges
	hold      *limit.Hold
	meter     *meter

	scrub    scrubbing
	sent     countingReader // the agent's body, as the service takes it
	received int64          // bytes of the answer's body that the agent took
	cutter   io.Closer      // ends the exchange when what allowed it is taken back; nil: it has not gone out
	detach   func()         // undoes its attachment to the session; nil: a tunnel is attached
	started  bool           // the answer's head has gone to the agent
	departed time.Time      // the moment the request went out
	returned time.Time      // the moment the answer's head came in
	pondered time.Duration  // how long policy took
	replied  time.Time      // the moment the answer's head went on
}

// maxPolicyBody bounds what is read of a body because policy refers to it, in bytes.
const maxPolicyBody = 64 << 10

// arrive opens the record of r. A request that loads the catalogue here uses no
// other until it ends.
func (s *Server) arrive(w http.ResponseWriter, r *http.Request, h http1.Head, d *door) *exchange {
	now := time.Now()
	x := exchanges.Get().(*exchange)
	x.s, x.w, x.r, x.head, x.door, x.names = s, w, r, h, d, s.names.Load()
	s.o.Log.Reopen(&x.rec, now)
	x.q.Phase, x.q.Time = policy.PhaseRequest, x.rec.Time().Unix()
	x.rec.Request.Method, x.rec.Request.Protocol, x.rec.Request.Client = r.Method, r.Proto, r.RemoteAddr
	if d.tunnel != nil {
		d.tunnel.going.Add(1)
	}
	return x
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// release gives x back for another request. It is called only when nothing can
// look at x any more: no goroutine that sends a body, no other end of an upgrade,
// no transport that was given up.
func (x *exchange) release() {
	*x = exchange{}
	exchanges.Put(x)
}

// identify establishes who calls: at the front door from the proxy credentials
// of the request, inside a tunnel from those of its CONNECT, which must still be
// good.
func (x *exchange) identify() error {
	if t := x.door.tunnel; t != nil {
		x.caller = t.caller
		x.describeCaller()
		return x.caller.Live()
	}
	caller, err := x.s.o.Directory.Identify(x.r.Header.Get("Proxy-Authorization"))
	if caller != nil {
		x.caller = caller
		x.describeCaller()
	}
	return err
}

func (x *exchange) describeCaller() {
	c := x.caller
	x.q.Agent, x.q.Instance, x.q.Human, x.q.Session = c.Agent, c.Instance, c.Human, c.Session
}

// classify names the action that the request would perform.
func (x *exchange) classify() error {
	x.service = x.names.catalogue.ServiceFor(x.q.Request.Host, x.q.Request.Path)
	x.places = x.names.placesOf(x.service)
	x.q.Request.Path, x.hidden.path = x.places.HidePath(x.q.Request.Path)
	x.out.Path = x.q.Request.Path
	req := action.Request{
		Method: x.q.Request.Method, Host: x.q.Request.Host,
		Path: x.q.Request.Path, RawQuery: x.q.Request.RawQuery, Header: x.r.Header,
	}
	x.q.Request.BodyState = policy.BodyAbsent
	if x.out.Body != nil {
		x.q.Request.BodyState = policy.BodyUnread
		if err := x.readBody(&req); err != nil {
			return err
		}
	}
	req.BodyState = x.q.Request.BodyState
	return x.names.catalogue.Classify(&req, &x.q)
}

// readBody reads as much of the body as naming the action, or policy, asks for.
// What was read is sent on unchanged, in front of the rest.
func (x *exchange) readBody(req *action.Request) error {
	n := x.names.catalogue.NeedsBody(req)
	forPolicy := x.s.o.Gate.ReadsBody()
	if forPolicy {
		n = max(n, maxPolicyBody)
	}
	inBody := x.places.InBody(x.r.Header)
	if inBody {
		n = max(n, credential.MaxHead)
	}
	if n == 0 {
		return nil
	}
	body, whole, err := x.readHead(n)
	if err != nil {
		return err
	}
	if inBody {
		body, x.hidden.body = x.places.HideBody(x.r.Header, body)
	}
	if !whole {
		x.q.Request.BodyState = policy.BodyTruncated
		req.Body = body[:min(n, len(body))]
		return nil
	}
	req.Body = body
	x.q.Request.BodyState = policy.BodyParsed
	if forPolicy {
		x.q.Request.BodyDigest = sha256.Sum256(x.hidden.head)
		x.q.Request.Body, x.q.Request.BodyState = action.ParseBody(x.r.Header, body)
	}
	return nil
}

// present finds the credential that the request presents, without opening it.
func (x *exchange) present() error {
	var err error
	x.presented, err = x.s.o.Vault.Present(&credential.Request{
		Method: x.q.Request.Method, Host: x.out.HostHeader, Header: x.r.Header, ContentLength: x.out.ContentLength, Path: x.q.Request.Path, RawQuery: x.q.Request.RawQuery,
		InPath: x.hidden.path, InBody: x.hidden.body, Session: x.q.Session.ID,
		Service: x.serviceName(), Places: x.places, Mints: len(x.q.Action.Mints) > 0 && len(x.q.Actions) == 0, Now: x.s.o.Now(), Body: x,
	})
	x.q.Credential = x.presented.Credential
	x.q.Request.HiddenHeaders, x.q.Request.HiddenQuery = credential.HiddenHeaders, credential.HiddenQuery
	if err == nil && x.presented.Credential != nil && x.q.Request.Scheme != "https" && !x.service.Cleartext {
		return errCleartext // nothing says who answers there, and everybody on the way reads along
	}
	return err
}

func (x *exchange) serviceName() string {
	if x.service == nil {
		return ""
	}
	return x.service.Name
}

// decide asks policy. Without its permit nothing below moves.
func (x *exchange) decide() error {
	var err error
	began := time.Now()
	x.permit, x.answer, err = x.s.o.Gate.Decide(x.r.Context(), &x.q)
	x.pondered = time.Since(began)
	return err
}

// commit writes the decision down. The secret stays where it is until that is done.
func (x *exchange) commit() error {
	x.describe()
	x.rec.Decision.Result = policy.Allow
	return x.rec.Commit()
}

// forward sends the request to the service.
func (x *exchange) forward() (*http.Response, error) {
	if err := x.caller.Live(); err != nil { // revoked since it was identified
		return nil, err
	}
	x.askReadable()
	respell(x.out.Header, x.head.Spelled)
	if x.r.ProtoMajor == 2 && strings.HasPrefix(x.r.Header.Get("Content-Type"), "application/grpc") {
		x.out.Protocol = upstream.H2
	}
	if x.trace != "" {
		x.out.Header["Traceparent"] = []string{x.trace}
	}
	if err := x.guard(); err != nil {
		return nil, err
	}
	x.out.On1xx = x.informational
	x.departed = time.Now()
	resp, err := x.s.o.Upstream.Send(x.r.Context(), x.permit, &x.out)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && x.presented.Renewable() {
		resp, err = x.renewed(resp)
	}
	x.returned = time.Now()
	return resp, x.because(err)
}

// describe copies what is known of the request into its record.
func (x *exchange) describe() {
	rec, q := &x.rec, &x.q
	if x.caller != nil {
		rec.Agent.ID, rec.Agent.Instance, rec.Agent.Owner = q.Agent.ID, q.Instance, q.Agent.Owner
		rec.Agent.Labels, rec.Scope = q.Agent.Labels, q.Session.Scope
		rec.Human, rec.Session, rec.Purpose, rec.Chain = q.Human, q.Session.ID, q.Session.Purpose, q.Session.Chain
	}
	rec.Traceparent = credential.Conceal(x.r.Header.Get("Traceparent"))
	if x.s.o.Trace {
		x.trace, rec.Traceparent = audit.Traceparent(rec.Traceparent, rec.ID)
	}
	rec.Action, rec.Resource, rec.Actions = q.Action, concealed(q.Resource), q.Actions
	if len(rec.Actions) > 0 {
		rec.Actions = slices.Clone(rec.Actions)
	}
	for i := range rec.Actions {
		rec.Actions[i].Resource = concealed(rec.Actions[i].Resource)
	}
	if q.Request.Host != "" {
		standard := 443
		if q.Request.Scheme == "http" {
			standard = 80
		}
		rec.Request.Host = authority.Format(q.Request.Host, q.Request.Port, standard)
	}
	rec.Request.Path, rec.Request.Scheme, rec.Request.BodyState = credential.Conceal(q.Request.Path), q.Request.Scheme, q.Request.BodyState
	rec.Request.QueryKeys = queryKeys(q.Request.RawQuery)
	rec.Decision.Result, rec.Decision.Reasons = policy.Deny, x.answer.Reasons
	rec.Decision.Policy, rec.Decision.Obligations = x.answer.Revision, x.answer.Obligations
	rec.Decision.Shadow = x.answer.Shadow
	if x.answer.Result != "" {
		rec.Decision.Result = x.answer.Result
	}
	if c := q.Credential; c != nil {
		rec.Credential.ID = c.ID
	}
	rec.Credential.Handle, rec.Credential.Session = x.presented.Fingerprint, x.presented.Owner
	rec.Credential.Beside.ID, rec.Credential.Beside.Handle = x.presented.Beside()
}

// concealed is a resource as it is recorded: names come from the agent, who may have
// put anything there.
func concealed(r policy.Resource) policy.Resource {
	r.ID = credential.Conceal(r.ID)
	for i := range r.Params {
		if v := credential.Conceal(r.Params[i].Value); v != r.Params[i].Value {
			r.Params = slices.Clone(r.Params)
			r.Params[i].Value = v
		}
	}
	return r
}

// queryKeys lists the names of a query's parameters as they came, never a value.
func queryKeys(raw string) []string {
	if raw == "" {
		return nil
	}
	keys := make([]string, 0, 4)
	for pair := range strings.SplitSeq(raw, "&") {
		if k, _, _ := strings.Cut(pair, "="); k != "" {
			keys = append(keys, credential.Conceal(k))
		}
	}
	return keys
}

// close ends the record with what happened.
func (x *exchange) close() {
	x.unguard()
	if t := x.door.tunnel; t != nil {
		t.going.Add(-1)
	}
	now := time.Now()
	if x.duties != nil {
		x.settle()
	}
	rec := &x.rec
	o := &rec.Outcome
	o.BytesOut = x.received
	if !x.departed.IsZero() {
		o.BytesIn = x.sent.n.Load()
	}
	o.Total = now.Sub(rec.Arrived)
	o.Added = o.Total
	if !x.departed.IsZero() {
		o.Upstream = x.returned.Sub(x.departed)
		o.Added = x.departed.Sub(rec.Arrived)
		if !x.replied.IsZero() {
			o.Added += x.replied.Sub(x.returned)
		}
	}
	x.raise()
	x.s.o.Metrics.observe(x)
	if err := rec.Close(); err != nil && !errors.Is(err, audit.ErrClosed) {
		x.s.o.Logger.Error("decision log cannot be written", "error", err)
	}
}
