package audit

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestReadersMissNothingWhileRotating has readers follow a log that is rotated after
// each line: none of them may find a gap.
func TestReadersMissNothingWhileRotating(t *testing.T) {
	const lines = 500
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() { followUnbroken(t, path, lines) })
		readers.Go(func() { listWhole(t, path, lines) })
	}
	for seq := range uint64(lines) {
		next := path + ".next"
		if err := os.WriteFile(next, fmt.Appendf(nil, "{\"seq\":%d}\n", seq+1), 0o600); err != nil {
			t.Fatal(err)
		}
		if seq > 0 {
			if err := os.Rename(path, segmentName(path, seq)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	readers.Wait()
}

// followUnbroken reads until line n.
func followUnbroken(t *testing.T, path string, n uint64) {
	r := NewReader(path, 0)
	defer r.Close()
	for r.Last() < n {
		before := r.Last()
		_, seq, err := r.Next()
		if err == io.EOF {
			continue
		}
		if err != nil || seq != before+1 {
			t.Errorf("line %d after %d, %v", seq, before, err)
			return
		}
	}
}

// listWhole lists the segments until there are n: none may be missing in between.
func listWhole(t *testing.T, path string, n int) {
	for {
		names, err := Segments(path)
		if err != nil {
			t.Error(err)
			return
		}
		for i, name := range names {
			if want := segmentName(path, uint64(i+1)); name != want && name != path {
				t.Errorf("%s is missing", want)
				return
			}
		}
		if len(names) == n {
			return
		}
	}
}
