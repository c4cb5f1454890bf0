package ship

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// SyslogOptions say where to send messages.
type SyslogOptions struct {
	Address  string // host:port
	TLS      *tls.Config
	Hostname string // of this machine
	PID      int
	Timeout  time.Duration // of one sending; 10 s when zero
}

// syslog sends lines as messages of RFC 5424 over TLS (RFC 5425).
type syslog struct {
	o    SyslogOptions
	conn net.Conn
	gone chan struct{} // closed when the other end closed conn

	recent []sending // what was sent last; nobody says that it was taken
	size   int       // bytes of it
}

// sending is what was sent at once.
type sending struct {
	at   time.Time
	text []byte
}

// What was sent is kept for so long and up to so many bytes, to be sent again after a
// connection broke: a server that goes away leaves behind what it had not read.
const (
	resendTime = time.Minute
	resendSize = 4 << 20
)

// NewSyslog sends each line as a message of RFC 5424 in frames of RFC 5425. The
// protocol has no receipts: after a connection broke, what was sent in the minute before
// (at most 4 MiB) is sent again, and so it is after a sink that was not closed in order.
func NewSyslog(o SyslogOptions) Target {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	return &syslog{o: o}
}

// Send implements [Target].
func (s *syslog) Send(ctx context.Context, batch []Item) error {
	var b []byte
	for i := range batch {
		m := s.message(&batch[i])
		b = append(strconv.AppendInt(b, int64(len(m)), 10), ' ')
		b = append(b, m...)
	}
	send := b
	if s.broken() {
		s.Close()
		if err := s.dial(ctx); err != nil {
			return err
		}
		send = nil
		for _, r := range s.recent {
			send = append(send, r.text...)
		}
		send = append(send, b...)
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.o.Timeout)); err != nil {
		return fmt.Errorf("sending to syslog: %w", err)
	}
	if _, err := s.conn.Write(send); err != nil {
		s.Close()
		return fmt.Errorf("sending to syslog: %w", err)
	}
	s.keep(b)
	return nil
}

// keep remembers what was sent and forgets what is old.
func (s *syslog) keep(b []byte) {
	now := time.Now()
	s.recent = append(s.recent, sending{now, b})
	s.size += len(b)
	for len(s.recent) > 1 && (s.size > resendSize || now.Sub(s.recent[0].at) > resendTime) {
		s.size -= len(s.recent[0].text)
		s.recent = s.recent[1:]
	}
}

// broken reports whether there is no connection, or its other end is closed.
func (s *syslog) broken() bool {
	if s.conn == nil {
		return true
	}
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// Window implements [forgetful].
func (s *syslog) Window() time.Duration { return resendTime }

// Listening implements [forgetful].
func (s *syslog) Listening() bool { return !s.broken() }

func (s *syslog) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: s.o.Timeout}, Config: s.o.TLS}
	conn, err := d.DialContext(ctx, "tcp", s.o.Address)
	if err != nil {
		return fmt.Errorf("connecting to syslog: %w", err)
	}
	gone := make(chan struct{})
	go func() { // a server says nothing; that it reads as closed is all there is to hear
		defer close(gone)
		var b [256]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				return
			}
		}
	}()
	s.conn, s.gone = conn, gone
	return nil
}

// Close closes the connection in order, so that what was written arrives, and waits
// for its reader.
func (s *syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	<-s.gone
	s.conn = nil
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// facility 13 is log audit (RFC 5424 section 6.2.1).
const facility = 13

// message is one line as a message of RFC 5424.
func (s *syslog) message(i *Item) string {
	severity := 6 // informational
	switch e := i.Event; {
	case e.Alarm != "":
		severity = 1 // alert
	case e.Decision.Result == "deny" || e.Decision.Result == "ask":
		severity = 4 // warning
	}
	return fmt.Sprintf("<%d>1 %s %s chaperone %d %s [meta sequenceId=\"%d\"] %s", facility*8+severity,
		i.Event.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), name(s.o.Hostname), s.o.PID, i.Event.Event, (i.Seq-1)%2147483647+1, i.Line)
}

// name makes a HOSTNAME of a text: printable ASCII without spaces, or nothing.
func name(host string) string {
	host = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, host)
	if host == "" {
		return "-"
	}
	return host[:min(len(host), 255)]
}
