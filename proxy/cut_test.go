package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
)

// stream sends a GET whose answer goes on, and returns what reads it.
func (d *road) stream(t *testing.T, c *http.Client, handle string) *bufio.Reader {
	t.Helper()
	r := d.request("GET", "https://api.acme.dev/events", nil)
	r.Header.Set("Authorization", "Bearer "+handle)
	resp, err := c.Do(r)
	check(t, err)
	if resp.StatusCode != 200 {
		t.Fatalf("the stream began with %s", resp.Status)
	}
	br := bufio.NewReader(resp.Body)
	if _, err := br.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return br
}

// ends waits for the end of a stream and returns how it ended.
func ends(t *testing.T, br *bufio.Reader) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, br)
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("the stream goes on")
		return nil
	}
}

// TestHandleRevocationCuts revokes a handle, and a credential, in mid-stream. What
// goes on with another handle of the same session goes on, over HTTP/2 on the same
// connection.
func TestHandleRevocationCuts(t *testing.T) {
	for name, target := range map[string]func(*road) identity.Target{
		"handle":     func(d *road) identity.Target { return identity.Target{Handle: d.session.Handles["acme"]} },
		"credential": func(*road) identity.Target { return identity.Target{Credential: "acme"} },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, d *road, c *http.Client) {
				more := make(chan struct{})
				d.serve = func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintln(w, "data")
					w.(http.Flusher).Flush()
					select {
					case <-r.Context().Done():
					case <-more:
						fmt.Fprintln(w, "more")
					}
				}
				cut := d.stream(t, c, d.session.Handles["acme"])
				r := d.request("GET", "https://api.github.com/repos/acme/web/issues", nil)
				r.Header.Set("Authorization", "Bearer "+d.handle)
				resp, err := c.Do(r)
				check(t, err)
				_, err = d.dir.Revoke(t.Context(), target(d), "test", "me")
				check(t, err)
				if err := ends(t, cut); err == nil {
					t.Error("half an answer ended as a whole one")
				}
				close(more)
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "data\nmore\n" {
					t.Errorf("another handle's stream: %q, %v", b, err)
				}
				for _, x := range d.records(2) {
					want := ""
					if strings.Contains(string(x.Decision.Raw), "api.acme.dev") {
						want = "handle_revoked"
					}
					if x.Outcome.Outcome.Error != want {
						t.Errorf("want %q in record %s", want, x.Outcome.Raw)
					}
				}
			})
		})
	}
}

// TestRevocationCutsUploads revokes while the agent sends: the service gets no more,
// and the record says that the write may have happened.
func TestRevocationCutsUploads(t *testing.T) {
	for name, target := range map[string]identity.Target{"session_revoked": {Agent: "bot"}, "handle_revoked": {Credential: "acme"}} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, d *road, c *http.Client) {
				begun, gone := make(chan struct{}), make(chan struct{})
				d.serve = func(_ http.ResponseWriter, r *http.Request) {
					io.ReadFull(r.Body, make([]byte, 5))
					close(begun)
					io.Copy(io.Discard, r.Body)
					close(gone)
				}
				pr, pw := io.Pipe()
				go pw.Write([]byte("first"))
				r := d.request("POST", "https://api.acme.dev/upload", pr)
				r.Header.Set("Authorization", "Bearer "+d.session.Handles["acme"])
				r.Header.Set("Content-Type", "application/octet-stream") // else it is looked into first
				done := make(chan struct{})
				go func() {
					defer close(done)
					if resp, err := c.Do(r); err == nil {
						resp.Body.Close()
					}
				}()
				<-begun
				_, err := d.dir.Revoke(t.Context(), target, "test", "me")
				check(t, err)
				select {
				case <-gone:
				case <-time.After(5 * time.Second):
					t.Error("the service gets more")
				}
				pw.Close()
				<-done
				if x := d.records(1)[0]; x.Outcome.Outcome.Error != name || !x.Outcome.Outcome.Indeterminate {
					t.Errorf("record %s", x.Outcome.Raw)
				}
			})
		})
	}
}

// TestRevocationCutsAbsoluteForm does it at the front door, where no tunnel is cut.
func TestRevocationCutsAbsoluteForm(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "data")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer plain.Close()
	d := newRoad(t, func(_ *Options, u *upstream.Options) { u.Resolve["api.acme.dev:80"] = plain.Listener.Addr().String() })
	resp, err := d.client(false).Get("http://api.acme.dev/events")
	check(t, err)
	br := bufio.NewReader(resp.Body)
	if _, err := br.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_, err = d.dir.Revoke(t.Context(), identity.Target{Session: d.session.ID}, "test", "me")
	check(t, err)
	if err := ends(t, br); err == nil {
		t.Error("half an answer ended as a whole one")
	}
	if x := d.records(1)[0]; x.Outcome.Outcome.Error != "session_revoked" {
		t.Errorf("record %s", x.Outcome.Raw)
	}
}

// TestIdleTunnel has two sessions be idle for longer than they may: one with a stream that
// goes on, and one whose agent only keeps its connection.
func TestIdleTunnel(t *testing.T) {
	both(t, func(t *testing.T, d *road, _ *http.Client) {
		more := make(chan struct{})
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "data")
			if r.URL.Path != "/events" {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-more:
				fmt.Fprintln(w, "more")
			}
		}
		open := func() (identity.Created, *http.Client) {
			var err error
			d.session, err = d.dir.CreateSession(t.Context(), identity.Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{"acme"}, Idle: time.Minute})
			check(t, err)
			return d.session, d.client(strings.HasSuffix(t.Name(), "http2=true"))
		}
		streaming, c := open()
		stream := d.stream(t, c, streaming.Handles["acme"])
		keeping, c := open()
		r := d.request("GET", "https://api.acme.dev/once", nil)
		r.Header.Set("Authorization", "Bearer "+keeping.Handles["acme"])
		resp, err := c.Do(r)
		check(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		check(t, err)
		resp.Body.Close()

		d.ahead.Store(int64(2 * time.Minute))
		late := time.After(time.Minute)
		for {
			s, err := d.dir.Session(keeping.ID)
			check(t, err)
			if !s.Ended.IsZero() {
				break
			}
			select {
			case <-late:
				t.Fatal("a connection that is only kept keeps its session from being idle")
			case <-time.After(10 * time.Millisecond):
			}
		}
		if s, err := d.dir.Session(streaming.ID); err != nil || !s.Ended.IsZero() {
			t.Errorf("a session in which a stream goes on: %+v, %v", s, err)
		}
		close(more)
		if line, err := stream.ReadString('\n'); line != "more\n" {
			t.Errorf("the stream says %q, %v", line, err)
		}
	})
}
