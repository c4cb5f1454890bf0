package credential

import "io"

// lookBehind is how many bytes with which a secret may begin are passed on and not
// held back: a stream of which the last byte is a secret's first would otherwise
// wait for the next, and an agent that waits for that byte would hang.
const lookBehind = gramSize - 1

// EchoReader reads a body with handles in place of the secrets in it, however the
// body is split. It holds back only what may be the beginning of a secret, from
// the fourth byte on. It is for one goroutine.
type EchoReader struct {
	e    *Echo
	r    io.Reader
	same bool

	sent  []byte // the last lookBehind bytes that were passed on as they came
	held  []byte // read and not passed on
	ready []byte // to be passed on
	err   error
	found int
}

// Reader returns a reader of what r reads, with what takes a secret's place as
// Bytes has it. Where the first three bytes of a secret were passed on when the
// others came, they stay.
func (e *Echo) Reader(r io.Reader, same bool) *EchoReader {
	return &EchoReader{e: e, r: r, same: same, sent: make([]byte, 0, lookBehind)}
}

// Found returns how many secrets were replaced so far; in no body, none.
func (s *EchoReader) Found() int {
	if s == nil {
		return 0
	}
	return s.found
}

// Read implements [io.Reader].
func (s *EchoReader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if len(s.ready) > 0 {
			n := copy(p, s.ready)
			s.ready = s.ready[n:]
			return n, nil
		}
		if s.err != nil {
			return 0, s.err
		}
		n, err := s.r.Read(p)
		s.err = err
		if s.clean(p[:n]) {
			return n, err
		}
		if n > 0 || err != nil {
			s.take(p[:n])
		}
	}
	return 0, nil
}

// clean reports whether b can be passed on as it is, which nearly all can.
func (s *EchoReader) clean(b []byte) bool {
	f := s.e.forms
	if len(s.held) > 0 || len(b) == 0 || f.begun(s.sent, 1) > 0 || f.begun(b, gramSize) > 0 {
		return false
	}
	if _, _, found := f.find(b, 0); found {
		return false
	}
	s.remember(b)
	return true
}

// take makes ready what b allows to be passed on.
func (s *EchoReader) take(b []byte) {
	f := s.e.forms
	text := append(append(append([]byte(nil), s.sent...), s.held...), b...)
	gone := len(s.sent) // so much of text was passed on
	var out []byte
	from := 0
	for {
		start, form, found := f.find(text, from)
		if !found || s.err == nil && start >= len(text)-f.begun(text[from:], gramSize) {
			break // what has begun may yet become a longer one
		}
		end := start + len(f.forms[form].text)
		stand := s.e.stand(form, s.same)
		if start < gone { // its first bytes are with the agent already
			stand = stand[min(gone-start, len(stand)):]
			start = gone
		}
		out = append(append(out, text[max(from, gone):start]...), stand...)
		from = end
		gone = max(gone, end)
		s.found++
	}
	rest := text[max(from, gone):]
	hold := 0
	if s.err == nil {
		hold = min(f.begun(text[from:], gramSize), len(rest))
	}
	out = append(out, rest[:len(rest)-hold]...)
	s.held = append([]byte(nil), rest[len(rest)-hold:]...)
	s.ready = out
	s.sent = s.sent[:0]
	passed := text[from : len(text)-hold] // as it came
	s.sent = append(s.sent, passed[max(0, len(passed)-lookBehind):]...)
}

// remember notes the end of what was passed on.
func (s *EchoReader) remember(b []byte) {
	if len(b) >= lookBehind {
		s.sent = append(s.sent[:0], b[len(b)-lookBehind:]...)
		return
	}
	s.sent = append(s.sent, b...)
	s.sent = append(s.sent[:0], s.sent[max(0, len(s.sent)-lookBehind):]...)
}
