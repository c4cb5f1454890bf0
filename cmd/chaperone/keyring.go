package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/zalando/go-keyring"

	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
)

// keyringService is the name under which the keyring of a desktop keeps what is ours.
const keyringService = "chaperone"

// keyringTime is how long a keyring may take: it may have a person unlock it first.
const keyringTime = time.Minute

// fromKeyring reads what this user's keyring has: the Secret Service of a Linux desktop,
// the keychain of macOS, the credential manager of Windows.
func fromKeyring(ctx context.Context, account string) (string, error) {
	return askKeyring(ctx, func() (string, error) { return keyring.Get(keyringService, account) })
}

// askKeyring bounds a call of the keyring, which takes no context. One that hangs is left
// behind: nobody waits for it but the program's end.
func askKeyring(ctx context.Context, call func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	if err := sessionBus(); err != nil {
		return "", unlocked(err)
	}
	got := make(chan answer, 1)
	go func() {
		text, err := call()
		got <- answer{text, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, keyringTime)
	defer cancel()
	var a answer
	select {
	case a = <-got:
	case <-ctx.Done():
		a.err = errors.New("it does not answer in time")
	}
	if a.err != nil && !errors.Is(a.err, keyring.ErrNotFound) {
		a.err = unlocked(a.err)
	}
	return a.text, a.err
}

func unlocked(err error) error {
	return problem.Failure(fmt.Errorf("asking this user's keyring: %w", err),
		"unlock the keyring, or start in the session of a desktop user; where there is no keyring, as on servers, name a file, a variable or a command in config.yaml")
}

// sessionBus says where there is no bus over which a keyring could be asked. The library
// would start one, with no keyring behind it.
func sessionBus() error {
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" || os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" {
		return nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "bus")); err == nil {
			return nil
		}
	}
	return errors.New("there is no session bus (DBUS_SESSION_BUS_ADDRESS is not set)")
}

// intoKeyring puts the installation key into the keyring, where there is none yet: that
// in the state directory, where one was made before, else a new one.
func intoKeyring(ctx context.Context, account, path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var key credential.Key
		key, err = credential.NewKey()
		b = key.Bytes()
	}
	if err != nil {
		return nil, err
	}
	text := base64.StdEncoding.EncodeToString(b)
	_, err = askKeyring(ctx, func() (string, error) { return "", keyring.Set(keyringService, account, text) })
	if err != nil {
		return nil, err
	}
	kept, err := fromKeyring(ctx, account) // what counts is what is there at the next start
	return []byte(kept), err
}
