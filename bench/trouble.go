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
	"sync"
	"syscall"
	"time"
)

// trouble is something that goes on beside the requests that are measured. cause
// returns when ctx is done; its errors are the measurement's.
type trouble struct {
	name  string
	cause func(ctx context.Context, r road, dir string) error
}

var troubles = [...]trouble{
	{"calm", func(context.Context, road, string) error { return nil }},
	{"64 requests to a service that takes 500 ms", slowService},
	{"a changed policy is loaded four times a second", reloads},
	{"100 new tunnels a second, each to another host", burst},
	{"somebody else writes and syncs 16 MiB over and over on the log's disk", busyDisk},
}

// underTrouble prints the open loop's figures with each trouble beside it. Rounds
// are interleaved, and medians printed.
func underTrouble(r road, dir string, o options) error {
	var p50, p99 [len(troubles)][]float64
	for range o.rounds {
		for i, t := range troubles {
			f, err := beside(t, r, dir, o)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			p50[i], p99[i] = append(p50[i], f.at(.5)), append(p99[i], f.at(.99))
		}
	}
	fmt.Printf("| beside %d requests a second | p50 µs | p99 µs | p99 × calm |\n|---|---:|---:|---:|\n", o.rate)
	for i, t := range troubles {
		fmt.Printf("| %s | %s | %s | %.2f |\n", t.name, figure(median(p50[i])), figure(median(p99[i])), median(p99[i])/median(p99[0]))
	}
	return nil
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

// every calls f until ctx is done or it fails.
func every(ctx context.Context, d time.Duration, f func(n int) error) error {
	t := time.NewTicker(d)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := f(n); err != nil {
			return err
		}
	}
}

// reloads changes a comment: what did not change is not loaded.
func reloads(ctx context.Context, r road, dir string) error {
	name := filepath.Join(dir, home, "rego", "chaperone", "grants.yaml")
	return every(ctx, 250*time.Millisecond, func(n int) error {
		return errors.Join(os.WriteFile(name, fmt.Appendf(nil, "%s# %d\n", grants, n), 0o600), syscall.Kill(r.pid, syscall.SIGHUP))
	})
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
