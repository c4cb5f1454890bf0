package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone/store"
)

func TestDamagedAndOpenFiles(t *testing.T) {
	whole := filled(t)
	half := int64(len(whole) / 2)
	for name, tc := range map[string]struct {
		file []byte
		mode os.FileMode
		want string
	}{
		"a few bytes":      {whole[:3000], 0o600, "damaged"},
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
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) || tc.want == "damaged" && !errors.Is(err, store.ErrDamaged)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestDamageIsFound makes each page of a file another in turn, and cuts the file there:
// it says that it is damaged when it is opened, or gives what it was given.
func TestDamageIsFound(t *testing.T) {
	whole := filled(t)
	page := os.Getpagesize()
	random := make([]byte, page)
	rnd := rand.New(rand.NewPCG(1, 2))
	found := 0
	for p := range len(whole) / page {
		for i := range random {
			random[i] = byte(rnd.Uint32())
		}
		for what, b := range map[string][]byte{"zeroed": make([]byte, page), "random": random, "cut": nil} {
			file := append(whole[:p*page:p*page], b...)
			if b != nil {
				file = append(file, whole[(p+1)*page:]...)
			}
			path := filepath.Join(t.TempDir(), "s")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			err := readFilled(t, path)
			if errors.Is(err, store.ErrDamaged) {
				found++
			} else if err != nil && len(file) > 0 { // of no file at all it makes a new one
				t.Errorf("page %d %s: %v", p, what, err)
			}
			os.Remove(path)
		}
	}
	if found == 0 {
		t.Error("nothing was found at all")
	}
}

// TestOneBit changes one bit of an entry, wherever it is.
func TestOneBit(t *testing.T) {
	e := store.Entry{Name: "session/s_1", Value: []byte("the value"), Version: 7, Expires: time.Unix(2e9, 0)}
	for i := range 8 * (len(e.Name) + len(encode(e))) {
		k, v := []byte(e.Name), encode(e)
		if at := i / 8; at < len(k) {
			k[at] ^= 1 << (i % 8)
		} else {
			v[at-len(k)] ^= 1 << (i % 8)
		}
		got, err := decode(k, v, 0)
		if !errors.Is(err, store.ErrDamaged) && i != 8*len(e.Name)+7 { // but for the one that says it has a checksum
			t.Errorf("bit %d: %+v, %v", i, got, err)
		}
	}
}

// filled returns the bytes of a store's file with a tree of several pages, some of them free.
func filled(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if _, err := s.Save(t.Context(), store.Entry{Name: fmt.Sprintf("k/%d", i), Value: valueOf(i)}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := s.Save(t.Context(), store.Entry{Name: fmt.Sprintf("gone/%d", i), Value: valueOf(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 40 {
		if err := s.Delete(t.Context(), fmt.Sprintf("gone/%d", i)); err != nil {
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

// valueOf is what filled keeps: small values, and large ones in pages of their own.
func valueOf(i int) []byte {
	n := 60
	if i%5 == 0 {
		n = 9000
	}
	return bytes.Repeat([]byte{byte('a' + i%26)}, n)
}

// readFilled opens a file and compares what is in it with what filled put there.
func readFilled(t *testing.T, path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	n := 0
	for e, err := range s.Scan(t.Context(), "") {
		if err != nil {
			return err
		}
		var i int
		if _, err := fmt.Sscanf(e.Name, "k/%d", &i); err != nil || !bytes.Equal(e.Value, valueOf(i)) || !e.Expires.IsZero() {
			return fmt.Errorf("%q has another value", e.Name)
		}
		n++
	}
	if n != 40 {
		return fmt.Errorf("%d entries of 40", n)
	}
	return nil
}
