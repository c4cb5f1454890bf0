package audit

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// keepBusy writes and syncs 16 MiB over and over in dir until the benchmark ends.
func keepBusy(b *testing.B, dir string) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	fill := slices.Repeat([]byte{'x'}, 16<<20)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			f, err := os.Create(filepath.Join(dir, "busy"))
			if err == nil {
				_, err = f.Write(fill)
				err = errors.Join(err, f.Sync(), f.Close())
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.Cleanup(func() {
		close(stop)
		wg.Wait()
	})
}

// BenchmarkCommitBesideBusyDisk has a thousand decisions a second committed while
// somebody else keeps the disk of the log busy, and beside it the write(2) of a line as
// long, which is what a commit would wait for without the ring.
func BenchmarkCommitBesideBusyDisk(b *testing.B) {
	run := func(b *testing.B, commit func() error) {
		var took []time.Duration
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for b.Loop() {
			<-pace.C
			began := time.Now()
			if err := commit(); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
	}
	b.Run("ring", func(b *testing.B) {
		l := open(b, Options{})
		keepBusy(b, filepath.Dir(l.o.Path))
		run(b, func() error { return full(l).Commit() })
	})
	b.Run("write", func(b *testing.B) {
		l := open(b, Options{})
		dir := b.TempDir()
		f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		keepBusy(b, dir)
		run(b, func() error {
			text := l.encode((*decisionEvent)(full(l)))
			defer text.Free()
			_, err := f.Write(text.Bytes())
			return err
		})
	})
}
