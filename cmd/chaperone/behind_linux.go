package main

import (
	"os"
	"runtime"
	"syscall"
)

// niceness of work that can wait, in the sense of setpriority(2). More of it would
// leave the thread without a processor when the collector needs it to stop.
const niceness = 10

// behind runs f on a thread to which the kernel prefers all others, and returns when
// it is done. Go has one processor more meanwhile, as f holds one of them also while
// the kernel lets it wait.
func behind(f func()) {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(n + 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), niceness)
		f()
	}()
	<-done
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // which follows the container's limit
		return
	}
	runtime.GOMAXPROCS(n)
}
