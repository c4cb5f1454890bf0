// Package loopback listens on this machine for clients that cannot send proxy
// credentials, and adds those of one session.
//
// A listener is a door without a key: whoever reaches it acts in the session. So it
// is bound to 127.0.0.1, lives as long as one command, and on Linux serves only
// connections of its own user, who could read the session's token anyway. It adds
// one line to a request's head and passes on every other byte as it came; what the
// request means the proxy alone decides.
package loopback

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"
)

// Bounds of what a listener holds and waits for.
const (
	maxHead  = 64 << 10 // bytes of a request's head
	maxConns = 512      // connections at once
	headTime = 30 * time.Second
	dialTime = 10 * time.Second
)

var (
	errHead     = errors.New("not one whole request head")
	errStranger = errors.New("a connection of another user")
)

// Options say where a listener passes requests on.
type Options struct {
	// Proxy is the proxy's URL, http or https, with user and password.
	Proxy *url.URL
	// Roots are trusted where Proxy is https; nil: the system's.
	Roots *x509.CertPool
}

// Listener passes connections on to a proxy. Its methods may be called concurrently.
type Listener struct {
	o    Options
	ln   net.Listener
	line []byte // what is added to a head
	mine func(client, server *net.TCPAddr) bool

	ctx  context.Context // done when the listener is closed
	stop context.CancelFunc
	wg   sync.WaitGroup
	slot chan struct{} // holds an element for each connection
}

// Listen opens a listener on a free port of 127.0.0.1 and serves it until Close.
func Listen(o Options) (*Listener, error) { return open(o, ofThisUser) }

func open(o Options, mine func(client, server *net.TCPAddr) bool) (*Listener, error) {
	password, ok := o.Proxy.User.Password()
	if !ok {
		return nil, errors.New("opening local listener: the proxy's URL has no password")
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening local listener: %w", err)
	}
	basic := base64.StdEncoding.EncodeToString([]byte(o.Proxy.User.Username() + ":" + password))
	l := &Listener{o: o, ln: ln, line: []byte("Proxy-Authorization: Basic " + basic + "\r\n"), mine: mine, slot: make(chan struct{}, maxConns)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.wg.Go(l.accept)
	return l, nil
}

// Addr is host:port of the listener.
func (l *Listener) Addr() string { return l.ln.Addr().String() }

// Close ends the listener and cuts every connection, and waits for both.
func (l *Listener) Close() error {
	err := l.ln.Close()
	l.stop()
	l.wg.Wait()
	return err
}

func (l *Listener) accept() {
	for {
		c, err := l.ln.Accept()
		if err != nil {
			return
		}
		select {
		case l.slot <- struct{}{}:
		default:
			c.Close()
			continue
		}
		l.wg.Go(func() {
			defer func() { <-l.slot }()
			l.serve(c)
		})
	}
}

// serve passes one connection on, for one request or one tunnel.
func (l *Listener) serve(client net.Conn) {
	defer client.Close()
	defer context.AfterFunc(l.ctx, func() { client.Close() })()
	sent, err := l.request(client)
	if err != nil {
		tell(client, err)
		return
	}
	proxy, err := l.dial()
	if err != nil {
		tell(client, err)
		return
	}
	defer proxy.Close()
	defer context.AfterFunc(l.ctx, func() { proxy.Close() })()
	if _, err := proxy.Write(sent); err != nil {
		return
	}
	Splice(client, proxy)
}

// request reads a head, with the bytes that came along with it, and puts the
// credentials into it.
func (l *Listener) request(client net.Conn) ([]byte, error) {
	from, ok := client.RemoteAddr().(*net.TCPAddr)
	if !ok || !from.IP.IsLoopback() || !l.mine(from, client.LocalAddr().(*net.TCPAddr)) {
		return nil, errStranger
	}
	if err := client.SetReadDeadline(time.Now().Add(headTime)); err != nil {
		return nil, err
	}
	var got []byte
	buf := make([]byte, 4<<10)
	for !bytes.Contains(got, []byte("\r\n\r\n")) {
		if len(got) > maxHead {
			return nil, errHead
		}
		n, err := client.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errHead, err)
		}
	}
	return l.authorize(got), client.SetReadDeadline(time.Time{})
}

// authorize puts the session's credentials behind the request line and takes out
// others. It also has the proxy end the connection after the answer: a second
// request on it would go without credentials. An upgrade is the last request by
// itself, and its Connection field says something else.
func (l *Listener) authorize(got []byte) []byte {
	end := bytes.Index(got, []byte("\r\n\r\n"))
	head, rest := got[:end+2], got[end:]
	line, fields, _ := bytes.Cut(head, []byte("\r\n"))
	out := append(append(append(make([]byte, 0, len(got)+256), line...), "\r\n"...), l.line...)
	upgrade := false
	for f := range bytes.SplitAfterSeq(fields, []byte("\r\n")) {
		name, _, _ := bytes.Cut(f, []byte(":"))
		if bytes.EqualFold(name, []byte("Proxy-Authorization")) {
			continue
		}
		upgrade = upgrade || bytes.EqualFold(name, []byte("Upgrade"))
		out = append(out, f...)
	}
	if !upgrade {
		out = append(out, "Connection: close\r\n"...)
	}
	return append(out, rest[2:]...)
}

func (l *Listener) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, dialTime)
	defer cancel()
	d := &net.Dialer{}
	if l.o.Proxy.Scheme != "https" {
		return d.DialContext(ctx, "tcp", l.o.Proxy.Host)
	}
	t := &tls.Dialer{NetDialer: d, Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: l.o.Roots, ServerName: l.o.Proxy.Hostname()}}
	return t.DialContext(ctx, "tcp", l.o.Proxy.Host)
}

// tell answers a client whose request is not passed on.
func tell(client net.Conn, err error) {
	status, text := "502 Bad Gateway", "The proxy cannot be reached: see `chaperone doctor`."
	switch {
	case errors.Is(err, errStranger):
		status, text = "403 Forbidden", "This listener belongs to one command of another user."
	case errors.Is(err, errHead):
		status, text = "400 Bad Request", "This is not one whole request head."
	}
	fmt.Fprintf(client, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(text), text) // it may have gone
}

// Splice copies both ways until both are at their end. The end of one direction is
// passed on as such.
func Splice(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, d := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, err := io.Copy(d[0], d[1])
			half, ok := d[0].(interface{ CloseWrite() error })
			if err != nil || !ok || half.CloseWrite() != nil {
				a.Close()
				b.Close()
			}
		})
	}
	wg.Wait()
}
