package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
)

// pieces are what a body comes in, in bytes: around what a record, and what the buffers
// on the way, hold.
var pieces = [...]int{1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 32 << 10, 3, 64 << 10, 64<<10 + 1, 128 << 10, 70_000, 1}

func whole() (n int) {
	for _, p := range pieces {
		n += p
	}
	return n
}

// readPiece reads n bytes that are all c, and one more would be of the next piece.
func readPiece(t *testing.T, r io.Reader, n int, c byte) {
	t.Helper()
	b := make([]byte, n)
	if k, err := io.ReadFull(r, b); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{c}, n)) {
		t.Fatalf("%d of the %d bytes of piece %c, %v", k, n, c, err)
	}
}

// inPieces serves and takes bodies of which each piece waits until the other side has
// all of the one before: there tells of it.
func (d *road) inPieces(t *testing.T, length int) (there chan struct{}) {
	there = make(chan struct{})
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			for i, n := range pieces {
				readPiece(t, r.Body, n, 'a'+byte(i))
				there <- struct{}{}
			}
			return
		}
		if length >= 0 {
			w.Header().Set("Content-Length", strconv.Itoa(length))
		}
		for i, n := range pieces {
			w.Write(bytes.Repeat([]byte{'a' + byte(i)}, n))
			w.(http.Flusher).Flush()
			<-there
		}
	}
	return there
}

// writePieces writes each piece when there is told of the one before.
func writePieces(w io.Writer, there chan struct{}) {
	for i, n := range pieces {
		w.Write(bytes.Repeat([]byte{'a' + byte(i)}, n))
		<-there
	}
}

func TestNoPieceOfAnAnswerIsHeldBack(t *testing.T) {
	for name, length := range map[string]int{"length unknown": -1, "length known": whole()} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, d *road, c *http.Client) {
				there := d.inPieces(t, length)
				resp, err := c.Do(d.request("GET", "https://api.acme.dev/large", nil))
				check(t, err)
				for i, n := range pieces {
					readPiece(t, resp.Body, n, 'a'+byte(i))
					there <- struct{}{}
				}
				if b, err := io.ReadAll(resp.Body); len(b) > 0 || err != nil {
					t.Errorf("behind the last piece: %d bytes, %v", len(b), err)
				}
			})
		})
	}
}

func TestNoPieceOfARequestIsHeldBack(t *testing.T) {
	both(t, func(t *testing.T, d *road, c *http.Client) {
		there := d.inPieces(t, -1)
		r, w := io.Pipe()
		go func() {
			writePieces(w, there)
			w.Close()
		}()
		resp, err := c.Do(d.request("POST", "https://api.acme.dev/large", r))
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
	t.Run("length known", func(t *testing.T) { // clients of net/http would hold it back themselves
		d := newRoad(t)
		there := d.inPieces(t, -1)
		tc, err := d.tunnelTo("api.acme.dev:443", "api.acme.dev")
		check(t, err)
		fmt.Fprintf(tc, "POST /large HTTP/1.1\r\nHost: api.acme.dev\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", d.session.Handles["acme"], whole())
		writePieces(tc, there)
		resp, err := http.ReadResponse(bufio.NewReader(tc), nil)
		check(t, err)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}
