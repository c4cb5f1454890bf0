package redis

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"redis://h":                           "redis://h:6379",
		"redis://u@h:7/2":                     "redis://h:7",
		"rediss://[::1]:7":                    "rediss://[::1]:7",
		"redis+sentinel://a,b:7/main/3":       "redis+sentinel://a:26379,b:7",
		"rediss+cluster://a:1,b:2":            "rediss+cluster://a:1,b:2",
		"redis://u:secret@h":                  "redis.password",
		"redis://h/x":                         "no number",
		"redis://a,b":                         "several hosts",
		"redis+sentinel://a":                  "name of the master",
		"redis+cluster://a/1":                 "no databases",
		"redis+odd://a":                       "scheme",
		"redis+://a":                          "scheme",
		"http://a":                            "scheme",
		"redis://":                            "HOST:PORT",
		"redis://h:0":                         "HOST:PORT",
		"redis://h?protocol=3":                "no parameters",
		"redis://h\x7f":                       "invalid",
		"redis+sentinel://a:26379/main/notdb": "no number",
	} {
		a, err := ParseAddress(text)
		got := a.String()
		if err != nil {
			got = err.Error()
			if !errors.Is(err, errAddress) || strings.Contains(got, "secret") {
				t.Errorf("%q: %v", text, err)
			}
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if a, _ := ParseAddress("redis+sentinel://u@a/main/3"); a.User != "u" || a.DB != 3 || a.Master != "main" || !a.Sentinel {
		t.Errorf("got %+v", a)
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("redis://u@h:7/2")
	f.Add("rediss+sentinel://a,b/main/1")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err == nil && len(a.Hosts) == 0 {
			t.Errorf("%q has no host", text)
		}
	})
}
