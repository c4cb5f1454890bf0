package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// differ puts exchanges to a service on a real socket twice, by this package and by
// net/http's Transport, and compares what the service received and what came of it.
type differ struct {
	client *Client
	ln     net.Listener
	seen   chan received

	mu     sync.Mutex
	answer []byte // what the service says to each request
	keep   bool   // it takes another request on the same connection
}

// received is a request as the service got it.
type received struct {
	conn   net.Addr
	line   string
	header http.Header
	body   string
	length int64
	coding []string
	tail   http.Header
}

// result is what came of an exchange.
type result struct {
	err     error
	status  int
	interim []int
	header  http.Header
	body    string
	bodyErr bool
	trailer http.Header
}

func newDiffer(t testing.TB) *differ {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &differ{ln: ln, client: client(t, ln.Addr().String()), seen: make(chan received, 16)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d.serve(c)
		}
	}()
	t.Cleanup(func() { ln.Close(); <-ended })
	return d
}

// serve reads requests and gives the answer to each, until it is to end. Connections
// are served one after the other, since each exchange has one.
func (d *differ) serve(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if r.Header.Get("Expect") != "" {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client gave up
		}
		d.seen <- received{c.RemoteAddr(), r.Method + " " + r.RequestURI + " " + r.Host, r.Header, string(b), r.ContentLength, r.TransferEncoding, r.Trailer}
		answer, keep := d.script()
		if _, err := c.Write(answer); err != nil || !keep {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, br)
			return
		}
	}
}

func (d *differ) script() (answer []byte, keep bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answer, d.keep
}

type roundTripper func(ctx context.Context, r *Request) (*http.Response, error)

func (d *differ) own(ctx context.Context, r *Request) (*http.Response, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return d.client.roundTrip(ctx, r)
}

func (d *differ) std(ctx context.Context, r *Request) (*http.Response, error) {
	return d.client.h1.RoundTrip(r.request(ctx))
}

// exchange carries out one exchange and reads all of it.
func (d *differ) exchange(t *testing.T, send roundTripper, make func() *Request) (got result) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r := make()
	r.On1xx = func(code int, _ http.Header) error { got.interim = append(got.interim, code); return nil }
	resp, err := send(ctx, r)
	if err != nil {
		got.err = err
		return got
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	got.status, got.header, got.body, got.bodyErr, got.trailer = resp.StatusCode, resp.Header, string(b), err != nil, resp.Trailer
	return got
}

// requests returns what the service got since, and on how many connections.
func (d *differ) requests() (all []received, conns int) {
	addrs := map[string]bool{}
	for len(d.seen) > 0 {
		r := <-d.seen
		addrs[r.conn.String()] = true
		r.conn = nil
		all = append(all, r)
	}
	return all, len(addrs)
}

func (d *differ) forget() {
	d.client.idle.close(false)
	d.client.h1.CloseIdleConnections()
}

// compare makes each exchange twice in a row, so that connections may be used again.
func (d *differ) compare(t *testing.T, answer []byte, make func() *Request) {
	t.Helper()
	d.mu.Lock()
	d.answer, d.keep = answer, framed(answer, make().Method)
	d.mu.Unlock()
	var results [2][]result
	var got [2][]received
	var conns [2]int
	for i, send := range []roundTripper{d.own, d.std} {
		for range 2 {
			results[i] = append(results[i], d.exchange(t, send, make))
			if !d.keep { // whether the end was seen before the next request is up to the moment
				d.forget()
			}
		}
		d.forget()
		got[i], conns[i] = d.requests()
	}
	for i := range results[0] {
		if what := difference(results[0][i], results[1][i], make()); what != "" {
			t.Fatalf("exchange %d with %q: %s\nhere  %+v, %v\nthere %+v, %v", i, answer, what, results[0][i], results[0][i].err, results[1][i], results[1][i].err)
		}
	}
	if results[0][0].err != nil || results[1][0].err != nil {
		return // what was sent of a request that failed is up to the moment
	}
	if len(got[0]) != len(got[1]) || conns[0] < conns[1] && d.keep {
		t.Fatalf("with %q: %d requests on %d connections here, %d on %d there", answer, len(got[0]), conns[0], len(got[1]), conns[1])
	}
	for i := range got[0] {
		if there := &got[1][i]; there.length == 0 && got[0][i].body == "" && got[0][i].length < 0 {
			// net/http drops an empty body of unknown length, and its trailer, from a request
			// whose method has no use for one; here goes out what the agent sent.
			there.length, there.coding, there.tail = got[0][i].length, got[0][i].coding, got[0][i].tail
		}
		if !reflect.DeepEqual(got[0][i], got[1][i]) {
			t.Fatalf("the service received\n%+v here\n%+v there", got[0][i], got[1][i])
		}
	}
}

