package ship

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
)

// odd writes requests of all shapes: of nobody, of an agent without a human, refused,
// asked about, broken, several in one, streams that go on, and alarms.
func (s *scribe) odd() {
	s.t.Helper()
	write := func(change func(*audit.Record)) {
		r := s.log.Open(time.Now())
		r.Request = audit.Request{Method: "CONNECT", Host: "api.example.com:8443", Client: "[::1]:5000", Protocol: "HTTP/1.1"}
		r.Decision = audit.Decision{Result: policy.Deny, Reasons: []string{"The caller is not known."}}
		change(r)
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			s.t.Fatal(err)
		}
	}
	write(func(r *audit.Record) { r.Outcome = audit.Outcome{Status: 407, Error: "caller_unknown"} })
	write(func(r *audit.Record) { r.Request = audit.Request{Method: "GET", Host: "x", Path: "/"} })
	for _, access := range []policy.Access{policy.AccessRead, policy.AccessList, policy.AccessWrite, policy.AccessDelete, policy.AccessAdmin} {
		write(func(r *audit.Record) {
			r.Agent, r.Session, r.Purpose = audit.Agent{ID: "bot", Instance: "i_1"}, "s_1", "cleaning"
			r.Action = policy.Action{ID: "github:a/" + string(access), Service: "github", Operation: "a/" + string(access), Access: access, Known: true}
			r.Request = audit.Request{Method: "PATCH", Host: "api.github.com", Path: "/a", QueryKeys: []string{"q"}, Client: "10.0.0.1:5", Protocol: "HTTP/2.0"}
			r.Decision = audit.Decision{Result: "ask", Policy: "abc", Reasons: []string{"A person must say so."}}
			r.Chain = []policy.Link{{Session: "s_0", Agent: "boss", Instance: "i_0"}, {Session: "s_1", Agent: "bot", Instance: "i_1"}}
			r.Credential = audit.Credential{ID: "gh", Handle: "f_1"}
		})
	}
	write(func(r *audit.Record) {
		r.Agent, r.Alarm = audit.Agent{ID: "bot"}, "handle_theft"
		r.Human = &policy.Human{Sub: "alice"}
		r.Action = policy.Action{Service: "github", Why: "no_route"}
		r.Credential = audit.Credential{ID: "gh", Handle: "f_1", Session: "s_9"}
		r.Outcome = audit.Outcome{Status: 403, Error: "handle_theft", Total: time.Second, Indeterminate: true}
	})
	write(func(r *audit.Record) {
		r.Decision = audit.Decision{Result: policy.Allow, Policy: "abc", Obligations: map[string]any{"limit": 1}}
		r.Outcome = audit.Outcome{Error: "upstream_timeout", BytesOut: 1 << 40}
	})
	if err := s.log.Raise(audit.Alarm{Kind: "log_altered", What: "lines vanished"}); err != nil {
		s.t.Fatal(err)
	}
	open := s.log.Open(time.Now()) // a stream that goes on
	open.Agent, open.Request, open.Decision = audit.Agent{ID: "bot"}, audit.Request{Method: "GET", Host: "api.example.com", Path: "/events"}, audit.Decision{Result: policy.Allow}
	if err := open.Commit(); err != nil {
		s.t.Fatal(err)
	}
}

// python runs Python with what is installed in testdata/python, or on the machine.
func python(args ...string) *exec.Cmd {
	cmd := exec.Command("python3", args...)
	cmd.Env = append(cmd.Environ(), "PYTHONPATH=testdata/python")
	return cmd
}

// TestOCSFPublished holds what is sent against the schema that OCSF publishes, where
// the Python packages ocsf-json-schema, which carries it, and jsonschema are there.
func TestOCSFPublished(t *testing.T) {
	if out, err := python("-c", "import jsonschema, ocsf_json_schema").CombinedOutput(); err != nil {
		t.Skipf("python3 with what testdata/requirements.txt names: %v %s", err, out)
	}
	c, s := newCollector(t), newScribe(t)
	s.odd()
	s.write(10)
	closeSink(t, s.sink(Options{Target: NewOCSF(c.options())}))
	var all []json.RawMessage
	for _, body := range c.took() {
		var batch []json.RawMessage
		if err := json.Unmarshal(body, &batch); err != nil {
			t.Fatal(err)
		}
		all = append(all, batch...)
	}
	if len(all) < 21 {
		t.Fatalf("%d events", len(all))
	}
	check := func(events []json.RawMessage) (string, error) {
		b, err := json.Marshal(events)
		if err != nil {
			t.Fatal(err)
		}
		cmd := python("testdata/ocsf.py")
		cmd.Stdin = bytes.NewReader(b)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := check(all); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, wrong := range [][2]string{{`"severity_id"`, `"severe"`}, {`"time":`, `"time":"now","x":`}, {`"operation"`, `"doing"`}} {
		bad := bytes.Replace(all[0], []byte(wrong[0]), []byte(wrong[1]), 1)
		if out, err := check([]json.RawMessage{bad}); err == nil {
			t.Errorf("%s instead of %s passes: %s", wrong[1], wrong[0], out)
		}
	}
}
