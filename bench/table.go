package main

import (
	"errors"
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
	"1: p50 µs", "p99", "8: p50 µs", "p99", "64: p50 µs", "p99", "64: req/s", "64: CPU µs/req", "allocs/req", "new conns/1,000", "64, few fields: req/s", "CPU µs/req",
	"open: p50 µs", "p99", "event p50 µs", "p99", "HTTP/2, 64: req/s", "CPU µs/req",
	"new tunnel µs", "resumed µs", "another host: CPU µs", "re-dials resumed %", "10 MiB down ms", "up ms", "peak MiB of 16 at once", "KiB/idle tunnel",
}

// measurement is what gives some of the columns, in their order.
type measurement struct {
	name    string
	columns int
	take    func(r road, o options) ([]float64, error)
}

// idleTunnels is taken once, while the processes are fresh; all else in each round.
var (
	idleTunnels = measurement{"idle tunnels", 1, func(r road, o options) ([]float64, error) {
		kib, err := idle(r, o.idle)
		return []float64{kib}, err
	}}
	eachRound = [...]measurement{
		{"1, 8 and 64 clients", 10, allClosed},
		{"few fields", 2, fewFields},
		{"open loop", 2, func(r road, o options) ([]float64, error) { return ends(open(r, spread, o)) }},
		{"events", 2, func(r road, _ options) ([]float64, error) { return ends(listen(r)) }},
		{"HTTP/2", 2, overHTTP2},
		{"new tunnels", 3, openings},
		{"re-dials", 1, func(r road, _ options) ([]float64, error) {
			share, err := redialled(r, 400)
			return []float64{share}, err
		}},
		{"10 MiB", 3, func(r road, _ options) ([]float64, error) { return bodies(r) }},
	}
)

// measure goes the roads in turn, round by round, and prints medians. What fails
// leaves its cells empty. It is an error at the end, but where a peer failed.
func measure(roads []road, o options) error {
	fmt.Printf("%d rounds of %v, %s, %d CPUs, %s\n\n", o.rounds, o.each, runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	var faults error
	fail := func(r road, err error) {
		if r.peer {
			tell("%v", err)
			return
		}
		faults = errors.Join(faults, err)
	}
	all := make([][][]float64, len(roads)) // road, column, round
	for i, r := range roads {
		all[i] = make([][]float64, len(columns))
		row, err := idleTunnels.of(r, o)
		if err != nil {
			fail(r, err)
			continue
		}
		all[i][len(columns)-1] = row
	}
	for round := range o.rounds {
		for k := range roads {
			i := (k + round) % len(roads)
			began := time.Now()
			fail := func(err error) { fail(roads[i], err) }
			once(roads[i], all[i], o, fail)
			tell("round %d of %d: %s: %.1f s", round+1, o.rounds, roads[i].name, time.Since(began).Seconds())
		}
	}
	show(roads, all)
	if faults != nil {
		return faults
	}
	return inLine(roads, all)
}

// tell says on standard error how far things are.
func tell(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	fmt.Fprintf(os.Stderr, "bench: %.300s\n", text)
}

// of takes the figures of one road.
func (m measurement) of(r road, o options) ([]float64, error) {
	row, err := m.take(r, o)
	if err == nil && len(row) != m.columns {
		err = fmt.Errorf("%d figures for %d columns", len(row), m.columns)
	}
	if err != nil {
		return nil, fmt.Errorf("measuring %s: %s: %w", r.name, m.name, err)
	}
	return row, nil
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

// once adds the figures of one round of one road to its columns.
func once(r road, all [][]float64, o options, fail func(error)) {
	at := 0
	for _, m := range eachRound {
		row, err := m.of(r, o)
		if err != nil {
			fail(err)
		}
		for i, v := range row {
			all[at+i] = append(all[at+i], v)
		}
		at += m.columns
	}
}

func ends(f figures, err error) ([]float64, error) { return []float64{f.at(.5), f.at(.99)}, err }

func allClosed(r road, o options) (row []float64, err error) {
	var f figures
	for _, n := range clients {
		if f, err = closed(r, n, o); err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		row = append(row, f.at(.5), f.at(.99))
	}
	return append(row, f.rate, f.cpu, f.allocs, f.conns), nil
}

// fewFields has 64 clients ask and be answered with next to no fields.
func fewFields(r road, o options) ([]float64, error) {
	r.lean = true
	f, err := closed(r, clients[len(clients)-1], o)
	return []float64{f.rate, f.cpu}, err
}

func overHTTP2(r road, o options) ([]float64, error) {
	if r.name == goproxyRoad || r.name == squidRoad { // they speak HTTP/1.1 only
		return []float64{0, 0}, nil
	}
	f, err := multiplexed(r, clients[len(clients)-1], o)
	return []float64{f.rate, f.cpu}, err
}

func show(roads []road, all [][][]float64) {
	fmt.Printf("| road | %s |\n|---|%s\n", strings.Join(columns[:], " | "), strings.Repeat("---:|", len(columns)))
	for i, r := range roads {
		fmt.Printf("| %s |", r.name)
		for _, rounds := range all[i] {
			cell := "–" // it failed each time
			if len(rounds) > 0 {
				cell = figure(median(rounds))
			}
			fmt.Printf(" %s |", cell)
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
