package upstream

import (
	"io"
	"net"
	"syscall"
)

// records lies between TLS and the socket. TLS reads ahead and keeps what it has
// read to itself; records follows the lengths of what passes (RFC 8446 section 5.1),
// so that it is known whether TLS sits on a part of a record. One goroutine reads.
type records struct {
	net.Conn
	raw   syscall.RawConn
	asked bool    // Read does not wait
	head  [5]byte // type, version, length
	at    int     // bytes of head that have come
	left  int     // bytes of the record that have not
	probe [1]byte // what quiet reads into
	now   struct {
		read func(fd uintptr) bool // made once
		p    []byte
		n    int
		err  error
	}
}

// Read reads from the socket.
func (s *records) Read(p []byte) (int, error) {
	var n int
	var err error
	if s.asked {
		n, err = s.readNow(p)
	} else {
		n, err = s.Conn.Read(p)
	}
	s.follow(p[:n])
	return n, err
}

func (s *records) follow(p []byte) {
	for len(p) > 0 {
		if s.left > 0 {
			n := min(s.left, len(p))
			s.left -= n
			p = p[n:]
			continue
		}
		n := copy(s.head[s.at:], p)
		p = p[n:]
		if s.at += n; s.at == len(s.head) {
			s.at, s.left = 0, int(s.head[3])<<8|int(s.head[4])
		}
	}
}

// readNow reads what is at hand, or says nothingYet.
func (s *records) readNow(p []byte) (int, error) {
	if s.now.read == nil {
		s.now.read = func(fd uintptr) bool {
			s.now.n, s.now.err = syscall.Read(int(fd), s.now.p)
			return true
		}
	}
	s.now.p = p
	err := s.raw.Read(s.now.read)
	s.now.p = nil
	switch {
	case err != nil:
		return 0, err
	case s.now.err == syscall.EAGAIN:
		return 0, nothingYet{}
	case s.now.err != nil:
		return 0, s.now.err
	case s.now.n == 0:
		return 0, io.EOF
	}
	return s.now.n, nil
}

// quiet reports whether TLS, which reads from s, has nothing to give: no byte that
// it decrypted, no record or part of one, and no end. Session tickets are taken in.
func (s *records) quiet(tc net.Conn) bool {
	s.asked = true
	n, err := tc.Read(s.probe[:])
	s.asked = false
	return n == 0 && err == error(nothingYet{}) && s.at == 0 && s.left == 0
}

// nothingYet says that a read would wait. It is temporary, so that crypto/tls does
// not take the connection for broken.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has come yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }
