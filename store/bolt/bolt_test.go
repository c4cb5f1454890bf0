package bolt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

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
	whole := filled(t)
	half := int64(len(whole) / 2)
	for name, tc := range map[string]struct {
		file []byte
		mode os.FileMode
		want string
	}{
		"rubbish":          {[]byte(strings.Repeat("not a store ", 1000)), 0o600, "damaged"},
		"cut short":        {whole[:len(whole)/8], 0o600, "damaged"},
		"overwritten":      {append(bytes.Repeat([]byte{0xa5}, int(half)), whole[half:]...), 0o600, "damaged"},
		"pages zeroed":     {append(whole[:4*4096:4*4096], make([]byte, len(whole)-4*4096)...), 0o600, "damaged"},
		"pages scribbled":  {append(whole[:4*4096:4*4096], bytes.Repeat([]byte{0xff}, len(whole)-4*4096)...), 0o600, "damaged"},
		"open to others":   {whole, 0o644, "chmod 600"},
		"nothing is wrong": {whole, 0o600, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			if err := os.WriteFile(path, tc.file, tc.mode); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path, Options{})
			if err == nil {
				s.Close()
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// filled returns the bytes of a store's file with a tree of several pages.
func filled(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := s.Save(t.Context(), store.Entry{Name: fmt.Sprintf("k/%d", i), Value: make([]byte, 8<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSweep finds that what expired leaves the file while the store is open.
func TestSweep(t *testing.T) {
	now := time.Now()
	s, err := Open(filepath.Join(t.TempDir(), "s"), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	save := func(name string, expires time.Time) {
		if _, err := s.Save(t.Context(), store.Entry{Name: name, Expires: expires}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		save(fmt.Sprintf("dead/%d", i), now.Add(time.Minute))
	}
	now = now.Add(time.Minute)
	for i := range 2 * sweepEvery {
		save(fmt.Sprintf("k/%d", i), time.Time{})
	}
	kept := 0
	s.db.View(func(tx *bbolt.Tx) error {
		kept = tx.Bucket(bucket).Stats().KeyN
		return nil
	})
	if kept != 2*sweepEvery {
		t.Errorf("%d entries in the file, want %d", kept, 2*sweepEvery)
	}
}

func TestExpiryIsNeverLost(t *testing.T) {
	for name, at := range map[string]time.Time{"epoch": time.Unix(0, 0), "before it": time.Unix(-5, 0), "year 1000": time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC), "year 3000": time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		e, err := decode([]byte("k"), encode(store.Entry{Expires: at}))
		if err != nil || e.Expires.IsZero() || e.Expires.Before(time.Now()) != at.Before(time.Now()) {
			t.Errorf("%s: %v came back as %v, %v", name, at, e.Expires, err)
		}
	}
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

func BenchmarkLoad(b *testing.B) {
	s := filledStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(b.Context(), "k"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSave has one writer, and 16 that come together.
func BenchmarkSave(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := filledStore(b)
			var n atomic.Int64
			b.SetParallelism(writers)
			save := func() {
				if _, err := s.Save(b.Context(), store.Entry{Name: fmt.Sprint("k/", n.Add(1))}); err != nil {
					b.Error(err)
				}
			}
			if writers == 1 {
				for b.Loop() {
					save()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					save()
				}
			})
		})
	}
}

func filledStore(b *testing.B) *Store {
	b.Helper()
	s, err := Open(filepath.Join(b.TempDir(), "s"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if _, err := s.Save(b.Context(), store.Entry{Name: "k", Value: make([]byte, 512)}); err != nil {
		b.Fatal(err)
	}
	return s
}
