package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"chaperone/internal/testkit"
)

// trouble is something that goes on beside the requests that are measured. cause
// returns when ctx is done; its errors are the measurement's.
type trouble struct {
	name  string
	cause func(ctx context.Context, r road, dir string) error
	only  string // the road that can have it; empty: all
}

func none(context.Context, road, string) error { return nil }

var troubles = [...]trouble{
	{"calm", none, ""},
	{"64 requests to a service that takes 500 ms", slowService, ""},
	{"the policy changes every three seconds", reloads(3 * time.Second), program},
	{"the policy changes four times a second", reloads(250 * time.Millisecond), program},
	{"100 new tunnels a second, each to another host", burst, ""},
	{"somebody else writes and syncs 16 MiB over and over on the log's disk", busyDisk, ""},
	{"a store in Redis", none, redisRoad},
	{"the same, Redis does not answer", outage, redisRoad},
	{"10,000 agents with 100 grants each", none, largeRoad},
	{"the same, its heap collected all the time (GOGC=2)", none, collected},
}

// Roads that only trouble is looked at on.
const (
	largeRoad = "chaperone, large"
	redisRoad = "chaperone, Redis"
	collected = "chaperone, collecting"
)

// onRedis starts one more of the program that has its store in Redis, where there is a
// server and the program takes one; its rows stay empty elsewhere.
func onRedis(ctx context.Context, b *builder) {
	err := func() error {
		dir := filepath.Join(b.dir, "redis")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		db, err := testkit.StartRedis(ctx, testkit.RedisOptions{Dir: dir})
		if err != nil {
			return err
		}
		b.stops = append(b.stops, db.Close)
		if err := b.program(ctx, redisRoad, grants, "store: redis://"+db.Addr+"/0\n"); err != nil {
			return err
		}
		r := &b.roads[len(b.roads)-1]
		r.pause, r.resume = db.Pause, db.Resume
		return nil
	}()
	if err != nil {
		fmt.Printf("no rows with a store in Redis: %.200s\n\n", strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

// outage stops Redis from half a second on.
func outage(ctx context.Context, r road, _ string) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(500 * time.Millisecond):
	}
	err := r.pause()
	<-ctx.Done()
	return errors.Join(err, r.resume())
}

// large starts two more of the program with the grants of many agents, of which one
// collects its heap whenever it has grown by a fiftieth.
func large(ctx context.Context, b *builder) error {
	text := manyGrants(crowd)
	if err := b.program(ctx, largeRoad, text, ""); err != nil {
		return err
	}
	old, had := os.LookupEnv("GOGC")
	if err := os.Setenv("GOGC", "2"); err != nil {
		return err
	}
	err := b.program(ctx, collected, text, "")
	if !had {
		return errors.Join(err, os.Unsetenv("GOGC"))
	}
	return errors.Join(err, os.Setenv("GOGC", old))
}

// on returns the roads that a trouble is measured on, the program first.
func (t trouble) on(roads []road) (list []road) {
	for _, r := range slices.Backward(roads) {
		if t.only == r.name || t.only == "" && (r.name == program || r.name == yardstick) {
			list = append(list, r)
		}
	}
	return list
}

// underTrouble prints the open loop's figures with each trouble beside it, of the
// program and of the yardstick, whose client and machine suffer as well. Rounds are
// interleaved, and medians printed.
func underTrouble(roads []road, dir string, o options) error {
	var all [len(troubles)]both
	var faults error
	for round := range o.rounds {
		for i, t := range troubles {
			began := time.Now()
			faults = errors.Join(faults, all[i].measure(t, roads, dir, o))
			tell("round %d of %d: %s: %.1f s", round+1, o.rounds, t.name, time.Since(began).Seconds())
		}
	}
	fmt.Printf("| beside %d requests a second | p50 µs | p99 µs | p99 × calm | bare p50 µs | p99 µs | p99 × calm |\n|---|---:|---:|---:|---:|---:|---:|\n", o.rate)
	for i, t := range troubles {
		fmt.Printf("| %s | %s | %s |\n", t.name, all[i][0].cells(all[0][0]), all[i][1].cells(all[0][1]))
	}
	return faults
}

// rounds are the figures of one road beside one trouble.
type rounds struct{ p50, p99 []float64 }

// both are those of the program and of the yardstick.
type both [2]rounds

// measure adds a round of each road that the trouble is for.
func (b *both) measure(t trouble, roads []road, dir string, o options) (faults error) {
	for k, r := range t.on(roads) {
		f, err := beside(t, r, dir, o)
		if err != nil {
			faults = errors.Join(faults, fmt.Errorf("%s: %s: %w", r.name, t.name, err))
			continue
		}
		b[k].p50, b[k].p99 = append(b[k].p50, f.at(.5)), append(b[k].p99, f.at(.99))
	}
	return faults
}

func (r rounds) cells(calm rounds) string {
	if r.p50 == nil {
		return "– | – | –"
	}
	ratio := "–"
	if calm.p99 != nil {
		ratio = strconv.FormatFloat(median(r.p99)/median(calm.p99), 'f', 2, 64)
	}
	return fmt.Sprintf("%s | %s | %s", figure(median(r.p50)), figure(median(r.p99)), ratio)
}

func beside(t trouble, r road, dir string, o options) (figures, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var fault error
	wg.Go(func() { fault = t.cause(ctx, r, dir) })
	f, err := open(r, spread, o)
	cancel()
	wg.Wait()
	return f, errors.Join(err, fault)
}

func slowService(ctx context.Context, r road, _ string) error {
	var wg sync.WaitGroup
	errs := make([]error, 64)
	for i := range errs {
		wg.Go(func() {
			w, err := r.open(slow)
			if err != nil {
				errs[i] = err
				return
			}
			defer w.c.Close()
			<-time.After(time.Duration(i) * slowness / time.Duration(len(errs))) // not all in step
			for ctx.Err() == nil && errs[i] == nil {
				var resp *http.Response
				if resp, errs[i] = w.send(); errs[i] == nil {
					_, errs[i] = io.Copy(io.Discard, resp.Body)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// every calls f until ctx is done or it fails, first after half of d.
func every(ctx context.Context, d time.Duration, f func(n int) error) error {
	t := time.NewTimer(d / 2)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		t.Reset(d)
		if err := f(n); err != nil {
			return err
		}
	}
}

// reloads changes a comment, which makes it another policy, as operators do: the file
// is written, and the program sees it.
func reloads(d time.Duration) func(context.Context, road, string) error {
	return func(ctx context.Context, _ road, dir string) error {
		name := filepath.Join(dir, home, "rego", "chaperone", "grants.yaml")
		return every(ctx, d, func(int) error {
			return os.WriteFile(name, fmt.Appendf(nil, "%s# %d\n", grants, time.Now().UnixNano()), 0o600)
		})
	}
}

func burst(ctx context.Context, r road, _ string) error {
	run := time.Now().UnixNano()
	return every(ctx, 10*time.Millisecond, func(n int) error {
		_, err := handshakes(r, 1, nil, func(int) string { return fmt.Sprintf("b%d.%d.example", n, run) })
		return err
	})
}

func busyDisk(ctx context.Context, _ road, dir string) error {
	name := filepath.Join(dir, "busy")
	defer os.Remove(name)
	fill := slices.Repeat([]byte{'x'}, 16<<20)
	for ctx.Err() == nil {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		_, err = f.Write(fill)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
