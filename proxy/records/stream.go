package records

import "crypto/tls"

// maxText is the most that a record holds, in bytes (RFC 8446 section 5.1).
const maxText = 16 << 10

// Stream is TLS over a [Conn]. One goroutine reads and one writes, and any may close.
type Stream struct {
	*tls.Conn
	below *Conn
}

// Over returns the stream of tc, which was made over below and has shaken hands. Its
// records are full ones (DynamicRecordSizingDisabled).
func Over(tc *tls.Conn, below *Conn) *Stream { return &Stream{tc, below} }

// Write writes p, and has its records leave together.
func (s *Stream) Write(p []byte) (int, error) {
	if len(p) <= maxText {
		return s.Conn.Write(p)
	}
	s.below.expect(recordsOf(p))
	n, err := s.Conn.Write(p)
	if rest := s.below.settle(); err == nil {
		err = rest
	}
	return n, err
}

// WriteBoth writes head and then p, and has all their records leave together.
func (s *Stream) WriteBoth(head, p []byte) error {
	s.below.expect(recordsOf(head) + recordsOf(p))
	_, err := s.Conn.Write(head)
	if err == nil {
		_, err = s.Conn.Write(p)
	}
	if rest := s.below.settle(); err == nil {
		err = rest
	}
	return err
}

func recordsOf(p []byte) int { return (len(p) + maxText - 1) / maxText }

// Read waits for the first byte. Where p has room for more than a record, it takes
// the other records that have come as well.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil || len(p) <= maxText {
		return n, err
	}
	for n < len(p) {
		s.below.wait = declines
		if n >= maxText/2 { // a large body: it is worth asking the socket
			s.below.wait = looks
		}
		m, err := s.Conn.Read(p[n:])
		n += m
		if err != nil {
			break // what ends the connection is said again
		}
	}
	s.below.wait = waits
	return n, nil
}

// Quiet reports whether there is nothing to read: no byte that TLS has decrypted, no
// record or part of one, and no end. It does not wait. Session tickets are taken in.
func (s *Stream) Quiet() bool {
	b := s.below
	b.wait = looks
	n, err := s.Conn.Read(b.probe[:])
	b.wait = waits
	return n == 0 && err == error(nothingYet{}) && b.at == 0 && b.left == 0
}
