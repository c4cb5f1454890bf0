package proxy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/coder/websocket"
	"github.com/klauspost/compress/zstd"
)

// compressors are the codings that services answer in.
var compressors = map[string]func(io.Writer) io.WriteCloser{
	"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	"br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
	"zstd": func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w)
		if err != nil {
			panic(err)
		}
		return z
	},
}

func compressed(coding, text string) []byte {
	var b bytes.Buffer
	w := compressors[coding](&b)
	io.WriteString(w, text)
	w.Close()
	return b.Bytes()
}

// echoes are answers in which a service repeats what it was sent; what the agent is
// to read of each follows from the secret and the handle.
var echoes = map[string]struct {
	header http.Header
	body   string
	pieces int // in which the body is sent; 0: with its length, at once
	coding string
	raw    bool // what takes the secret's place is as long as it
}{
	"JSON":                 {body: `{"headers":{"Authorization":"Bearer SECRET"},"again":"SECRET"}`, header: http.Header{"Content-Type": {"application/json"}}},
	"JSON in pieces":       {body: `{"headers":{"Authorization":"Bearer SECRET"},"again":"SECRET"}`, pieces: 7, header: http.Header{"Content-Type": {"application/json"}}},
	"events":               {body: "data: SECRET\n\ndata: SECRET\n\n", pieces: 5, header: http.Header{"Content-Type": {"text/event-stream"}}},
	"long, with a length":  {body: strings.Repeat("x", 100<<10) + "SECRET" + strings.Repeat("y", 100<<10), raw: true, header: http.Header{"Content-Type": {"text/plain"}}},
	"bytes":                {body: "\x00\x01SECRET\x02", raw: true, header: http.Header{"Content-Type": {"application/octet-stream"}}},
	"Location":             {header: http.Header{"Location": {"https://h/?t=SECRET"}, "Set-Cookie": {"a=SECRET", "b=SECRET"}, "X-Echo": {"SECRET"}, "Content-Type": {"text/plain"}}, body: "see there"},
	"gzip":                 {body: `{"a":"SECRET"}`, coding: "gzip", header: http.Header{"Content-Type": {"application/json"}}},
	"deflate":              {body: `{"a":"SECRET"}`, coding: "deflate", header: http.Header{"Content-Type": {"application/json"}}},
	"br":                   {body: `{"a":"SECRET"}`, coding: "br", header: http.Header{"Content-Type": {"application/json"}}},
	"zstd":                 {body: `{"a":"SECRET"}`, coding: "zstd", header: http.Header{"Content-Type": {"application/json"}}},
	"gzip in pieces":       {body: strings.Repeat("SECRET and more,", 1000), pieces: 3, coding: "gzip", header: http.Header{"Content-Type": {"text/plain"}, "Etag": {`"v1"`}}},
	"br in pieces":         {body: strings.Repeat("SECRET and more,", 1000), pieces: 3, coding: "br", header: http.Header{"Content-Type": {"text/plain"}}},
	"zstd in pieces":       {body: strings.Repeat("SECRET and more,", 1000), pieces: 3, coding: "zstd", header: http.Header{"Content-Type": {"text/plain"}}},
	"Basic, in base64":     {body: "BASE64", raw: true, header: http.Header{"Content-Type": {"text/plain"}}},
	"nothing of it":        {body: `{"a":"b"}`, header: http.Header{"Content-Type": {"application/json"}}},
	"nothing of it, gzip":  {body: `{"a":"b"}`, coding: "gzip", header: http.Header{"Content-Type": {"application/json"}}},
	"the handle's own sum": {body: `{"a":"HANDLE"}`, header: http.Header{"Content-Type": {"application/json"}}},
}

