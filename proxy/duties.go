package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"chaperone/credential"
	"chaperone/policy"
	"chaperone/proxy/limit"
	"chaperone/proxy/oblige"
)

// errWithheld is wrapped when a service's answer cannot be changed as policy obliges.
var errWithheld = errors.New("answer is withheld")

// Bounds of what is held in memory so that it can be changed, in bytes.
const (
	maxEditedBody   = 1 << 20
	maxEditedAnswer = 8 << 20
)

// oblige does what the allow obliges to, as meet does it. What cannot be done refuses the
// request.
func (x *exchange) oblige(meet func(*exchange, *oblige.Duties) error) error {
	if len(x.answer.Obligations) == 0 {
		return nil
	}
	d, err := oblige.Read(x.answer.Obligations)
	if err == nil {
		x.duties = d
		err = meet(x, d)
	}
	if err == nil {
		return nil
	}
	x.permit = nil
	x.answer.Result = policy.Deny
	x.answer.Reasons = append(x.answer.Reasons[:0:0], sentence(err))
	x.rec.Decision.Unmet = "limits"
	if u, ok := errors.AsType[*oblige.Unmet](err); ok {
		x.rec.Decision.Unmet = u.Name
	}
	return err
}

// sentence is an error as a reason.
func sentence(err error) string {
	if e, ok := errors.AsType[*limit.Exceeded](err); ok {
		text := e.Error()
		if !e.Again.IsZero() {
			text += ", until " + e.Again.UTC().Format("15:04:05") + " UTC"
		}
		return text + "."
	}
	if u, ok := errors.AsType[*oblige.Unmet](err); ok {
		return fmt.Sprintf("The policy obliges to %q, which cannot be met: %s.", u.Name, u.Why)
	}
	return "A limit could not be counted."
}

// meet does it to what goes out, and takes what that uses of limits.
func (x *exchange) meet(d *oblige.Duties) error {
	if x.q.Phase == policy.PhaseConnect || x.out.Upgrade {
		if err := meetsTunnel(d); err != nil {
			return err
		}
	}
	if err := d.Headers.Apply(x.out.Header, credential.HiddenHeaders); err != nil {
		return err
	}
	if edit := d.RequestEdit(&x.q, x.rec.ID); !edit.Empty() {
		if err := x.editBody(edit); err != nil {
			return err
		}
	}
	if !d.Body.Answer.Empty() { // the answer must come whole and as it is
		for _, name := range []string{"Accept-Encoding", "Range", "If-Range"} {
			remove(x.out.Header, name)
		}
		x.out.Header["Accept-Encoding"] = []string{"identity"}
	}
	return x.takeLimits(d)
}

// meetsTunnel refuses what cannot be done to bytes that are not looked into.
func meetsTunnel(d *oblige.Duties) error {
	switch {
	case !d.Body.Answer.Empty() || !d.Body.Request.Empty() || len(d.Attribution) > 0:
		return &oblige.Unmet{Name: "body", Why: "a tunnel has no body that could be changed"}
	case !d.Headers.Empty() || !d.Headers.Answer.Empty():
		return &oblige.Unmet{Name: "headers", Why: "a tunnel has no fields that could be changed"}
	}
	return nil
}

// takeLimits takes what the request uses of its limits.
func (x *exchange) takeLimits(d *oblige.Duties) error {
	if len(d.Limits) == 0 {
		return nil
	}
	if x.s.o.Limits == nil {
		return &oblige.Unmet{Name: "limits", Why: "this proxy keeps no counts"}
	}
	claims, counted, err := x.claims(d)
	if err != nil {
		return err
	}
	if x.hold, err = x.s.o.Limits.Take(x.r.Context(), claims); err != nil {
		return err
	}
	if len(counted) == 0 {
		return nil
	}
	if x.q.Phase == policy.PhaseConnect || x.out.Upgrade {
		return &oblige.Unmet{Name: "limits", Why: "the bytes of a tunnel are not counted"}
	}
	x.meter = &meter{ctx: context.WithoutCancel(x.r.Context()), c: x.s.o.Limits, claims: counted}
	if x.out.Body != nil {
		if err := x.meter.spend(max(x.out.ContentLength, 0)); err != nil {
			return err
		}
		x.out.Body = &meteredReader{r: x.out.Body, m: x.meter, free: max(x.out.ContentLength, 0)}
	}
	return nil
}

// claims are what the request takes of its limits at once, and those of bytes. A request
// that is several actions takes for each of them what comes with it; its bytes count
// once for each limit.
func (x *exchange) claims(d *oblige.Duties) (all, bytes []limit.Claim, err error) {
	if len(x.q.Actions) == 0 {
		all, err = d.Claims(&x.q)
		return all, d.Bytes(&x.q), err
	}
	for i := range x.q.Actions {
		one := x.q
		one.Action, one.Resource = x.q.Actions[i].Action, x.q.Actions[i].Resource
		limits, ok := x.answer.Each[i]["limits"]
		if !ok {
			continue
		}
		d, err := oblige.Read(map[string]any{"limits": limits})
		if err != nil {
			return nil, nil, err
		}
		claims, err := d.Claims(&one)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, claims...)
		for _, c := range d.Bytes(&one) {
			if !slices.ContainsFunc(bytes, func(old limit.Claim) bool { return old.Key == c.Key && old.Max == c.Max }) {
				bytes = append(bytes, c)
			}
		}
	}
	return all, bytes, nil
}

