//go:build unix

package source

import (
	"os/exec"
	"syscall"
)

// together has all that a command starts end with it when its time is over.
func together(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
