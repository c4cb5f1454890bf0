package audit

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter selects exchanges. Empty fields select all; the others must all match. A
// text that ends in * matches all that begin as it does, and * alone whatever is not
// empty.
type Filter struct {
	ID         string
	Agent      string
	Instance   string
	Owner      string
	Human      string // e-mail address or subject
	Session    string
	Purpose    string
	Action     string // an id, or a pattern such as github:issues/* or *:*
	Service    string
	Access     string
	Resource   string // an id, or a pattern such as acme/*
	Host       string
	Method     string
	Path       string
	Client     string
	Result     string // allow, deny, ask; or alarm
	Policy     string
	Credential string
	Handle     string // fingerprint
	Alarm      string
	Status     string // of the answer, such as 404 or 4*
	Error      string
	Trace      string // trace id
	Since      time.Time
	Until      time.Time
}

// Want is one field that a filter looks at, by the name that people give it.
type Want struct{ Field, Pattern string }

// OfOutcome reports whether the field is one of the outcome.
func (w Want) OfOutcome() bool { return w.Field == "status" || w.Field == "error" }

// Fields are the names of all fields by which to select.
func Fields() []string {
	var f Filter
	var names []string
	for _, p := range f.texts() {
		names = append(names, p.name)
	}
	return names
}

type filterText struct {
	name string
	text *string
}

func (f *Filter) texts() []filterText {
	return []filterText{
		{"id", &f.ID}, {"agent", &f.Agent}, {"instance", &f.Instance}, {"owner", &f.Owner}, {"human", &f.Human}, {"session", &f.Session},
		{"purpose", &f.Purpose}, {"action", &f.Action}, {"service", &f.Service}, {"access", &f.Access}, {"resource", &f.Resource},
		{"host", &f.Host}, {"method", &f.Method}, {"path", &f.Path}, {"client", &f.Client}, {"result", &f.Result}, {"policy", &f.Policy},
		{"credential", &f.Credential}, {"handle", &f.Handle}, {"alarm", &f.Alarm}, {"status", &f.Status}, {"error", &f.Error}, {"trace", &f.Trace},
	}
}

// Text returns where the filter keeps what it wants of a field, or nil.
func (f *Filter) Text(field string) *string {
	for _, p := range f.texts() {
		if p.name == field {
			return p.text
		}
	}
	return nil
}

// Wants lists what the filter looks at besides the time.
func (f *Filter) Wants() []Want {
	var wants []Want
	for _, p := range f.texts() {
		if *p.text != "" {
			wants = append(wants, Want{p.name, *p.text})
		}
	}
	return wants
}

// Match reports whether a decision, or an alarm by itself, is selected by what it
// holds. What the filter says of the outcome is for [Filter.MatchOutcome].
func (f *Filter) Match(e *Event) bool {
	if !f.Since.IsZero() && e.Time.Before(f.Since) || !f.Until.IsZero() && !e.Time.Before(f.Until) {
		return false
	}
	for _, w := range f.Wants() {
		if !w.OfOutcome() && !w.match(e) {
			return false
		}
	}
	return true
}

// MatchOutcome reports whether an exchange is selected by its outcome, nil where it
// has none.
func (f *Filter) MatchOutcome(e *Event) bool {
	if f.Status == "" && f.Error == "" {
		return true
	}
	if e == nil {
		return false
	}
	status := ""
	if e.Outcome.Status != 0 {
		status = strconv.Itoa(e.Outcome.Status)
	}
	return (f.Status == "" || Matches(f.Status, status)) && (f.Error == "" || Matches(f.Error, e.Outcome.Error))
}

func (w Want) match(e *Event) bool {
	if w.Field == "result" && w.Pattern == "alarm" {
		return e.Alarm != ""
	}
	return slices.ContainsFunc(e.Values(w.Field), func(v string) bool { return Matches(w.Pattern, v) })
}

// Values are what the event holds in a field by which to select: several for a
// human, who has an address and a subject, for a request that is several, and for a
// credential with another beside it.
func (e *Event) Values(field string) []string {
	switch field {
	case "id":
		return []string{e.ID}
	case "agent":
		return []string{e.Agent.ID}
	case "instance":
		return []string{e.Agent.Instance}
	case "owner":
		return []string{e.Agent.Owner}
	case "human":
		return []string{e.Human.Email, e.Human.Sub}
	case "session":
		return []string{e.Session}
	case "purpose":
		return []string{e.Purpose}
	case "action", "service", "access", "resource":
		return e.acts(field)
	case "host":
		return []string{e.Request.Host}
	case "method":
		return []string{e.Request.Method}
	case "path":
		return []string{e.Request.Path}
	case "client":
		return []string{e.Request.Client}
	}
	return e.judged(field)
}

// judged is Values of what was made of the request.
func (e *Event) judged(field string) []string {
	switch field {
	case "result":
		return []string{e.Decision.Result}
	case "policy":
		return []string{e.Decision.Policy}
	case "credential":
		return []string{e.Credential.ID, e.Credential.Beside.ID}
	case "handle":
		return []string{e.Credential.Handle, e.Credential.Beside.Handle}
	case "alarm":
		return []string{e.Alarm}
	case "trace":
		if _, rest, ok := strings.Cut(e.Traceparent, "-"); ok {
			id, _, _ := strings.Cut(rest, "-")
			return []string{id}
		}
	}
	return nil
}

// acts is Values of what the request does: its own action and those that it is.
func (e *Event) acts(field string) []string {
	values := []string{act{e.Action, e.Resource}.value(field)}
	if len(e.Actions) == 0 {
		return values
	}
	var all []act
	if json.Unmarshal(e.Actions, &all) == nil {
		for _, a := range all {
			values = append(values, a.value(field))
		}
	}
	return values
}

// Acts says in words what each action does where the request is several.
func (e *Event) Acts() []string {
	var all []act
	if len(e.Actions) == 0 || json.Unmarshal(e.Actions, &all) != nil {
		return nil
	}
	var words []string
	for _, a := range all {
		words = append(words, strings.TrimSpace(a.Action.ID+" "+a.value("resource")))
	}
	return words
}

type act struct {
	Action   EventAction
	Resource map[string]any
}

func (a act) value(field string) string {
	switch field {
	case "action":
		return a.Action.ID
	case "service":
		return a.Action.Service
	case "access":
		return a.Action.Access
	}
	id, _ := a.Resource["id"].(string)
	return id
}

// Matches reports whether a text is what a pattern of a filter wants.
func Matches(pattern, s string) bool {
	if pattern == "*" || pattern == "*:*" {
		return s != ""
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	return pattern == s
}
