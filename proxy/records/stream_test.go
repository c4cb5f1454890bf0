package records

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chaperone/certs"
)

// bound is how long a test waits for what must happen.
const bound = 30 * time.Second

// spy is a connection of which the writes are counted, and fail from one on.
type spy struct {
	*net.TCPConn
	writes atomic.Int32
	failAt int32 // the write that fails, and all behind it; 0: none
}

var errCut = errors.New("cut")

func (s *spy) Write(p []byte) (int, error) {
	if n := s.writes.Add(1); s.failAt > 0 && n >= s.failAt {
		return 0, errCut
	}
	return s.TCPConn.Write(p)
}

// joined returns a stream and its peer, which speaks TLS alone, over a socket.
func joined(t testing.TB, version uint16) (s *Stream, socket *spy, peer *tls.Conn, wire *net.TCPConn) {
	t.Helper()
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf("a.example")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	wire = near.(*net.TCPConn)
	socket = &spy{TCPConn: far.(*net.TCPConn)}
	peer = tls.Client(&turn{TCPConn: wire}, &tls.Config{RootCAs: roots, ServerName: "a.example", MaxVersion: version, DynamicRecordSizingDisabled: true})
	below := New(socket)
	tc := tls.Server(below, &tls.Config{Certificates: []tls.Certificate{*leaf}, DynamicRecordSizingDisabled: true})
	t.Cleanup(func() { near.Close(); far.Close() })
	near.SetDeadline(time.Now().Add(bound))
	far.SetDeadline(time.Now().Add(bound))
	done := make(chan error, 1)
	go func() { done <- peer.Handshake() }()
	if err := errors.Join(tc.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	socket.writes.Store(0)
	return Over(tc, below), socket, peer, wire
}

func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func versions(t *testing.T, f func(t *testing.T, version uint16)) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(v), func(t *testing.T) { f(t, v) })
	}
}

// TestWrittenHasLeft shows that nothing is held back: whatever was written is with the
// peer although nothing follows it, and in how many writes to the socket.
func TestWrittenHasLeft(t *testing.T) {
	versions(t, func(t *testing.T, version uint16) {
		s, socket, peer, _ := joined(t, version)
		for _, tc := range []struct {
			head, text int
			most       int32
		}{
			{0, 1, 1}, {0, maxText, 1}, {0, maxText + 1, 1}, {0, 4 * maxText, 1}, {0, 4*maxText + 1, 2}, {0, 1 << 20, 16},
			{1, 1, 1}, {300, 3 * maxText, 1}, {8192, 4 * maxText, 2}, {2*maxText + 1, 5, 1}, {0, 100, 1},
		} {
			want := text(tc.head + tc.text)
			before := socket.writes.Load()
			got := make(chan error, 1)
			go func() {
				b := make([]byte, len(want))
				_, err := io.ReadFull(peer, b)
				if err == nil && !bytes.Equal(b, want) {
					err = errors.New("other bytes")
				}
				got <- err
			}()
			var err error
			if tc.head == 0 {
				_, err = s.Write(want)
			} else {
				err = s.WriteBoth(want[:tc.head], want[tc.head:])
			}
			if err := errors.Join(err, <-got); err != nil {
				t.Fatalf("%d and %d bytes: %v", tc.head, tc.text, err)
			}
			if n := socket.writes.Load() - before; n > tc.most {
				t.Errorf("%d and %d bytes left in %d writes, want at most %d", tc.head, tc.text, n, tc.most)
			}
		}
	})
}

