package bolt

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/store"
	"chaperone/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		s, err := Open(filepath.Join(t.TempDir(), "s"), Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Open(path, Options{Wait: 10 * time.Millisecond}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("second open: %v", err)
	}
}

func TestDamagedAndOpenFiles(t *testing.T) {
	dir := t.TempDir()
	for name, prepare := range map[string]func(string) error{
		"is damaged":      func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("not a store ", 1000)), 0o600) },
		"others may read": func(p string) error { return touch(p, 0o644) },
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(path, Options{}); err == nil {
			s.Close()
			t.Errorf("a file that %s was opened", name)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name the file: %v", err)
		}
	}
}

func touch(path string, mode os.FileMode) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	return errors.Join(s.Close(), os.Chmod(path, mode))
}

// TestKilled kills a process that writes, and finds everything it had been told
// was saved.
func TestKilled(t *testing.T) {
	if path := os.Getenv("CHAPERONE_TEST_STORE"); path != "" {
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			name := fmt.Sprintf("k/%06d", i)
			if _, err := s.Save(t.Context(), store.Entry{Name: name, Value: []byte(name)}); err != nil {
				t.Fatal(err)
			}
			fmt.Println(name)
		}
	}
	path := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), "CHAPERONE_TEST_STORE="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var told []string
	for sc := bufio.NewScanner(out); sc.Scan(); {
		told = append(told, sc.Text())
		if len(told) == 50 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range told {
		if _, err := s.Load(t.Context(), name); err != nil {
			t.Errorf("saved and gone: %v", err)
		}
	}
	if len(told) < 50 {
		t.Errorf("only %d writes were told of", len(told))
	}
}
