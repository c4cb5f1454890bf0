package proxy

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chaperone/credential"
)

// errHandout is wrapped when a service handed out a credential and no handle could be
// put in its place: the answer does not reach the agent.
var errHandout = errors.New("a credential that the service handed out could not be kept")

// maxHandout bounds an answer that hands out a credential, in bytes.
const maxHandout = 1 << 20

// mintsAWS is the mark of answers in which AWS hands out keys.
const mintsAWS = "aws"

// spots are where an answer to the request hands out a credential.
func (x *exchange) spots() []string {
	out := x.q.Action.Mints
	for i := range x.q.Actions {
		out = append(slices.Clip(out), x.q.Actions[i].Action.Mints...)
	}
	return out
}

// keepHandouts puts handles in the place of credentials that the service hands out.
// An answer that cannot be read to its end, or in which the credential cannot be
// replaced, goes no further.
func (x *exchange) keepHandouts(resp *http.Response) error {
	spots := x.spots()
	if len(spots) == 0 || resp.StatusCode < 200 || resp.StatusCode > 299 || bodiless(x.r.Method, resp.StatusCode) {
		return nil
	}
	body := io.Reader(resp.Body)
	if coding := contentCoding(resp.Header); coding != "" {
		decoded, ok := decoder(coding, body)
		if !ok {
			return fmt.Errorf("%w: it is compressed as nothing here can undo", errHandout)
		}
		body = decoded
	}
	b, err := io.ReadAll(io.LimitReader(body, maxHandout+1))
	if err != nil {
		return fmt.Errorf("%w: %w", errHandout, errServiceCut)
	}
	if len(b) > maxHandout {
		return fmt.Errorf("%w: the answer is longer than %d bytes", errHandout, maxHandout)
	}
	clean, err := x.replaceHandouts(resp.Header, b, spots)
	if err != nil {
		return err
	}
	undoCoding(resp)
	resp.ContentLength = int64(len(clean))
	x.passOn(resp, bytes.NewReader(clean))
	return nil
}

func (x *exchange) replaceHandouts(h http.Header, b []byte, spots []string) ([]byte, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return b, nil
	}
	t := strings.ToLower(strings.Join(field(h, "Content-Type"), ","))
	switch {
	case slices.Contains(spots, mintsAWS):
		return x.replaceAWS(b)
	case strings.Contains(t, "x-www-form-urlencoded"):
		return x.replaceForm(b, spots)
	case jsontext.Value(b).IsValid():
		return x.replaceJSON(b, spots)
	}
	return nil, fmt.Errorf("%w: it stands in no form that is known", errHandout)
}

// handle keeps one secret and returns what the agent gets for it.
func (x *exchange) handle(h credential.Handout) (credential.Received, error) {
	h.Service, h.Session, h.Expires = x.serviceName(), x.q.Session.ID, time.Unix(x.q.Session.Expires, 0)
	h.Owner, h.Prefix = "agent:"+x.q.Agent.ID, x.service.Handle
	if len(x.service.TokensOf) > 0 {
		h.Service = x.service.TokensOf[0]
	}
	if c := x.q.Credential; c != nil {
		h.Parent, h.Of = c.ID, x.presented.HandleID()
	}
	got, err := x.s.o.Vault.Accept(x.r.Context(), h)
	if err == nil && x.caller.Live() != nil { // the session ended meanwhile, and did not know of it
		err = errors.Join(x.caller.Live(), x.s.o.Vault.Remove(x.r.Context(), got.ID))
	}
	if err != nil {
		return got, fmt.Errorf("%w: %w", errHandout, err)
	}
	x.rec.Outcome.Scrubbed++
	return got, nil
}

// replaceJSON replaces the strings to which the pointers lead (RFC 6901; a part * is
// any member). No other byte changes.
func (x *exchange) replaceJSON(b []byte, spots []string) ([]byte, error) {
	var out []byte
	all := handedOut{}
	done := 0
	d := jsontext.NewDecoder(bytes.NewReader(b), jsontext.AllowDuplicateNames(true))
	for {
		if d.PeekKind() != '"' {
			if _, err := d.ReadToken(); err == io.EOF {
				return all.replaced(append(out, b[done:]...), saysNo(b))
			} else if err != nil {
				return nil, fmt.Errorf("%w: it is not JSON", errHandout)
			}
			continue
		}
		kind, length := d.StackIndex(d.StackDepth())
		raw, err := d.ReadValue()
		if err != nil {
			return nil, fmt.Errorf("%w: it is not JSON", errHandout)
		}
		name := kind == '{' && length%2 == 0
		text, err := jsontext.AppendUnquote(nil, raw)
		if name || err != nil || len(text) == 0 || !matchesPointer(string(d.StackPointer()), spots) {
			continue
		}
		handle, err := all.handle(x, string(text))
		if err != nil {
			return nil, err
		}
		end := int(d.InputOffset())
		out = append(append(out, b[done:end-len(raw)]...), `"`+handle+`"`...)
		done = end
	}
}

