package sigv4

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"chaperone/credential/internal/secret"
)

// The published examples: AWS's Signature Version 4 test suite, and those of Amazon
// S3's documentation (API Reference, "Authenticating Requests").
const (
	suiteKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	docKey   = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	nothing  = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func suite(method, path, query, signed, signature string, more ...string) *Request {
	r := &Request{Method: method, Host: "example.amazonaws.com", Path: path, RawQuery: query, Header: http.Header{
		"X-Amz-Date":    {"20150830T123600Z"},
		"Authorization": {Scheme + " Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=" + signed + ", Signature=" + signature},
	}}
	for i := 0; i < len(more); i += 2 {
		r.Header.Add(more[i], more[i+1])
	}
	return r
}

func docs(method, path, signed, signature, payload string, more ...string) *Request {
	r := &Request{Method: method, Host: "examplebucket.s3.amazonaws.com", Path: path, ContentLength: -1, Header: http.Header{
		"X-Amz-Date": {"20130524T000000Z"}, "X-Amz-Content-Sha256": {payload},
		"Authorization": {Scheme + " Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + signed + ",Signature=" + signature},
	}}
	for i := 0; i < len(more); i += 2 {
		r.Header.Add(more[i], more[i+1])
	}
	return r
}

func TestPublishedVectors(t *testing.T) {
	for name, tc := range map[string]struct {
		r            *Request
		key, payload string
	}{
		"get-vanilla":                      {suite("GET", "/", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"), suiteKey, nothing},
		"get-vanilla-query-order-key-case": {suite("GET", "/", "Param2=value2&Param1=value1", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"), suiteKey, nothing},
		"post-vanilla":                     {suite("POST", "/", "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"), suiteKey, nothing},
		"S3 GET Object":                    {docs("GET", "/test.txt", "host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", nothing, "Range", "bytes=0-9"), docKey, nothing},
		"S3 PUT Object": {docs("PUT", "/test%24file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			"Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY"), docKey, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(tc.r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(tc.r, secret.New(tc.key), tc.payload); err != nil {
				t.Error(err)
			}
			if err := s.Verify(tc.r, secret.New(tc.key+"x"), tc.payload); !errors.Is(err, ErrMismatch) {
				t.Errorf("another key: %v", err)
			}
			if err := s.Verify(tc.r, secret.New(tc.key), Hash([]byte("other"))); !errors.Is(err, ErrMismatch) {
				t.Errorf("another body: %v", err)
			}
			if err := s.Verify(tc.r, secret.New(tc.key), tc.payload); err != nil {
				t.Error(err)
			}
			s.Resign(tc.r, Keys{ID: "AKIAOTHEROTHEROTHER0", Secret: secret.New("other"), Token: secret.New("to/ken")}, tc.payload)
			again, err := Parse(tc.r)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Verify(tc.r, secret.New("other"), tc.payload); err != nil || again.KeyID != "AKIAOTHEROTHEROTHER0" {
				t.Errorf("signed anew: %v", err)
			}
			if !strings.Contains(strings.Join(again.Signed, ";"), "x-amz-security-token") {
				t.Errorf("the token is not signed: %v", again.Signed)
			}
		})
	}
}

func TestPresignedVector(t *testing.T) {
	r := &Request{Method: "GET", Host: "examplebucket.s3.amazonaws.com", Path: "/test.txt", Header: http.Header{},
		RawQuery: "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"}
	s, err := ParseQuery(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(r, secret.New(docKey), Unsigned); err != nil || s.Lifetime != 24*time.Hour {
		t.Error(err, s.Lifetime)
	}
	s.Resign(r, Keys{ID: "AKIAOTHEROTHEROTHER0", Secret: secret.New("other"), Token: secret.New("to/ken")}, Unsigned)
	again, err := ParseQuery(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(r, secret.New("other"), Unsigned); err != nil || strings.Count(r.RawQuery, "X-Amz-Signature") != 1 || !strings.Contains(r.RawQuery, "X-Amz-Security-Token=to%2Fken") {
		t.Errorf("signed anew: %v, %s", err, r.RawQuery)
	}
}

// TestNamesOfFields: what is no name of a field cannot part the text that is signed.
func TestNamesOfFields(t *testing.T) {
	const query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404&X-Amz-SignedHeaders="
	for names, want := range map[string]error{"host": nil, "host%3Bx-amz-a_b": nil, "host%0Ax": ErrForm, "host%3Bx%3Ay": ErrForm, "%3Bhost": ErrForm} {
		if _, err := ParseQuery(&Request{Method: "GET", Host: "h", Path: "/", RawQuery: query + names}); !errors.Is(err, want) {
			t.Errorf("%s: %v", names, err)
		}
	}
}

// chunked is the documentation's upload in three chunks.
func chunked() (*Request, string) {
	r := docs("PUT", "/examplebucket/chunkObject.txt", "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
		"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", Chunks, "Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "66560", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY")
	r.Host, r.ContentLength = "s3.amazonaws.com", 66824
	body := "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + strings.Repeat("a", 65536) + "\r\n" +
		"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + strings.Repeat("a", 1024) + "\r\n" +
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
	return r, body
}

func TestChunkVectors(t *testing.T) {
	r, body := chunked()
	if len(body) != 66824 {
		t.Fatalf("the example has %d bytes", len(body))
	}
	s, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(r, secret.New(docKey), Chunks); err != nil {
		t.Fatal(err)
	}
	read := func(src io.Reader, from, to, head string, s *Signature) (string, error) {
		b, err := io.ReadAll(s.ResignChunks(src, secret.New(from), secret.New(to), head))
		return string(b), err
	}
	if got, err := read(strings.NewReader(body), docKey, docKey, s.Value, s); err != nil || got != body {
		t.Errorf("under the same key it changes: %v", err)
	}
	head := s.Resign(r, Keys{ID: "AKIAOTHEROTHEROTHER0", Secret: secret.New("other")}, Chunks)
	fresh, err := read(iotest.OneByteReader(strings.NewReader(body)), docKey, "other", head, s)
	if err != nil || len(fresh) != len(body) || fresh == body {
		t.Fatalf("%d bytes, %v", len(fresh), err)
	}
	again, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := read(strings.NewReader(fresh), "other", docKey, s.Value, again); err != nil || back != body {
		t.Errorf("and back: %v", err)
	}
	for name, bad := range map[string]string{
		"a byte of a chunk":   strings.Replace(body, "aaa", "aba", 1),
		"a chunk left out":    body[:90] + body[strings.Index(body, "400;"):],
		"cut off":             body[:70000-4000],
		"without its end":     strings.TrimSuffix(body, "\r\n"),
		"more behind it":      body + "x",
		"a size too large":    "fffffff" + body,
		"no signature":        "10000\r\n" + body[90:],
		"longer than it says": strings.Replace(body, "10000;", "0ffff;", 1),
	} {
		if got, err := read(strings.NewReader(bad), docKey, "other", head, s); !errors.Is(err, ErrChunk) && !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestTrailer(t *testing.T) {
	s := &Signature{Region: "us-east-1", Service: "s3", Value: strings.Repeat("0", 64), Payload: ChunksTrailer, stamp: "20130524T000000Z", date: "20130524"}
	key := chain{s.signingKey(secret.New("k")), s.Value}
	body := "3;chunk-signature=" + key.sign(s, "AWS4-HMAC-SHA256-PAYLOAD", Hash(nil)+"\n"+Hash([]byte("abc"))) + "\r\nabc\r\n" +
		"0;chunk-signature=" + key.sign(s, "AWS4-HMAC-SHA256-PAYLOAD", Hash(nil)+"\n"+Hash(nil)) + "\r\n" +
		"x-amz-checksum-crc32c:sOO8/Q==\r\n" + "x-amz-trailer-signature:" + key.sign(s, "AWS4-HMAC-SHA256-TRAILER", Hash([]byte("x-amz-checksum-crc32c:sOO8/Q==\n"))) + "\r\n\r\n"
	got, err := io.ReadAll(s.ResignChunks(strings.NewReader(body), secret.New("k"), secret.New("k"), s.Value))
	if err != nil || string(got) != body {
		t.Errorf("got %q, %v", got, err)
	}
	bad := strings.Replace(body, "sOO8", "tOO8", 1)
	if _, err := io.ReadAll(s.ResignChunks(strings.NewReader(bad), secret.New("k"), secret.New("k"), s.Value)); !errors.Is(err, ErrMismatch) {
		t.Errorf("a trailer that was changed: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	r, body := chunked()
	f.Add(r.Header.Get("Authorization"), "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=1", "/a%2Fb", body[:200])
	f.Fuzz(func(t *testing.T, auth, query, path, body string) {
		r := &Request{Method: "GET", Host: "h", Path: path, RawQuery: query, Header: http.Header{"Authorization": {auth}, "X-Amz-Date": {"20130524T000000Z"}}}
		for _, parse := range []func(*Request) (*Signature, error){Parse, ParseQuery} {
			s, err := parse(r)
			if err != nil {
				continue
			}
			if s.Verify(r, secret.New("k"), Unsigned) == nil {
				t.Fatal("a signature out of nowhere is good")
			}
			s.Resign(r, Keys{ID: "AKIAOTHEROTHEROTHER0", Secret: secret.New("k")}, Unsigned)
			again, err := parse(r)
			if err == nil {
				err = again.Verify(r, secret.New("k"), Unsigned)
			}
			if err != nil {
				t.Fatalf("what was signed is not good: %v", err)
			}
		}
		s := &Signature{Service: "s3", Value: "0", Payload: ChunksTrailer, date: "20130524"}
		if got, err := io.ReadAll(s.ResignChunks(strings.NewReader(body), secret.New("a"), secret.New("b"), "0")); err == nil {
			t.Fatalf("chunks out of nowhere are good: %q", got)
		}
	})
}
