package main

import (
	"os/exec"
	"runtime"
	"syscall"
)

// dieTogether has the kernel end the command when the thread that started it ends,
// so that a run that is killed takes its command along.
func dieTogether() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// start starts cmd and sends how it ended. The thread stays locked meanwhile: the
// death signal goes by the thread, not by the process (prctl(2), PR_SET_PDEATHSIG).
// Before it starts cmd it calls prepare on that thread, unless that is nil.
func start(cmd *exec.Cmd, prepare func() error, ended chan<- error) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		if prepare != nil {
			err = prepare()
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return <-started
}