func matchesPointer(at string, spots []string) bool {
	parts := strings.Split(at, "/")
	return slices.ContainsFunc(spots, func(spot string) bool {
		want := strings.Split(spot, "/")
		return len(want) == len(parts) && !slices.ContainsFunc(zip(want, parts), func(p [2]string) bool { return p[0] != "*" && p[0] != p[1] })
	})
}

func zip(a, b []string) [][2]string {
	out := make([][2]string, len(a))
	for i := range a {
		out[i] = [2]string{a[i], b[i]}
	}
	return out
}

// replaceForm replaces the fields of a form, as some token endpoints answer with one.
func (x *exchange) replaceForm(b []byte, spots []string) ([]byte, error) {
	pairs := strings.Split(string(b), "&")
	all := handedOut{}
	no := false
	for i, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		text, verr := url.QueryUnescape(value)
		if err != nil || verr != nil {
			return nil, fmt.Errorf("%w: it is not a form", errHandout)
		}
		no = no || name == "error"
		if text == "" || !slices.Contains(spots, "/"+name) {
			continue
		}
		handle, err := all.handle(x, text)
		if err != nil {
			return nil, err
		}
		pairs[i] = key + "=" + handle
	}
	return all.replaced([]byte(strings.Join(pairs, "&")), no)
}

// handedOut are the secrets of one answer, with their handles. One that stands in two of the
// places, as registries give a token under two names, has one.
type handedOut map[string]string

func (g handedOut) handle(x *exchange, text string) (string, error) {
	if h, ok := g[text]; ok {
		return h, nil
	}
	got, err := x.handle(credential.Handout{Secret: credential.NewSecret([]byte(text))})
	if err == nil {
		g[text] = got.Handle
	}
	return got.Handle, err
}

// replaced returns an answer in which every credential was replaced. One in which
// none was found where they stand has some other form, which an agent may have asked
// for, unless the service says no in it; one that repeats a credential elsewhere
// shows it.
func (g handedOut) replaced(clean []byte, no bool) ([]byte, error) {
	if len(g) == 0 && !no {
		return nil, fmt.Errorf("%w: it does not stand where it should", errHandout)
	}
	for text := range g {
		if bytes.Contains(clean, []byte(text)) {
			return nil, fmt.Errorf("%w: it stands there more than once", errHandout)
		}
	}
	return clean, nil
}

// saysNo reports whether an answer in JSON says that nothing was handed out, although
// its status does not.
func saysNo(b []byte) bool {
	var said struct {
		OK, Success *bool
		Error       any
	}
	if err := json.Unmarshal(b, &said); err != nil {
		return false
	}
	return said.Error != nil || said.OK != nil && !*said.OK || said.Success != nil && !*said.Success
}

// awsKeys are where the parts of keys stand in an answer of AWS's.
type awsKeys struct{ id, key, token span }

// span is a part of an answer.
type span struct {
	text       string
	begin, end int
}

// replaceAWS replaces keys as AWS's token service hands them out, in XML: the handle
// is a pair, and has no session token.
func (x *exchange) replaceAWS(b []byte) ([]byte, error) {
	k, err := findAWSKeys(b)
	if err != nil {
		return nil, err
	}
	if k.key.text == "" { // AWS answers in JSON too, where that is asked for
		return nil, fmt.Errorf("%w: it holds no keys as AWS writes them in XML", errHandout)
	}
	got, err := x.handle(credential.Handout{
		Secret: credential.NewSecret([]byte(k.id.text)), Key: credential.NewSecret([]byte(k.key.text)), Token: credential.NewSecret([]byte(k.token.text)),
	})
	if err != nil {
		return nil, err
	}
	parts := []struct {
		span
		with string
	}{{k.id, got.Handle}, {k.key, got.Key}, {k.token, ""}}
	slices.SortFunc(parts, func(a, b struct {
		span
		with string
	}) int {
		return b.begin - a.begin
	})
	for _, p := range parts { // the last first, so that the others stay where they are
		if p.end > p.begin {
			b = slices.Concat(b[:p.begin], []byte(p.with), b[p.end:])
		}
	}
	return b, nil
}

func findAWSKeys(b []byte) (k awsKeys, err error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	var at *span
	for {
		begin := int(d.InputOffset())
		t, err := d.Token()
		if err == io.EOF {
			return k, nil
		}
		if err != nil {
			return k, fmt.Errorf("%w: it is not XML", errHandout)
		}
		switch t := t.(type) {
		case xml.StartElement:
			at = map[string]*span{"AccessKeyId": &k.id, "SecretAccessKey": &k.key, "SessionToken": &k.token}[t.Name.Local]
		case xml.CharData:
			if at != nil && at.text == "" {
				*at = span{strings.TrimSpace(string(t)), begin, int(d.InputOffset())}
			} else if at != nil {
				return k, fmt.Errorf("%w: it holds keys twice", errHandout)
			}
		case xml.EndElement:
			at = nil
		}
	}
}
