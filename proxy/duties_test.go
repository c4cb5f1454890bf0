package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"chaperone/credential"
	"chaperone/policy"
	"chaperone/policy/opa"
	"chaperone/proxy/limit"
	"chaperone/store/bolt"
)

// obliges puts a policy in force that allows everything with obligations.
func (d *road) obliges(obligations string) {
	d.t.Helper()
	d.decides(`{"result": "allow", "reasons": ["Yes."], "obligations": ` + obligations + `}`)
}

// decides puts a policy in force that answers everything alike.
func (d *road) decides(answer string) {
	d.t.Helper()
	kv, err := bolt.Open(filepath.Join(d.t.TempDir(), "counts"), bolt.Options{})
	check(d.t, err)
	counter := limit.New(kv, time.Now)
	d.t.Cleanup(func() { counter.Close(); kv.Close() })
	d.server.o.Limits = counter
	e, err := opa.Load(opa.Options{FS: fstest.MapFS{"p.rego": {Data: []byte("package chaperone\n\ndecision := " + answer + "\n")}}, Timeout: 10 * time.Second})
	check(d.t, err)
	d.t.Cleanup(e.Close)
	d.gate.Obligations = policy.All()
	d.gate.Use(e)
}

// obliged is a road whose policy allows everything with obligations.
func obliged(t testing.TB, obligations string) *road {
	t.Helper()
	d := newRoad(t)
	d.obliges(obligations)
	return d
}

