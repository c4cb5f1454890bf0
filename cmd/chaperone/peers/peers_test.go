package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/audit"
)

// write makes a log of n requests, and returns it open with where it is.
func write(t *testing.T, n int) (*audit.Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l, err := audit.Open(audit.Options{Path: path, Replica: "r_one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	add(t, l, n)
	return l, path
}

func add(t *testing.T, l *audit.Log, n int) {
	t.Helper()
	for i := range n {
		r := l.Open(time.Now())
		r.Agent.ID, r.Request.Method, r.Request.Host = "bot", "GET", "api.example.com"
		r.Request.Path = fmt.Sprintf("/%d/<&>\u2028", i)
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
}

func identity(t *testing.T, key string) Identity {
	t.Helper()
	i, err := NewIdentity([]byte(strings.Repeat(key, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// open opens a door to a log and returns where it is.
func open(t *testing.T, l *audit.Log, path string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := NewDoor(DoorOptions{Replica: "r_one", Identity: identity(t, "k"), Log: Log{Path: path, Flush: l.Flush, Workers: 1}})
	done := make(chan error, 1)
	go func() { done <- d.Serve(ln) }()
	t.Cleanup(func() {
		d.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// put asks a door and returns the pieces, and the error at the end.
func put(t *testing.T, ctx context.Context, i Identity, address, replica string, q Question, each func(Piece) bool) error {
	t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	body, err := i.Dial(ctx, address, b)
	if err != nil {
		return err
	}
	for p, err := range Read(replica, body) {
		if err != nil {
			return err
		}
		if !each(p) {
			break
		}
	}
	return nil
}

// TestDoor asks in every way, and compares with what the log itself says.
func TestDoor(t *testing.T) {
	l, path := write(t, 300)
	address, key := open(t, l, path), identity(t, "k")
	for _, tc := range []struct {
		name string
		q    Question
		want int
	}{
		{"list", Question{Ask: List}, 300},
		{"one agent", Question{Ask: List, Want: map[string]string{"agent": "bot"}}, 300},
		{"another agent", Question{Ask: List, Want: map[string]string{"agent": "other"}}, 0},
		{"not yet", Question{Ask: List, Since: time.Now().Add(time.Hour)}, 0},
		{"the last", Question{Ask: Latest, Lines: 7}, 7},
		{"count", Question{Ask: Count, Group: []string{"agent"}}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var here, there []string
			note := func(to *[]string) func(Piece) bool {
				return func(p Piece) bool {
					if p.Group != nil {
						*to = append(*to, fmt.Sprint(p.Group.Key, p.Group.Count, p.Group.First.UTC(), p.Group.Last.UTC()))
					} else {
						*to = append(*to, string(p.Exchange.Decision.Raw)+string(p.Exchange.Outcome.Raw))
					}
					return true
				}
			}
			for p, err := range (Log{Path: path}).Ask(t.Context(), tc.q) {
				if err != nil {
					t.Fatal(err)
				}
				note(&here)(p)
			}
			if err := put(t, t.Context(), key, address, "r_one", tc.q, note(&there)); err != nil {
				t.Fatal(err)
			}
			if len(here) != tc.want || strings.Join(here, "\n") != strings.Join(there, "\n") {
				t.Errorf("%d here, %d there, want %d", len(here), len(there), tc.want)
			}
		})
	}
}

// TestDoorFollows goes on with what comes.
func TestDoorFollows(t *testing.T) {
	l, log := write(t, 3)
	address := open(t, l, log)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := 0
	err := put(t, ctx, identity(t, "k"), address, "r_one", Question{Ask: Follow, Lines: 2}, func(p Piece) bool {
		if p.Caught {
			if n != 2 {
				t.Errorf("%d before what comes, want 2", n)
			}
			add(t, l, 5)
			return true
		}
		n++
		return n < 7
	})
	if err != nil || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
}

// TestDoorIsShut has strangers ask: with another installation key, with none, in clear.
func TestDoorIsShut(t *testing.T) {
	l, log := write(t, 1)
	address := open(t, l, log)
	got := func(Piece) bool { t.Error("a stranger was told something"); return false }
	if err := put(t, t.Context(), identity(t, "x"), address, "r_one", Question{Ask: List}, got); err == nil || !strings.Contains(err.Error(), "another installation key") {
		t.Errorf("another key: %v", err)
	}
	bare := identity(t, "k")
	bare.config = bare.config.Clone()
	bare.config.Certificates = nil
	if err := put(t, t.Context(), bare, address, "r_one", Question{Ask: List}, got); err == nil {
		t.Error("no key: no error")
	}
	trusting := identity(t, "x") // whoever asks may leave out its own check, not the door's
	trusting.config = trusting.config.Clone()
	trusting.config.VerifyConnection = nil
	if err := put(t, t.Context(), trusting, address, "r_one", Question{Ask: List}, got); err == nil {
		t.Error("another key, unchecked: no error")
	}
	if resp, err := http.Post("http://"+address+path, "application/json", strings.NewReader(`{"ask":"list"}`)); err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("the door answers in clear")
		}
	}
}

// TestAnswersThatAreNone are told, never taken for whole ones.
func TestAnswersThatAreNone(t *testing.T) {
	l, log := write(t, 1)
	address, key := open(t, l, log), identity(t, "k")
	none := func(Piece) bool { return true }
	for name, tc := range map[string]struct {
		replica string
		q       Question
		want    string
	}{
		"another replica": {"r_two", Question{Ask: List}, `"r_one" answers in its place`},
		"unknown":         {"r_one", Question{Ask: "dance"}, `asks for "dance"`},
		"unknown field":   {"r_one", Question{Ask: List, Want: map[string]string{"colour": "red"}}, `no field "colour"`},
		"too many":        {"r_one", Question{Ask: Latest, Lines: MaxLines + 1}, "lines"},
		"unsigned":        {"r_one", Question{Ask: Prove, Want: map[string]string{"id": "x"}}, "no public key"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := put(t, t.Context(), key, address, tc.replica, tc.q, none); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v", err)
			}
		})
	}
	for name, tc := range map[string]struct{ text, want string }{
		"empty":         {"", "broke off"},
		"no end":        {`{"replica":"r_one"}` + "\n", "broke off"},
		"half":          {`{"replica":"r_one"}` + "\n" + `{"decision":{"id`, "broke off"},
		"no line":       {`{"replica":"r_one"}` + "\n" + `{"decision":{}}`, "no event"},
		"not JSON":      {`<html>`, "invalid character"},
		"no name":       {`{"end":true}`, "answers in its place"},
		"another shape": {`{"replica":"r_one"}` + "\n" + `{"decision":7}`, "reading a line"},
	} {
		t.Run(name, func(t *testing.T) {
			var last error
			for _, err := range Read("r_one", io.NopCloser(strings.NewReader(tc.text))) {
				last = err
			}
			if last == nil || !strings.Contains(last.Error(), tc.want) {
				t.Errorf("%v", last)
			}
		})
	}
}

// FuzzRead reads what another replica might say: it ends, and never in a panic.
func FuzzRead(f *testing.F) {
	f.Add(`{"replica":"r_one"}` + "\n" + `{"note":"x"}` + "\n" + `{"end":true}`)
	f.Add(`{"replica":"r_one"}` + "\n" + `{"decision":{"id":"1","event":"decision"},"outcome":{"id":"1","event":"outcome"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for p, err := range Read("r_one", io.NopCloser(strings.NewReader(text))) {
			if err == nil && p.Exchange.Outcome != nil && p.Exchange.Decision == nil {
				t.Error("an outcome without a decision")
			}
		}
	})
}
