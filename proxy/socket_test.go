package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"chaperone/proxy/identity"
)

// frame is a frame of n bytes, masked as an agent's are where that is said.
func frame(op byte, n int, masked bool) []byte {
	out, bit := []byte{0x80 | op}, byte(0)
	if masked {
		bit = 0x80
	}
	switch {
	case n < 126:
		out = append(out, bit|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, bit|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, bit|127), uint64(n))
	}
	if masked {
		out = append(out, 1, 2, 3, 4)
	}
	return append(out, bytes.Repeat([]byte{0x88}, n)...) // which looks like frames
}

// TestFramesEndWhole bars a stream of frames of all lengths at any place of it, cut into
// pieces anyhow: what comes out is whole frames and then the last, or the beginning of a
// frame and nothing.
func TestFramesEndWhole(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		var in []byte
		borders := map[int]bool{0: true}
		for range 1 + rnd.IntN(6) {
			in = append(in, frame(2, []int{0, 1, 125, 126, 300, 65535, 65536, 70000}[rnd.IntN(8)], round%2 == 0)...)
			borders[len(in)] = true
		}
		var out bytes.Buffer
		h := &half{w: &out, ends: rnd.IntN(2) == 0}
		at, barred := rnd.IntN(len(in)+1), -1
		for rest := in; len(rest) > 0; {
			if barred < 0 && len(in)-len(rest) >= at {
				barred = len(in) - len(rest)
				h.bar([]byte("last"))
				h.part()
			}
			n := 1 + rnd.IntN(min(len(rest), []int{1, 10, 1 << 17}[rnd.IntN(3)]))
			if got, err := h.Write(rest[:n]); got != n || err != nil {
				t.Fatalf("wrote %d of %d: %v", got, n, err)
			}
			rest = rest[n:]
		}
		got, ended := strings.CutSuffix(out.String(), "last")
		if !strings.HasPrefix(string(in), got) || h.sent() != int64(len(got)) {
			t.Fatalf("round %d: what came out is not what went in", round)
		}
		switch {
		case barred < 0 && (ended || len(got) != len(in)):
			t.Fatalf("round %d: %d of %d bytes passed, ended %v", round, len(got), len(in), ended)
		case barred < 0:
		case !h.ends && len(got) != barred:
			t.Fatalf("round %d: barred after %d bytes, %d came out", round, barred, len(got))
		case ended != borders[len(got)], h.ends && !ended:
			t.Fatalf("round %d: barred after %d bytes, %d came out, ended %v", round, barred, len(got), ended)
		case borders[barred] && len(got) != barred:
			t.Fatalf("round %d: a frame began behind the bar", round)
		}
	}
}

// wire is what the service's side of a socket saw.
type wire struct {
	got  []string
	last error
}

// socketService accepts sockets and tells what it saw of each.
func (d *road) socketService(t *testing.T, saw chan<- wire) {
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		var seen wire
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				seen.last = err
				saw <- seen
				return
			}
			seen.got = append(seen.got, string(b))
			c.Write(r.Context(), kind, b)
		}
	}
}

func (d *road) dialSocket(ctx context.Context, t *testing.T) *websocket.Conn {
	t.Helper()
	hc := d.client(false)
	hc.Timeout = 0
	c, _, err := websocket.Dial(ctx, "wss://api.acme.dev/socket", &websocket.DialOptions{HTTPClient: hc, HTTPHeader: http.Header{"Authorization": {"Bearer " + d.session.Handles["acme"]}}})
	check(t, err)
	t.Cleanup(func() { c.CloseNow() })
	check(t, c.Write(ctx, websocket.MessageText, []byte("echo")))
	if _, b, err := c.Read(ctx); err != nil || string(b) != "echo" {
		t.Fatalf("%q, %v", b, err)
	}
	return c
}

