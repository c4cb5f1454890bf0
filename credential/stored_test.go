package credential

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// stored is a handle as IssueLimited writes it.
func stored(t testing.TB, credential string, limit int64) []byte {
	b, err := json.Marshal(storedHandle{credential, "github", "s_AbCdEfGh1234", time.Date(2026, 3, 14, 15, 9, 26, 535897932, time.FixedZone("", 3600)), strings.Repeat("a1", 32), limit, ""})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestStoredHandleInOnePass holds the short way to the form that is written: were it
// never taken, a start with a million handles would take seconds longer and no more.
func TestStoredHandleInOnePass(t *testing.T) {
	for _, limit := range []int64{0, 1, 1 << 60} {
		var s toldHandle
		if !scanHandle(stored(t, "gh", limit), &s) {
			t.Errorf("%s is not read in one pass", stored(t, "gh", limit))
		}
		if s.limit != limit {
			t.Errorf("limit %d of %s", s.limit, stored(t, "gh", limit))
		}
	}
	if _, err := parseHandle([]byte(`{"credential":"gh","service":"github","session":"s","expires":"2026-03-14T15:09:26Z","sum":"aa"}`)); err == nil {
		t.Error("half a sum is taken for one")
	}
}

// FuzzStoredHandle holds the short way to what encoding/json reads.
func FuzzStoredHandle(f *testing.F) {
	f.Add(stored(f, "gh", 0))
	f.Add(stored(f, "gh", 3))
	f.Add(stored(f, "größe\"", 0))
	f.Add([]byte(strings.Replace(string(stored(f, "gh", 0)), "\"}", "\",\"of\":\"x\"}", 1)))
	f.Add([]byte(`{"sum":"` + strings.Repeat("a", 64) + `"}`))
	f.Add([]byte(strings.Replace(string(stored(f, "gh", 3)), "3}", "03}", 1)))
	f.Fuzz(func(t *testing.T, value []byte) {
		var s toldHandle
		var want storedHandle
		if !scanHandle(value, &s) {
			return
		}
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatalf("%q is read where encoding/json says %v", value, err)
		}
		if hex.EncodeToString(s.sum[:]) != strings.ToLower(want.Sum) {
			t.Fatalf("%q: sum %x", value, s.sum)
		}
		if !s.expires.Equal(want.Expires) {
			t.Fatalf("%q: expires %v, want %v", value, s.expires, want.Expires)
		}
		if string(s.credential) != want.Credential || string(s.service) != want.Service || string(s.session) != want.Session || string(s.of) != want.Of || s.limit != want.Limit {
			t.Fatalf("%q: %+v, want %+v", value, s, want)
		}
	})
}

func BenchmarkStoredHandle(b *testing.B) {
	value := stored(b, "gh", 0)
	for b.Loop() {
		if _, err := parseHandle(value); err != nil {
			b.Fatal(err)
		}
	}
}
