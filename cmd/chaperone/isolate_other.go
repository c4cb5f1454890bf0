//go:build !linux

package main

import (
	"errors"
	"syscall"

	"chaperone/cmd/chaperone/problem"
)

var errLinuxAlone = errors.New("only Linux has namespaces")

// apart does nothing: isolated says so.
func apart(*syscall.SysProcAttr) {}

func isolated(error) error {
	return problem.Failure(errors.Join(errIsolate, errLinuxAlone), "docs/egress.md has other ways")
}

func settle() error { return errLinuxAlone }

func (a *app) runInside([]string) error { return errLinuxAlone }
