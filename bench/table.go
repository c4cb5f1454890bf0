package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clients of the closed loop, and tunnels of the open one.
var clients = [...]int{1, 8, 64}

const spread = 32

// columns of the table: what is measured, in the order in which it is.
var columns = [...]string{
	"1: p50 µs", "p99", "8: p50 µs", "p99", "64: p50 µs", "p99", "64: req/s", "64: CPU µs/req", "allocs/req", "new conns/1,000",
	"open: p50 µs", "p99", "event p50 µs", "p99", "HTTP/2, 64: req/s", "CPU µs/req",
	"new tunnel µs", "resumed µs", "another host: CPU µs", "re-dials resumed %", "10 MiB down ms", "up ms", "peak MiB of 16 at once", "KiB/idle tunnel",
}

// measure goes the roads in turn, round by round, and prints medians.
func measure(roads []road, o options) error {
	fmt.Printf("%d rounds of %v, %s, %d CPUs, %s\n\n", o.rounds, o.each, runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	all := make([][][]float64, len(roads)) // road, column, round
	for i, r := range roads {
		all[i] = make([][]float64, len(columns))
		kib, err := idle(r, o.idle) // once, while the processes are fresh
		if err != nil {
			return fmt.Errorf("measuring %s: idle tunnels: %w", r.name, err)
		}
		all[i][len(columns)-1] = []float64{kib}
	}
	for round := range o.rounds {
		for k := range roads {
			i := (k + round) % len(roads)
			row, err := once(roads[i], o)
			if err != nil {
				return fmt.Errorf("measuring %s: %w", roads[i].name, err)
			}
			for c, v := range row {
				all[i][c] = append(all[i][c], v)
			}
		}
	}
	show(roads, all)
	return inLine(roads, all)
}

// farOut is how many times worse than the yardstick a figure must be to be an error
// and not the weather: a lock held over a write, a connection for every request.
const farOut = 3

// mostAllocs is the most that the program may allocate for a request at 64 clients: half
// as much again as it does.
const mostAllocs = 45

// inLine returns an error if the program is far behind the yardstick, or allocates more
// than it should.
func inLine(roads []road, all [][][]float64) error {
	at := func(name, column string) float64 {
		i := slices.IndexFunc(roads, func(r road) bool { return r.name == name })
		return median(all[i][slices.Index(columns[:], column)])
	}
	rate, cpu := "64: req/s", "64: CPU µs/req"
	if mine, bare := at(program, rate), at(yardstick, rate); mine < bare/farOut {
		return fmt.Errorf("%s: %.0f, where %s has %.0f", rate, mine, yardstick, bare)
	}
	if mine, bare := at(program, cpu), at(yardstick, cpu); mine > bare*farOut && bare > 0 {
		return fmt.Errorf("%s: %.0f, where %s has %.0f", cpu, mine, yardstick, bare)
	}
	if n := at(program, "allocs/req"); n > mostAllocs {
		return fmt.Errorf("%.0f allocations for a request, at most %d", n, mostAllocs)
	}
	return nil
}

// once takes the figures of one road, but for idle tunnels.
func once(r road, o options) ([]float64, error) {
	var row []float64
	var f figures
	for _, n := range clients {
		var err error
		if f, err = closed(r, n, o); err != nil {
			return nil, fmt.Errorf("%d clients: %w", n, err)
		}
		row = append(row, f.at(.5), f.at(.99))
	}
	row = append(row, f.rate, f.cpu, f.allocs, f.conns)
	f, err := open(r, spread, o)
	if err != nil {
		return nil, err
	}
	row = append(row, f.at(.5), f.at(.99))
	if f, err = listen(r); err != nil {
		return nil, err
	}
	row = append(row, f.at(.5), f.at(.99))
	if r.name != goproxyRoad && r.name != squidRoad { // they speak HTTP/1.1 only
		if f, err = multiplexed(r, clients[len(clients)-1], o); err != nil {
			return nil, fmt.Errorf("HTTP/2: %w", err)
		}
	} else {
		f = figures{}
	}
	row = append(row, f.rate, f.cpu)
	more, err := openings(r, o)
	if err != nil {
		return nil, err
	}
	again, err := redialled(r, 400)
	if err != nil {
		return nil, err
	}
	large, err := bodies(r)
	return slices.Concat(row, more, []float64{again}, large), err
}

func show(roads []road, all [][][]float64) {
	fmt.Printf("| road | %s |\n|---|%s\n", strings.Join(columns[:], " | "), strings.Repeat("---:|", len(columns)))
	for i, r := range roads {
		fmt.Printf("| %s |", r.name)
		for _, rounds := range all[i] {
			fmt.Printf(" %s |", figure(median(rounds)))
		}
		fmt.Println()
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func figure(v float64) string {
	if v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// cpuOf is the time in seconds that a process has used, from proc(5), in steps of
// 10 ms; 0 for pid 0.
func cpuOf(pid int) float64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	var ticks float64
	for _, text := range f[11:13] {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return ticks / 100
}
