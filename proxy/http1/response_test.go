package http1

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestAnswers shows how answers are framed, as net/http reads them.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789", 10*outSize/10)
	for name, tc := range map[string]struct {
		method string
		h      http.HandlerFunc
		status int
		body   string
		length int64 // -1: not told in the head
		closes bool
	}{
		"nothing":     {"GET", func(http.ResponseWriter, *http.Request) {}, 200, "", 0, false},
		"short":       {"GET", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }, 200, "hi", -1, false},
		"long":        {"GET", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, long) }, 200, long, -1, false},
		"in parts":    {"GET", func(w http.ResponseWriter, _ *http.Request) { inParts(w, long) }, 200, long, -1, false},
		"counted":     {"GET", withLength("hi", "2"), 200, "hi", 2, false},
		"no content":  {"GET", status(http.StatusNoContent), 204, "", 0, false},
		"not changed": {"GET", status(http.StatusNotModified), 304, "", 0, false},
		"head":        {"HEAD", withLength("", "17"), 200, "", 17, false},
		"closes": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			io.WriteString(w, "hi")
		}, 200, "hi", -1, true},
		"trailer": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hi")
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		}, 200, "hi", -1, false},
		"value with a line end": {"GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["X"] = []string{"a\r\nY: b"}
			w.Header()["bad name"] = []string{"x"}
		}, 200, "", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, _ Head) { tc.h(w, r) })
			for range 2 {
				c.send("%s / HTTP/1.1\r\nHost: a\r\n\r\n", tc.method)
				resp, body := c.answer(tc.method)
				if resp.StatusCode != tc.status || body != tc.body || resp.ContentLength != tc.length || resp.Close != tc.closes {
					t.Errorf("got %d, %d bytes, length %d, close %v", resp.StatusCode, len(body), resp.ContentLength, resp.Close)
				}
				if resp.Header.Get("Y") != "" || resp.Header.Get("Date") == "" {
					t.Errorf("header: %q", resp.Header)
				}
				if name == "trailer" && resp.Trailer.Get("X-Sum") != "1" {
					t.Errorf("trailer: %q", resp.Trailer)
				}
				if tc.closes {
					c.over()
					return
				}
			}
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func withLength(body, length string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", length)
		io.WriteString(w, body)
	}
}

func inParts(w http.ResponseWriter, s string) {
	for len(s) > 0 {
		n, _ := io.WriteString(w, s[:min(len(s), 777)])
		s = s[n:]
		w.(http.Flusher).Flush()
	}
}

// TestEnd has whole answers reach the agent before the handler returns; what the handler
// still writes does not.
func TestEnd(t *testing.T) {
	for name, body := range map[string]http.HandlerFunc{
		"counted": withLength("hi", "2"),
		"chunked": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hi")
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			read := make(chan struct{})
			_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, _ Head) {
				body(w, r)
				if err := w.(interface{ End() error }).End(); err != nil {
					t.Error(err)
				}
				<-read
				if _, err := io.WriteString(w, "more"); err == nil {
					t.Error("written behind the end")
				}
			})
			for range 2 {
				c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				if resp, got := c.answer("GET"); got != "hi" || name == "chunked" && resp.Trailer.Get("X-Sum") != "1" {
					t.Errorf("got %q, %v", got, resp.Trailer)
				}
				read <- struct{}{}
			}
		})
	}
}

// TestInterim shows that an interim answer goes out before the final one.
func TestInterim(t *testing.T) {
	_, c := serving(t, limits, func(w http.ResponseWriter, _ *http.Request, _ Head) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "hi")
	})
	c.send(get, "/")
	if resp, _ := c.answer("GET"); resp.StatusCode != http.StatusEarlyHints || resp.Header.Get("Link") == "" {
		t.Errorf("interim: got %d %q", resp.StatusCode, resp.Header)
	}
	if resp, body := c.answer("GET"); resp.StatusCode != http.StatusOK || body != "hi" || resp.Header.Get("Link") != "" {
		t.Errorf("final: got %d %q", resp.StatusCode, body)
	}
}

// TestCut shows that an answer which is not complete is never taken for one
// that is, and that a handler that gives up cuts the connection.
func TestCut(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"shorter than announced": withLength("hi", "17"),
		"aborted": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hi")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := serving(t, limits, func(w http.ResponseWriter, r *http.Request, _ Head) { h(w, r) })
			c.send(get, "/")
			resp, err := http.ReadResponse(c.Reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); string(body) != "hi" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %q, %v; want an unexpected end", body, err)
			}
		})
	}
	t.Run("longer than announced", func(t *testing.T) {
		_, c := serving(t, limits, func(w http.ResponseWriter, _ *http.Request, _ Head) {
			w.Header().Set("Content-Length", "2")
			if _, err := io.WriteString(w, "hello"); !errors.Is(err, http.ErrContentLength) {
				t.Errorf("write: %v", err)
			}
			io.WriteString(w, "hi")
		})
		c.send(get, "/")
		if _, body := c.answer("GET"); body != "hi" {
			t.Errorf("got %q", body)
		}
	})
	t.Run("to HEAD", func(t *testing.T) {
		_, c := serving(t, limits, func(w http.ResponseWriter, _ *http.Request, _ Head) {
			if _, err := io.WriteString(w, "hello"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("write: %v", err)
			}
		})
		c.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.answer("HEAD")
	})
}