// TestEchoedSecretsComeBackAsHandles shows that a service that repeats the secret
// which it was sent does not show it to the agent, however it says it.
func TestEchoedSecretsComeBackAsHandles(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		c.Transport.(*http.Transport).DisableCompression = true
		for name, tc := range echoes {
			t.Run(name, func(t *testing.T) {
				basic := base64.StdEncoding.EncodeToString([]byte("user:" + canary + ":end"))
				fill := strings.NewReplacer("SECRET", canary, "BASE64", basic, "HANDLE", d.session.Handles["acme"])
				d.serve = func(w http.ResponseWriter, r *http.Request) {
					answerInPieces(w, fill, tc.header, tc.body, tc.coding, tc.pieces)
				}
				r := d.request("GET", "https://api.acme.dev/echo", nil)
				r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
				resp, err := c.Do(r)
				check(t, err)
				body, err := io.ReadAll(resp.Body)
				check(t, err)
				if resp.Header.Get("Content-Encoding") != "" {
					body = plainOf(t, resp.Header.Get("Content-Encoding"), body)
				}
				all := fmt.Sprint(resp.Header) + string(body)
				if strings.Contains(all, canary) || strings.Contains(all, basic[12:40]) {
					t.Fatalf("the agent was shown the secret: %.300s", all)
				}
				want := strings.ReplaceAll(tc.body, "SECRET", strings.Repeat("*", len(canary)))
				if !tc.raw {
					want = strings.ReplaceAll(tc.body, "SECRET", d.session.Handles["acme"])
				}
				if !strings.Contains(tc.body, "BASE64") && string(body) != strings.ReplaceAll(want, "HANDLE", d.session.Handles["acme"]) {
					t.Errorf("got %.200q, want %.200q", body, want)
				}
				if resp.ContentLength >= 0 && resp.Header.Get("Content-Encoding") == "" && resp.ContentLength != int64(len(body)) {
					t.Errorf("length %d for %d bytes", resp.ContentLength, len(body))
				}
				checkScrubbed(t, d, tc.body+fmt.Sprint(tc.header))
			})
		}
	})
}

func plainOf(t *testing.T, coding string, b []byte) []byte {
	r, ok := decoder(coding, bytes.NewReader(b))
	if !ok {
		t.Fatalf("coding %q", coding)
	}
	plain, err := io.ReadAll(r)
	check(t, err)
	return plain
}

func checkScrubbed(t *testing.T, d *road, text string) {
	want := strings.Count(text, "SECRET") + strings.Count(text, "BASE64")
	all := d.records(len(d.received()))
	if got := all[len(all)-1].Outcome.Outcome.Scrubbed; got != want {
		t.Errorf("the record says %d, want %d", got, want)
	}
}

func answerInPieces(w http.ResponseWriter, fill *strings.Replacer, header http.Header, body, coding string, pieces int) {
	for name, values := range header {
		for _, v := range values {
			w.Header().Add(name, fill.Replace(v))
		}
	}
	b := []byte(fill.Replace(body))
	if coding != "" {
		b = compressed(coding, string(b))
		w.Header().Set("Content-Encoding", coding)
	}
	if pieces == 0 {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b)
		return
	}
	for n := len(b)/pieces + 1; len(b) > 0; {
		k := min(n, len(b))
		w.Write(b[:k])
		w.(http.Flusher).Flush()
		b = b[k:]
	}
}

// TestAnswersWithoutSecretsAreUntouched shows that what holds no secret keeps its
// bytes, its length, its coding and its validators.
func TestAnswersWithoutSecretsAreUntouched(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		c.Transport.(*http.Transport).DisableCompression = true
		zipped := compressed("gzip", `{"a":"b"}`)
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Etag", `"v1"`)
			w.Header().Set("Content-Length", fmt.Sprint(len(zipped)))
			w.Write(zipped)
		}
		r := d.request("GET", "https://api.acme.dev/zipped", nil)
		r.Header.Set("Accept-Encoding", "gzip;q=1.0, *;q=0")
		resp, err := c.Do(r)
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, err)
		if !bytes.Equal(body, zipped) || resp.ContentLength != int64(len(zipped)) || resp.Header.Get("Etag") != `"v1"` {
			t.Errorf("changed: %d bytes of %d, %v", len(body), len(zipped), resp.Header)
		}
		if got := d.received()[0].Header.Get("Accept-Encoding"); got != "gzip;q=1.0, *;q=0" {
			t.Errorf("the service was asked for %q", got)
		}
	})
}

func TestWhatCannotBeSearchedIsRecorded(t *testing.T) {
	d := newRoad(t)
	c := d.client(false)
	c.Transport.(*http.Transport).DisableCompression = true
	for n, tc := range []struct{ status, coding, asked, want string }{
		{"200 OK", "compress", "compress, gzip", "coding"},
		{"206 Partial Content", "", "identity", "range"},
	} {
		d.serve = func(w http.ResponseWriter, r *http.Request) {
			if tc.coding != "" {
				w.Header().Set("Content-Encoding", tc.coding)
			}
			var code int
			fmt.Sscan(tc.status, &code)
			w.WriteHeader(code)
			io.WriteString(w, "something")
		}
		r := d.request("GET", "https://api.acme.dev/odd", nil)
		r.Header.Set("Accept-Encoding", tc.asked)
		resp, err := c.Do(r)
		check(t, err)
		if body, _ := io.ReadAll(resp.Body); string(body) != "something" {
			t.Errorf("got %q", body)
		}
		if got := d.records(n + 1)[n].Outcome.Outcome.Unsearched; got != tc.want {
			t.Errorf("%s %s: the record says %q", tc.status, tc.coding, got)
		}
	}
	if got := d.received()[0].Header.Get("Accept-Encoding"); got != "gzip" {
		t.Errorf("the service was offered %q, which cannot be looked into", got)
	}
}

