package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// target is where requests go, and what they carry.
type target struct {
	dial   string // the service, or a proxy
	tunnel bool   // ask for a tunnel first
	auth   string // Proxy-Authorization
	roots  *x509.CertPool
	token  string
	lean   bool          // to have few fields asked with and answered
	limit  time.Duration // the longest that a connection is used, from when it is made
}

// basic turns the user and password of a URL into Basic credentials.
func basic(proxy string) string {
	u, err := url.Parse(proxy)
	if err != nil || u.User == nil {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.String()))
}

// wire is one connection that carries one request at a time.
type wire struct {
	c   *tls.Conn
	br  *bufio.Reader
	req string
}

func (t target) open(path string) (*wire, error) {
	c, err := t.connect(host)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(c, &tls.Config{RootCAs: t.roots, ServerName: host, NextProtos: []string{"http/1.1"}})
	return &wire{tc, bufio.NewReaderSize(tc, 8<<10), t.request(path)}, nil
}

func (t target) request(path string) string {
	fields := requestFields
	if t.lean && path == plain {
		path, fields = lean, leanRequest
	}
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + t.token + "\r\n" + fields + "\r\n"
}

// connect opens a connection on which the service called name can be spoken to.
func (t target) connect(name string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", t.dial, t.limit)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(t.limit)); err != nil || !t.tunnel {
		return c, err
	}
	head := "CONNECT " + name + ":443 HTTP/1.1\r\nHost: " + name + ":443\r\n"
	if t.auth != "" {
		head += "Proxy-Authorization: " + t.auth + "\r\n"
	}
	if _, err := io.WriteString(c, head+"\r\n"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 256), &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("CONNECT: %v %v", resp, err), c.Close())
	}
	return c, nil
}

