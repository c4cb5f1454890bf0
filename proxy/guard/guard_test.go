package guard

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// stream is a connection that yields fixed bytes.
type stream struct {
	io.Reader
	net.Conn
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func over(r io.Reader) *Conn { return New(stream{Reader: r}) }

const host = "Host: a.example\r\n"

func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct{ in, fault string }{
		"plain":                       {"GET / HTTP/1.1\r\n" + host + "\r\n", ""},
		"connect, HTTP/1.0, no host":  {"CONNECT a.example:443 HTTP/1.0\r\n\r\n", ""},
		"obs-text in a value":         {"GET / HTTP/1.1\r\n" + host + "X: caf\xe9\r\n\r\n", ""},
		"empty value":                 {"GET / HTTP/1.1\r\n" + host + "X:\r\n\r\n", ""},
		"content-length and chunked":  {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", faultConflicts},
		"chunked and content-length":  {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", faultConflicts},
		"two content-lengths":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", faultLength},
		"two equal content-lengths":   {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", faultLength},
		"content-length list":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\n", faultLength},
		"signed content-length":       {"POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\n", faultLength},
		"huge content-length":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 9999999999999999999\r\n\r\n", faultLength},
		"empty content-length":        {"POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", faultLength},
		"chunked twice in one field":  {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, chunked\r\n\r\n", faultCoding},
		"chunked in two fields":       {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", faultCoding},
		"xchunked":                    {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", faultCoding},
		"gzip, chunked":               {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", faultCoding},
		"identity":                    {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", faultCoding},
		"space before the colon":      {"GET / HTTP/1.1\r\nHost : a.example\r\n\r\n", faultField},
		"field without a colon":       {"GET / HTTP/1.1\r\n" + host + "X\r\n\r\n", faultField},
		"field without a name":        {"GET / HTTP/1.1\r\n" + host + ": x\r\n\r\n", faultField},
		"folded field":                {"GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", faultFold},
		"bare LF":                     {"GET / HTTP/1.1\n" + host + "\r\n", faultEnding},
		"bare LF at the end":          {"GET / HTTP/1.1\r\n" + host + "\n", faultEnding},
		"bare CR in a value":          {"GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", faultField},
		"NUL in a value":              {"GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", faultField},
		"NUL in a name":               {"GET / HTTP/1.1\r\n" + host + "X\x00: a\r\n\r\n", faultField},
		"non-ASCII method":            {"G\xcbT / HTTP/1.1\r\n" + host + "\r\n", faultLine},
		"non-ASCII target":            {"GET /\xc3\xa9 HTTP/1.1\r\n" + host + "\r\n", faultTarget},
		"fragment":                    {"GET /#x HTTP/1.1\r\n" + host + "\r\n", faultTarget},
		"space in the target":         {"GET /a b HTTP/1.1\r\n" + host + "\r\n", faultVersion},
		"no target":                   {"GET  HTTP/1.1\r\n" + host + "\r\n", faultLine},
		"HTTP/1.0":                    {"GET http://a.example/ HTTP/1.0\r\n" + host + "\r\n", faultVersion},
		"HTTP/1.2":                    {"GET / HTTP/1.2\r\n" + host + "\r\n", faultVersion},
		"HTTP/2 preface":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", faultPreface},
		"userinfo in the host":        {"GET / HTTP/1.1\r\nHost: a@b.example\r\n\r\n", faultHost},
		"userinfo in the target":      {"GET http://a@b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", faultTarget},
		"escape in the host":          {"GET http://a%2eb/ HTTP/1.1\r\nHost: a.b\r\n\r\n", faultTarget},
		"broken escape":               {"GET /%zz HTTP/1.1\r\n" + host + "\r\n", faultTarget},
		"broken escape in the query":  {"GET /?%zz HTTP/1.1\r\n" + host + "\r\n", ""},
		"length with an underscore":   {"POST / HTTP/1.1\r\n" + host + "Content_Length: 3\r\n\r\n", faultField},
		"no host":                     {"GET / HTTP/1.1\r\nX: y\r\n\r\n", faultHost},
		"two hosts":                   {"GET / HTTP/1.1\r\n" + host + host + "\r\n", faultHost},
		"empty line first":            {"\r\nGET / HTTP/1.1\r\n" + host + "\r\n", faultLine},
		"leading space":               {" GET / HTTP/1.1\r\n" + host + "\r\n", faultLine},
		"odd expectation":             {"POST / HTTP/1.1\r\n" + host + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", faultExpect},
		"connect with a body":         {"CONNECT a.example:443 HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\n", faultLength},
		"too many fields":             {"GET / HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", MaxFields) + "\r\n", faultTooLarge},
		"head too large":              {"GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("y", MaxHead) + "\r\n\r\n", faultTooLarge},
		"head too large and unending": {"GET /" + strings.Repeat("y", MaxHead+1), faultTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tc.in), iotest.OneByteReader(strings.NewReader(tc.in))} {
				c := over(r)
				br := bufio.NewReader(c)
				req, err := http.ReadRequest(br)
				if err != nil {
					t.Fatalf("net/http was handed what it cannot read: %v", err)
				}
				if got := c.Take().Fault; got != tc.fault {
					t.Errorf("fault: got %q, want %q", got, tc.fault)
				}
				if tc.fault != "" && (req.Host != "invalid" || !req.Close) {
					t.Errorf("stand-in: got host %q, close %v", req.Host, req.Close)
				}
				if tc.fault != "" {
					if _, err := http.ReadRequest(br); !errors.Is(err, io.EOF) {
						t.Errorf("after a fault: got %v, want EOF", err)
					}
				}
			}
		})
	}
}

func TestBodies(t *testing.T) {
	const post = "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n"
	for name, tc := range map[string]struct {
		in   string
		want string
		bad  bool
	}{
		"counted":              {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", "hello", false},
		"chunked":              {post + "5\r\nhello\r\n0\r\n\r\n", "hello", false},
		"chunk extension":      {post + "5;a=b\r\nhello\r\n0\r\n\r\n", "hello", false},
		"trailers":             {post + "5\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello", false},
		"size with 0x":         {post + "0x5\r\nhello\r\n0\r\n\r\n", "", true},
		"negative size":        {post + "-1\r\n\r\n", "", true},
		"size with a space":    {post + "5 \r\nhello\r\n0\r\n\r\n", "", true},
		"size ends in bare LF": {post + "5\nhello\r\n0\r\n\r\n", "", true},
		"no size":              {post + "\r\nhello\r\n0\r\n\r\n", "", true},
		"huge size":            {post + "ffffffffffffffff\r\n", "", true},
		"data not ended":       {post + "5\r\nhelloX0\r\n\r\n", "", true},
		"long extension":       {post + "5;" + strings.Repeat("a", maxLine+1) + "\r\nhello\r\n0\r\n\r\n", "", true},
		"folded trailer":       {post + "0\r\nX: y\r\n z\r\n\r\n", "", true},
		"long trailers":        {post + "0\r\n" + strings.Repeat("X: yyyyyyyyyyyyyyyyyyyyyy\r\n", 400) + "\r\n", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			const next = "GET /next HTTP/1.1\r\n" + host + "\r\n"
			for _, r := range []io.Reader{strings.NewReader(tc.in + next), iotest.OneByteReader(strings.NewReader(tc.in + next))} {
				br := bufio.NewReader(over(r))
				req, err := http.ReadRequest(br)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(req.Body)
				if tc.bad {
					if err == nil {
						t.Fatalf("body %q read without an error", got)
					}
					if _, err := http.ReadRequest(br); err == nil {
						t.Error("a request was read behind a broken body")
					}
					return
				}
				if err != nil || string(got) != tc.want {
					t.Fatalf("body: got %q, %v; want %q", got, err, tc.want)
				}
				if req, err = http.ReadRequest(br); err != nil || req.URL.Path != "/next" {
					t.Errorf("next request: got %v, %v", req, err)
				}
			}
		})
	}
}

func TestSpelling(t *testing.T) {
	c := over(strings.NewReader("GET / HTTP/1.1\r\nhost: a\r\nUser-Agent: x\r\nx-API-key: k\r\nContent-MD5: q\r\n\r\n"))
	if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Take().Spelled, " "); got != "host x-API-key Content-MD5" {
		t.Errorf("spelled: got %q", got)
	}
}

// TestEarlyBytes shows that what is sent along with a CONNECT or an upgrade
// reaches whoever takes the connection over, and that a refusal goes on with
// the next request instead.
func TestEarlyBytes(t *testing.T) {
	for name, head := range map[string]string{
		"connect": "CONNECT a.example:443 HTTP/1.1\r\n" + host + "\r\n",
		"upgrade": "GET /ws HTTP/1.1\r\n" + host + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			const early = "\x16\x03\x01 not http"
			client, server := net.Pipe()
			defer client.Close()
			go func() { client.Write([]byte(head + early)) }()
			c := New(server)
			br := bufio.NewReader(c)
			if _, err := http.ReadRequest(br); err != nil {
				t.Fatal(err)
			}
			// net/http looks for the next byte while the handler runs, until a deadline stops it.
			server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("read while parked: got %d, %v", n, err)
			}
			server.SetReadDeadline(time.Time{})
			got := make([]byte, len(early))
			if _, err := io.ReadFull(c.Release(), got); err != nil || string(got) != early {
				t.Errorf("early bytes: got %q, %v", got, err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		c := over(strings.NewReader("CONNECT a.example:443 HTTP/1.1\r\n" + host + "\r\nGET /next HTTP/1.1\r\n" + host + "\r\n"))
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err != nil {
			t.Fatal(err)
		}
		c.Resume()
		if req, err := http.ReadRequest(br); err != nil || req.URL.Path != "/next" {
			t.Errorf("next: got %v, %v", req, err)
		}
	})
}

func FuzzConn(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 7)
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n"), 1)
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"), 5)
	f.Add([]byte("CONNECT a:1 HTTP/1.0\r\n\r\n\x16\x03"), 3)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		whole := drain(over(bytes.NewReader(in)), 4096)
		parts := drain(over(iotest.OneByteReader(bytes.NewReader(in))), max(1, size%64))
		if !bytes.Equal(whole, parts) {
			t.Fatalf("what is handed out depends on how it arrives:\n%q\n%q", whole, parts)
		}
		if !bytes.HasPrefix(in, whole) && !bytes.HasSuffix(whole, []byte(faultRequest)) {
			t.Fatalf("handed out %q of %q", whole, in)
		}
		// net/http reads the same requests, one for each head that was noted.
		c := over(bytes.NewReader(in))
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if h := c.Take(); h.Fault != "" && req.Host != "invalid" {
				t.Fatalf("fault %q with request %v", h.Fault, req)
			}
			io.Copy(io.Discard, req.Body)
			c.Resume()
		}
	})
}

func drain(c *Conn, size int) []byte {
	var out []byte
	p := make([]byte, size)
	for {
		n, err := c.Read(p)
		out = append(out, p[:n]...)
		if err != nil {
			return out
		}
	}
}

func BenchmarkConn(b *testing.B) {
	const req = "GET /repos/acme/web/issues?per_page=50 HTTP/1.1\r\nHost: api.github.com\r\nUser-Agent: octokit\r\nAccept: application/vnd.github+json\r\nAuthorization: Bearer ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nAccept-Encoding: gzip\r\n\r\n"
	r := strings.NewReader("")
	c := over(r)
	p := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(req)
		n, err := c.Read(p)
		if n != len(req) || err != nil {
			b.Fatal(n, err)
		}
		c.Take()
	}
}
