package ship

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone/audit"
)

// heap is a target that keeps what it gets.
type heap struct {
	mu   sync.Mutex
	got  map[string]int // line -> how often
	deaf bool           // nobody listens
}

func (h *heap) Send(_ context.Context, batch []Item) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.got == nil {
		h.got = map[string]int{}
	}
	for _, i := range batch {
		h.got[string(i.Line)]++
	}
	return nil
}

func (h *heap) Close() error { return nil }

func (h *heap) lines() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.got)
}

// unreceipted is a heap that says nothing of what it took.
type unreceipted struct{ heap }

func (*unreceipted) Window() time.Duration { return time.Minute }
func (u *unreceipted) Listening() bool     { return !u.deaf }

// saved waits until all is sent, and returns the cursor that says so.
func saved(t *testing.T, k *Sink, cursor string) (b []byte) {
	t.Helper()
	until(t, "a cursor at the end", func() bool {
		st := k.Status()
		b, _ = os.ReadFile(cursor)
		return st.Sent > 0 && st.Behind == 0 && bytes.HasPrefix(b, fmt.Appendf(nil, `{"seq":%d,`, st.Sent))
	})
	return b
}

// cut takes the last lines off the log, with all that stands beside it, as a power cut
// does that came before they were on disk.
func (s *scribe) cut(n int) {
	s.t.Helper()
	if err := s.log.Close(); err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	if len(lines) < n {
		s.t.Fatalf("the segment has %d lines", len(lines))
	}
	beside, _ := filepath.Glob(s.path + ".*")
	for _, name := range beside {
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err = errors.Join(err, os.WriteFile(s.path, bytes.Join(lines[:len(lines)-n], nil), 0o600)); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// TestPowerCutLosesSentLines gives the numbers of lines that were sent to others: those
// are sent too, whenever the sink comes to see it.
func TestPowerCutLosesSentLines(t *testing.T) {
	for _, before := range []int{0, 3, 200} { // exchanges written before the sink starts again
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			s, h := newScribe(t), &heap{}
			cursor := filepath.Join(t.TempDir(), "cursor.json")
			s.write(10)
			k := s.sink(Options{Target: h, Cursor: cursor})
			closeSink(t, k)
			s.cut(11)
			s.write(before)
			if err := s.log.Flush(); err != nil {
				t.Fatal(err)
			}
			var told []string
			k = s.sink(Options{Target: h, Cursor: cursor, Notice: func(m string) { told = append(told, m) }})
			s.write(20)
			if err := s.log.Flush(); err != nil {
				t.Fatal(err)
			}
			closeSink(t, k)
			got := h.lines()
			for _, line := range s.lines() {
				if got[line] == 0 {
					t.Fatalf("was not sent: %s", line)
				}
			}
			if before == 0 && !strings.Contains(strings.Join(told, ";"), "were sent and are not in the log any more") {
				t.Errorf("told %q", told)
			}
		})
	}
}

// TestDamagedCursor starts with a cursor that a power cut left empty, or that is none:
// all lines are sent again, and none is left out.
func TestDamagedCursor(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "zeros": "\x00\x00\x00", "half": `{"seq":12,"fr`, "another type": `{"seq":"x"}`} {
		t.Run(name, func(t *testing.T) {
			s, h := newScribe(t), &heap{}
			s.write(5)
			cursor := filepath.Join(t.TempDir(), "cursor.json")
			if err := os.WriteFile(cursor, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			told := ""
			k := s.sink(Options{Target: h, Cursor: cursor, Notice: func(m string) { told = m }})
			closeSink(t, k)
			if len(h.lines()) != 10 || !strings.Contains(told, "cannot be read") {
				t.Errorf("%d lines, told %q", len(h.lines()), told)
			}
		})
	}
}

// TestFromNowStays does not move the beginning when a sink that has sent nothing yet is
// started again.
func TestFromNowStays(t *testing.T) {
	s, h := newScribe(t), &heap{}
	cursor := filepath.Join(t.TempDir(), "cursor.json")
	s.write(5)
	if err := s.log.Flush(); err != nil {
		t.Fatal(err)
	}
	closeSink(t, s.sink(Options{Target: h, Cursor: cursor, FromNow: true}))
	s.write(5)
	if err := s.log.Flush(); err != nil {
		t.Fatal(err)
	}
	closeSink(t, s.sink(Options{Target: h, Cursor: cursor, FromNow: true}))
	want := s.lines()
	if len(h.lines()) != len(want)-10 || h.lines()[want[10]] != 0 {
		t.Errorf("%d lines, want %d", len(h.lines()), len(want)-10)
	}
}

// TestWindowOverRestart has a target without receipts started again: what was sent
// lately is sent again where it was killed or nobody listened, and not after an end in
// order.
func TestWindowOverRestart(t *testing.T) {
	for name, tc := range map[string]struct {
		killed, deaf bool
		want         int
	}{"in order": {false, false, 1}, "killed": {true, false, 2}, "deaf": {false, true, 2}} {
		t.Run(name, func(t *testing.T) {
			s, u := newScribe(t), &unreceipted{}
			u.deaf = tc.deaf
			cursor := filepath.Join(t.TempDir(), "cursor.json")
			s.write(4)
			if err := s.log.Flush(); err != nil {
				t.Fatal(err)
			}
			k := s.sink(Options{Target: u, Cursor: cursor, Batch: 3})
			before := saved(t, k, cursor)
			closeSink(t, k)
			if tc.killed {
				if err := os.WriteFile(cursor, before, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s.write(1)
			if err := s.log.Flush(); err != nil {
				t.Fatal(err)
			}
			closeSink(t, s.sink(Options{Target: u, Cursor: cursor}))
			again := 0
			for _, n := range u.lines() {
				again = max(again, n)
			}
			if len(u.lines()) != 10 || again != tc.want {
				t.Errorf("%d lines, up to %d times, want %d", len(u.lines()), again, tc.want)
			}
		})
	}
}

// TestSyslogOverRestart kills a sink whose server goes away with what it had not read:
// the next one sends it again.
func TestSyslogOverRestart(t *testing.T) {
	c, s := newCollector(t), newScribe(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: c.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conf := c.options().TLS
	conf.ServerName = "example.com"
	options := SyslogOptions{Address: ln.Addr().String(), TLS: conf, Hostname: "host", PID: 1}
	cursor := filepath.Join(t.TempDir(), "cursor.json")
	s.write(120)
	if err := s.log.Flush(); err != nil {
		t.Fatal(err)
	}
	k := s.sink(Options{Target: NewSyslog(options), Cursor: cursor})
	lost, err := ln.Accept() // takes the connection, and of its messages none
	if err == nil {
		err = lost.(*tls.Conn).HandshakeContext(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	before := saved(t, k, cursor)
	lost.Close()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	k.Close(done)                                               // says that the server is gone, where it has heard of it
	if err := os.WriteFile(cursor, before, 0o600); err != nil { // as a process leaves it that is killed
		t.Fatal(err)
	}
	got := map[uint64]string{}
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		frames(bufio.NewReader(conn), func(line string) {
			n, _ := audit.Number([]byte(line))
			got[n] = line
		})
	})
	s.write(1)
	if err := s.log.Flush(); err != nil {
		t.Fatal(err)
	}
	closeSink(t, s.sink(Options{Target: NewSyslog(options), Cursor: cursor}))
	serving.Wait()
	same(t, got, s.lines())
}
