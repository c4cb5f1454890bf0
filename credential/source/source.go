// Package source fetches secrets from where their owners keep them.
package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"chaperone/credential/internal/secret"
)

// Fetched is what a source holds.
type Fetched struct {
	Secret secret.Secret
	Valid  time.Duration // for how long the source says that it is good; 0: it does not say
}

// Fetcher reads one kind of source. It is safe for concurrent use. Its errors hold
// nothing of the secret.
type Fetcher interface {
	// Check reports whether a reference is of the source's form. It reaches out to nobody.
	Check(ref string) error
	// Fetch returns what the reference names.
	Fetch(ctx context.Context, ref string) (Fetched, error)
}

// ErrForm is wrapped when a reference cannot be read.
var ErrForm = errors.New("the reference is not of the source's form")

// Split takes a reference apart: "vault:secret/data/gh#token".
func Split(reference string) (scheme, ref string) {
	scheme, ref, _ = strings.Cut(reference, ":")
	return scheme, ref
}

// Scheme is the part of a reference that says which source it is.
func Scheme(reference string) string { s, _ := Split(reference); return s }

// maxSecret bounds what is taken for a secret, in bytes.
const maxSecret = 64 << 10

// limited keeps what is longer than a secret can be from being taken for one.
func limited(b []byte) (Fetched, error) {
	if len(b) > maxSecret {
		return Fetched{}, fmt.Errorf("it is longer than %d bytes", maxSecret)
	}
	return Fetched{Secret: secret.New(b)}, nil
}

// field takes one member out of a JSON object; without a name all of it.
func field(b []byte, name string) (Fetched, error) {
	if name == "" {
		return limited(b)
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		return Fetched{}, errors.New("it is no JSON object, so it has no field " + name)
	}
	switch v := all[name].(type) {
	case string:
		return limited([]byte(v))
	case nil:
		return Fetched{}, errors.New("it has no field " + name)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return Fetched{}, err
		}
		return limited(text)
	}
}

// Env reads variables of the program's environment: env:NAME.
type Env struct {
	Lookup func(name string) (string, bool)
}

// Check implements [Fetcher].
func (Env) Check(ref string) error {
	if ref == "" || strings.ContainsAny(ref, "= \t\n") {
		return fmt.Errorf("%w: write env:NAME", ErrForm)
	}
	return nil
}

// Fetch implements [Fetcher].
func (e Env) Fetch(_ context.Context, ref string) (Fetched, error) {
	text, ok := e.Lookup(ref)
	if !ok {
		return Fetched{}, fmt.Errorf("variable %s is not set where the proxy runs", ref)
	}
	return limited([]byte(text))
}

// File reads files each time that they are asked for, so that one that was replaced,
// as Kubernetes does with the secrets that it mounts, counts at once: file:/PATH, or
// file:/PATH#FIELD of a JSON object.
type File struct{}

// Check implements [Fetcher].
func (File) Check(ref string) error {
	path, _, _ := strings.Cut(ref, "#")
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: write file:/PATH with the whole path", ErrForm)
	}
	return nil
}

// Fetch implements [Fetcher].
func (File) Fetch(_ context.Context, ref string) (Fetched, error) {
	path, name, _ := strings.Cut(ref, "#")
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // of a pipe nobody knows when somebody writes into it
	if err != nil {
		return Fetched{}, err
	}
	defer f.Close()
	if at, err := f.Stat(); err != nil || !at.Mode().IsRegular() {
		return Fetched{}, fmt.Errorf("%s is not a file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return Fetched{}, err
	}
	got, err := field(bytes.TrimRight(b, "\r\n"), name)
	got.Valid = fileValid
	return got, err
}

// fileValid is how long a file counts as it was read. A read takes microseconds.
const fileValid = time.Second

// Command takes what a command prints: command:op read op://vault/item/field. It is
// run by the shell, as the proxy's user.
type Command struct{}

// Check implements [Fetcher].
func (Command) Check(ref string) error {
	if strings.TrimSpace(ref) == "" {
		return fmt.Errorf("%w: write command:COMMAND", ErrForm)
	}
	return nil
}

// Fetch implements [Fetcher].
func (Command) Fetch(ctx context.Context, ref string) (Fetched, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", ref)
	out, err := Run(cmd)
	if err != nil {
		return Fetched{}, err
	}
	return limited(bytes.TrimRight(out, "\r\n"))
}

// Run runs a command that [exec.CommandContext] made and returns what it prints, up to the
// longest secret and a byte. When its time is over, all that it started ends with it. What
// it says on its standard error is in no error: it may hold the secret.
func Run(cmd *exec.Cmd) ([]byte, error) {
	cmd.WaitDelay = time.Second
	together(cmd)
	var out capped
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
			return nil, fmt.Errorf("the command ended with code %d", e.ExitCode())
		}
		return nil, errors.New("the command could not be run, or was killed")
	}
	return out.b, nil
}

// capped keeps the first bytes of what is written and takes the rest.
type capped struct{ b []byte }

// Write implements [io.Writer].
func (c *capped) Write(p []byte) (int, error) {
	c.b = append(c.b, p[:min(len(p), max(0, maxSecret+1-len(c.b)))]...)
	return len(p), nil
}
