package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// TestChunksDoNotWait has what came of a chunk read while the rest of it is still being
// made, wherever the pieces end.
func TestChunksDoNotWait(t *testing.T) {
	mine, theirs := net.Pipe()
	defer mine.Close()
	c := &chunks{br: bufio.NewReaderSize(mine, 4<<10)}
	buf := make([]byte, 64<<10)
	for _, step := range []struct{ say, want string }{
		{"10000\r\n" + strings.Repeat("a", 100), strings.Repeat("a", 100)}, // of 64 KiB
		{strings.Repeat("b", 65536-100), strings.Repeat("b", 65536-100)},
		{"\r\n3\r\nabc\r\n2", "abc"}, // the next size has not come as a whole
		{"\r\nde", "de"},
		{"\r|\n1;x=y\r\nf\r\n4\r\ngh", "fgh"},
		{"ij\r\n0\r\n", "ij"},
	} {
		said := make(chan error, 1)
		go func() {
			var err error
			for piece := range strings.SplitSeq(step.say, "|") {
				_, perr := io.WriteString(theirs, piece)
				err = errors.Join(err, perr)
			}
			said <- err
		}()
		got := ""
		for len(got) < len(step.want) {
			n, err := c.Read(buf)
			if err != nil && (err != io.EOF || step.say != "ij\r\n0\r\n") {
				t.Fatal(err)
			}
			got += string(buf[:n])
		}
		if got != step.want {
			t.Fatalf("got %q, want %q", got, step.want)
		}
		if err := <-said; err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("behind the last chunk: %d, %v", n, err)
	}
}

// TestBodyDoesNotWaitForTrailers has the body read whose last chunk has come, while the
// service still makes the trailers.
func TestBodyDoesNotWaitForTrailers(t *testing.T) {
	taken := make(chan struct{})
	addr := serveRaw(t, func(_ int64, c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\n")
		<-taken
		io.WriteString(c, "X-Sum: 1\r\n\r\n")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := get("/x")
	resp, err := client(t, addr).Send(ctx, permit(t, r), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, 2)
	_, err = io.ReadFull(resp.Body, got)
	close(taken)
	rest, rerr := io.ReadAll(resp.Body)
	if string(got)+string(rest) != "hi" || err != nil || rerr != nil || resp.Trailer.Get("X-Sum") != "1" {
		t.Errorf("%q, %v, then %q, %v, %v", got, err, rest, rerr, resp.Trailer)
	}
}

// TestManySmallChunks has a body that comes faster than it is read, for which a larger
// buffer is taken: its trailers are read, the connection serves the next request, and
// bytes behind the body end it.
func TestManySmallChunks(t *testing.T) {
	piece := strings.Repeat("x", 1000)
	answer := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + strings.Repeat("3e8\r\n"+piece+"\r\n", 40) + "0\r\nX-Sum: 1\r\n\r\n"
	for behind, conns := range map[string]int64{"": 1, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad": 3} {
		var seen atomic.Int64
		addr := serveRaw(t, func(n int64, c net.Conn) {
			seen.Store(n)
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				io.WriteString(c, answer+behind)
			}
		})
		c := client(t, addr)
		for range 3 {
			var wide bool
			r := get("/x")
			resp, err := c.Send(t.Context(), permit(t, r), r)
			if err != nil {
				t.Fatal(err)
			}
			b := resp.Body.(*body)
			var got strings.Builder
			buf := make([]byte, 8<<10)
			for err == nil {
				wide = wide || b.chunks.wide != nil
				var n int
				n, err = resp.Body.Read(buf)
				got.Write(buf[:n])
			}
			if err != io.EOF || got.String() != strings.Repeat(piece, 40) || resp.Trailer.Get("X-Sum") != "1" || !wide {
				t.Errorf("%d bytes, %v, %v, larger buffer: %v", got.Len(), err, resp.Trailer, wide)
			}
			resp.Body.Close()
		}
		if seen.Load() != conns {
			t.Errorf("with %q behind: %d connections, want %d", behind, seen.Load(), conns)
		}
	}
}

func TestChunksRefuse(t *testing.T) {
	for in, want := range map[string]error{
		"":                               io.ErrUnexpectedEOF,
		"5\r\nhi":                        io.ErrUnexpectedEOF,
		"2\r\nhi":                        io.ErrUnexpectedEOF,
		"2\r\nhi\r\n":                    io.ErrUnexpectedEOF,
		"\r\n":                           ErrProtocol,
		"g\r\n":                          ErrProtocol,
		"-1\r\n":                         ErrProtocol,
		"0x2\r\nhi\r\n0\r\n":             ErrProtocol,
		" 2\r\nhi\r\n0\r\n":              ErrProtocol,
		"2\nhi\r\n0\r\n":                 ErrProtocol,
		"2\r\nhi\n0\r\n":                 ErrProtocol,
		"2\r\nhix\r\n0\r\n":              ErrProtocol,
		"2;a\rb\r\nhi\r\n0\r\n":          ErrProtocol,
		"1000000000000000\r\n":           ErrProtocol,
		"2;" + strings.Repeat("x", 5000): ErrProtocol,
		strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\na\r\n", 300): ErrProtocol,
	} {
		if _, err := io.ReadAll(&chunks{br: bufio.NewReader(strings.NewReader(in))}); !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", in, err, want)
		}
	}
}

// FuzzChunks compares with net/http's reader, for input in pieces of any size: what is
// taken here is the same there.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"2\r\nhi\r\n0\r\n", "2 \r\nhi\r\na;x\r\n0123456789\r\n00\r\nX: y\r\n\r\n", "5\r\nhi", "1\r\na\r\n1\r\nb\r\n"} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		got, err := io.ReadAll(&chunks{br: bufio.NewReader(bytes.NewReader(in))})
		slow, serr := io.ReadAll(iotest.OneByteReader(&chunks{br: bufio.NewReader(iotest.OneByteReader(bytes.NewReader(in)))}))
		if !bytes.Equal(got, slow) || (err == nil) != (serr == nil) {
			t.Fatalf("%q: %q, %v at once, %q, %v byte by byte", in, got, err, slow, serr)
		}
		c := &chunks{br: bufio.NewReaderSize(bytes.NewReader(in), 16)}
		var pieces []byte
		buf := make([]byte, 1+size&31)
		for range 4 * (len(in) + 1) {
			n, err := c.Read(buf)
			pieces = append(pieces, buf[:n]...)
			if err != nil {
				break
			}
		}
		if err == nil && len(in) < 16 && !bytes.Equal(pieces, got) {
			t.Fatalf("%q: %q, want %q", in, pieces, got)
		}
		want, werr := io.ReadAll(httputil.NewChunkedReader(bufio.NewReader(bytes.NewReader(in))))
		if err == nil && (werr != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%q: %q here, %q, %v there", in, got, want, werr)
		}
	})
}
