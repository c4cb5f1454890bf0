package main

import (
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// TestBackgroundGivesWay shows that work which can wait runs with less right to a
// processor than what is beside it, and that Go has one more meanwhile, and as many as
// before afterwards.
func TestBackgroundGivesWay(t *testing.T) {
	before, mine := runtime.GOMAXPROCS(0), syscall.Gettid()
	var b background
	var wg sync.WaitGroup
	inside := make(chan struct{}, 2)
	for range 2 {
		wg.Go(func() {
			b.run(func() {
				inside <- struct{}{}
				for len(inside) < 2 { // both are under way
					runtime.Gosched()
				}
				if n, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid()); err != nil || 20-n < niceness {
					t.Errorf("niceness %d, %v; want %d", 20-n, err, niceness)
				}
				if n := runtime.GOMAXPROCS(0); n <= before {
					t.Errorf("%d processors, before %d", n, before)
				}
			})
		})
	}
	wg.Wait()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("%d processors afterwards, before %d", n, before)
	}
	if syscall.Gettid() == mine {
		if n, err := syscall.Getpriority(syscall.PRIO_PROCESS, mine); err != nil || 20-n >= niceness {
			t.Errorf("the caller's niceness became %d, %v", 20-n, err)
		}
	}
}
