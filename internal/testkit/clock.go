package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ClockVariable says by how many seconds the clock of a program from [BuildWithClock] is
// ahead of the machine's.
const ClockVariable = "TESTKIT_SECONDS_AHEAD"

// aheadSource is what the package time gets, and readsClock where it reads the clock.
const (
	aheadSource = `
var ahead = func() int64 {
	text, _ := syscall.Getenv("` + ClockVariable + `")
	digits, minus := text, len(text) > 0 && text[0] == '-'
	if minus {
		digits = text[1:]
	}
	n, _, _ := leadingInt(digits)
	if minus {
		return -int64(n)
	}
	return int64(n)
}()
`
	readsClock = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
)

// BuildWithClock builds the program as [Build] does, with a standard library in which
// time.Now is shifted: nothing in the program itself knows of that, and no program that
// was built otherwise can be made to. Files and sockets keep the machine's clock. The
// first time it takes minutes: everything is compiled anew.
func BuildWithClock(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the standard library: %w", err)
	}
	path := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the standard library: %w", err)
	}
	text := string(b)
	if strings.Count(text, readsClock) != 1 || strings.Count(text, "import (\n") != 1 {
		return "", errors.New("shifting the clock: this version of Go reads it in another way")
	}
	text = strings.Replace(text, readsClock, readsClock+"\tsec += ahead\n", 1)
	text = strings.Replace(text, "import (\n", "import (\n\t\"syscall\"\n", 1) + aheadSource
	// The same name and text each time: the go command then has what it has built before.
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("shifting the clock: %w", err)
	}
	cache = filepath.Join(cache, "chaperone-testkit")
	shifted, overlay := filepath.Join(cache, "time.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: shifted}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.MkdirAll(cache, 0o700), os.WriteFile(shifted, []byte(text), 0o600), os.WriteFile(overlay, list, 0o600)); err != nil {
		return "", fmt.Errorf("shifting the clock: %w", err)
	}
	bin := filepath.Join(dir, "chaperone-ahead")
	if out, err := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", bin, "chaperone/cmd/chaperone").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return bin, nil
}
