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
	"syscall"
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

// ring is a keyring as far as the installation key needs it.
type ring struct {
	get func(ctx context.Context, account string) (string, error)
	set func(ctx context.Context, account, text string) error
}

// desktopRing is this user's.
var desktopRing = ring{fromKeyring, func(ctx context.Context, account, text string) error {
	_, err := askKeyring(ctx, func() (string, error) { return "", keyring.Set(keyringService, account, text) })
	return err
}}

// keep puts the installation key into the keyring, where there is none yet: that in the
// state directory, where one was made before, else a new one. Of several first starts at
// once one does so, by a lock in dir, and the others take what it made: a keyring takes
// every write, and each would overwrite the key by which another has begun to seal.
func (k ring) keep(ctx context.Context, account, path, dir string) ([]byte, error) {
	unlock, err := lockFolder(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if text, err := k.get(ctx, account); !errors.Is(err, keyring.ErrNotFound) {
		return []byte(text), err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var key credential.Key
		key, err = credential.NewKey()
		b = key.Bytes()
	}
	if err != nil {
		return nil, err
	}
	if err := k.set(ctx, account, base64.StdEncoding.EncodeToString(b)); err != nil {
		return nil, err
	}
	kept, err := k.get(ctx, account) // what counts is what is there at the next start
	return []byte(kept), err
}

// lockDir is where programs of this user find each other.
func lockDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a folder of this user's for a lock: %w", err)
	}
	return filepath.Join(dir, "chaperone"), nil
}

// lockPause is between two tries to get a lock.
const lockPause = 20 * time.Millisecond

// lockFolder waits until no other program has the lock of a folder, which it makes. The
// lock ends with the program, if not before.
func lockFolder(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder for a lock: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a lock: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*keyringTime)
	defer cancel()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("taking the lock %s: %w", f.Name(), err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another program has the lock %s: %w", f.Name(), ctx.Err())
		}
	}
}
