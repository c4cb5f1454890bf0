package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/zalando/go-keyring"

	"chaperone/cmd/chaperone/settings"
	"chaperone/credential"
	"chaperone/credential/source"
)

// refer reads what a reference points at, or returns [errNoReference].
func refer(ctx context.Context, r settings.Reference) ([]byte, error) {
	switch {
	case r.Env != "":
		text, ok := os.LookupEnv(r.Env)
		if !ok {
			return nil, fmt.Errorf("variable %s is not set", r.Env)
		}
		return []byte(text), nil
	case len(r.Command) > 0:
		return source.Run(exec.CommandContext(ctx, r.Command[0], r.Command[1:]...))
	case r.File != "":
		return os.ReadFile(r.File)
	case r.Keyring != "":
		text, err := fromKeyring(ctx, r.Keyring)
		return []byte(text), err
	}
	return nil, errNoReference
}

var errNoReference = errors.New("nothing is referred to")

// secretText is the text behind a reference, without the newline at its end; empty
// where there is no reference.
func secretText(ctx context.Context, key string, r settings.Reference) (string, error) {
	b, err := refer(ctx, r)
	if errors.Is(err, errNoReference) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", key, err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// installationKey finds the key where the settings say: 32 bytes, or those in
// base64. A key file in the state directory, or an entry in the keyring, is made at
// first start.
func installationKey(ctx context.Context, s *settings.Settings) (credential.Key, error) {
	parse := func(b []byte, err error) (credential.Key, error) {
		if err != nil {
			return credential.Key{}, fmt.Errorf("reading installation key: %w: %w", credential.ErrKey, err)
		}
		if decoded, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b))); err == nil && len(b) != credential.KeySize {
			b = decoded
		}
		return credential.ParseKey(b)
	}
	path := filepath.Join(s.State, "key")
	b, err := refer(ctx, s.Key)
	if s.Key.Keyring != "" && errors.Is(err, keyring.ErrNotFound) {
		dir, err := lockDir()
		if err != nil {
			return parse(nil, err)
		}
		return parse(desktopRing.keep(ctx, s.Key.Keyring, path, dir))
	}
	if !errors.Is(err, errNoReference) {
		return parse(b, err)
	}
	b, err = os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return parse(b, err)
	}
	key, err := credential.NewKey()
	if err != nil {
		return key, err
	}
	err = writeOnce(path, key.Bytes())
	if errors.Is(err, fs.ErrExist) { // another start was faster, and its key counts
		return parse(os.ReadFile(path))
	}
	if err != nil {
		return key, fmt.Errorf("keeping installation key: %w", err)
	}
	return key, nil
}

// writeOnce makes a file of mode 0600 with all of b on disk, or none.
func writeOnce(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike a rename, fails where another was faster
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close()) // what it seals must not outlive it in a power cut
}
