package credential

import (
	"testing"
	"time"
)

// TestTokensEndByTheSharedClock has this machine's clock, which the library goes by, be an
// hour off the one that replicas share: a token is used for its whole life, and no longer.
func TestTokensEndByTheSharedClock(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		b, p, ahead := minting(t)
		ahead.Store(int64(off))
		h := b.with(t, Credential{ID: "r", Kind: KindRefresh, Settings: p.settings()}, "refresh-0")
		for i, step := range []struct {
			after time.Duration
			want  string
		}{{0, "Bearer access-1"}, {58 * time.Minute, "Bearer access-1"}, {60 * time.Minute, "Bearer access-2"}} {
			ahead.Store(int64(off + step.after))
			if got, err := b.authorization(t, h, Caller{}); err != nil || got != step.want {
				t.Errorf("%v off, step %d: got %q, %v, want %s", off, i, got, err, step.want)
			}
		}
	}
}
