package testkit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Shapes is a handler with one path for each shape of HTTP traffic:
//
//	/json              a JSON object of 1 KiB
//	/echo              the request body, as it came
//	/status/CODE       an empty answer of that status
//	/sse, /ndjson      ?n= events (default 3), flushed one by one
//	/ticks             an event every 50 ms until the client goes away
//	/download          ?n= bytes (default 10 MiB), length given
//	/file              1 MiB of which parts can be had (Range)
//	/upload            reads everything, answers {"size":…}
//	/hints             103 with a Link, then 200
//	/trailers          chunked, with trailer X-Sum
//	/redirect          302 to /json
//	/hang              answers only when the client goes away
//	/cut               a length of 1000 and 10 bytes, then the connection ends
//	/ws                WebSocket echo
func Shapes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"ok":true,"fill":"%s"}`, strings.Repeat("x", 1002))
	})
	m.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		io.Copy(w, r.Body) // the client's own affair
	})
	m.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	m.HandleFunc("/sse", events("text/event-stream", "data: %d\n\n"))
	m.HandleFunc("/ndjson", events("application/x-ndjson", "{\"n\":%d}\n"))
	m.HandleFunc("/ticks", ticks)
	m.HandleFunc("/download", download)
	m.HandleFunc("/file", file)
	m.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, "body cut short", http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"size":%d}`, n)
	})
	m.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "hinted")
	})
	m.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "4")
	})
	m.Handle("/redirect", http.RedirectHandler("/json", http.StatusFound))
	m.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "0123456789")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	m.HandleFunc("/ws", echoSocket)
	return m
}

// count reads ?n=, bounded.
func count(r *http.Request, otherwise, most int) int {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 0 {
		return otherwise
	}
	return min(n, most)
}

func events(contentType, format string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		rc := http.NewResponseController(w)
		for i := range count(r, 3, 1<<20) {
			if _, err := fmt.Fprintf(w, format, i); err != nil || rc.Flush() != nil {
				return
			}
		}
	}
}

// ticks never ends by itself: a client that is cut off notices it here.
func ticks(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	Tick(r.Context(), func(n int) error {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", n); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
}

// Tick calls each with rising numbers, twenty times a second, until it fails or ctx
// is done, and returns why it ended.
func Tick(ctx context.Context, each func(n int) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := each(n); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func file(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Etag", `"one"`)
	http.ServeContent(w, r, "file.bin", time.Unix(1_700_000_000, 0), bytes.NewReader(bytes.Repeat([]byte("0123456789abcdef"), 1<<16)))
}

func download(w http.ResponseWriter, r *http.Request) {
	left := count(r, 10<<20, 1<<30)
	w.Header().Set("Content-Length", strconv.Itoa(left))
	buf := make([]byte, 64<<10)
	for left > 0 {
		n, err := w.Write(buf[:min(left, len(buf))])
		if err != nil {
			return
		}
		left -= n
	}
}

func echoSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}
