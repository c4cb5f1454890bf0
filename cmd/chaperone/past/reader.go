package past

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"chaperone/policy"
)

// Reader takes decisions' lines of the log apart. The parts of a record come again and
// again (an agent, a human, an action on a resource), so each is decoded once and
// remembered under its text. A Reader serves one goroutine.
type Reader struct {
	text   bytes.Reader
	tokens jsontext.Decoder

	agents      memo[agent]
	humans      memo[policy.Human]
	scopes      memo[[]policy.Scope]
	chains      memo[[]policy.Link]
	acts        memo[policy.Act]
	several     memo[[]policy.Act]
	requests    memo[request]
	decisions   memo[decision]
	credentials memo[credential]
	key         []byte
}

// fields are the members of a record as they stand; what is absent is empty.
type fields struct {
	id, time, session, purpose string

	agent, human, scope, chain, action, resource, actions, request, decision, credential []byte
}

// NewReader returns a reader that remembers nothing yet.
func NewReader() *Reader {
	return &Reader{
		agents: memo[agent]{}, humans: memo[policy.Human]{}, scopes: memo[[]policy.Scope]{}, chains: memo[[]policy.Link]{}, acts: memo[policy.Act]{},
		several: memo[[]policy.Act]{}, requests: memo[request]{}, decisions: memo[decision]{}, credentials: memo[credential]{},
	}
}

// Read takes one line apart.
func Read(raw []byte) (*Decision, error) {
	d := new(Decision)
	return d, NewReader().Read(raw, d)
}

// Read fills d with what a line says. What d points to is shared with other decisions
// of this reader: it is for reading only.
func (r *Reader) Read(raw []byte, d *Decision) error {
	f, err := r.split(raw)
	if err == nil {
		err = r.fill(&f, d)
	}
	if err != nil {
		return fmt.Errorf("reading a record: %w", err)
	}
	return nil
}

// split finds the members of a record, which are parts of raw.
func (r *Reader) split(raw []byte) (f fields, err error) {
	r.text.Reset(raw)
	r.tokens.Reset(&r.text, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if begin, err := r.tokens.ReadToken(); err != nil || begin.Kind() != '{' {
		return f, cmp.Or(err, errors.New("it is no object"))
	}
	for r.tokens.PeekKind() == '"' {
		if err := r.member(raw, &f); err != nil {
			return f, err
		}
	}
	if _, err := r.tokens.ReadToken(); err != nil {
		return f, err
	}
	if _, err := r.tokens.ReadToken(); err != io.EOF {
		return f, errors.New("something follows it")
	}
	return f, nil
}

func (r *Reader) member(raw []byte, f *fields) error {
	name, err := r.tokens.ReadValue()
	if err != nil {
		return err
	}
	text, value := f.place(string(name))
	switch {
	case value != nil:
		v, err := r.tokens.ReadValue()
		end := int(r.tokens.InputOffset())
		*value = raw[end-len(v) : end]
		return err
	case text == nil:
		return r.tokens.SkipValue()
	}
	t, err := r.tokens.ReadToken()
	if err == nil && t.Kind() != '"' {
		err = fmt.Errorf("%s is no text", name)
	}
	if err == nil {
		*text = t.String()
	}
	return err
}

// place is where the member of that quoted name goes; what replay has no use for has none.
func (f *fields) place(name string) (*string, *[]byte) {
	switch name {
	case `"id"`:
		return &f.id, nil
	case `"time"`:
		return &f.time, nil
	case `"session"`:
		return &f.session, nil
	case `"purpose"`:
		return &f.purpose, nil
	case `"agent"`:
		return nil, &f.agent
	case `"human"`:
		return nil, &f.human
	case `"scope"`:
		return nil, &f.scope
	case `"chain"`:
		return nil, &f.chain
	case `"action"`:
		return nil, &f.action
	case `"resource"`:
		return nil, &f.resource
	case `"actions"`:
		return nil, &f.actions
	case `"request"`:
		return nil, &f.request
	case `"decision"`:
		return nil, &f.decision
	case `"credential"`:
		return nil, &f.credential
	}
	return nil, nil
}
