package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// rotating is an authorisation server that rotates refresh tokens and takes the one before
// until its successor was used, since an answer may get lost (RFC 6819 section 5.2.2.3).
// Whoever shows an older one has lost a newer one.
type rotating struct {
	mu           sync.Mutex
	n            int
	good, before string
	access       string
	again        int // how often the one before was shown
	faults       []string
	die          func(w http.ResponseWriter, answer string) // instead of answering; once
}

func (s *rotating) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	shown := r.FormValue("refresh_token")
	switch shown {
	case s.good:
		s.before = s.good
	case s.before:
		s.again++
	default:
		s.faults = append(s.faults, "an old refresh token was shown")
	}
	s.n++
	s.good, s.access = fmt.Sprintf("%s-refresh-%d", canary, s.n), fmt.Sprintf("%s-access-%d", canary, s.n)
	answer := fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"token_type":"bearer","expires_in":1}`, s.access, s.good)
	die := s.die
	s.die = nil
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if die != nil {
		die(w, answer)
		return
	}
	fmt.Fprint(w, answer)
}

// ServeHTTP is the service that the tokens are for.
func (s *rotating) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+s.access {
		s.faults = append(s.faults, "the service was sent another token than the newest")
	}
	fmt.Fprint(w, "{}")
}

// TestRefreshThatDies kills the program, and stops it, in the middle of refreshes: what it
// stored before, and what it heard before it was stopped, is what it goes on with.
func TestRefreshThatDies(t *testing.T) {
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &rotating{good: canary + "-refresh-0"}
	w := &world{dir: t.TempDir(), services: map[string]*testkit.Service{}, resolve: map[string]string{}}
	for host, h := range map[string]http.Handler{"api.github.com": s, "login.acme.dev": http.HandlerFunc(s.token)} {
		at, err := testkit.Serve(ca, h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { at.Close() })
		w.services[host], w.resolve[host] = at, at.Addr()
	}
	if w.bin, err = testkit.Build(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	w.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{Bin: w.bin, Dir: w.dir, Roots: ca.PEM(), Resolve: w.resolve, Grants: grants, Config: "drain: 100ms\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	w.verb(t, "", "agent", "add", agent, "--owner", "bob@example.com")
	w.verb(t, s.good, "credential", "add", "gh", "--service", "github", "--owner", "org", "--kind", "oauth2-refresh", "--set", "token_url=https://login.acme.dev/token", "--set", "client_id=app", "--from-stdin")
	session, c := w.open(t, human)
	read := func() error {
		status, _, err := get(t.Context(), c, "https://api.github.com/repos/acme/web/issues", session.Handles["gh"])
		if err == nil && status != 200 {
			err = fmt.Errorf("answer %d", status)
		}
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	killed := func(f func(w http.ResponseWriter, answer string)) func(http.ResponseWriter, string) {
		return func(rw http.ResponseWriter, answer string) {
			f(rw, answer)
			w.Kill()
		}
	}
	for _, round := range []struct {
		name  string
		die   func(http.ResponseWriter, string)
		again int // how often the token before may be shown after it
	}{
		{"killed before the answer", killed(func(http.ResponseWriter, string) {}), 1},
		{"killed in mid-answer", killed(func(rw http.ResponseWriter, answer string) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(answer)))
			fmt.Fprint(rw, answer[:len(answer)-20])
			rw.(http.Flusher).Flush()
		}), 1},
		{"killed behind the answer", killed(func(rw http.ResponseWriter, answer string) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(answer)))
			fmt.Fprint(rw, answer)
			rw.(http.Flusher).Flush()
		}), 1},
		{"stopped, and answered behind the drain", func(rw http.ResponseWriter, answer string) {
			syscall.Kill(w.PID(), syscall.SIGTERM)
			until(t, "the end of the drain", func() bool { return strings.Contains(w.Output(), "exchanges were cut") })
			fmt.Fprint(rw, answer)
		}, 0},
	} {
		died := make(chan struct{})
		s.mu.Lock()
		s.again = 0
		s.die = func(rw http.ResponseWriter, answer string) {
			defer close(died)
			round.die(rw, answer)
		}
		s.mu.Unlock()
		until(t, round.name, func() bool {
			read() // until the token has grown old
			select {
			case <-died:
				return true
			default:
				return false
			}
		})
		if round.again == 0 {
			until(t, "the end of the program", func() bool { return errors.Is(syscall.Kill(w.PID(), 0), syscall.ESRCH) })
		}
		if err := w.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := read(); err != nil {
			t.Errorf("%s: then %v", round.name, err)
		}
		s.mu.Lock()
		if s.again > round.again || len(s.faults) > 0 {
			t.Errorf("%s: the token before was shown %d times, %v", round.name, s.again, s.faults)
		}
		s.mu.Unlock()
	}
	w.sweep(t, session.secrets(t)...)
}
