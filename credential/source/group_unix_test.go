//go:build unix

package source

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPipes: of a pipe nobody knows when somebody writes into it, so it is no source; and
// what a command has started ends with it, which a pipe that it holds shows.
func TestPipes(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (File{}).Fetch(t.Context(), pipe); err == nil || !strings.HasSuffix(err.Error(), "pipe is not a file") {
		t.Errorf("a pipe: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := Command{}.Fetch(ctx, "sleep 300 >'"+pipe+"' & sleep 300")
		ended <- err
	}()
	held, err := os.Open(pipe) // once the command has it open
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	cancel()
	if err := <-ended; err == nil {
		t.Error("a command that was stopped gave a secret")
	}
	if err := held.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(held); err != nil {
		t.Errorf("what the command started goes on: %v", err)
	}
}
