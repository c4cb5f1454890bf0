package action

import (
	"strings"
	"testing"
)

// TestSharedHosts wants each of several services under one name to answer under
// its own paths, and nobody elsewhere.
func TestSharedHosts(t *testing.T) {
	get := map[string]map[string]string{"/v3/things": {"GET": "things/list list"}, "/calendar/v3/events": {"GET": "events/list list"}}
	c, err := Load(Shipped(), []Service{
		{Name: "acme-calendar", Hosts: []string{"www.acme.dev/calendar", "www.acme.dev/batch/calendar", "*.acme.example/calendar"}, Paths: get},
		{Name: "acme-v3", Hosts: []string{"www.acme.dev/calendar/v3/own", "*.acme.example"}, Paths: get},
		{Name: "acme-own", OwnHosts: true, Paths: get},
	})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"www.acme.dev/calendar/v3/events":      "acme-calendar",
		"www.acme.dev/calendar":                "acme-calendar",
		"www.acme.dev/batch/calendar/v3":       "acme-calendar",
		"www.acme.dev/calendar/v3/own/x":       "acme-v3",
		"www.acme.dev/calendars/v3/events":     "",
		"www.acme.dev/v3/things":               "",
		"eu.acme.example/calendar/v3/events":   "acme-calendar",
		"eu.acme.example/v3/things":            "acme-v3",
		"www.acme.dev.evil.example/calendar/x": "",
	} {
		host, path, _ := strings.Cut(at, "/")
		got := ""
		if s := c.ServiceFor(host, "/"+path); s != nil {
			got = s.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
		q, err := classify(t, c, &Request{Method: "GET", Host: host, Path: "/" + path})
		if err != nil || q.Action.Service != want {
			t.Errorf("%s: classified as %+v, %v", at, q.Action, err)
		}
	}
	if !c.Knows("www.acme.dev") || c.Knows("acme.dev") {
		t.Error("Knows does not go by the name alone")
	}
	if _, err := Load(Shipped(), []Service{{Name: "a", Hosts: []string{"x.dev/a"}}, {Name: "b", Hosts: []string{"x.dev/a"}}}); err == nil {
		t.Error("two services have one host and path")
	}
	if _, err := Load(Shipped(), []Service{{Name: "a"}}); err == nil {
		t.Error("a service without hosts passes")
	}
}

// TestLike wants a service that is like another under its own name and hosts only.
func TestLike(t *testing.T) {
	c, err := Load(Shipped(), []Service{{Name: "ours", Like: "stripe", Hosts: []string{"pay.acme.dev"}, Env: []string{"OURS"}}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"pay.acme.dev": "ours:customers/list", "api.stripe.com": "stripe:customers/list"} {
		if q, err := classify(t, c, &Request{Method: "GET", Host: host, Path: "/v1/customers"}); err != nil || q.Action.ID != want {
			t.Errorf("%s: %q, %v", host, q.Action.ID, err)
		}
	}
	if s := c.Service("ours"); s.Places[0] != "bearer" || s.Env[0] != "OURS" || len(s.Hosts) != 1 {
		t.Errorf("%+v", s)
	}
	for _, bad := range []Service{{Name: "ours", Like: "nobody", Hosts: []string{"x.acme.dev"}}, {Name: "slack", Like: "stripe"}, {Name: "ours", Like: "stripe"}} {
		if _, err := Load(Shipped(), []Service{bad}); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}