// TestCloseComesBehind shows that what was written arrives before the end, and the end
// in good order.
func TestCloseComesBehind(t *testing.T) {
	versions(t, func(t *testing.T, version uint16) {
		s, _, peer, _ := joined(t, version)
		go func() {
			s.Write(text(3 * maxText))
			s.Close()
		}()
		b, err := io.ReadAll(peer)
		if err != nil || !bytes.Equal(b, text(3*maxText)) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
}

// TestLostWriteIsSeen shows that a write tells of its own loss, and so do those behind it.
func TestLostWriteIsSeen(t *testing.T) {
	for at := range int32(3) {
		s, socket, _, _ := joined(t, tls.VersionTLS13)
		socket.failAt = at + 1
		if _, err := s.Write(text(12 * maxText)); !errors.Is(err, errCut) { // three writes
			t.Errorf("write %d: %v", at, err)
		}
		if err := s.WriteBoth(text(1), text(2*maxText)); err == nil {
			t.Error("a write behind it is not refused")
		}
		if s.below.gather != nil || s.below.due != 0 {
			t.Error("something is still gathered")
		}
	}
}

// TestCloseEndsAWrite shows that closing does not wait for a peer that reads nothing.
func TestCloseEndsAWrite(t *testing.T) {
	s, socket, _, _ := joined(t, tls.VersionTLS13)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := s.Write(text(1 << 20)); err != nil {
				ended <- err
				return
			}
		}
	}()
	for before := int32(-1); before != socket.writes.Load(); { // until it is stuck
		before = socket.writes.Load()
		<-time.After(50 * time.Millisecond)
	}
	began := time.Now()
	s.Close()
	if err := <-ended; err == nil {
		t.Error("the write succeeded")
	}
	if d := time.Since(began); d > bound/2 {
		t.Errorf("took %v", d)
	}
}

// TestReadTakesWhatIsThere shows that a large read takes the records that have come,
// and does not wait for those, or the rest of the one, that have not.
func TestReadTakesWhatIsThere(t *testing.T) {
	versions(t, func(t *testing.T, version uint16) {
		s, socket, peer, wire := joined(t, version)
		p := make([]byte, 8*maxText)
		var sealed bytes.Buffer
		write := func(n int) []byte {
			sealed.Reset()
			seal(t, peer, &sealed, text(n))
			return slices.Clone(sealed.Bytes())
		}
		all := write(3 * maxText)
		rest := write(maxText)
		whole := append(slices.Clone(all), rest[:1000]...)
		if _, err := wire.Write(whole); err != nil {
			t.Fatal(err)
		}
		arrived(t, socket, len(whole))
		n, err := s.Read(p)
		if err != nil || !bytes.Equal(p[:n], text(3*maxText)) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if s.Quiet() {
			t.Error("a part of a record passes for nothing")
		}
		if _, err := wire.Write(rest[1000:]); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(s, p[:maxText]); err != nil || !bytes.Equal(p[:n], text(maxText)) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if !s.Quiet() {
			t.Error("there is something left")
		}
	})
}

// arrived waits until n bytes can be read from a socket.
func arrived(t *testing.T, s *spy, n int) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b, there := make([]byte, n), 0
	for end := time.Now().Add(bound); there < n; runtime.Gosched() {
		if err := raw.Read(func(fd uintptr) bool {
			there, _, err = syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			return true
		}); err != nil || time.Now().After(end) {
			t.Fatalf("%d of %d bytes, %v", there, n, err)
		}
	}
}

// seal encrypts p as peer would, and writes that to w in the place of its socket.
func seal(t *testing.T, peer *tls.Conn, w io.Writer, p []byte) {
	t.Helper()
	d, ok := peer.NetConn().(*turn)
	if !ok {
		t.Fatal("the peer's connection cannot be turned")
	}
	d.mu.Lock()
	d.to = w
	d.mu.Unlock()
	_, err := peer.Write(p)
	d.mu.Lock()
	d.to = nil
	d.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
}

// turn is a connection whose writes can go elsewhere.
type turn struct {
	*net.TCPConn
	mu sync.Mutex
	to io.Writer // nil: the socket
}

func (d *turn) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to != nil {
		return d.to.Write(p)
	}
	return d.TCPConn.Write(p)
}

