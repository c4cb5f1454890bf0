package bolt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/store"
)

// doomed are what a process does in TestMain's stead until it is killed, by the name in
// CHAPERONE_TEST_STORE_DOES, with the file that CHAPERONE_TEST_STORE names.
var doomed = map[string]func(path string) error{"write": writeOn, "open": openOn}

func TestMain(m *testing.M) {
	if does := doomed[os.Getenv("CHAPERONE_TEST_STORE_DOES")]; does != nil {
		if err := does(os.Getenv("CHAPERONE_TEST_STORE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// doom starts a process that will be killed.
func doom(t *testing.T, does, path string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CHAPERONE_TEST_STORE_DOES="+does, "CHAPERONE_TEST_STORE="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// writeOn has many writers, and says what each has been told: that an entry is kept, and
// of each third that it is gone.
func writeOn(path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 16 {
		go func() {
			for i := 0; ; i++ {
				e := store.Entry{Name: fmt.Sprintf("k/%d-%06d", w, i), Value: make([]byte, 500)}
				if _, err := s.Save(context.Background(), e); err != nil {
					failed <- err
				}
				fmt.Println("kept", e.Name)
				if i%3 != 0 {
					continue
				}
				if err := s.Delete(context.Background(), e.Name); err != nil {
					failed <- err
				}
				fmt.Println("gone", e.Name)
			}
		}()
	}
	return <-failed
}

// TestKilled kills a process in which many write, and finds everything as it was told.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cmd, out := doom(t, "write", path)
	told, lines := map[string]string{}, 0
	for sc := bufio.NewScanner(out); sc.Scan(); {
		what, name, _ := strings.Cut(sc.Text(), " ")
		told[name] = what
		if lines++; lines == 300 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, what := range told {
		// What it was told last may have been followed by a deletion of which it was not told.
		if e, err := s.Load(t.Context(), name); (err == nil) != (what == "kept") && !(what == "kept" && deletes(name)) || err == nil && len(e.Value) != 500 {
			t.Errorf("%s was told of %s: %v", what, name, err)
		}
	}
	if lines < 300 {
		t.Errorf("only %d changes were told of", lines)
	}
}

// deletes reports whether writeOn deletes the entry of that name.
func deletes(name string) bool {
	var w, i int
	fmt.Sscanf(name, "k/%d-%d", &w, &i)
	return i%3 == 0
}

// openOn opens a file once.
func openOn(path string) error {
	s, err := Open(path, Options{})
	if err == nil {
		err = s.Close()
	}
	return err
}

// TestKilledWhileCompacting kills processes while they write a file anew, at several
// stages of it: there is one whole file afterwards, the old or the new.
func TestKilledWhileCompacting(t *testing.T) {
	const alive, most = 24, 200
	mostlyFree := mostlyFree(t, alive)
	path := filepath.Join(t.TempDir(), "s")
	middle, after := 0, 0
	for n := 0; n < most && (n < 12 || middle < 3 || after < 1); n++ {
		if err := os.WriteFile(path, mostlyFree, 0o600); err != nil {
			t.Fatal(err)
		}
		stage := int64(n%12) << 19
		if n%4 == 3 {
			stage = math.MaxInt64 // when it is done with it
		}
		killAt(t, path, stage)
		if left(path) {
			middle++
		} else if size(t, path) < int64(len(mostlyFree)) {
			after++
		}
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatalf("killed at %d: %v", stage, err)
		}
		for i := range alive {
			if e, err := s.Load(t.Context(), fmt.Sprintf("k/%d", i)); err != nil || len(e.Value) != 200<<10 {
				t.Fatalf("killed at %d: %v", stage, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if left(path) || size(t, path) == int64(len(mostlyFree)) {
			t.Errorf("killed at %d: it was not written anew", stage)
		}
	}
	t.Logf("killed %d times in the middle and %d times after it", middle, after)
	if middle < 3 || after < 1 {
		t.Error("it was hardly ever caught in the middle, or after it")
	}
}

// mostlyFree is a file of some 24 MiB of which a fifth is alive.
func mostlyFree(t *testing.T, alive int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range 5 * alive {
		names = append(names, fmt.Sprintf("k/%d", i))
	}
	err = store.Together(names, func(name string) error {
		_, err := s.Save(t.Context(), store.Entry{Name: name, Value: make([]byte, 200<<10)})
		return err
	})
	if err == nil {
		err = store.Together(names[alive:], func(name string) error { return s.Delete(t.Context(), name) })
	}
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// killAt has a process open a file, and kills it when so many bytes are written anew, or
// when it is done with that.
func killAt(t *testing.T, path string, bytes int64) {
	t.Helper()
	cmd, out := doom(t, "open", path)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, out)
		done <- err
	}()
	for begun := false; ; {
		info, err := os.Stat(path + beside)
		begun = begun || err == nil
		select {
		case <-done: // it was faster
		default:
			if (err != nil || info.Size() < bytes) && (err == nil || !begun) {
				continue
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		return
	}
}

// left reports whether what was being written anew is still there.
func left(path string) bool {
	_, err := os.Stat(path + beside)
	return err == nil
}
