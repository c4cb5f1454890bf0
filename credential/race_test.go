package credential

import (
	"context"
	"path/filepath"
	"testing"

	"chaperone/store"
	"chaperone/store/bolt"
)

// late is a store in which another replica begins between a look and a write.
type late struct {
	store.Store
	other func()
}

func (l *late) Save(ctx context.Context, e store.Entry) (store.Entry, error) {
	if f := l.other; f != nil {
		l.other = nil
		f()
	}
	return l.Store.Save(ctx, e)
}

// TestTwoBeginAtOnce shows that of two replicas which begin a store at once both
// come up, if they have the same key.
func TestTwoBeginAtOnce(t *testing.T) {
	kv, err := bolt.Open(filepath.Join(t.TempDir(), "s"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer kv.Close()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	open := func(kv store.Store, k Key) error {
		_, err := Open(t.Context(), kv, k)
		return err
	}
	slow := &late{Store: kv, other: func() {
		if err := open(kv, key); err != nil {
			t.Error(err)
		}
	}}
	if err := open(slow, key); err != nil {
		t.Errorf("the slower one: %v", err)
	}
}
