package main

import (
	"fmt"
	"runtime"
	"slices"
	"time"
)

// pieces is into how many short measurements a round of the stores' comparison is cut:
// what the machine does beside then falls on both alike.
const pieces = 10

// underStores measures the program with its store in bbolt and in Redis in turn, one
// client, and prints what each adds over going direct, and how the two compare: the
// median over all pieces of the ratio within a piece, with its quartiles.
func underStores(roads []road, o options) error {
	o.each = max(o.each/pieces, 100*time.Millisecond)
	pick := func(name string) (road, error) {
		for _, r := range roads {
			if r.name == name {
				return r, nil
			}
		}
		return road{}, fmt.Errorf("comparing stores: there is no %s", name)
	}
	var three [3]road
	for i, name := range [...]string{"direct", program, redisRoad} {
		r, err := pick(name)
		if err != nil {
			return err
		}
		three[i] = r
	}
	var p50, p99 [3][]float64
	var ratios []float64
	for n := range o.rounds * pieces {
		var got [3]figures
		for k := range three {
			i := (k + n) % len(three)
			f, err := closed(three[i], 1, o)
			if err != nil {
				return fmt.Errorf("measuring %s: %w", three[i].name, err)
			}
			got[i] = f
			p50[i], p99[i] = append(p50[i], f.at(.5)), append(p99[i], f.at(.99))
		}
		if base := got[1].at(.5) - got[0].at(.5); base > 0 {
			ratios = append(ratios, (got[2].at(.5)-got[0].at(.5))/base)
		}
	}
	fmt.Printf("%d times %v, %s, %d CPUs, %s\n\n| road | p50 µs | p99 µs | added p50 µs |\n|---|---:|---:|---:|\n", o.rounds*pieces, o.each, runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	for i, r := range three {
		fmt.Printf("| %s | %s | %s | %s |\n", r.name, figure(median(p50[i])), figure(median(p99[i])), figure(median(p50[i])-median(p50[0])))
	}
	slices.Sort(ratios)
	if n := len(ratios); n > 0 {
		fmt.Printf("\nadded with Redis / added with bbolt: median %.3f, quartiles %.3f and %.3f\n", ratios[n/2], ratios[n/4], ratios[3*n/4])
	}
	return nil
}