// editBody reads the request's body whole and puts the changed one in its place; its
// framing follows.
func (x *exchange) editBody(edit *oblige.Edit) error {
	unmet := func(format string, args ...any) error {
		return &oblige.Unmet{Name: "body", Why: fmt.Sprintf(format, args...)}
	}
	if x.out.Body == nil {
		return unmet("the request has no body")
	}
	if len(x.hidden.body) > 0 {
		return unmet("the credential stands in the body")
	}
	apply := edit.Apply
	switch kind := bodyKind(x.out.Header); {
	case !inUTF8(x.out.Header):
		return unmet("the body's charset is another than UTF-8")
	case kind == formType:
		apply = edit.ApplyForm
	case !isJSON(kind):
		return unmet("the request's body is neither plain JSON nor a form")
	}
	for _, name := range []string{"Content-Md5", "Content-Digest", "Digest", "Repr-Digest", "X-Amz-Content-Sha256", "Signature-Input"} {
		if len(x.out.Header[name]) > 0 {
			return unmet("the body is bound by %s", strings.ToLower(name))
		}
	}
	body, err := io.ReadAll(io.LimitReader(x.out.Body, maxEditedBody+1))
	if err != nil {
		return fmt.Errorf("%w: %w", errBody, err)
	}
	if len(body) > maxEditedBody {
		return unmet("the body has more than %d bytes", maxEditedBody)
	}
	if body, err = apply(body); err != nil {
		return unmet("%v", err)
	}
	x.out.Body, x.out.ContentLength, x.out.Trailer, x.out.ExpectContinue = bytes.NewReader(body), int64(len(body)), nil, false
	x.edited, x.hidden.head, x.hidden.tail = true, body, nil // what a credential signs is what goes out
	return nil
}

const formType = "application/x-www-form-urlencoded"

// bodyKind is the media type of a body without an encoding, else empty.
func bodyKind(h http.Header) (kind string) {
	for name, values := range h {
		switch {
		case strings.EqualFold(name, "Content-Type") && len(values) == 1:
			kind, _, _ = strings.Cut(strings.ToLower(values[0]), ";")
		case strings.EqualFold(name, "Content-Encoding") && len(values) > 0 && !strings.EqualFold(values[0], "identity"):
			return ""
		}
	}
	return strings.TrimSpace(kind)
}

// inUTF8 reports whether the type of a body says nothing of another charset, in which
// the service would read other fields than stand there for us.
func inUTF8(h http.Header) bool {
	for name, values := range h {
		if !strings.EqualFold(name, "Content-Type") {
			continue
		}
		for _, v := range values {
			_, params, err := mime.ParseMediaType(v)
			if c := params["charset"]; err != nil || c != "" && !strings.EqualFold(c, "utf-8") {
				return false
			}
		}
	}
	return true
}

func isJSON(kind string) bool {
	return kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
}

// obligeAnswer changes the service's answer before any of it goes to the agent.
func (x *exchange) obligeAnswer(resp *http.Response) error {
	d := x.duties
	if err := d.Headers.Answer.Apply(resp.Header, nil); err != nil {
		return fmt.Errorf("%w: %w", errWithheld, err)
	}
	if d.Body.Answer.Empty() || bodiless(x.r.Method, resp.StatusCode) || resp.StatusCode == http.StatusNoContent || resp.ContentLength == 0 {
		if !d.Body.Answer.Empty() {
			remove(resp.Header, "Content-Length") // of a body that would be changed
		}
		return nil
	}
	if !isJSON(bodyKind(resp.Header)) {
		return fmt.Errorf("%w: it is not plain JSON", errWithheld)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxEditedAnswer+1))
	if err != nil {
		return x.cause(err)
	}
	if len(body) > maxEditedAnswer {
		return fmt.Errorf("%w: it has more than %d bytes", errWithheld, maxEditedAnswer)
	}
	if body, err = d.Body.Answer.Apply(body); err != nil {
		return fmt.Errorf("%w: %w", errWithheld, err)
	}
	for _, name := range []string{"Content-Length", "Etag", "Content-Md5", "Content-Digest", "Digest", "Repr-Digest", "Accept-Ranges"} {
		remove(resp.Header, name)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(body), resp.Body}
	resp.ContentLength, resp.Trailer = int64(len(body)), nil
	return nil
}

// settle gives back what the exchange took of limits and did not use.
func (x *exchange) settle() {
	if x.departed.IsZero() {
		x.hold.GiveBack()
	}
	if x.meter != nil {
		x.meter.settle()
	}
}

// meter takes bytes of limits as they pass, some ahead.
type meter struct {
	ctx    context.Context
	c      *limit.Counter
	claims []limit.Claim

	mu   sync.Mutex
	left int64
	last *limit.Hold
}

// aheadBytes is how much is taken at once.
const aheadBytes = 64 << 10

// spend takes n bytes before they pass.
func (m *meter) spend(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left >= n {
		m.left -= n
		return nil
	}
	for _, ahead := range []int64{aheadBytes, 0} {
		for i := range m.claims {
			m.claims[i].Amount = n - m.left + ahead
		}
		h, err := m.c.Take(m.ctx, m.claims)
		if err == nil {
			m.left, m.last = ahead, h
			return nil
		}
		if !errors.Is(err, limit.ErrExceeded) || ahead == 0 {
			return err
		}
	}
	return nil
}

func (m *meter) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last.GiveBackOf(m.left)
	m.left, m.last = 0, nil
}

// meteredReader takes what is read of a body off a meter; free bytes were taken before.
type meteredReader struct {
	r    io.Reader
	m    *meter
	free int64
}

// Read implements io.Reader.
func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	paid := min(int64(n), r.free)
	r.free -= paid
	if more := int64(n) - paid; more > 0 {
		if merr := r.m.spend(more); merr != nil {
			return 0, merr
		}
	}
	return n, err
}