// TestSocketCut takes back what allowed a socket: both sides get a Close frame that says
// so, and the record does.
func TestSocketCut(t *testing.T) {
	for name, x := range map[string]struct {
		cut  func(context.Context, *road) error
		code websocket.StatusCode
		text string
		note string
	}{
		"session": {func(ctx context.Context, d *road) error {
			_, err := d.dir.Revoke(ctx, identity.Target{Session: d.session.ID}, "test", "me")
			return err
		}, websocket.StatusPolicyViolation, "the session was revoked", "session_revoked"},
		"handle": {func(ctx context.Context, d *road) error {
			_, err := d.dir.Revoke(ctx, identity.Target{Handle: d.session.Handles["acme"]}, "test", "me")
			return err
		}, websocket.StatusPolicyViolation, "the handle was revoked", "handle_revoked"},
		"suspension": {func(ctx context.Context, d *road) error {
			return d.dir.SuspendAgent(ctx, "bot", "test")
		}, websocket.StatusPolicyViolation, "the agent is suspended", "agent_suspended"},
		"stop": {func(_ context.Context, d *road) error {
			d.server.Close()
			return nil
		}, websocket.StatusGoingAway, "the proxy stops", "shutting_down"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newRoad(t)
			d.server.parting = 30 * time.Second
			saw := make(chan wire, 1)
			d.socketService(t, saw)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c := d.dialSocket(ctx, t)
			read := make(chan error, 1)
			go func() {
				_, _, err := c.Read(ctx)
				read <- err
			}()
			check(t, x.cut(ctx, d))
			var told websocket.CloseError
			if err := <-read; !errors.As(err, &told) || told.Code != x.code || !strings.Contains(told.Reason, x.text) {
				t.Errorf("the agent was told %v", err)
			}
			if seen := <-saw; websocket.CloseStatus(seen.last) != websocket.StatusGoingAway || fmt.Sprint(seen.got) != "[echo]" {
				t.Errorf("the service saw %q and then %v", seen.got, seen.last)
			}
			if r := d.records(1)[0]; r.Outcome.Outcome.Error != x.note || r.Outcome.Outcome.Status != 101 {
				t.Errorf("record %s", r.Outcome.Raw)
			}
		})
	}
}

// TestSocketCutInMidFrame revokes while both sides are in the middle of a frame: the
// service's ends and is followed by a Close frame, and the agent's never does.
func TestSocketCutInMidFrame(t *testing.T) {
	d := newRoad(t)
	const half = 70000
	whole := frame(2, 2*half, false)
	begun, cut, rest := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	d.serve = func(w http.ResponseWriter, _ *http.Request) {
		nc, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		rw.Write(whole[:half])
		rw.Flush()
		io.ReadFull(rw, make([]byte, half)) // the first half of the agent's
		close(begun)
		<-cut
		rw.Write(whole[half:])
		rw.Flush()
		n, _ := io.Copy(io.Discard, rw)
		rest <- int(n)
	}
	d.server.parting = 30 * time.Second
	conn, err := d.tunnelTo("api.acme.dev:443", "api.acme.dev")
	check(t, err)
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: api.acme.dev\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n", d.session.Handles["acme"])
	agents := frame(2, 2*half, true)
	_, err = conn.Write(agents[:half])
	check(t, err)
	<-begun
	br := bufio.NewReader(conn)
	for line := ""; line != "\r\n"; { // the head
		line, err = br.ReadString('\n')
		check(t, err)
	}
	first := make([]byte, half)
	_, err = io.ReadFull(br, first)
	check(t, err)
	_, err = d.dir.Revoke(t.Context(), identity.Target{Session: d.session.ID}, "test", "me")
	check(t, err)
	close(cut)
	go conn.Write(agents[half:])
	all, err := io.ReadAll(br)
	check(t, err)
	check(t, conn.Close())
	frames := string(first) + string(all)
	want := string(whole) + string(closeFrame(closePolicy, "the session was revoked", false))
	if frames != want {
		t.Errorf("the agent read %d bytes behind the head, want %d; they end with %q", len(frames), len(want), frames[max(0, len(frames)-40):])
	}
	if n := <-rest; n != 0 {
		t.Errorf("the service got %d bytes of a session that was revoked", n)
	}
}
