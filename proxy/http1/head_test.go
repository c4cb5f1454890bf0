package http1

import (
	"strings"
	"testing"
)

const host = "Host: a.example\r\n"

// TestFaults shows which heads are refused, that the refusal is answered under a
// stand-in, and that nothing behind it is read.
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
		"no form of a target":         {"GET x HTTP/1.1\r\n" + host + "\r\n", faultTarget},
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
			const next = "GET /next HTTP/1.1\r\n" + host + "\r\n"
			for _, size := range []int{1 << 20, 1} {
				got := play(tc.in+next, size)
				if len(got) == 0 {
					t.Fatal("nothing was served")
				}
				if got[0].fault != tc.fault {
					t.Errorf("fault: got %q, want %q", got[0].fault, tc.fault)
				}
				if tc.fault != "" && (got[0].host != "invalid" || len(got) > 1) {
					t.Errorf("after a fault: got %+v", got)
				}
				if closes := strings.Contains(tc.in, "HTTP/1.0"); tc.fault == "" && !closes && (len(got) != 2 || got[1].target != "/next") {
					t.Errorf("next request: got %+v", got)
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
			for _, size := range []int{1 << 20, 1} {
				got := play(tc.in+next, size)
				if tc.bad {
					if len(got) != 1 || got[0].err == nil {
						t.Errorf("a broken body was read, or a request behind it: %+v", got)
					}
					continue
				}
				if len(got) != 2 || got[0].err != nil || got[0].body != tc.want || got[1].target != "/next" {
					t.Errorf("got %+v; want body %q and another request", got, tc.want)
				}
			}
		})
	}
}

func TestTrailers(t *testing.T) {
	got := play("POST / HTTP/1.1\r\n"+host+"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n", 7)
	if len(got) != 1 || got[0].trailer.Get("X-Sum") != "1" || len(got[0].trailer) != 1 {
		t.Errorf("got %+v; want the announced trailer alone", got)
	}
}

func TestSpelling(t *testing.T) {
	got := play("GET / HTTP/1.1\r\nhost: a\r\nUser-Agent: x\r\nx-API-key: k\r\nContent-MD5: q\r\n\r\n", 9)
	if len(got) != 1 || strings.Join(got[0].spelled, " ") != "host x-API-key Content-MD5" {
		t.Errorf("spelled: got %+v", got)
	}
}