// do makes one request, and returns what the service counts as its connections.
func (w *wire) do() (conns int, err error) {
	resp, err := w.send()
	if err != nil {
		return 0, err
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || n != 1024 {
		return 0, fmt.Errorf("status %d, %d bytes, %v", resp.StatusCode, n, err)
	}
	return strconv.Atoi(resp.Header.Get("X-Conns"))
}

func (w *wire) send() (*http.Response, error) {
	if _, err := io.WriteString(w.c, w.req); err != nil {
		return nil, err
	}
	return http.ReadResponse(w.br, nil)
}

// figures are what one measurement gives. Latencies are sorted.
type figures struct {
	latency []time.Duration
	rate    float64 // requests a second
	cpu     float64 // microseconds of the proxy for a request
	conns   float64 // new connections to the service for 1,000 requests
	allocs  float64 // of the proxy for a request, where it tells
}

func (f figures) at(q float64) float64 {
	if len(f.latency) == 0 {
		return 0
	}
	return float64(f.latency[min(int(q*float64(len(f.latency))), len(f.latency)-1)]) / 1e3
}

// closed has n clients make one request after the other.
func closed(r road, n int, o options) (figures, error) {
	wires, err := openAll(r.target, n)
	if err != nil {
		return figures{}, err
	}
	defer closeAll(wires)
	if _, _, err := loop(wires, o.warm); err != nil {
		return figures{}, err
	}
	first, err := wires[0].do()
	if err != nil {
		return figures{}, err
	}
	made, err := r.made()
	if err != nil {
		return figures{}, err
	}
	cpu, began := cpuOf(r.pid), time.Now()
	all, last, err := loop(wires, o.each)
	took := time.Since(began)
	count := float64(max(len(all), 1))
	f := figures{latency: all, rate: count / took.Seconds(), cpu: (cpuOf(r.pid) - cpu) * 1e6 / count, conns: float64(last-first) * 1e3 / count}
	if err != nil {
		return f, err
	}
	then, err := r.made()
	f.allocs = (then - made) / count
	return f, err
}

// made returns the proxy's allocations so far, or 0.
func (r road) made() (float64, error) {
	if r.mallocs == nil {
		return 0, nil
	}
	return r.mallocs()
}

// loop drives all wires for d, and returns the sorted latencies and the highest
// number of connections that the service told.
func loop(wires []*wire, d time.Duration) ([]time.Duration, int, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		all   []time.Duration
		conns int
		fault error
	)
	end := time.Now().Add(d)
	for _, w := range wires {
		wg.Go(func() {
			var mine []time.Duration
			var err error
			most := 0
			for now := time.Now(); now.Before(end) && err == nil; {
				n := 0
				n, err = w.do()
				then := time.Now()
				mine, now, most = append(mine, then.Sub(now)), then, max(most, n)
			}
			mu.Lock()
			defer mu.Unlock()
			all, conns, fault = append(all, mine...), max(conns, most), errors.Join(fault, err)
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all, conns, fault
}

// open sends at a fixed rate over n connections in turn. Latency counts from when
// a request was meant to start, so that a stall is not left out of the figures.
func open(r road, n int, o options) (figures, error) {
	wires, err := openAll(r.target, n)
	if err != nil {
		return figures{}, err
	}
	defer closeAll(wires)
	if _, _, err := loop(wires, o.warm); err != nil {
		return figures{}, err
	}
	var wg sync.WaitGroup
	var failed atomic.Int64
	interval := time.Second / time.Duration(o.rate)
	total := int(o.each / interval)
	latency := make([]time.Duration, total)
	due := make([]chan int, n) // numbers of requests, none of which the pace waits for
	began := time.Now().Add(10 * time.Millisecond)
	for i, w := range wires {
		due[i] = make(chan int, total/n+1)
		wg.Go(func() {
			for k := range due[i] {
				if _, err := w.do(); err != nil {
					failed.Add(1)
					return
				}
				latency[k] = time.Since(began.Add(time.Duration(k) * interval))
			}
		})
	}
	pace(began, interval, total, func(k int) { due[k%n] <- k })
	for _, c := range due {
		close(c)
	}
	wg.Wait()
	if failed.Load() > 0 {
		return figures{}, fmt.Errorf("open loop: %d connections failed", failed.Load())
	}
	slices.Sort(latency)
	return figures{latency: latency}, nil
}

// pace calls next at its times, from a thread of its own: Go's timers are late by
// as much as a request takes.
func pace(began time.Time, interval time.Duration, total int, next func(k int)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const slack = 29 // PR_SET_TIMERSLACK of prctl(2), in nanoseconds
	syscall.RawSyscall(syscall.SYS_PRCTL, slack, 1, 0)
	for k := range total {
		if wait := time.Until(began.Add(time.Duration(k) * interval)); wait > 0 {
			ts := syscall.NsecToTimespec(int64(wait))
			syscall.Nanosleep(&ts, nil) // woken early, it is early by nothing that counts
		}
		next(k)
	}
}

// listen reads one stream of events, and returns how late each was.
func listen(r road) (figures, error) {
	w, err := r.target.open(stream)
	if err != nil {
		return figures{}, err
	}
	defer w.c.Close()
	resp, err := w.send()
	if err != nil || resp.StatusCode != http.StatusOK {
		return figures{}, fmt.Errorf("stream: %v %v", resp, err)
	}
	var f figures
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		at, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return f, err
		}
		f.latency = append(f.latency, time.Since(time.Unix(0, at)))
	}
	if len(f.latency) != events {
		return f, fmt.Errorf("stream: %d events, %v", len(f.latency), lines.Err())
	}
	slices.Sort(f.latency)
	return f, nil
}

// idle returns KiB of the proxy for each tunnel that had one request.
func idle(r road, n int) (float64, error) {
	before := rssOf(r.pid)
	wires, err := openAll(r.target, n)
	if err != nil {
		return 0, err
	}
	defer closeAll(wires)
	return (rssOf(r.pid) - before) / float64(n), nil
}

// openAll opens n connections and makes one request on each.
func openAll(t target, n int) ([]*wire, error) {
	var wires []*wire
	for range n {
		w, err := t.open(plain)
		if err == nil {
			wires = append(wires, w)
			_, err = w.do()
		}
		if err != nil {
			closeAll(wires)
			return nil, err
		}
	}
	return wires, nil
}

func closeAll(wires []*wire) {
	for _, w := range wires {
		w.c.Close()
	}
}
