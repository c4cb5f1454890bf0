package oblige

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chaperone/policy"
)

func question() *policy.Question {
	return &policy.Question{Agent: policy.Agent{ID: "bot"}, Human: &policy.Human{Sub: "a", Email: "alice@acme.com"}, Session: &policy.Session{ID: "s_1", Expires: time.Now().Unix()},
		Action: policy.Action{ID: "github:issues/create", Service: "github"}, Resource: policy.Resource{ID: "acme/web"}}
}

func TestReadRefuses(t *testing.T) {
	for name, o := range map[string]map[string]any{
		"another name":         {"notify": true},
		"misspelt":             {"headers": map[string]any{"sett": map[string]any{}}},
		"of nothing":           {"limits": []any{map[string]any{"max": 1}}},
		"no max":               {"limits": []any{map[string]any{"of": "requests"}}},
		"negative":             {"limits": []any{map[string]any{"of": "requests", "max": -1}}},
		"per nothing":          {"limits": []any{map[string]any{"of": "requests", "max": 1, "per": "planet"}}},
		"odd time":             {"limits": []any{map[string]any{"of": "requests", "max": 1, "every": "soon"}}},
		"money without price":  {"limits": []any{map[string]any{"of": "money", "max": 1}}},
		"price of requests":    {"limits": []any{map[string]any{"of": "requests", "max": 1, "price": 1}}},
		"no list":              {"limits": true},
		"frames":               {"headers": map[string]any{"set": map[string]any{"Content-Length": "1"}}},
		"authenticates":        {"headers": map[string]any{"remove": []any{"authorization"}}},
		"smuggles":             {"headers": map[string]any{"set": map[string]any{"X-A": "1\r\nX-B: 2"}}},
		"no pointer":           {"body": map[string]any{"request": map[string]any{"remove": []any{"a"}}}},
		"set many":             {"body": map[string]any{"request": map[string]any{"set": map[string]any{"/*/a": 1}}}},
		"attribution nowhere":  {"attribution": []any{map[string]any{"as": "footer"}}},
		"attribution as what":  {"attribution": []any{map[string]any{"as": "banner", "at": "/body"}}},
		"answer's frame":       {"headers": map[string]any{"answer": map[string]any{"set": map[string]any{"Set-Cookie": "a=b"}}}},
		"more than there is":   {"limits": []any{map[string]any{"of": "bytes", "max": "1e9999"}}},
		"beyond whole numbers": {"limits": []any{map[string]any{"of": "bytes", "max": "99999999999999999999"}}},
	} {
		if d, err := Read(o); !errors.Is(err, ErrUnmet) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	if d, err := Read(nil); d != nil || err != nil {
		t.Errorf("nothing: %v, %v", d, err)
	}
}

func TestClaims(t *testing.T) {
	d, err := Read(map[string]any{"limits": []any{
		map[string]any{"of": "requests", "per": []any{"agent", "human"}, "max": 60, "every": "1m"},
		map[string]any{"of": "money", "per": "session", "max": "5.00", "price": 0.031},
		map[string]any{"of": "bytes", "max": 1000},
	}, "report": []any{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := d.Claims(question())
	if err != nil || len(claims) != 3 {
		t.Fatal(claims, err)
	}
	if c := claims[0]; c.Max != 60 || c.Amount != 1 || c.Every != time.Minute || c.Title != "The limit of 60 requests every 1m for agent bot for human alice@acme.com" {
		t.Errorf("%+v", c)
	}
	if c := claims[1]; c.Max != 5_000_000 || c.Amount != 31_000 || c.Until.IsZero() {
		t.Errorf("%+v", c)
	}
	if c := claims[2]; c.Amount != 0 || len(d.Bytes(question())) != 1 {
		t.Errorf("%+v", c)
	}
	q := question()
	q.Human = nil
	if _, err := d.Claims(q); !errors.Is(err, ErrUnmet) {
		t.Errorf("a limit for each human, and there is none: %v", err)
	}
}

func TestEdit(t *testing.T) {
	for name, tc := range map[string]struct {
		e        Edit
		in, want string
	}{
		"nothing":         {Edit{Remove: []string{"/x"}}, `{"b":1.50,"a":[1,{"c":null}],"é":"\u00e9"}`, `{"b":1.50,"a":[1,{"c":null}],"é":"é"}`},
		"remove":          {Edit{Remove: []string{"/a", "/l/1", "/o/*/k"}}, `{"a":1,"l":[0,1,2],"o":[{"k":1,"v":2},{"k":3}]}`, `{"l":[0,2],"o":[{"v":2},{}]}`},
		"mask":            {Edit{Mask: []string{"/users/*/email", "/token"}}, `{"users":[{"email":"a@b","id":1}],"token":{"x":1}}`, `{"users":[{"email":"[masked]","id":1}],"token":"[masked]"}`},
		"other spelling":  {Edit{Remove: []string{"/admin"}}, `{"ADMIN":1,"a":2}`, `{"a":2}`},
		"set elsewhere":   {Edit{Set: map[string]jsontext.Value{"/draft": jsontext.Value("true")}}, `{"Draft":false}`, ""},
		"escaped":         {Edit{Mask: []string{"/a~1b"}}, `{"a\/b":1}`, `{"a/b":"[masked]"}`},
		"set":             {Edit{Set: map[string]jsontext.Value{"/draft": jsontext.Value("true"), "/o/n": jsontext.Value("[1]")}}, `{"draft":false,"o":{}}`, `{"draft":true,"o":{"n":[1]}}`},
		"set, no place":   {Edit{Set: map[string]jsontext.Value{"/o/n": jsontext.Value("1")}}, `{}`, ""},
		"footer":          {Edit{append: map[string]string{"/body": "\n\n--me"}}, `{"body":"x"}`, `{"body":"x\n\n--me"}`},
		"footer of none":  {Edit{append: map[string]string{"/body": "\n\n--me"}}, `{"body":null}`, `{"body":"--me"}`},
		"footer, absent":  {Edit{append: map[string]string{"/body": "\n\n--me"}}, `{}`, `{"body":"--me"}`},
		"footer, no text": {Edit{append: map[string]string{"/body": "x"}}, `{"body":[1]}`, ""},
		"label":           {Edit{labels: map[string]string{"/labels": "agent:bot"}}, `{"labels":["a"]}`, `{"labels":["a","agent:bot"]}`},
		"label, absent":   {Edit{labels: map[string]string{"/labels": "agent:bot"}}, `{"a":1}`, `{"a":1,"labels":["agent:bot"]}`},
		"label, no list":  {Edit{labels: map[string]string{"/labels": "agent:bot"}}, `{"labels":"a"}`, ""},
		"twice":           {Edit{Mask: []string{"/a"}}, `{"a":1,"a":2}`, ""},
		"no JSON":         {Edit{Mask: []string{"/a"}}, `{"a":1`, ""},
		"two documents":   {Edit{Mask: []string{"/a"}}, `{"a":1}{"a":2}`, ""},
		"deep":            {Edit{Mask: []string{"/a"}}, strings.Repeat("[", 500) + strings.Repeat("]", 500), ""},
		"a list on top":   {Edit{Remove: []string{"/*/a"}}, `[{"a":1},{"b":2}]`, `[{},{"b":2}]`},
	} {
		got, err := tc.e.Apply([]byte(tc.in))
		if (err != nil) != (tc.want == "") || err == nil && string(got) != tc.want {
			t.Errorf("%s: got %s, %v; want %s", name, got, err, tc.want)
		}
	}
}

func TestAttribution(t *testing.T) {
	d, err := Read(map[string]any{"attribution": []any{map[string]any{"as": "trailer", "at": "/message"}, map[string]any{"as": "footer", "at": "/body"}, map[string]any{"as": "label", "at": "/labels"}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.RequestEdit(question(), "01X").Apply([]byte(`{"message":"Fix","body":"b"}`))
	want := `{"message":"Fix\n\nAgent: bot\nOn-Behalf-Of: alice@acme.com\nChaperone-Decision: 01X","body":"b\n\n---\nBy agent bot for alice@acme.com (chaperone 01X)","labels":["agent:bot"]}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

func TestFields(t *testing.T) {
	h := http.Header{"x-team": {"a", "b"}, "X-Debug": {"1"}, "X-Api-Key": {"k"}}
	f := Fields{Set: map[string]string{"X-Team": "web"}, Remove: []string{"x-debug"}}
	if err := f.Apply(h, []string{"x-api-key"}); err != nil || len(h) != 2 || h.Get("X-Team") != "web" {
		t.Errorf("%v, %v", h, err)
	}
	for _, f := range []Fields{{Set: map[string]string{"X-API-Key": "x"}}, {Remove: []string{"X-API-Key"}}} {
		if err := f.Apply(h, []string{"x-api-key"}); !errors.Is(err, ErrUnmet) || h.Get("X-Api-Key") != "k" {
			t.Errorf("a credential's field was changed: %v", h)
		}
	}
}

// FuzzEdit removes a member wherever it is: it must not be there afterwards.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(`{"secret":1,"a":[{"secret":2}]}`))
	f.Add([]byte(`{"\u0073ecret":1}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		e := Edit{Remove: []string{"/secret"}}
		out, err := e.Apply(doc)
		if err != nil {
			return
		}
		again, err := e.Apply(out)
		if err != nil || string(again) != string(out) {
			t.Errorf("%q became %q, then %q, %v", doc, out, again, err)
		}
	})
}
