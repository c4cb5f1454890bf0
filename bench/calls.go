package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// calls are a process's system calls by name, and all of them under the empty name.
type calls map[string]float64

// shown are the calls that are told by name, the most usual first; the rest is summed up.
var shown = [...]string{"read", "write", "epoll_pwait", "futex", "nanosleep"}

// systemCalls prints how many system calls a request takes of the program and of the
// yardstick. The kernel counts them for perf(1), which needs its tracepoints and so root,
// and hardly slows anybody down; strace would by so much that what comes by the clock,
// as the log's writes, came with every request.
func systemCalls(roads []road, o options) error {
	tracer, err := exec.LookPath("perf")
	if err != nil {
		return err
	}
	fmt.Printf("| road, clients | req/s | %s | others | all |\n|---|%s\n", strings.Join(shown[:], " | "), strings.Repeat("---:|", len(shown)+3))
	var faults error
	for _, n := range []int{clients[0], clients[len(clients)-1]} {
		for _, r := range roads {
			if r.name != program && r.name != yardstick {
				continue
			}
			all, requests, err := traced(tracer, r, n, o)
			if err != nil {
				faults = errors.Join(faults, fmt.Errorf("counting system calls of %s: %w", r.name, err))
				continue
			}
			fmt.Printf("| %s, %d | %.0f%s\n", r.name, n, requests/o.each.Seconds(), all.cells(requests))
		}
	}
	return faults
}

func (c calls) cells(requests float64) string {
	var b strings.Builder
	named := 0.0
	for _, name := range shown {
		fmt.Fprintf(&b, " | %.2f", c[name]/requests)
		named += c[name]
	}
	fmt.Fprintf(&b, " | %.2f | %.2f |", (c[""]-named)/requests, c[""]/requests)
	return b.String()
}

// traced has n clients make requests, and returns the calls and the requests meanwhile.
func traced(tracer string, r road, n int, o options) (calls, float64, error) {
	wires, err := openAll(r.target, n)
	if err != nil {
		return nil, 0, err
	}
	defer closeAll(wires)
	if _, _, err := loop(wires, o.warm); err != nil {
		return nil, 0, err
	}
	var diag bytes.Buffer
	events := []string{"raw_syscalls:sys_enter"}
	for _, name := range shown {
		events = append(events, "syscalls:sys_enter_"+name)
	}
	cmd := exec.Command(tracer, "stat", "-x", ",", "-e", strings.Join(events, ","), "-p", strconv.Itoa(r.pid))
	cmd.Stderr = &diag // perf writes all to it
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	<-time.After(o.warm) // it attaches to one thread after the other
	all, _, err := loop(wires, o.each)
	serr := cmd.Process.Signal(os.Interrupt)
	cmd.Wait() // it ends by the signal
	if err := errors.Join(err, serr); err != nil {
		return nil, 0, err
	}
	c, err := parseCalls(diag.String())
	return c, float64(max(len(all), 1)), err
}

// parseCalls reads what perf stat -x, writes: a count, its unit and the event on each line.
// The sum of all is under the empty name.
func parseCalls(text string) (calls, error) {
	c := make(calls)
	for line := range strings.Lines(text) {
		f := strings.Split(line, ",")
		if len(f) < 3 {
			continue
		}
		n, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			return nil, fmt.Errorf("perf counts nothing: %.200s", strings.TrimSpace(line))
		}
		_, name, _ := strings.Cut(f[2], ":sys_enter")
		c[strings.TrimPrefix(name, "_")] = n
	}
	if len(c) != len(shown)+1 {
		return nil, fmt.Errorf("perf counts nothing: %.200s", strings.TrimSpace(text))
	}
	return c, nil
}