func TestWebSocketEcho(t *testing.T) {
	d := newRoad(t)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Websocket-Extensions") != "" {
			t.Error("compression of frames was offered")
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.Write(r.Context(), websocket.MessageText, []byte("you sent "+r.Header.Get("Authorization")))
		c.Read(r.Context())
	}
	c, _, err := websocket.Dial(t.Context(), "wss://api.acme.dev/ws", &websocket.DialOptions{
		HTTPClient: d.client(false), HTTPHeader: http.Header{"Authorization": {"Bearer " + d.session.Handles["acme"]}}, CompressionMode: websocket.CompressionContextTakeover,
	})
	check(t, err)
	_, b, err := c.Read(t.Context())
	check(t, err)
	if want := "you sent Bearer " + strings.Repeat("*", len(canary)); string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	c.Close(websocket.StatusNormalClosure, "")
	if got := d.records(1)[0].Outcome.Outcome.Scrubbed; got != 1 {
		t.Errorf("the record says %d", got)
	}
}

// TestEchoBehindALongAnswer: an agent that makes a service repeat much beside the secret
// makes an answer that is short while it is compressed.
func TestEchoBehindALongAnswer(t *testing.T) {
	for coding := range compressors {
		for name, tc := range map[string]struct {
			body string
			cut  int
		}{
			"long":   {canary + strings.Repeat("a", 3*maxDecoded) + canary, 0},
			"broken": {canary + " and more", 3},
		} {
			t.Run(coding+", "+name, func(t *testing.T) {
				d := newRoad(t)
				b := compressed(coding, tc.body)
				b = b[:len(b)-tc.cut]
				d.serve = func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.Header().Set("Content-Encoding", coding)
					w.Header().Set("Content-Length", fmt.Sprint(len(b)))
					w.Write(b)
				}
				r := d.request("GET", "https://api.acme.dev/echo", nil)
				r.Header.Set("Accept-Encoding", coding)
				resp, err := d.client(false).Do(r)
				check(t, err)
				defer resp.Body.Close()
				got, _ := io.ReadAll(resp.Body)
				if resp.Header.Get("Content-Encoding") != "" {
					if dec, ok := decoder(coding, bytes.NewReader(got)); ok {
						got, _ = io.ReadAll(dec)
					}
				}
				if bytes.Contains(got, []byte(canary)) {
					t.Errorf("the agent was shown the secret: %.80q", got)
				}
			})
		}
	}
}

// TestMessagesAreAskedForPlain: gRPC and Connect compress message by message, within a
// body that is not compressed.
func TestMessagesAreAskedForPlain(t *testing.T) {
	d := newRoad(t)
	r := d.request("GET", "https://api.acme.dev/x", nil)
	r.Header.Set("grpc-accept-encoding", "gzip")
	r.Header["connect-accept-encoding"] = []string{"gzip"}
	resp, err := d.client(false).Do(r)
	check(t, err)
	resp.Body.Close()
	if h := d.received()[0].Header; h.Get("Authorization") == "" || h.Get("Grpc-Accept-Encoding")+h.Get("Connect-Accept-Encoding") != "" {
		t.Errorf("the service was offered compression of messages: %v", h)
	}
}

// TestInterimAnswersAreSearched: a service repeats the secret before it answers.
func TestInterimAnswersAreSearched(t *testing.T) {
	d := newRoad(t)
	d.serve = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</x?t="+canary+">")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(http.StatusOK)
	}
	got := d.rawAll("GET /x HTTP/1.1\r\nHost: api.acme.dev\r\nAUTH\r\nConnection: close\r\n\r\n")
	if !strings.Contains(got, "103 Early") || strings.Contains(got, canary) {
		t.Errorf("the agent got %s", got)
	}
}

// rawAll sends bytes into a tunnel and returns all that comes back.
func (d *road) rawAll(text string) string {
	d.t.Helper()
	conn, err := d.tunnelTo("api.acme.dev:443", "api.acme.dev")
	check(d.t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(conn, strings.ReplaceAll(text, "AUTH", "Authorization: Bearer "+d.session.Handles["acme"]))
	check(d.t, err)
	b, err := io.ReadAll(conn)
	check(d.t, err)
	return string(b)
}
