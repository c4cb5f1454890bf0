package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/policy"
)

type allow struct{}

func (allow) Eval(context.Context, *policy.Question) (policy.Answer, error) {
	return policy.Answer{Result: policy.Allow}, nil
}
func (allow) Revision() string { return "r" }
func (allow) ReadsBody() bool  { return false }

func permit(t testing.TB, r *Request) *policy.Permit {
	t.Helper()
	var g policy.Gate
	g.Use(allow{})
	p, _, err := g.Decide(t.Context(), &policy.Question{Request: policy.Request{Method: r.Method, Scheme: r.Scheme, Host: r.Host, Port: r.Port, Path: r.Path}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(path string) *Request {
	return &Request{Method: "GET", Scheme: "http", Host: "svc.example", Port: 80, Path: path, HostHeader: "svc.example", Header: http.Header{}}
}

func client(t testing.TB, addr string, change ...func(*Options)) *Client {
	t.Helper()
	o := Options{Resolve: map[string]string{"svc.example": addr}}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// script is a service that answers each request with the next of its answers, and
// notes what it read.
func script(t testing.TB, answers ...string) (addr string, heads func() []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var mu sync.Mutex
	var seen []string
	next := 0
	serve := func(c net.Conn) {
		defer c.Close()
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			seen = append(seen, r.Method+" "+r.RequestURI+" "+string(body))
			if next >= len(answers) {
				mu.Unlock()
				return
			}
			a := answers[next]
			next++
			mu.Unlock()
			text, hang := strings.CutSuffix(a, "HANG")
			io.WriteString(c, text)
			if !hang {
				if strings.Contains(a, "CLOSE") || a == "" {
					return
				}
			}
		}
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return ln.Addr().String(), func() []string { mu.Lock(); defer mu.Unlock(); return append([]string(nil), seen...) }
}

func send1(t testing.TB, c *Client, r *Request) (*http.Response, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := c.Send(ctx, permit(t, r), r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func TestFraming(t *testing.T) {
	for name, tc := range map[string]struct {
		answer, body string
		err          error // of Send or of reading the body
	}{
		"counted":               {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", nil},
		"chunked":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi", nil},
		"until close":           {"HTTP/1.1 200 OK\r\nX: CLOSE\r\n\r\nhi", "hi", nil},
		"no reason":             {"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "", nil},
		"204 with a length":     {"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", "", nil},
		"304 with a length":     {"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", "", nil},
		"equal lengths":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "hi", nil},
		"interim":               {"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", nil},
		"HTTP/1.0":              {"HTTP/1.0 200 OK\r\nX: CLOSE\r\n\r\nhi", "hi", nil},
		"length beside chunked": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", ErrProtocol},
		"two lengths":           {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", "", ErrProtocol},
		"signed length":         {"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi", "", ErrProtocol},
		"gzip, chunked":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "", ErrProtocol},
		"chunked twice":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", ErrProtocol},
		"chunked in HTTP/1.0":   {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", ErrProtocol},
		"bare LF":               {"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi", "", ErrProtocol},
		"folded":                {"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi", "", ErrProtocol},
		"space before colon":    {"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi", "", ErrProtocol},
		"NUL":                   {"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", "", ErrProtocol},
		"not HTTP":              {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "", ErrProtocol},
		"HTTP/2":                {"HTTP/2 200 OK\r\n\r\n", "", ErrProtocol},
		"odd status":            {"HTTP/1.1 2x0 OK\r\n\r\n", "", ErrProtocol},
		"status out of range":   {"HTTP/1.1 999 OK\r\n\r\n", "", ErrProtocol},
		"unsolicited 101":       {"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "", ErrProtocol},
		"endless interim":       {strings.Repeat("HTTP/1.1 102 Wait\r\n\r\n", 200), "", ErrProtocol},
		"endless head":          {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", maxAnswerHead) + "\r\n\r\n", "", ErrProtocol},
		"too many fields":       {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxAnswerFields+1) + "\r\n", "", ErrProtocol},
		"counted, cut":          {"HTTP/1.1 200 OK\r\nX: CLOSE\r\nContent-Length: 5\r\n\r\nhi", "hi", io.ErrUnexpectedEOF},
		"chunked, cut":          {"HTTP/1.1 200 OK\r\nX: CLOSE\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", "hi", io.ErrUnexpectedEOF},
		"chunked, end cut":      {"HTTP/1.1 200 OK\r\nX: CLOSE\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", "hi", io.ErrUnexpectedEOF},
		"head cut":              {"HTTP/1.1 200 OK\r\nX: CLOSE", "", ErrSentUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := script(t, tc.answer)
			_, body, err := send1(t, client(t, addr), get("/x"))
			if !errors.Is(err, tc.err) || body != tc.body {
				t.Errorf("got %q, %v; want %q, %v", body, err, tc.body, tc.err)
			}
		})
	}
}

func TestSpellingIsKept(t *testing.T) {
	addr, _ := script(t, "HTTP/1.1 200 OK\r\nx-ODD-name: a\r\nx-ODD-name: b\r\ncontent-length: 0\r\n\r\n")
	resp, _, err := send1(t, client(t, addr), get("/x"))
	if err != nil || len(map[string][]string(resp.Header)["x-ODD-name"]) != 2 {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestConnectionsAreReusedOnlyWhenClean(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	for name, tc := range map[string]struct {
		first string
		want  int64 // connections for two requests
	}{
		"clean":              {ok, 1},
		"chunked":            {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 1},
		"asked to close":     {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhiHANG", 2},
		"HTTP/1.0":           {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhiHANG", 2},
		"bytes behind":       {ok + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", 2},
		"bytes behind a 204": {"HTTP/1.1 204 No\r\n\r\nforged", 2},
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := script(t, tc.first, ok)
			c := client(t, addr)
			if _, _, err := send1(t, c, get("/1")); err != nil {
				t.Fatal(err)
			}
			if _, body, err := send1(t, c, get("/2")); err != nil || body != "hi" {
				t.Fatalf("second answer %q, %v", body, err)
			}
			if n := c.opened.Load(); n != tc.want {
				t.Errorf("%d connections, want %d", n, tc.want)
			}
		})
	}
}

func TestRetries(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	for name, tc := range map[string]struct {
		method, body string
		err          error
		seen         int
	}{
		"GET":            {"GET", "", nil, 3},
		"DELETE":         {"DELETE", "", nil, 3},
		"POST":           {"POST", "", ErrSentUnknown, 2},
		"PUT with body":  {"PUT", "x", ErrSentUnknown, 2},
		"POST with body": {"POST", "x", ErrSentUnknown, 2},
	} {
		t.Run(name, func(t *testing.T) {
			addr, seen := script(t, ok, "", ok) // the second request finds the connection closed after it was read
			c := client(t, addr)
			if _, _, err := send1(t, c, get("/1")); err != nil {
				t.Fatal(err)
			}
			r := get("/2")
			r.Method = tc.method
			if tc.body != "" {
				r.Body, r.ContentLength = strings.NewReader(tc.body), int64(len(tc.body))
			}
			if _, _, err := send1(t, c, r); !errors.Is(err, tc.err) {
				t.Errorf("got %v, want %v", err, tc.err)
			}
			if n := len(seen()); n != tc.seen {
				t.Errorf("the service saw %d requests, want %d: %q", n, tc.seen, seen())
			}
		})
	}
}

func TestRequests(t *testing.T) {
	got := make(chan string, 1)
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			b, _ := io.ReadAll(c)
			got <- string(b)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	for name, tc := range map[string]struct {
		change func(*Request)
		want   string
	}{
		"path and query": {func(r *Request) { r.Path, r.RawQuery = "/a%20b", "c=%41&&" }, "GET /a%20b?c=%41&& HTTP/1.1\r\nHost: svc.example\r\n\r\n"},
		"small body":     {func(r *Request) { r.Method, r.Body, r.ContentLength = "POST", strings.NewReader("hi"), 2 }, "POST /x HTTP/1.1\r\nHost: svc.example\r\nContent-Length: 2\r\n\r\nhi"},
		"empty POST":     {func(r *Request) { r.Method = "POST" }, "POST /x HTTP/1.1\r\nHost: svc.example\r\nContent-Length: 0\r\n\r\n"},
		"unknown length": {func(r *Request) { r.Method, r.Body, r.ContentLength = "POST", strings.NewReader("hi"), -1 }, "POST /x HTTP/1.1\r\nHost: svc.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"},
		"trailer": {func(r *Request) {
			r.Method, r.Body, r.ContentLength, r.Trailer = "POST", strings.NewReader("hi"), -1, http.Header{"X-Sum": {"s"}}
		}, "POST /x HTTP/1.1\r\nHost: svc.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: s\r\n\r\n"},
		"spelled":        {func(r *Request) { r.Header["x-odd-NAME"] = []string{"v"} }, "GET /x HTTP/1.1\r\nHost: svc.example\r\nx-odd-NAME: v\r\n\r\n"},
		"framing fields": {func(r *Request) { r.Header["content-length"] = []string{"7"}; r.Header["Host"] = []string{"evil"} }, "GET /x HTTP/1.1\r\nHost: svc.example\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("/x")
			tc.change(r)
			c := client(t, ln.Addr().String())
			if _, _, err := send1(t, c, r); err != nil {
				t.Fatal(err)
			}
			if b := <-got; b != tc.want {
				t.Errorf("got\n%q, want\n%q", b, tc.want)
			}
		})
	}
	for name, h := range map[string]http.Header{"CR LF in a value": {"X": {"a\r\nY: b"}}, "line break in a name": {"X\r\nY": {"a"}}, "NUL": {"X": {"\x00"}}} {
		r := get("/x")
		r.Header = h
		if _, _, err := send1(t, client(t, ln.Addr().String()), r); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEarlyAnswerWhileUploading(t *testing.T) {
	ln, _ := net.Listen("tcp", "127.0.0.1:0")
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		http.ReadRequest(br)
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		io.Copy(io.Discard, br)
	}()
	r := get("/x")
	pr, pw := io.Pipe()
	defer pw.Close()
	r.Method, r.Body, r.ContentLength = "POST", pr, -1
	go pw.Write([]byte("some, and then nothing for ever"))
	resp, body, err := send1(t, client(t, ln.Addr().String()), r)
	if err != nil || resp.StatusCode != 413 || body != "big" {
		t.Errorf("%v %q %v", resp, body, err)
	}
}

func TestPermits(t *testing.T) {
	addr, seen := script(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c := client(t, addr)
	other := get("/other")
	for name, p := range map[string]*policy.Permit{"none": nil, "zero": {}, "for another path": permit(t, other)} {
		if _, err := c.Send(t.Context(), p, get("/x")); !errors.Is(err, policy.ErrNoPermit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := get("/x")
	p := permit(t, r)
	resp, err := c.Send(t.Context(), p, r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, err := c.Send(t.Context(), p, r); !errors.Is(err, policy.ErrNoPermit) {
		t.Errorf("spent: %v", err)
	}
	if len(seen()) != 1 {
		t.Errorf("the service saw %q", seen())
	}
}

func TestCancel(t *testing.T) {
	addr, _ := script(t, "HANG")
	c := client(t, addr)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := get("/x")
	if _, err := c.Send(ctx, permit(t, r), r); !errors.Is(err, ErrCanceled) {
		t.Errorf("got %v", err)
	}
	slow := client(t, addr, func(o *Options) { o.HeaderTimeout = 50 * time.Millisecond })
	if _, _, err := send1(t, slow, get("/x")); !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrSentUnknown) {
		t.Errorf("head timeout: %v", err)
	}
	nowhere := client(t, "127.0.0.1:1")
	if _, _, err := send1(t, nowhere, get("/x")); !errors.Is(err, ErrDial) {
		t.Errorf("nobody listens: %v", err)
	}
}

// FuzzAnswer compares with net/http: what this package accepts means the same there.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.0 404 No\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 204 \r\nX:\t y \r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := readHead(bufio.NewReader(bytes.NewReader(in)))
		whole := bufio.NewReader(bytes.NewReader(in))
		whole.Peek(1) // has all of it at hand
		if same, serr := readHead(whole); (err == nil) != (serr == nil) || !reflect.DeepEqual(h, same) {
			t.Fatalf("%q: %+v, %v in pieces, %+v, %v as a whole", in, h, err, same, serr)
		}
		if err != nil || h.status < 200 {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), &http.Request{Method: "GET"})
		if err != nil {
			t.Fatalf("%q was accepted and net/http refuses it: %v", in, err)
		}
		for name, values := range h.header {
			if c := http.CanonicalHeaderKey(name); c != "Transfer-Encoding" && c != "Trailer" && c != "Content-Length" && len(resp.Header[c]) < len(values) {
				t.Fatalf("%q: field %s is %q here and %q there", in, name, values, resp.Header[c])
			}
		}
		br := bufio.NewReader(bytes.NewReader(in))
		h, _ = readHead(br)
		c := &Client{idle: pool{closed: true}}
		mine, err := c.answer(&conn{Conn: deaf{}, br: br}, &Request{Method: "GET"}, h, nil, func() bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		got, gerr := io.ReadAll(mine.Body)
		want, werr := io.ReadAll(resp.Body)
		if resp.StatusCode != h.status || gerr == nil && werr == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q: %d %q here, %d %q there", in, h.status, got, resp.StatusCode, want)
		}
		if gerr == nil && werr != nil {
			t.Fatalf("%q: a whole body here, %v there", in, werr)
		}
	})
}

// deaf is a connection of which only the end is of interest.
type deaf struct{ net.Conn }

func (deaf) Close() error { return nil }
