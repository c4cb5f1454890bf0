package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"chaperone/policy"
)

// Tunnel connects to a host for an uninspected tunnel, through the corporate proxy
// where there is one.
func (c *Client) Tunnel(ctx context.Context, p *policy.Permit, t policy.Target) (net.Conn, error) {
	if err := p.Redeem(ctx, t); err != nil {
		return nil, err
	}
	address := net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
	var conn net.Conn
	var err error
	if c.o.Proxy == nil {
		conn, err = c.dial(ctx, "tcp", address)
	} else if err = c.guard.literal(t.Host, t.Port); err == nil {
		conn, err = c.through(ctx, address)
	}
	if err != nil {
		return nil, classify(ctx, err)
	}
	return conn, nil
}

// through asks the corporate proxy for a tunnel (RFC 9110 section 9.3.6).
func (c *Client) through(ctx context.Context, address string) (net.Conn, error) {
	u := c.o.Proxy
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := c.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(c.o.DialTimeout))
	if u.Scheme == "https" {
		cfg := c.tls.Clone()
		cfg.ServerName = u.Hostname()
		conn = tls.Client(conn, cfg)
	}
	request := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if u.User != nil {
		password, _ := u.User.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)) + "\r\n"
	}
	br := bufio.NewReader(conn)
	status := 0
	if _, err = conn.Write([]byte(request + "\r\n")); err == nil {
		status, err = statusOf(br)
	}
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%w: the corporate proxy %s answers %d", ErrDial, u.Host, status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return &behindHead{Conn: conn, br: br}, nil
}

func statusOf(br *bufio.Reader) (int, error) {
	h, err := readHead(br)
	if err != nil {
		return 0, err
	}
	return h.status, nil
}

// behindHead is a connection of which the head of an answer was read, and perhaps
// more.
type behindHead struct {
	net.Conn
	br *bufio.Reader
}

func (b *behindHead) Read(p []byte) (int, error) { return b.br.Read(p) }

// CloseWrite closes the sending half where the connection can.
func (b *behindHead) CloseWrite() error {
	if h, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
