package credential

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"chaperone/credential/internal/secret"
)

// staticKinds are those whose secret stays what it is.
func staticKinds() []Kind {
	kind := func(name, doc string) Kind {
		return Kind{Name: name, Doc: doc, Material: "the secret", place: placeOf(name), open: openStatic}
	}
	return []Kind{
		kind(KindBearer, "Authorization: Bearer SECRET, or another scheme that the client puts in front of the handle"),
		kind(KindBasic, "the half of Authorization: Basic in which the client puts the handle"),
		kind(KindHeader, "a field of its own, named with --place"),
		kind(KindQuery, "a parameter of the query, named with --place"),
		kind(KindCookie, "a cookie, named with --place"),
		{Name: KindPath, Doc: "a part of the path, where the service's places say path:PATTERN", Material: "the secret", place: anyPlace, open: openStatic},
		{Name: KindBody, Doc: "a field of a form or a JSON object, where the service's places say body:FIELD", Material: "the secret", place: anyPlace, open: openStatic},
		{Name: KindSeveral, Doc: "several places at once; the one handle stands in each of them", Material: `a JSON object of secrets by place, such as {"header:DD-API-KEY": …, "header:DD-APPLICATION-KEY": …}`, place: anyPlace, open: openSeveral},
	}
}

func placeOf(kind string) func(*Credential) (Place, error) {
	return func(c *Credential) (Place, error) { return newPlace(kind, c.Place) }
}

// anyPlace is none of the credential's own: its handle stands where the service says.
func anyPlace(c *Credential) (Place, error) {
	if c.Place != "" {
		return Place{}, fmt.Errorf("kind %s has no place of its own; say it in the service's description", c.Kind)
	}
	return Place{}, nil
}

// static is a secret that is written where its handle stands.
type static struct{ text string }

func openStatic(o *opening) (applier, error) {
	text, err := plainText(o.k.Service, o.secret)
	if err != nil {
		return nil, err
	}
	return &static{text}, nil
}

// Format keeps the text from being printed.
func (static) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

func (s *static) apply(_ context.Context, u *use) error { return u.write(s.text) }

// plainText is a secret that fits into a field. One newline at its end is taken for
// the editor's and dropped; another would end the field and begin the next (RFC
// 9110 section 5.5).
func plainText(service string, s secret.Secret) (string, error) {
	text := strings.TrimSuffix(strings.TrimSuffix(secret.Text(s), "\n"), "\r")
	if text == "" {
		return "", fmt.Errorf("%w: the secret is empty", ErrShape)
	}
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] == 0x7f {
			return "", fmt.Errorf("%w: the secret holds a line break or another control byte", ErrShape)
		}
	}
	return text, checkVendor(service, text)
}

// several are secrets by place.
type several struct{ byPlace map[Place]*static }

func openSeveral(o *opening) (applier, error) {
	fields, err := o.fields()
	if err != nil {
		return nil, err
	}
	s := &several{map[Place]*static{}}
	for where, value := range fields {
		at, err := parsePlace(where)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrShape, err)
		}
		text, err := plainText(o.k.Service, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		s.byPlace[at] = &static{text}
	}
	if len(s.byPlace) < 2 {
		return nil, fmt.Errorf("%w: kind several wants two places or more", ErrShape)
	}
	return s, nil
}

// apply writes each secret into its place. A handle that stands in a place without
// one of its own is refused, and so is a request that leaves one out: half a set of
// credentials is none.
func (s *several) apply(_ context.Context, u *use) error {
	if 1+len(u.p.more) != len(s.byPlace) {
		return fmt.Errorf("%w: it has %d places, and the handle stands in %d", ErrHandlePlace, len(s.byPlace), 1+len(u.p.more))
	}
	return u.writeEach(func(at Place) (string, error) {
		if one := s.byPlace[at]; one != nil {
			return one.text, nil
		}
		return "", fmt.Errorf("%w: %s", ErrHandlePlace, at)
	})
}

// write puts a text where the handle stands.
func (u *use) write(text string) error {
	if len(u.p.more) > 0 {
		return ErrAmbiguousCredential
	}
	return u.writeAt(&u.p.spot, text)
}

