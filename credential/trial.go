package credential

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"chaperone/credential/grant"
	"chaperone/credential/sigv4"
	"chaperone/policy"
)

// trial is one try of a credential.
type trial struct {
	v   *Vault
	k   *kept
	how applier
	p   *Probe
}

// trier is for whom a credential is used that is tried.
func trier() *Caller {
	return &Caller{Agent: "chaperone", Instance: "credential-test", Session: "credential-test"}
}

// request is the request with the credential in it, and the certificate that its
// connection shows, if any.
func (t *trial) request(ctx context.Context) (*http.Request, *tls.Certificate, error) {
	method := t.p.Method
	if method == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, t.p.URL, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the address cannot be read", ErrInvalid)
	}
	r.Header.Set("User-Agent", "chaperone")
	if t.p.Body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(r.Header, t.p.Header)
	if keys, ok := t.how.(keyed); ok {
		return r, nil, t.amazon(ctx, keys, r)
	}
	u, err := t.standing(r)
	if err != nil {
		return nil, nil, err
	}
	if err := t.how.apply(ctx, u); err != nil {
		return nil, nil, err
	}
	return r, u.out.Certificate, u.out.onto(r)
}

// keyed is an applier of AWS's keys.
type keyed interface {
	keysFor(context.Context, *Caller) (sigv4.Keys, error)
}

// amazon signs a call of AWS's token service, which tells of all keys whose they are.
func (t *trial) amazon(ctx context.Context, keys keyed, r *http.Request) error {
	region, ok := strings.CutPrefix(r.URL.Host, "sts.")
	region, suffix := strings.CutSuffix(region, ".amazonaws.com")
	if !ok || !suffix || strings.Contains(region, ".") {
		return fmt.Errorf("%w: keys of AWS are tried at its token service, https://sts.REGION.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15", ErrNoProbe)
	}
	k, err := keys.keysFor(ctx, trier())
	if err == nil {
		sigv4.New(&sigv4.Request{Method: r.Method, Host: r.URL.Host, Path: "/", RawQuery: r.URL.RawQuery, Header: r.Header}, k, region, "sts", nil, t.v.now())
	}
	return err
}

// standing puts something into each place where a handle would stand.
func (t *trial) standing(r *http.Request) (*use, error) {
	path := r.URL.EscapedPath()
	u := &use{&Presented{}, &Outgoing{
		Target: policy.Target{Method: r.Method, Scheme: "https", Host: r.URL.Hostname(), Port: 443, Path: path}, HostHeader: r.URL.Host,
		Header: r.Header, Path: path, RawQuery: r.URL.RawQuery, Head: []byte(t.p.Body), ContentLength: int64(len(t.p.Body)), Caller: *trier(),
	}}
	places, before, err := t.places()
	if err != nil {
		return nil, err
	}
	for i, at := range places {
		s, err := u.stand(at, before, t.p.User)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			u.p.spot = s
		} else {
			u.p.more = append(u.p.more, s)
		}
	}
	return u, nil
}

// places are where the handle would stand, and what stands in front of it there. Of a
// secret whose credential says no place but bearer the service's own is taken, since a
// client puts the handle there.
func (t *trial) places() (at []Place, before string, err error) {
	if s, ok := t.how.(*several); ok {
		return slices.SortedFunc(maps.Keys(s.byPlace), func(a, b Place) int { return strings.Compare(a.String(), b.String()) }), "", nil
	}
	switch t.k.Kind {
	case KindBearer:
		if t.p.At != "" && t.k.Place == "" {
			one, err := parsePlace(t.p.At)
			return []Place{one}, t.p.Before, err
		}
	case KindPath:
		return []Place{{kind: KindPath}}, "", nil
	case KindBody:
		return nil, "", fmt.Errorf("%w: it goes along in the body of a request, which might change something", ErrNoProbe)
	case KindHeader, KindQuery:
		if t.p.At == t.k.place.String() {
			before = t.p.Before
		}
	default:
		if _, ok := t.how.(*minted); ok && t.p.At != "" && strings.HasPrefix(t.p.At, KindQuery+":") {
			one, err := parsePlace(t.p.At)
			return []Place{one}, "", err
		}
	}
	return []Place{t.k.place}, before, nil
}

// stand puts something where a handle would stand.
func (u *use) stand(at Place, before, user string) (spot, error) {
	s, h := spot{place: at, text: Hidden}, u.out.Header
	switch at.kind {
	case KindBearer:
		s.field = "Authorization"
		h.Set(s.field, "Bearer "+Hidden)
	case KindBasic:
		s.field = "Authorization"
		if user == "" {
			user = "x"
		}
		h.Set(s.field, "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+Hidden)))
	case KindHeader:
		s.field = at.name
		h[at.name] = []string{before + Hidden}
	case KindCookie:
		s.field = "Cookie"
		h.Set("Cookie", strings.TrimPrefix(h.Get("Cookie")+"; "+at.name+"="+Hidden, "; "))
	case KindQuery:
		u.out.RawQuery = strings.TrimPrefix(u.out.RawQuery+"&"+url.QueryEscape(at.name)+"="+Hidden, "&")
	case KindPath:
		i := strings.Index(u.out.Path, Hidden)
		if i < 0 {
			return s, fmt.Errorf("%w: write %s in the path where the credential goes, as in https://api.telegram.org/bot%s/getMe", ErrNoProbe, Hidden, Hidden)
		}
		s.inside = &Inside{place: at, text: Hidden, begin: i, end: i + len(Hidden)}
	case KindOAuth1:
		s.field, u.p.signed = "Authorization", &signed{oauth1: map[string]string{}}
	default:
		return s, fmt.Errorf("%w: it stands in %s", ErrNoProbe, at)
	}
	return s, nil
}

// onto puts what a credential was written into onto a request.
func (o *Outgoing) onto(r *http.Request) error {
	r.URL.RawQuery = o.RawQuery
	if o.SentPath != "" {
		plain, err := url.PathUnescape(o.SentPath)
		if err != nil {
			return fmt.Errorf("%w: the path cannot be read", ErrInvalid)
		}
		r.URL.Path, r.URL.RawPath = plain, o.SentPath
	}
	if len(o.Head) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(o.Head)), int64(len(o.Head))
	}
	return nil
}

// ask sends it and reads the answer.
func (t *trial) ask(r *http.Request, shown *tls.Certificate) (*http.Response, []byte, error) {
	way := t.v.outside.HTTP
	if shown != nil && t.v.outside.Showing != nil {
		fresh, done := t.v.outside.Showing(shown)
		defer done()
		way = fresh
	}
	if way == nil {
		return nil, nil, grant.ErrUnreachable
	}
	resp, err := way.RoundTrip(r)
	if err != nil {
		return nil, nil, grant.Unreached(r.Context(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its answer ends early", grant.ErrEndpoint)
	}
	return resp, body, nil
}
