package action

import (
	"bytes"
	"net/http"
	"testing"
)

// TestHiddenOverride sends bodies that are too long to be looked into, in which a framework
// might find another method.
func TestHiddenOverride(t *testing.T) {
	c := protocols(t)
	long := append(bytes.Repeat([]byte("x"), maxBody), "&_method=GET"...)
	parts := append([]byte("--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n"), long...)
	for name, one := range map[string]struct {
		host, path, kind string
		body             []byte
		want             string
	}{
		"a GET beside":                       {"lab.acme.dev", "/api/v4/things/acme/web/notes", "application/x-www-form-urlencoded", long, "? body"},
		"without a type":                     {"lab.acme.dev", "/api/v4/things/acme/web/notes", "", long, "? body"},
		"in a part":                          {"lab.acme.dev", "/api/v4/things/acme/web/notes", "multipart/form-data; boundary=b", parts, "? body"},
		"JSON, for Laravel":                  {"lab.acme.dev", "/api/v4/things/acme/web/notes", "application/json", long, "? body"},
		"JSON, for a vendor":                 {"api.openai.com", "/v1/files", "application/json", long, "openai:files.create write"},
		"a known upload":                     {"api.openai.com", "/v1/files", "multipart/form-data; boundary=b", parts, "openai:files.create write"},
		"a form for a file":                  {"api.openai.com", "/v1/files", "application/x-www-form-urlencoded", long, "? body"},
		"a boundary as gsutil has it":        {"api.openai.com", "/v1/files", "multipart/related; boundary='===============7330845974216740156=='", parts, "openai:files.create write"},
		"a boundary in such quotes and more": {"api.openai.com", "/v1/files", "multipart/related; boundary='==1=='; charset=x, application/x-www-form-urlencoded", parts, "? body"},
		"a part without boundary":            {"api.openai.com", "/v1/files", "multipart/form-data", parts, "? body"},
	} {
		r := Request{Method: "POST", Host: one.host, Path: one.path, Header: http.Header{}, Body: one.body}
		if one.kind != "" {
			r.Header.Set("Content-Type", one.kind)
		}
		if got := outcome(c, &r); len(got) != 1 || got[0] != one.want {
			t.Errorf("%s: %v, want %s", name, got, one.want)
		}
	}
}
