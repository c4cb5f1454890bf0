package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// bulk is the size of a large body, in bytes, and together how many are on their way
// at once while memory is looked at.
const (
	bulk     = 10 << 20
	together = 8
)

// download reads one large answer, upload sends one large body.
func (w *wire) download(t target) error {
	w.req = t.request(large10)
	resp, err := w.send()
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || n != bulk {
		return fmt.Errorf("download: status %d, %d bytes, %v", resp.StatusCode, n, err)
	}
	return nil
}

func (w *wire) upload(t target, body []byte) error {
	head := "POST " + plain + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + t.token +
		"\r\nUser-Agent: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	if _, err := io.WriteString(w.c, head); err != nil {
		return err
	}
	if _, err := w.c.Write(body); err != nil {
		return err
	}
	resp, err := http.ReadResponse(w.br, nil)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(b) != strconv.Itoa(len(body)) {
		return fmt.Errorf("upload: status %d, %.80q, %v", resp.StatusCode, b, err)
	}
	return nil
}

// bodies returns the milliseconds that 10 MiB take down and up, alone, and by how many
// MiB the proxy's memory grows at most while eight go each way at once.
func bodies(r road) (row []float64, err error) {
	wires, err := openAll(r.target, 2*together)
	if err != nil {
		return nil, err
	}
	defer closeAll(wires)
	body := bytes.Repeat([]byte{'x'}, bulk)
	var down, up []float64
	for range 5 {
		began := time.Now()
		if err := wires[0].download(r.target); err != nil {
			return nil, err
		}
		then := time.Now()
		if err := wires[1].upload(r.target, body); err != nil {
			return nil, err
		}
		down, up = append(down, then.Sub(began).Seconds()*1e3), append(up, time.Since(then).Seconds()*1e3)
	}
	before := rssOf(r.pid)
	forgetPeak(r.pid)
	errs := make([]error, len(wires))
	var wg sync.WaitGroup
	for i, w := range wires {
		wg.Go(func() {
			if i%2 == 0 {
				errs[i] = w.download(r.target)
				return
			}
			errs[i] = w.upload(r.target, body)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return []float64{median(down), median(up), max(0, peakOf(r.pid)-before) / 1024}, nil
}

// forgetPeak has the kernel note the peak of a process's memory anew (proc(5)).
func forgetPeak(pid int) {
	if pid > 0 {
		os.WriteFile("/proc/"+strconv.Itoa(pid)+"/clear_refs", []byte("5"), 0) // else the peak is of its whole life
	}
}

// redialled has the service close the connection after each of n answers, and returns
// how many of each hundred connections made for the second half resumed a TLS session;
// the first half uses up those that were there.
func redialled(r road, n int) (float64, error) {
	if !r.tunnel {
		return 0, nil // the client's own connections
	}
	w, err := r.open(closing)
	if err != nil {
		return 0, err
	}
	defer w.c.Close()
	var conns, resumed [2]float64
	for i := range n {
		resp, err := w.send()
		if err != nil {
			return 0, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("closed connections: status %d, %v", resp.StatusCode, err)
		}
		at := 0
		if i > n/2 {
			at = 1
		}
		conns[at], _ = strconv.ParseFloat(resp.Header.Get("X-Conns"), 64)
		resumed[at], _ = strconv.ParseFloat(resp.Header.Get("X-Resumed"), 64)
		if resp.Close { // bare proxies pass that on
			w.c.Close()
			if w, err = r.open(closing); err != nil {
				return 0, err
			}
		}
	}
	return min(100, 100*(resumed[1]-resumed[0])/max(1, conns[1]-conns[0])), nil
}

// peakOf is the most memory that a process had, in KiB, from proc(5); 0 for pid 0.
func peakOf(pid int) float64 { return statusOf(pid, "VmHWM") }

// rssOf is the memory of a process in KiB, from proc(5); 0 for pid 0.
func rssOf(pid int) float64 { return statusOf(pid, "VmRSS") }

func statusOf(pid int, field string) float64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	lines := slices.Collect(strings.Lines(string(b)))
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, field+":") })
	if i < 0 {
		return 0
	}
	var kib float64
	fmt.Sscanf(lines[i], field+": %g kB", &kib) // 0 where the kernel writes otherwise
	return kib
}
