package past

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
)

// batchSize is how many lines one goroutine takes at once.
const batchSize = 256

// Scan reads all decisions out of the lines of a log with as many goroutines as there
// are processors. Each has a state of its own, which fresh makes, and which is
// returned when all have ended. What each is handed is good until it returns. A line
// that is no record is handed to bad.
func Scan[State any](ctx context.Context, lines iter.Seq2[[]byte, error], fresh func() State, each func(State, *Decision), bad func(State, error)) ([]State, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan [][]byte, 2*runtime.GOMAXPROCS(0))
	states := make([]State, runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for i := range states {
		states[i] = fresh()
		workers.Go(func() {
			var d Decision
			r := NewReader()
			for batch := range batches {
				for _, line := range batch {
					if err := r.Read(line, &d); err != nil {
						bad(states[i], err)
					} else {
						each(states[i], &d)
					}
				}
			}
		})
	}
	err := feed(ctx, lines, batches)
	close(batches)
	workers.Wait()
	return states, err
}

// feed copies decisions' lines into batches.
func feed(ctx context.Context, lines iter.Seq2[[]byte, error], batches chan<- [][]byte) error {
	var text []byte
	var ends []int
	send := func() {
		batch := make([][]byte, len(ends))
		begin := 0
		for i, end := range ends {
			batch[i], begin = text[begin:end:end], end
		}
		if len(batch) > 0 {
			batches <- batch
		}
		text, ends = make([]byte, 0, len(text)+len(text)/8), nil
	}
	for line, err := range lines {
		if err != nil {
			return fmt.Errorf("reading decision log: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !isDecision(line) {
			continue
		}
		text = append(text, line...)
		if ends = append(ends, len(text)); len(ends) == batchSize {
			send()
		}
	}
	send()
	return nil
}

// isDecision looks at the beginning of a line, where its event stands.
func isDecision(line []byte) bool {
	return bytes.Contains(line[:min(len(line), 160)], []byte(`"event":"decision"`))
}
