package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"chaperone/cmd/chaperone/problem"
)

// Numbers of linux/capability.h and linux/prctl.h.
const (
	capSetPCap       = 8
	capNetAdmin      = 12
	capSysAdmin      = 21
	capVersion3      = 0x20080522
	prSetDumpable    = 4
	prCapBSetDrop    = 24
	prSetNoNewPrivs  = 38
	prCapAmbient     = 47
	ambientClearAll  = 4
	interfaceRequest = 40 // bytes of struct ifreq
)

// apart has a command begin in user, network, process and mount namespaces of its
// own, as the same user. The capabilities are those of the new namespaces; settle
// needs them, and the command does not get them.
func apart(attr *syscall.SysProcAttr) {
	uid, gid := os.Getuid(), os.Getgid()
	attr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	attr.AmbientCaps = []uintptr{capNetAdmin, capSysAdmin, capSetPCap}
}

// isolated turns the error of a command that could not begin apart into advice.
func isolated(err error) error {
	for _, e := range [...]error{syscall.EPERM, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.EACCES} {
		if errors.Is(err, e) {
			return problem.Failure(fmt.Errorf("%w: %w", errIsolate, err), isolateHint)
		}
	}
	return err
}

// settle makes the new namespaces fit to run in: loopback is up, and /proc shows
// this namespace's processes alone, so that those outside, which have a way out,
// cannot be got at.
func settle() error {
	if os.Getpid() != 1 {
		return errors.New("this is not the first process of a namespace")
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening socket: %w", err)
	}
	defer syscall.Close(s)
	var request [interfaceRequest]byte // netdevice(7)
	copy(request[:], "lo")
	*(*uint16)(unsafe.Pointer(&request[16])) = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("raising loopback: %w", errno)
	}
	return nil
}

// runInside runs the command without the capabilities, and without a way to get them
// by being root inside, by a set-user-id program, or by tracing this process: with
// them it could take /proc away and get at processes outside.
func (a *app) runInside(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return problem.Failure(fmt.Errorf("starting command: %w", err), "see that it is installed and in PATH")
	}
	if err := prctl(prSetDumpable, 0); err != nil {
		return err
	}
	cmd := exec.Command(path, command[1:]...)
	cmd.Args[0] = command[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = a.stdin, a.stdout, a.stderr, a.env
	return wait(cmd, giveUp)
}

// giveUp takes all capabilities from the thread for good, and what it starts.
func giveUp() error {
	if err := errors.Join(prctl(prSetNoNewPrivs, 1), prctl(prCapAmbient, ambientClearAll)); err != nil {
		return err
	}
	for c := uintptr(0); ; c++ {
		err := prctl(prCapBSetDrop, c)
		if errors.Is(err, syscall.EINVAL) && c > capSysAdmin { // the last one that this kernel has
			break
		}
		if err != nil {
			return err
		}
	}
	head := struct {
		version uint32
		pid     int32
	}{version: capVersion3}
	var none [2]struct{ effective, permitted, inheritable uint32 }
	if _, _, errno := syscall.Syscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 {
		return fmt.Errorf("giving up capabilities: %w", errno)
	}
	return nil
}

// prctl is prctl(2).
func prctl(option, argument uintptr) error {
	if _, _, errno := syscall.Syscall6(syscall.SYS_PRCTL, option, argument, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("giving up capabilities: %w", errno)
	}
	return nil
}
