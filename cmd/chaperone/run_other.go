//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// dieTogether does nothing where the kernel offers nothing: the session's lease
// ends what a killed run leaves behind.
func dieTogether() *syscall.SysProcAttr { return nil }

// start starts cmd and sends how it ended. There is nothing to prepare.
func start(cmd *exec.Cmd, _ func() error, ended chan<- error) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { ended <- cmd.Wait() }()
	return nil
}
