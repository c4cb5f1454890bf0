package audit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestFollow(t *testing.T) {
	l := open(t, Options{MaxSize: 3 << 10})
	if err := errors.Join(full(l).Close(), l.Flush()); err != nil { // before: not shown
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	got := make(chan string)
	go func() {
		defer close(got)
		for x, err := range Follow(ctx, l.o.Path, Filter{Result: "allow"}) {
			if err != nil {
				t.Error(err)
				return
			}
			got <- x.Decision.ID
		}
	}()
	seen := ""
	for i := range 40 { // over several rotations
		r := full(l)
		r.ID = fmt.Sprintf("id-%02d", i)
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			t.Fatal(err)
		}
		for seen != r.ID {
			wait := 2 * time.Minute
			if seen == "" {
				wait = 200 * time.Millisecond // Follow may not have found the end of the file yet
			}
			select {
			case id := <-got:
				if next := fmt.Sprintf("id-%02d", after(seen)); seen != "" && id != next {
					t.Fatalf("got %q, want %q", id, next)
				}
				seen = id
				continue
			case <-time.After(wait):
				if seen != "" {
					t.Fatalf("%s was not shown", r.ID)
				}
			}
			break
		}
	}
	if seen != "id-39" {
		t.Errorf("last shown: %q", seen)
	}
}

// after is the number behind that of an id.
func after(id string) int {
	var n int
	fmt.Sscanf(id, "id-%d", &n)
	return n + 1
}

// TestFollowIsNotHeldUp has one exchange that never ends in front of one that does.
func TestFollowIsNotHeldUp(t *testing.T) {
	l := open(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan string, 1000)
	go func() {
		defer close(got)
		for x, err := range Follow(ctx, l.o.Path, Filter{}) {
			if err != nil {
				t.Error(err)
				return
			}
			got <- x.Decision.ID
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		stream, call := full(l), full(l)
		stream.ID, call.ID = "stream", "call"
		if err := errors.Join(stream.Commit(), call.Commit(), call.Close()); err != nil {
			t.Fatal(err)
		}
		select {
		case id := <-got:
			if id != "call" {
				t.Errorf("got %q", id)
			}
			return
		case <-ctx.Done():
			t.Fatal("the stream held up what came after it")
		case <-tick.C:
		}
	}
}

// TestReadWhileRotating rotates the log between two events that are read: nothing
// is left out and nothing comes twice.
func TestReadWhileRotating(t *testing.T) {
	l := open(t, Options{MaxSize: 3 << 10})
	for range 6 {
		if err := errors.Join(full(l).Close(), l.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	want := uint64(1)
	for e, err := range Events(l.o.Path) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != want {
			t.Fatalf("line %d follows %d", e.Seq, want-1)
		}
		want++
		if want > 60 {
			break
		}
		if err := errors.Join(full(l).Close(), l.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if want < 12 {
		t.Errorf("only %d lines", want-1)
	}
}