// TestEndIsReadAgain shows that an end found while looking for more is not lost.
func TestEndIsReadAgain(t *testing.T) {
	versions(t, func(t *testing.T, version uint16) {
		for name, end := range map[string]func(peer *tls.Conn, wire *net.TCPConn){
			"in good order":  func(peer *tls.Conn, _ *net.TCPConn) { peer.CloseWrite() },
			"without a word": func(_ *tls.Conn, wire *net.TCPConn) { wire.CloseWrite() },
		} {
			s, _, peer, wire := joined(t, version)
			if _, err := peer.Write(text(3 * maxText)); err != nil {
				t.Fatal(err)
			}
			end(peer, wire)
			p, got := make([]byte, 8*maxText), 0
			var err error
			for err == nil {
				var n int
				n, err = s.Read(p[got:])
				got += n
			}
			if err != io.EOF || !bytes.Equal(p[:got], text(3*maxText)) {
				t.Errorf("%s: %d bytes, %v", name, got, err)
			}
			if n, err := s.Read(p); n != 0 || err != io.EOF {
				t.Errorf("%s: then %d bytes, %v", name, n, err)
			}
		}
	})
}

// TestReadKeepsItsDeadline shows that looking for more leaves a deadline in force.
func TestReadKeepsItsDeadline(t *testing.T) {
	s, _, peer, _ := joined(t, tls.VersionTLS13)
	if _, err := peer.Write(text(2 * maxText)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8*maxText)
	for got := 0; got < 2*maxText; {
		n, err := s.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	s.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := s.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind its deadline: %v", err)
	}
	s.SetReadDeadline(time.Now().Add(bound))
	if _, err := peer.Write(text(5)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(p); n != 5 || err != nil {
		t.Errorf("with a new one: %d bytes, %v", n, err)
	}
}

func TestPeek(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		far.Write([]byte("hello"))
		far.Close()
	}()
	c := New(near)
	if b, err := c.Peek(); b != 'h' || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := c.Peek(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// FuzzStream has the same bytes pass through a stream and through TLS alone, in pieces of
// any sizes both ways.
func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 64, 65, 255, 0, 3})
	f.Add([]byte{255, 255, 255, 255})
	f.Add([]byte{129, 2, 130, 17, 64})
	s, _, peer, _ := joined(f, tls.VersionTLS13)
	var one sync.Mutex // a connection serves one of the tests that run side by side
	f.Fuzz(func(t *testing.T, sizes []byte) {
		one.Lock()
		defer one.Unlock()
		deadline := time.Now().Add(bound)
		s.SetDeadline(deadline)
		peer.SetDeadline(deadline)
		all := 0
		for _, n := range sizes {
			all += int(n) << 9
		}
		want, errs := text(all), make(chan error, 2)
		go func() { errs <- inPieces(s, want, sizes) }()
		go func() { errs <- inPieces(peer, want, sizes) }()
		for name, r := range map[string]io.Reader{"the stream": s, "TLS": peer} {
			go func() {
				p, got := make([]byte, all+1), 0
				for i := 0; got < all; i++ {
					n, err := r.Read(p[got:min(all, got+1+int(sizes[i%len(sizes)])<<10)])
					if got += n; err != nil {
						errs <- fmt.Errorf("%s: %w", name, err)
						return
					}
				}
				if !bytes.Equal(p[:got], want) {
					errs <- fmt.Errorf("%s read other bytes", name)
					return
				}
				errs <- nil
			}()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// inPieces writes b in pieces. Where a size is odd, it is two at once.
func inPieces(w io.Writer, b []byte, sizes []byte) error {
	for _, n := range sizes {
		p := b[:int(n)<<9]
		b = b[len(p):]
		var err error
		if s, ok := w.(*Stream); ok && n%2 == 1 {
			err = s.WriteBoth(p[:len(p)/3], p[len(p)/3:])
		} else {
			_, err = w.Write(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