func (d *road) post(c *http.Client, path, kind, body string) (int, string, http.Header) {
	d.t.Helper()
	r := d.request("POST", "https://api.acme.dev"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", kind)
	resp, err := c.Do(r)
	check(d.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	check(d.t, err)
	return resp.StatusCode, string(b), resp.Header
}

// TestObligations looks at what the service received and what the agent did.
func TestObligations(t *testing.T) {
	const all = `{
		"headers": {"set": {"X-Team": "web"}, "remove": ["X-Debug"], "answer": {"remove": ["X-Internal"]}},
		"body": {"request": {"remove": ["/admin"], "set": {"/draft": true}}, "answer": {"mask": ["/users/*/email"]}},
		"attribution": [{"as": "footer", "at": "/body"}, {"as": "label", "at": "/labels"}],
	}`
	for _, h2 := range []bool{false, true} {
		d := obliged(t, all)
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			d.mu.Lock()
			d.seen[len(d.seen)-1].Body = b
			d.mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Internal", "10.0.0.1")
			w.Header().Set("Etag", `"1"`)
			io.WriteString(w, `{"users":[{"id":1,"email":"a@b"}],"n":1.50}`)
		}
		r := d.request("POST", "https://api.acme.dev/issues", strings.NewReader(`{"title":"x","body":"hello","admin":true}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Debug", "1")
		r.Header.Set("x-team", "other")
		r.Header.Set("Accept-Encoding", "gzip")
		resp, err := d.client(h2).Do(r)
		check(t, err)
		b, err := io.ReadAll(resp.Body)
		check(t, err)
		resp.Body.Close()
		if string(b) != `{"users":[{"id":1,"email":"[masked]"}],"n":1.50}` || resp.Header.Get("X-Internal") != "" || resp.Header.Get("Etag") != "" {
			t.Errorf("h2 %v: the agent got %s, %v", h2, b, resp.Header)
		}
		x := d.records(1)[0]
		got := d.received()[0]
		want := `{"title":"x","body":"hello\n\n---\nBy agent bot for alice@acme.com (chaperone ` + x.Decision.ID + `)","draft":true,"labels":["agent:bot"]}`
		if string(got.Body) != want {
			t.Errorf("h2 %v: the service got %s, want %s", h2, got.Body, want)
		}
		if got.Header.Get("X-Team") != "web" || got.Header.Get("X-Debug") != "" || got.Header.Get("Accept-Encoding") != "identity" || got.Header.Get("Content-Length") != fmt.Sprint(len(want)) {
			t.Errorf("h2 %v: the service got %v", h2, got.Header)
		}
		if x.Decision.Decision.Obligations["body"] == nil {
			t.Errorf("the record holds no obligations: %+v", x.Decision.Decision)
		}
	}
}

// TestUnmetObligations: nothing goes out where something cannot be done.
func TestUnmetObligations(t *testing.T) {
	for name, tc := range map[string]struct {
		obligations, kind, body, method string
		status                          int
		code                            string
	}{
		"unknown":            {`{"notify": true}`, "application/json", `{}`, "POST", 403, "denied"},
		"malformed":          {`{"limits": [{"of": "requests"}]}`, "application/json", `{}`, "POST", 403, "obligation_unmet"},
		"no body":            {`{"body": {"request": {"remove": ["/a"]}}}`, "", "", "GET", 403, "obligation_unmet"},
		"no JSON":            {`{"body": {"request": {"remove": ["/a"]}}}`, "text/plain", `{}`, "POST", 403, "obligation_unmet"},
		"odd form":           {`{"body": {"request": {"remove": ["/a"]}}}`, "application/x-www-form-urlencoded", "a]=1", "POST", 403, "obligation_unmet"},
		"form in EBCDIC":     {`{"body": {"request": {"remove": ["/a"]}}}`, "application/x-www-form-urlencoded; charset=IBM037", "\x81~\xf1", "POST", 403, "obligation_unmet"},
		"broken JSON":        {`{"body": {"request": {"remove": ["/a"]}}}`, "application/json", `{"a":`, "POST", 403, "obligation_unmet"},
		"no place":           {`{"body": {"request": {"set": {"/a/b": 1}}}}`, "application/json", `{}`, "POST", 403, "obligation_unmet"},
		"credential's field": {`{"headers": {"remove": ["X-Api-Key"]}}`, "application/json", `{}`, "POST", 403, "obligation_unmet"},
		"too large":          {`{"body": {"request": {"remove": ["/a"]}}}`, "application/json", `{"b":"` + strings.Repeat("x", maxEditedBody) + `"}`, "POST", 403, "obligation_unmet"},
	} {
		t.Run(name, func(t *testing.T) {
			d := obliged(t, tc.obligations)
			r := d.request(tc.method, "https://api.acme.dev/x", strings.NewReader(tc.body))
			if tc.body == "" {
				r.Body, r.ContentLength = nil, 0
			}
			r.Header.Set("Content-Type", tc.kind)
			resp, err := d.client(false).Do(r)
			check(t, err)
			resp.Body.Close()
			x := d.records(1)[0]
			if resp.StatusCode != tc.status || len(d.received()) != 0 || x.Outcome.Outcome.Error != tc.code || x.Decision.Decision.Result != "deny" || len(x.Decision.Decision.Reasons) == 0 {
				t.Errorf("%s, %d went out, %+v %+v", resp.Status, len(d.received()), x.Decision.Decision, x.Outcome.Outcome)
			}
		})
	}
}

// TestWithheldAnswer: what should be masked and cannot be does not reach the agent.
func TestWithheldAnswer(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{
		"no JSON":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "token: "+canary) },
		"encoded":  func(w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, "gzip", canary) },
		"broken":   func(w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, "", `{"token":"`+canary) },
		"repeated": func(w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, "", `{"token":1,"token":"`+canary+`"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			d := obliged(t, `{"body": {"answer": {"mask": ["/token"]}}}`)
			d.serve = serve
			status, body, _ := d.post(d.client(false), "/x", "application/json", `{}`)
			if status != http.StatusBadGateway || strings.Contains(body, canary) {
				t.Errorf("%d %s", status, body)
			}
			if x := d.records(1)[0]; x.Outcome.Outcome.Error != "answer_withheld" {
				t.Errorf("%+v", x.Outcome.Outcome)
			}
		})
	}
}

func jsonAnswer(w http.ResponseWriter, encoding, body string) {
	w.Header().Set("Content-Type", "application/json")
	if encoding != "" {
		w.Header().Set("Content-Encoding", encoding)
	}
	io.WriteString(w, body)
}

// TestBudget lets a thousand requests at once ask for a budget of a hundred.
func TestBudget(t *testing.T) {
	const most, requests = 100, 1000
	d := obliged(t, fmt.Sprintf(`{"limits": [{"of": "requests", "per": ["agent", "human"], "max": %d}]}`, most))
	var passed atomic.Int64
	d.serve = func(w http.ResponseWriter, _ *http.Request) { passed.Add(1); w.WriteHeader(http.StatusNoContent) }
	c := d.client(true)
	c.Transport.(*http.Transport).MaxConnsPerHost = 16 // it would make a tunnel for each at once
	var allowed, refused atomic.Int64
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			resp, err := c.Do(d.request("GET", "https://api.acme.dev/x", nil))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusNoContent:
				allowed.Add(1)
			case http.StatusTooManyRequests:
				refused.Add(1)
			default:
				t.Error(resp.Status)
			}
		})
	}
	wg.Wait()
	if passed.Load() != most || allowed.Load() != most || refused.Load() != requests-most {
		t.Errorf("the service saw %d; %d allowed and %d refused", passed.Load(), allowed.Load(), refused.Load())
	}
}

// TestBatchBudget: a request that is several actions takes of limits for each of them, and
// is refused whole when one finds nothing left.
func TestBatchBudget(t *testing.T) {
	d := newRoad(t, talkative(t))
	d.obliges(`{"limits": [{"of": "requests", "per": ["agent"], "max": 5}, {"of": "requests", "per": ["action"], "max": 3}]}`)
	part := func(i int, method string) string {
		return fmt.Sprintf(`{"id":"%d","method":"%s","url":"/things/%d"}`, i, method, i)
	}
	c := d.client(false)
	for i, tc := range []struct {
		parts []string
		want  int
	}{
		{[]string{part(1, "GET"), part(2, "GET"), part(3, "DELETE")}, 200}, // 3 of 5; 2 of 3 gets
		{[]string{part(1, "GET"), part(2, "GET")}, 429},                    // a get too many
		{[]string{part(1, "GET"), part(3, "DELETE")}, 200},                 // 5 of 5: what was refused took nothing
		{[]string{part(3, "DELETE")}, 429},
	} {
		if status, body, _ := d.post(c, "/v1/$batch", "application/json", `{"requests":[`+strings.Join(tc.parts, ",")+`]}`); status != tc.want {
			t.Errorf("request %d: %d, want %d: %s", i, status, tc.want, body)
		}
	}
	if n := len(d.received()); n != 2 {
		t.Errorf("the service received %d requests", n)
	}
}

// TestFormObligations looks at the form that the service received.
func TestFormObligations(t *testing.T) {
	d := obliged(t, `{"body": {"request": {"remove": ["/admin"], "set": {"/metadata/team": "web"}}}, "attribution": [{"as": "footer", "at": "/text"}]}`)
	const kind = "application/x-www-form-urlencoded; charset=utf-8"
	status, _, _ := d.post(d.client(false), "/x", kind, "text=hi+you&admin[all]=1&channel=%23dev")
	if status != http.StatusOK {
		t.Fatal(status)
	}
	want := url.Values{"text": {"hi you\n\n---\nBy agent bot for alice@acme.com (chaperone " + d.records(1)[0].Decision.ID + ")"}, "channel": {"#dev"}, "metadata[team]": {"web"}}
	got := d.received()[0]
	fields, err := url.ParseQuery(string(got.Body))
	if err != nil || !reflect.DeepEqual(fields, want) || got.Header.Get("Content-Length") != fmt.Sprint(len(got.Body)) || got.Header.Get("Content-Type") != kind {
		t.Errorf("the service received %q, %v, %v", got.Body, got.Header, err)
	}
}

func TestLimitRefusal(t *testing.T) {
	d := obliged(t, `{"limits": [{"of": "money", "per": "session", "max": "0.05", "price": "0.02", "every": "24h"}]}`)
	c := d.client(false)
	for range 2 {
		if status, _, _ := d.post(c, "/x", "application/json", `{}`); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	status, body, h := d.post(c, "/x", "application/json", `{}`)
	var p problem
	check(t, json.Unmarshal([]byte(body), &p))
	if status != http.StatusTooManyRequests || h.Get("Retry-After") == "" || !strings.Contains(p.Detail, "The limit of 0.05 every 24h for session s_") {
		t.Errorf("%d %v %+v", status, h, p)
	}
	x := d.records(3)[2]
	if x.Decision.Decision.Result != "deny" || x.Outcome.Outcome.Error != "limit_exceeded" || !strings.Contains(string(x.Decision.Raw), `"unmet":"limits"`) {
		t.Errorf("%s", x.Decision.Raw)
	}
}

func TestByteLimit(t *testing.T) {
	const most = 300_000
	d := obliged(t, fmt.Sprintf(`{"limits": [{"of": "bytes", "per": "agent", "max": %d}]}`, most))
	chunk := strings.Repeat("x", 10_000)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for range 10 {
			io.WriteString(w, chunk)
		}
	}
	c := d.client(false)
	for range 2 { // 50,000 up and 100,000 down
		if status, body, _ := d.post(c, "/x", "text/plain", strings.Repeat(chunk, 5)); status != http.StatusOK || len(body) != 100_000 {
			t.Fatal(status, len(body))
		}
	}
	if status, _, _ := d.post(c, "/x", "text/plain", "x"); status != http.StatusTooManyRequests {
		t.Errorf("one byte more: %d", status)
	}
	var total int64
	for _, x := range d.records(3) {
		total += x.Outcome.Outcome.BytesIn + x.Outcome.Outcome.BytesOut
	}
	if total > most+2000 { // and the refusal's own bytes
		t.Errorf("%d bytes passed", total)
	}
}

// TestObligationsOfCredentialsInBodies: what policy obliges to holds also where the
// credential is written into the body afterwards.
func TestObligationsOfCredentialsInBodies(t *testing.T) {
	t.Run("changed body", func(t *testing.T) {
		d := kindsRoad(t, new(atomic.Int64))
		d.obliges(`{"body": {"request": {"remove": ["/admin"]}}}`)
		h := d.holds(credential.Credential{ID: "bd", Kind: credential.KindBody}, "canary-of-a-body")
		code, _ := d.do("POST", "https://api.acme.dev/x", "", `{"admin":true,"token":"`+h+`","a":1}`)
		if got := d.received(); len(got) > 0 && strings.Contains(string(got[0].Body), "admin") {
			t.Errorf("%d, and the service received what policy took out: %s", code, got[0].Body)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		d := kindsRoad(t, new(atomic.Int64))
		d.obliges(`{"limits": [{"of": "bytes", "max": 100000, "per": "session"}]}`)
		h := d.holds(credential.Credential{ID: "bd", Kind: credential.KindBody}, "canary-of-a-body")
		body := `{"token":"` + h + `","text":"` + strings.Repeat("x", 300<<10) + `"}`
		req, err := http.NewRequest("POST", "https://api.acme.dev/x", struct{ io.Reader }{strings.NewReader(body)})
		check(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err := d.client(false).Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				t.Errorf("300 KiB went out where 100 kB may: %d bytes", len(d.received()[0].Body))
			}
		}
	})
}
