package audit

import (
	"strings"
	"testing"
)

func TestPrev(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for name, c := range map[string]struct {
		line, want string
		ok         bool
	}{
		"last":                    {`{"id":"1","seq":2,"prev":"` + hash + `"}`, hash, true},
		"not last":                {`{"prev":"` + hash + `","seq":2}`, hash, true},
		"of another length":       {`{"seq":2,"prev":"0a"}`, "0a", true},
		"in somebody's text":      {`{"seq":2,"path":",\"prev\":\"` + hash + `"}`, "", true},
		"none":                    {`{"seq":2}`, "", true},
		"no JSON":                 {`{"seq":2,"prev":`, "", false},
		"nothing":                 {``, "", false},
		"short, and no JSON":      {`"}`, "", false},
		"not a text in its place": {`{"prev":7}`, "", false},
	} {
		if got, ok := Prev([]byte(c.line)); got != c.want || ok != c.ok {
			t.Errorf("%s: %q, %v; want %q, %v", name, got, ok, c.want, c.ok)
		}
	}
}
