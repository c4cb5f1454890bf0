//go:build !linux

package main

// behind runs f. Elsewhere a thread has no priority of its own.
func behind(f func()) { f() }
