package main

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zalando/go-keyring"

	"chaperone/cmd/chaperone/settings"
)

// drawer is a keyring in memory.
type drawer struct {
	mu   sync.Mutex
	text string
	sets int
}

func (d *drawer) get(context.Context, string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.text == "" {
		return "", keyring.ErrNotFound
	}
	return d.text, nil
}

func (d *drawer) set(_ context.Context, _, text string) error {
	d.mu.Lock()
	d.text = text
	d.sets++
	d.mu.Unlock()
	return nil
}

// TestFirstStartsAtOnce: of several first starts with one account of the keyring one makes
// the key, and it is that of all; so it is with a key in a file.
func TestFirstStartsAtOnce(t *testing.T) {
	var d drawer
	began := make(chan struct{})
	slow := ring{d.get, func(ctx context.Context, account, text string) error {
		<-began // all others have found nothing, and want to write
		return d.set(ctx, account, text)
	}}
	dir, state := t.TempDir(), t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	keys := map[string]int{}
	took := func(b []byte, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Error(err)
		}
		keys[string(b)]++
	}
	const starts = 8
	found := make(chan struct{}, starts)
	for range starts {
		wg.Go(func() {
			if _, err := d.get(t.Context(), "x"); !errors.Is(err, keyring.ErrNotFound) {
				t.Error(err)
			}
			found <- struct{}{}
			took(slow.keep(t.Context(), "x", filepath.Join(state, "none"), dir))
		})
	}
	for range starts {
		<-found
	}
	close(began)
	wg.Wait()
	if len(keys) != 1 || d.sets != 1 || keys[d.text] != starts {
		t.Errorf("%d keys were made, %d starts have the one that is kept", d.sets, keys[d.text])
	}
	clear(keys)
	for range starts {
		wg.Go(func() {
			k, err := installationKey(t.Context(), &settings.Settings{State: state})
			took(k.Bytes(), err)
		})
	}
	wg.Wait()
	b, err := os.ReadFile(filepath.Join(state, "key"))
	if err != nil || len(keys) != 1 || keys[string(b)] != starts {
		t.Errorf("%d keys of one file, %v", len(keys), err)
	}
	made := ring{(&drawer{}).get, func(context.Context, string, string) error { return errors.New("locked") }}
	if _, err := made.keep(t.Context(), "x", filepath.Join(state, "key"), dir); err == nil {
		t.Error("a keyring that takes nothing is no error")
	}
	var other drawer
	if got, err := (ring{other.get, other.set}).keep(t.Context(), "x", filepath.Join(state, "key"), dir); err != nil || string(got) != base64.StdEncoding.EncodeToString(b) || string(got) != other.text {
		t.Errorf("the key that was made before is not the one in the keyring, %v", err)
	}
}
