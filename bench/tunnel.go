package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// streamsPerConn is how many of the HTTP/2 clients share a connection.
const streamsPerConn = 8

// multiplexed has n clients make one request after the other over HTTP/2.
func multiplexed(r road, n int, o options) (figures, error) {
	var clients []*http.Transport
	for range n / streamsPerConn {
		clients = append(clients, r.target.http2())
	}
	defer func() {
		for _, c := range clients {
			c.CloseIdleConnections()
		}
	}()
	if _, err := streams(clients, r.token, o.warm); err != nil {
		return figures{}, err
	}
	cpu, began := cpuOf(r.pid), time.Now()
	all, err := streams(clients, r.token, o.each)
	count := float64(max(len(all), 1))
	return figures{latency: all, rate: count / time.Since(began).Seconds(), cpu: (cpuOf(r.pid) - cpu) * 1e6 / count}, err
}

func (t target) http2() *http.Transport {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(true)
	tr.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := t.connect(host)
		if err != nil {
			return nil, err
		}
		tc := tls.Client(c, &tls.Config{RootCAs: t.roots, ServerName: host, NextProtos: []string{"h2"}})
		return tc, tc.HandshakeContext(ctx)
	}
	return tr
}

// streams drives streamsPerConn clients on each connection for d.
func streams(clients []*http.Transport, token string, d time.Duration) ([]time.Duration, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []time.Duration
	var fault error
	end := time.Now().Add(d)
	for i := range len(clients) * streamsPerConn {
		wg.Go(func() {
			mine, err := exchanges(clients[i%len(clients)], token, end)
			mu.Lock()
			defer mu.Unlock()
			all, fault = append(all, mine...), errors.Join(fault, err)
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all, fault
}

func exchanges(tr *http.Transport, token string, end time.Time) (mine []time.Duration, err error) {
	for now := time.Now(); now.Before(end); {
		req, err := http.NewRequest(http.MethodGet, "https://"+host+plain, nil)
		if err != nil {
			return mine, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("User-Agent", "bench")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return mine, err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n != 1024 || resp.ProtoMajor != 2 {
			return mine, fmt.Errorf("%s %d, %d bytes, %v", resp.Proto, resp.StatusCode, n, err)
		}
		then := time.Now()
		mine, now = append(mine, then.Sub(now)), then
	}
	return mine, nil
}

// handshakes opens n connections one after the other, and returns how long CONNECT
// and TLS took each. The names are those of services.
func handshakes(r road, n int, cache tls.ClientSessionCache, name func(i int) string) (figures, error) {
	var f figures
	cpu := cpuOf(r.pid)
	for i := range n {
		began := time.Now()
		c, err := r.connect(name(i))
		if err != nil {
			return f, err
		}
		tc := tls.Client(c, &tls.Config{RootCAs: r.roots, ServerName: name(i), NextProtos: []string{"http/1.1"}, ClientSessionCache: cache})
		err = tc.Handshake()
		f.latency = append(f.latency, time.Since(began))
		if cache != nil && err == nil { // the ticket comes behind the handshake
			w := &wire{tc, bufio.NewReader(tc), r.request(plain)}
			_, err = w.do()
		}
		if tc.Close(); err != nil {
			return f, err
		}
	}
	f.cpu = (cpuOf(r.pid) - cpu) * 1e6 / float64(n)
	slices.Sort(f.latency)
	return f, nil
}

// openings returns how long a new tunnel takes whose leaf is there, the same for a
// client that resumes its session, and the CPU time that another host costs on top.
func openings(r road, o options) (row []float64, err error) {
	same := func(int) string { return host }
	full, err := handshakes(r, o.idle, nil, same)
	if err != nil {
		return nil, fmt.Errorf("new tunnels: %w", err)
	}
	resumed, err := handshakes(r, o.idle, tls.NewLRUClientSessionCache(1), same)
	if err != nil {
		return nil, fmt.Errorf("resumed tunnels: %w", err)
	}
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	first, err := handshakes(r, o.idle, nil, func(i int) string { return "h" + strconv.Itoa(i) + "." + run + ".example" })
	if err != nil {
		return nil, fmt.Errorf("tunnels to other hosts: %w", err)
	}
	return []float64{full.at(.5), resumed.at(.5), first.cpu - full.cpu}, nil
}
