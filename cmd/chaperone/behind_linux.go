package main

import (
	"os"
	"runtime"
	"sync"
	"syscall"
)

// niceness of work that can wait, in the sense of setpriority(2). More of it would
// leave the thread without a processor when the collector needs it to stop.
const niceness = 10

// background is work that can wait.
type background struct {
	mu    sync.Mutex
	jobs  int
	procs int // Go's processors without such work
}

// run runs f on a thread to which the kernel prefers all others, and returns when it
// is done. Go has one processor more meanwhile, as f holds one of them also while the
// kernel lets it wait.
func (b *background) run(f func()) {
	b.begin()
	defer b.end()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), niceness)
		f()
	}()
	<-done
}

func (b *background) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs == 0 {
		b.procs = runtime.GOMAXPROCS(0)
	}
	b.jobs++
	runtime.GOMAXPROCS(b.procs + b.jobs)
}

func (b *background) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs--
	if b.jobs == 0 && os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // which follows the container's limit
		return
	}
	runtime.GOMAXPROCS(b.procs + b.jobs)
}