// writeEach puts a text into every place in which the handle stands, the last first:
// where in the body the others stand is not changed by that.
func (u *use) writeEach(text func(Place) (string, error)) error {
	for i := len(u.p.more) - 1; i >= -1; i-- {
		at := &u.p.spot
		if i >= 0 {
			at = &u.p.more[i]
		}
		t, err := text(at.place)
		if err != nil {
			return err
		}
		if err := u.writeAt(at, t); err != nil {
			return err
		}
	}
	return nil
}

func (u *use) writeAt(s *spot, text string) error {
	out := u.out
	u.p.wrote(text)
	switch s.place.kind {
	case KindBearer, KindHeader:
		old := out.Header[s.field]
		if len(old) != 1 || !strings.HasSuffix(old[0], s.text) {
			return ErrHandlePlace
		}
		u.setField(s.field, old[0][:len(old[0])-len(s.text)]+text)
		return nil
	case KindBasic:
		return u.writeBasic(s, text)
	case KindQuery:
		raw, ok := s.replaceInQuery(out.RawQuery, url.QueryEscape(text))
		if !ok {
			return ErrHandlePlace
		}
		out.RawQuery = raw
		return nil
	case KindCookie:
		return u.writeCookie(s, text)
	case KindPath:
		in := s.inside
		if in == nil || out.Path[in.begin:in.begin+len(Hidden)] != Hidden {
			return ErrHandlePlace
		}
		out.SentPath = out.Path[:in.begin] + url.PathEscape(text) + out.Path[in.begin+len(Hidden):]
		return nil
	case KindBody:
		return u.writeBody(s, text)
	}
	return ErrHandlePlace
}

// setField replaces a field, and leaves what stood there to whoever has it.
func (u *use) setField(name, value string) { u.out.Header[name] = []string{value} }

func (u *use) writeBasic(s *spot, text string) error {
	scheme, value, _ := strings.Cut(u.out.Header.Get("Authorization"), " ")
	user, pass, err := basicHalves(strings.TrimLeft(value, " "))
	if err != nil {
		return ErrHandlePlace
	}
	if user == s.text {
		if strings.IndexByte(text, ':') >= 0 {
			return fmt.Errorf("%w: a colon cannot stand in the user name of Basic", ErrUnavailable)
		}
		user = text
	} else {
		pass = text
	}
	u.setField("Authorization", scheme+" "+base64.StdEncoding.EncodeToString([]byte(user+":"+pass)))
	return nil
}

// writeCookie replaces the value of one cookie. What cannot stand in one is refused
// (RFC 6265 section 4.1.1).
func (u *use) writeCookie(s *spot, text string) error {
	if strings.ContainsAny(text, `;," \`) {
		return fmt.Errorf("%w: the secret cannot stand in a cookie", ErrUnavailable)
	}
	values := u.out.Header["Cookie"]
	for i, value := range values {
		pairs := strings.Split(value, ";")
		for j, pair := range pairs {
			name, v, _ := strings.Cut(pair, "=")
			if strings.TrimSpace(name) != s.place.name || strings.TrimSpace(v) != s.text {
				continue
			}
			pairs[j] = name + "=" + text
			fresh := append([]string(nil), values...)
			fresh[i] = strings.Join(pairs, ";")
			u.out.Header["Cookie"] = fresh
			return nil
		}
	}
	return ErrHandlePlace
}

// writeBody replaces the field in the part of the body that was read. The length of
// the whole changes by as much.
func (u *use) writeBody(s *spot, text string) error {
	if s.inside == nil {
		return ErrHandlePlace
	}
	head, err := replaced(u.out.Head, []*Inside{s.inside}, func(*Inside) (string, error) { return text, nil })
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if u.out.ContentLength >= 0 {
		u.out.ContentLength += int64(len(head) - len(u.out.Head))
	}
	u.out.Head = head
	return nil
}

// replaceInQuery changes the value that is the handle and no other byte.
func (s *spot) replaceInQuery(raw, text string) (string, bool) {
	pairs := strings.Split(raw, "&")
	for i, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		plain, verr := url.QueryUnescape(value)
		if err == nil && verr == nil && name == s.place.name && plain == s.text {
			pairs[i] = key + "=" + text
			return strings.Join(pairs, "&"), true
		}
	}
	return raw, false
}
