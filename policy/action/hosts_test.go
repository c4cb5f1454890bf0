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