// framed reports whether an answer is one whole answer that leaves its connection open.
func framed(answer []byte, method string) bool {
	br := bufio.NewReader(bytes.NewReader(answer))
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	for err == nil && resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
		resp, err = http.ReadResponse(br, &http.Request{Method: method})
	}
	if err != nil || resp.StatusCode < 200 || resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && br.Buffered() == 0 && !resp.Close
}

// difference says in which way two results are not alike. These differences are meant:
//
//   - An answer that is refused here and taken there: this package is stricter about
//     what could be read in two ways (line ends, folded lines, doubled lengths).
//   - Field names are kept as the service spelled them, and only the fields that
//     framed the answer are left out; both sides are compared in canonical form.
//   - net/http shows 1xx answers but 100, which it takes for itself.
//   - An answer to HEAD, 204 and 304 keep their Content-Length field here as there.
func difference(here, there result, r *Request) string {
	switch {
	case here.err != nil && there.err == nil:
		if errors.Is(here.err, ErrProtocol) || errors.Is(here.err, errStale) {
			return ""
		}
		return "an error here alone"
	case here.err == nil && there.err != nil:
		return "an error there alone"
	case here.err != nil:
		return ""
	case here.status != there.status:
		return "status"
	case here.bodyErr && !there.bodyErr:
		return "" // stricter about chunks
	case !here.bodyErr && there.bodyErr:
		return "a body that is whole here alone"
	case !here.bodyErr && here.body != there.body:
		return "body"
	case !here.bodyErr && !alike(here.trailer, there.trailer):
		return "trailer"
	case !alike(here.header, there.header):
		return "header"
	case !slices.Equal(interimOf(here), interimOf(there)):
		return "interim answers"
	}
	return ""
}

func interimOf(r result) []int {
	return slices.DeleteFunc(slices.Clone(r.interim), func(code int) bool { return code == http.StatusContinue })
}

// alike compares fields by canonical name, without those that frame.
func alike(a, b http.Header) bool {
	return reflect.DeepEqual(canonicalFields(a), canonicalFields(b))
}

func canonicalFields(h http.Header) map[string][]string {
	out := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		c := http.CanonicalHeaderKey(name)
		switch c {
		case "Content-Length", "Transfer-Encoding", "Trailer", "Connection":
			continue
		}
		if len(h[name]) > 0 {
			out[c] = append(out[c], h[name]...)
		}
	}
	return out
}

// variants are requests by number.
func variants(kind byte, value string, body []byte) func() *Request {
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	return func() *Request {
		r := &Request{
			Method: methods[int(kind)%len(methods)], Scheme: "http", Host: "svc.example", Port: 80, Path: "/a%2fb", RawQuery: "q=1",
			HostHeader: "svc.example", Header: http.Header{"Accept": {"*/*"}, "X-Value": {value}, "User-Agent": {"t"}},
		}
		switch {
		case kind&0x10 != 0:
			r.Body, r.ContentLength = bytes.NewReader(body), int64(len(body))
		case kind&0x20 != 0:
			r.Body, r.ContentLength = struct{ io.Reader }{bytes.NewReader(body)}, -1
			r.Trailer = http.Header{"X-Sum": {"1"}}
		}
		r.ExpectContinue = kind&0x40 != 0 && len(body) > 0 && r.Body != nil
		return r
	}
}

var differSeeds = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n2\r\nhi\r\n0\r\nX-End: y\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\n\r\nto the end",
	"HTTP/1.0 404 No\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 204 No Content\r\nX: y\r\nx: z\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
	"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
	"HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
	"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 20 X\r\n\r\n",
	"",
}

// TestDiffer puts each answer to each kind of request.
func TestDiffer(t *testing.T) {
	d := newDiffer(t)
	for _, answer := range differSeeds {
		for kind := range byte(0x80) {
			if kind&0x0f > 6 || kind&0x30 == 0x30 || kind&0x70 == 0x40 {
				continue
			}
			for _, body := range [][]byte{nil, []byte("body"), bytes.Repeat([]byte("0123456789"), 4000)} {
				if kind&0x30 == 0 && body != nil || kind&0x40 != 0 && len(body) == 0 {
					continue
				}
				t.Run(fmt.Sprintf("%.20q %x %d", answer, kind, len(body)), func(t *testing.T) {
					d.compare(t, []byte(answer), variants(kind, "v", body))
				})
			}
		}
	}
}

// FuzzDiffer has foreign answers to foreign requests: whole exchanges on real sockets,
// by this package and by net/http.
func FuzzDiffer(f *testing.F) {
	for i, answer := range differSeeds {
		f.Add([]byte(answer), byte(i*7), "v", []byte("body"))
	}
	d := newDiffer(f)
	f.Fuzz(func(t *testing.T, answer []byte, kind byte, value string, body []byte) {
		if kind&0x30 == 0x30 || strings.Contains(value, "\x00") {
			return
		}
		d.compare(t, answer, variants(kind, value, body))
	})
}
