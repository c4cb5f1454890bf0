//go:build !linux

package main

// background is work that can wait.
type background struct{}

// run runs f. Elsewhere a thread has no priority of its own.
func (*background) run(f func()) { f() }
